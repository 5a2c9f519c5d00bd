"""Inputs as people have them: archives, caption files and lists of other projects, and what is said where something is near."""

import bz2
import gzip
import io
import json
import lzma
import os
import tarfile
import zipfile
from pathlib import Path

import pytest
from PIL import Image

import t2i
from helpers import packed
from t2i import prepare
from t2i.data.dataset import PackedDataset
from t2i.prepare.collect import SourceOptions
from t2i.prepare.lines import MAX_LINE_BYTES


def encoded(colour=(255, 0, 0), kind="PNG"):
    file = io.BytesIO()
    Image.new("RGB", (20, 20), colour).save(file, kind)
    return file.getvalue()


def write(root, files):
    """Write files by name: bytes, text, or anything else as JSON."""
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        raw = data if isinstance(data, bytes) else data.encode() if isinstance(data, str) else json.dumps(data).encode()
        path.write_bytes(raw)
    return root


def tar_file(path, *entries, mode="w"):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as tar:
        for name, data in entries:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def zip_file(path, files):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        for name, data in files.items():
            made.writestr(name, data)
    return path


def captions(data):
    return {n: data.captions_of(row) for row, n in enumerate(bytes(data.extra("names")).decode().split("\n"))}


PNG = encoded()
FORMS = {
    ".caption beside": ("folder", {"a.png": PNG, "a.caption": "x"}),
    ".cap beside": ("folder", {"a.png": PNG, "a.cap": "x"}),
    "the whole name": ("folder", {"a.png": PNG, "a.png.txt": "x"}),
    "the whole name, .caption": ("folder", {"a.png": PNG, "a.png.caption": "x"}),
    "another case": ("folder", {"a.PNG": PNG, "A.TXT": "x"}),
    "a json beside": ("folder", {"a.png": PNG, "a.json": {"caption": "x", "url": "elsewhere"}}),
    "text/ beside images/": ("folder", {"images/a.png": PNG, "text/a.txt": "x"}),
    "captions/ by the whole name": ("folder", {"images/a.png": PNG, "captions/a.png.txt": "x"}),
    "text/ beside images of upper-case endings": ("folder", {"images/a.PNG": PNG, "text/a.txt": "x"}),
    "text/ beside images without endings": ("folder", {"images/0001": PNG, "text/0001.txt": "x"}),
    "text below the images": ("folder", {"a.png": PNG, "text/a.txt": "x"}),
    "images/ and text/ of a split": ("folder", {"train/images/a.png": PNG, "train/text/a.txt": "x"}),
    "a table beside images/": ("csv", {"captions.csv": "image,caption\na.png,x\n", "images/a.png": PNG}),
    "a table beside Images/": ("csv", {"captions.csv": "image,caption\na.png,x\n", "Images/a.png": PNG}),
    "captions.txt": ("csv", {"captions.txt": "image,caption\na.png,x\n", "Images/a.png": PNG}),
    "Flickr8k.token.txt": ("csv", {"Flickr8k.token.txt": "a.png#0\tx\n", "a.png": PNG}),
    "backslashes": ("csv", {"t.csv": "image,caption\nimages\\a.png,x\n", "images/a.png": PNG}),
    "backslashes in metadata": ("folder", {"metadata.jsonl": {"file_name": "in\\a.png", "text": "x"}, "in/a.png": PNG}),
    "metadata.json, a list": ("folder", {"metadata.json": [{"file_name": "a.png", "text": "x"}], "a.png": PNG}),
    "metadata.json, by name": ("folder", {"metadata.json": {"a.png": ["x"]}, "a.png": PNG}),
    "Metadata.JSONL": ("folder", {"Metadata.JSONL": {"file_name": "a.png", "text": "x"}, "a.png": PNG}),
    "Karpathy's, with folders": (
        "coco",
        {
            "dataset_coco.json": {
                "images": [
                    {"filepath": "val2014", "filename": "a.png", "sentences": [{"raw": "x"}], "split": "restval"}
                ]
            },
            "val2014/a.png": PNG,
        },
    ),
    "annotations/train.json": (
        "coco",
        {
            "annotations/train.json": {
                "images": [{"id": "z", "file_name": "a.png"}],
                "annotations": [{"image_id": "z", "caption": "x"}],
            },
            "images/a.png": PNG,
        },
    ),
    "ids that are a number and a string": (
        "coco",
        {
            "captions_a.json": {
                "images": [{"id": 1, "file_name": "a.png"}],
                "annotations": [{"image_id": "1", "caption": "x"}],
            },
            "a.png": PNG,
        },
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_captions_are_found_where_other_projects_keep_them(tmp_path, form):
    kind, files = FORMS[form]
    data, report = packed(kind, write(tmp_path / "mine", files), tmp_path)
    assert list(captions(data).values()) == [["x"]]
    assert report.skipped == []
    assert report.account.files == len(files) == report.account.images + report.account.read


def test_one_list_of_captions_is_read_by_name(tmp_path):
    rows = [{"image": "a.png", "caption": ["x", "y"]}]
    for name, data in {
        "list.json": rows,
        "list.jsonl": "\n".join(map(json.dumps, rows)),
        "metadata.json1": "\n".join(map(json.dumps, rows)),
    }.items():
        source = write(tmp_path / name, {name: data, "a.png": PNG}) / name
        for kind in ("csv", "coco") if name == "list.json" else ("csv",):
            assert captions(packed(kind, source, tmp_path)[0]) == {"a.png": ["x", "y"]}


def test_images_elsewhere_are_found_by_the_folder_that_is_given(tmp_path):
    table = write(tmp_path / "text", {"Flickr8k.token.txt": "a.png#0\tone\na.png#1\ttwo\n"}) / "Flickr8k.token.txt"
    images = write(tmp_path / "Flicker8k_Dataset", {"a.png": PNG})
    data, _ = packed("csv", table, tmp_path, options=SourceOptions(images=images))
    assert captions(data) == {"a.png": ["one", "two"]}
    with pytest.raises(t2i.ConfigError, match="--images must be a folder, got"):
        packed("csv", table, tmp_path, options=SourceOptions(images=tmp_path / "none"))


@pytest.mark.parametrize(
    ("kind", "options", "flag"),
    [
        ("webdataset", SourceOptions(captions="name"), "--captions has no effect on webdataset"),
        ("csv", SourceOptions(captions="name"), "--captions has no effect on csv"),
        ("cub", {"images": True}, "--images has no effect on cub"),
    ],
)
def test_a_flag_without_effect_is_refused(tmp_path, kind, options, flag):
    options = options if isinstance(options, SourceOptions) else SourceOptions(images=tmp_path)
    with pytest.raises(t2i.ConfigError, match=flag):
        packed(kind, tmp_path, tmp_path, options=options)


def test_links_out_of_the_folder_of_images_are_not_followed(tmp_path):
    table = write(tmp_path / "text", {"t.csv": "image,text\na.png,x\nb.png,y\n"}) / "t.csv"
    images = write(tmp_path / "images of mine", {"a.png": PNG})
    (images / "b.png").symlink_to(write(tmp_path / "secret", {"b.png": PNG}) / "b.png")
    data, report = packed("csv", table, tmp_path, options=SourceOptions(images=images))
    assert captions(data) == {"a.png": ["x"]}
    assert len(report.skipped) == 1


@pytest.mark.parametrize(
    ("name", "caption"),
    [
        ("a red square.png", "a red square"),
        ("a_red_square.png", "a red square"),
        ("A red square.PNG", "A red square"),
        ("a red v1.5 square", "a red v1.5 square"),
        ("a red square (2).png", "a red square"),
        ("a red  square.jpeg.png", "a red square.jpeg"),
        ("sub/a red square.png", "a red square"),
    ],
)
def test_the_name_of_a_file_is_its_caption_where_that_is_asked_for(tmp_path, name, caption):
    source = write(tmp_path / "mine", {name: PNG})
    with pytest.raises(t2i.DataError, match="--captions name"):
        packed("folder", source, tmp_path)
    assert captions(packed("folder", source, tmp_path, options=SourceOptions(captions="name"))[0]) == {name: [caption]}


def test_metadata_that_a_flag_passes_over_is_named(tmp_path):
    source = write(tmp_path / "mine", {"a kite.png": PNG, "metadata.jsonl": {"file_name": "a kite.png", "text": "x"}})
    data, report = packed("folder", source, tmp_path, options=SourceOptions(captions="name"))
    assert captions(data) == {"a kite.png": ["a kite"]}
    assert [reason for _, reason in report.skipped] == [
        "not read: metadata of images, which is read by t2i-prepare folder (without --captions name)"
    ]


def test_two_texts_that_could_be_an_images_are_named_and_neither_is_taken(tmp_path):
    files = {"images/a.png": PNG, "one/text/a.txt": "x", "two/text/a.txt": "y", "images/b.png": PNG, "text/b.txt": "z"}
    data, report = packed("folder", write(tmp_path / "mine", files), tmp_path)
    assert captions(data) == {"images/b.png": ["z"]}
    [(_, reason)] = report.skipped
    assert reason == "2 caption files could be its own: one/text/a.txt, two/text/a.txt"


def test_images_of_one_name_in_two_folders_take_the_texts_of_theirs(tmp_path):
    files = {
        f"{split}/{what}/a.{end}": PNG if end == "png" else split
        for split in ("s1", "s2")
        for what, end in (("images", "png"), ("text", "txt"))
    }
    data, _ = packed("folder", write(tmp_path / "mine", files), tmp_path)
    assert captions(data) == {"s1/images/a.png": ["s1"], "s2/images/a.png": ["s2"]}


# Archives.

SHARD = [
    (f"{n}.{end}", encoded((9 * n, 0, 0)) if end == "png" else f"number {n}".encode())
    for n in range(40)
    for end in ("json.txt", "png", "txt")
    if end != "json.txt"
]


def test_compressed_shards_are_closed_when_they_have_been_listed(tmp_path, monkeypatch):
    """A member too large for a text is read from the archive itself, to see whether it is an image."""
    for number in range(3):
        entries = [
            (f"{number}.png", encoded()),
            (f"{number}.txt", b"a kite"),
            (f"{number}x.bin", bytes(MAX_LINE_BYTES + 1)),
        ]
        tar_file(tmp_path / "mine" / f"{number}.tgz", *entries, mode="w:gz")
    items = list(prepare.SOURCES["webdataset"](tmp_path / "mine", prepare.Report(), SourceOptions()))
    assert len(items) == 3
    assert not [name for name in open_files() if name.endswith(".tgz")]
    assert [item.read(1 << 20) for item in items] == [encoded()] * 3


def open_files():
    """What this process has open, where the system says so."""
    held = Path("/proc/self/fd")
    return [os.readlink(link) for link in held.iterdir() if link.is_symlink()] if held.exists() else []


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
def test_a_compressed_shard_that_is_gone_is_an_error_of_the_file_and_nothing_else(tmp_path):
    source = tar_file(tmp_path / "a.tgz", *SHARD[:2], mode="w:gz")
    (item,) = prepare.SOURCES["webdataset"](source, prepare.Report(), SourceOptions())
    source.unlink()
    with pytest.raises(FileNotFoundError):
        item.read(1 << 20)


@pytest.mark.parametrize(
    ("name", "mode"),
    [("a.tar", "w"), ("a.tgz", "w:gz"), ("a.tar.gz", "w:gz"), ("a.tar.bz2", "w:bz2"), ("a.tar.xz", "w:xz")],
)
@pytest.mark.parametrize("parts", [1, 3])
def test_compressed_shards_are_the_same_pack_as_plain_ones(tmp_path, name, mode, parts):
    plain = tar_file(tmp_path / "plain" / "s.tar", *SHARD)
    wanted = packed("webdataset", plain, tmp_path)[0]
    wanted_images, wanted_captions = wanted.read_images(range(40)), list(captions(wanted).values())
    source = tar_file(tmp_path / "mine" / name, *SHARD, mode=mode).parent
    if parts == 1:
        data, report = packed("webdataset", source, tmp_path)
        assert report.skipped == []
        assert report.account.files == 81  # 40 images, 40 texts and the archive
    else:
        for part in (2, 0, 1):
            prepare.pack(
                "webdataset",
                source,
                tmp_path / "parts",
                size=16,
                show_progress=False,
                shard=f"{part}/3",
                shard_images=7,
            )
        data = PackedDataset(tmp_path / "parts")
    assert [data.captions_of(row) for row in range(len(data))] == wanted_captions
    assert (data.read_images(range(40)) == wanted_images).all()
    assert sorted(path.name for path in source.iterdir()) == [name]


BIG = tarfile.TarInfo("big.txt")
BIG.size = 100 << 20
BOMB = BIG.tobuf() + bytes(BIG.size)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (gzip.compress(BOMB, 1, mtime=0), "decompression bomb"),
        (lzma.compress(BOMB, preset=0), "decompression bomb"),
        (bz2.compress(BOMB, 1), "decompression bomb"),
        (bytes(1024) + tarfile.TarInfo("b.txt").tobuf(), "what follows the mark of the archive's end is not read"),
        (gzip.compress(b"x" * 3000, mtime=0)[:-30], "cannot be unpacked further|cut|not octal"),
        (gzip.compress(b"", mtime=0), "the archive is empty"),
        (b"\x1f\x8b no gzip", "cannot be unpacked further"),
    ],
)
def test_a_compressed_shard_that_is_a_bomb_or_damaged_is_named(tmp_path, data, says):
    write(tmp_path / "mine", {"bad.tar.gz": data})
    tar_file(tmp_path / "mine" / "good.tar", *SHARD[:2])
    _, report = packed("webdataset", tmp_path / "mine", tmp_path)
    assert report.images == 1
    assert any(part in reason for _, reason in report.skipped for part in says.split("|")), report.skipped


def test_a_compressed_shard_is_closed_after_its_last_image(tmp_path):
    source = tar_file(tmp_path / "a.tar.gz", *SHARD, mode="w:gz")
    items = list(prepare.SOURCES["webdataset"](source, prepare.Report(), SourceOptions()))
    limit = 1 << 20
    wanted = [data for name, data in SHARD if name.endswith(".png")]
    order = [5, 0, 3, 39, 1, 38, 2]  # as threads that overtake each other, and one that starts again
    assert [items[row].read(limit) == wanted[row] for row in order] == [True] * len(order)
    before = len(open_files())
    assert items[39].read(limit) == wanted[39]
    assert len(open_files()) <= before


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"PK\x03\x04 a zip", "a zip archive, not a tar; use t2i-prepare folder"),
        (b"(\xb5/\xfd and more", "a zstandard archive, not a tar; unpack it"),
        (b"Rar!\x1a\x07", "a rar archive, not a tar; unpack it"),
    ],
)
def test_another_archive_given_as_a_shard_is_told_what_it_is(tmp_path, data, says):
    source = write(tmp_path, {"a.tar": data}) / "a.tar"
    with pytest.raises(t2i.DataError, match=says):
        packed("webdataset", source, tmp_path)


@pytest.mark.parametrize("start", ["./", "data/", "./data/train/"])
def test_shards_that_were_made_in_a_folder_are_read(tmp_path, start):
    """As `tar cf a.tar .` writes them."""
    source = tar_file(tmp_path / "a.tar", *((f"{start}{name}", data) for name, data in SHARD[:4]))
    data, report = packed("webdataset", source, tmp_path)
    assert len(data) == 2
    assert report.skipped == []


@pytest.mark.parametrize(
    ("image", "caption", "found"),
    [
        ("input.jpg", "output.txt", "x"),
        ("left.jpg", "second.txt", "y"),
        (None, "second.txt", "y"),
        ("right.jpg", None, None),
    ],
)
def test_the_keys_of_a_sample_are_chosen_by_flags(tmp_path, image, caption, found):
    keys = {"input.jpg": PNG, "left.jpg": PNG, "output.txt": b"x", "second.txt": b"y"}
    source = tar_file(tmp_path / "a.tar", *((f"s.{key}", data) for key, data in keys.items()))
    options = SourceOptions(image_column=image, caption_column=caption)
    if found is None:
        with pytest.raises(t2i.DataError, match=r"no image 'right\.jpg' in its sample: input\.jpg, left\.jpg"):
            packed("webdataset", source, tmp_path, options=options)
    else:
        data, _ = packed("webdataset", source, tmp_path, options=options)
        assert list(captions(data).values()) == [[found]]


def test_the_caption_of_a_json_beside_an_image_is_chosen_by_its_key(tmp_path):
    source = write(tmp_path / "mine", {"a.png": PNG, "a.json": {"caption": "x", "Long": "y"}})
    options = SourceOptions(caption_column="long")
    assert captions(packed("folder", source, tmp_path, options=options)[0]) == {"a.png": ["y"]}


@pytest.mark.parametrize("text", ["", None, []])
def test_a_column_that_is_empty_gives_way_to_one_that_is_not(tmp_path, text):
    row = {"file_name": "a.png", "text": text, "caption": "x"}
    source = write(tmp_path / "mine", {"metadata.jsonl": row, "a.png": PNG})
    assert captions(packed("folder", source, tmp_path)[0]) == {"a.png": ["x"]}


@pytest.mark.parametrize("count", [3, 5])
def test_names_with_dots_are_named_one_by_one(tmp_path, count):
    """2024.01.00.jpg and its fellows are one sample, 2024, of several images and captions: none is guessed at."""
    members = [(f"2024.01.{n:02}.{end}", PNG if end == "jpg" else b"x") for n in range(count) for end in ("jpg", "txt")]
    with pytest.raises(t2i.DataError, match=f"2024.*{count} images and {count} captions") as caught:
        packed("webdataset", tar_file(tmp_path / "a.tar", *members), tmp_path)
    assert all(f"2024.01.{n:02}.jpg" in str(caught.value) for n in range(3))
    assert ("and 2 more" in str(caught.value)) == (count == 5)
    good = [("a.jpg", PNG), ("a.txt", b"y")]
    data, report = packed("webdataset", tar_file(tmp_path / "a.tar", *good, *members), tmp_path)
    assert captions(data) == {"a.jpg": ["y"]}
    assert len(report.skipped) == count == report.account.skipped


def test_a_file_without_an_ending_is_an_image_by_its_bytes(tmp_path):
    files = {"0001": PNG, "0001.txt": "x", "b.img": PNG, "b.txt": "y", "c.dat": b"\0\1\2", "c.txt": "z"}
    files |= {"LICENSE": "MIT", "LICENSE.txt": "MIT", "script.js": "let x", "script.txt": "a script"}
    data, report = packed("folder", write(tmp_path / "mine", files), tmp_path)
    assert captions(data) == {"0001": ["x"], "b.img": ["y"]}
    assert report.account.record()["ignored"] == {
        "of other kinds": 2,
        "text files without an image of the same name": 3,
    }
    assert [reason for _, reason in report.skipped] == ["no image of a known format, though c.txt may be its caption"]


def test_a_bomb_behind_good_samples_keeps_them(tmp_path):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, data in [*SHARD[:2], ("big.txt", bytes(64 << 20))]:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    write(tmp_path / "mine", {"a.tar.gz": gzip.compress(file.getvalue())})
    _, report = packed("webdataset", tmp_path / "mine", tmp_path)
    assert report.images == 1
    assert any("decompression bomb" in reason for _, reason in report.skipped)


ZIPS = {
    "captions beside": ("folder", {"a.png": PNG, "a.txt": "x", "__MACOSX/._a.png": b"x", "._a.png": b"x"}),
    "a folder in it": ("folder", {"mine/a.png": PNG, "mine/a.txt": "x"}),
    "metadata": ("folder", {"metadata.jsonl": '{"file_name": "a.png", "text": "x"}', "a.png": PNG}),
    "a table": ("csv", {"captions.txt": "image,caption\na.png,x\n", "Images/a.png": PNG}),
    "a table in a folder": ("csv", {"f/captions.csv": "image,caption\na.png,x\n", "f/Images/a.png": PNG}),
    "COCO's": (
        "coco",
        {
            "annotations/captions_train2014.json": json.dumps(
                {"images": [{"id": 1, "file_name": "a.png"}], "annotations": [{"image_id": 1, "caption": "x"}]}
            ),
            "train2014/a.png": PNG,
        },
    ),
}


@pytest.mark.parametrize("form", ZIPS)
def test_a_zip_is_read_as_it_is(tmp_path, form):
    kind, files = ZIPS[form]
    source = zip_file(tmp_path / "mine.zip", files)
    data, report = packed(kind, source, tmp_path)
    assert list(captions(data).values()) == [["x"]]
    assert report.skipped == []
    counts = report.account
    assert counts.files == len(files) == counts.images + counts.read + sum(counts.ignored.values())


@pytest.mark.parametrize(
    ("kind", "files", "members"),
    [
        ("folder", {"metadata.jsonl": {"file_name": "a.png", "text": "x"}}, ["a.png"]),
        ("folder", {"metadata.jsonl": {"file_name": "images/a.png", "text": "x"}}, ["a.png"]),
        ("folder", {"train/metadata.jsonl": {"file_name": "a.png", "text": "x"}}, ["a.png"]),
        ("csv", {"t.csv": "image,text\na.png,x\n"}, ["a.png", "b.png"]),
        (
            "coco",
            {
                "annotations/captions_train2014.json": {
                    "images": [{"id": 1, "file_name": "a.png"}],
                    "annotations": [{"image_id": 1, "caption": "x"}],
                }
            },
            ["images/a.png"],
        ),
    ],
)
def test_images_in_a_zip_beside_their_table_are_read(tmp_path, kind, files, members):
    source = write(tmp_path / "mine", files)
    zip_file(source / "images.zip", dict.fromkeys(members, PNG))
    data, report = packed(kind, source, tmp_path)
    assert list(captions(data).values()) == [["x"]]
    counts = report.account
    assert counts.files == 2 + len(members)  # the table, the zip and what is in it
    assert (counts.images, counts.read, counts.skipped) == (1, 2, len(members) - 1)


def hostile_zip(path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        for name in ("good.png", "../out.png", "/abs.png", "C:\\drive.png"):
            made.writestr(name, PNG)
        made.writestr("good.txt", "x")
        made.writestr("bomb.png", bytes(300 << 20))
        link = zipfile.ZipInfo("link.png")
        link.external_attr = 0o120777 << 16
        made.writestr(link, "/etc/passwd")
    return path


def test_a_hostile_zip_is_named_member_by_member(tmp_path):
    before = set(tmp_path.rglob("*"))
    source = hostile_zip(tmp_path / "mine.zip")
    data, report = packed("folder", source, tmp_path)
    assert captions(data) == {"good.png": ["x"]}
    named = {place.removeprefix(f"{source}: "): reason for place, reason in report.skipped}
    assert named == {
        "../out.png": "its name leads out of the archive",
        "/abs.png": "its name leads out of the archive",
        "C:/drive.png": "its name leads out of the archive",
        "bomb.png": named["bomb.png"],
        "link.png": "a symbolic link, not a file",
    }
    assert named["bomb.png"].startswith("a decompression bomb")
    made = {path.relative_to(tmp_path).parts[0] for path in tmp_path.rglob("*") if path not in before}
    assert made == {"mine.zip", "pack"}


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04 cut", b"no zip at all"])
def test_a_damaged_zip_is_one_line(tmp_path, data):
    source = write(tmp_path, {"a.zip": data}) / "a.zip"
    with pytest.raises(t2i.DataError, match=r"a\.zip is not a zip that can be read") as caught:
        packed("folder", source, tmp_path)
    assert "\n" not in str(caught.value)


# The cache of the Hub.


def hub(root, names, repository="datasets--you--kites"):
    """Lay out a repository as snapshot_download leaves it: a snapshot of links into ../../blobs."""
    snapshot, blobs = root / repository / "snapshots" / "0123abc", root / repository / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for number, (name, data) in enumerate(names.items()):
        (blobs / f"{number:040x}").write_bytes(data)
        (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
        (snapshot / name).symlink_to("../" * (2 + name.count("/")) + f"blobs/{number:040x}")
    return snapshot


def test_links_into_the_blobs_of_the_same_repository_are_followed(tmp_path):
    files = {
        "metadata.jsonl": b'{"file_name": "train/a.png", "text": "x"}',
        "train/a.png": PNG,
        "train/b.png": PNG,
        "train/b.txt": b"y",
    }
    for kind in ("huggingface", "folder"):
        source = hub(tmp_path / kind, files)
        data, report = packed(kind, source, tmp_path)
        assert captions(data) == {"train/a.png": ["x"], "train/b.png": ["y"]}
        assert report.skipped == []
        (tmp_path / kind / "link").symlink_to(source)
        assert len(packed(kind, tmp_path / kind / "link", tmp_path)[0]) == 2  # through a link to the snapshot


@pytest.mark.parametrize(
    "target",
    [
        "../../../datasets--other--x/blobs/z",
        "../../../secret.png",
        "../../blobs/../../secret.png",
        "../../blobs/deep/z",
    ],
)
def test_links_elsewhere_are_not_followed_from_the_cache_either(tmp_path, target):
    source = hub(tmp_path, {"a.png": PNG, "a.txt": b"x"})
    hub(tmp_path, {"z": PNG}, "datasets--other--x")
    write(tmp_path, {"secret.png": PNG, "datasets--you--kites/blobs/deep/z": PNG, "datasets--other--x/blobs/z": PNG})
    (source / "b.png").symlink_to(target)
    data, report = packed("folder", source, tmp_path, options=SourceOptions(captions="name"))
    assert list(captions(data)) == ["a.png"]
    assert [reason for _, reason in report.skipped] == ["a link out of the source folder"]


# Near misses.

ROW, TABLE = {"file_name": "a.png", "text": "x"}, "image,text\n{},x\n"
HINTS = {
    "metadata.json1": ("folder", {"metadata.json1": ROW, "a.png": PNG}, "must be metadata.jsonl"),
    "captions.jsonl": ("folder", {"captions.jsonl": ROW, "a.png": PNG}, "must be metadata.jsonl"),
    "a list": ("folder", {"data.json": [ROW], "a.png": PNG}, "list of captions.*t2i-prepare csv"),
    "COCO's": ("folder", {"a.json": {"images": [ROW], "annotations": []}, "b.png": PNG}, "t2i-prepare coco"),
    "a table named like an image": ("folder", {"a.csv": "image,text\na.png,x\n", "a.png": PNG}, "no captions"),
    "a table": (
        "folder",
        {"list.csv": "image,caption\na.png,x\n", "a.png": PNG},
        r"table of .*t2i-prepare csv .*list\.csv",
    ),
    "metadata.tsv": ("folder", {"metadata.tsv": "file_name\ttext\na.png\tx\n", "a.png": PNG}, "near to metadata.csv"),
    "a zip": ("folder", {"images.zip": b"PK\x03\x04"}, r"images\.zip: a zip archive.*t2i-prepare folder .*images\.zip"),
    "a broken zip": (
        "folder",
        {"images.zip": b"PK\x03\x04", "metadata.jsonl": ROW},
        r"images\.zip is not a zip that can",
    ),
    "a tar": ("folder", {"a.tar.gz": gzip.compress(b"")}, "tar shards are read by t2i-prepare webdataset"),
    "Parquet": ("folder", {"a.parquet": b"PAR1"}, "Parquet, which is read by t2i-prepare parquet"),
    "another ending": (
        "csv",
        {"t.csv": TABLE.format("a.jpg"), "a.png": PNG},
        r"no such image: a\.jpg \(there is a\.png\)",
    ),
    "another folder": (
        "csv",
        {"t.csv": TABLE.format("a.png"), "Bilder/a.png": PNG},
        r"Bilder/a\.png: --images .*Bilder",
    ),
    "an absolute path": (
        "csv",
        {"t.csv": TABLE.format("/home/you/b.png"), "a.png": PNG},
        "leads out of the source folder",
    ),
}


@pytest.mark.parametrize("form", HINTS)
def test_a_near_miss_gets_a_hint(tmp_path, form):
    kind, files, says = HINTS[form]
    with pytest.raises(t2i.DataError, match=says) as caught:
        packed(kind, write(tmp_path / "mine", files), tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("a.tar", "t2i-prepare webdataset"),
        ("a.parquet", "t2i-prepare parquet"),
        ("a.csv", "t2i-prepare csv"),
        ("a.jpg", "neither a folder nor a zip"),
    ],
)
def test_a_single_file_given_to_folder_is_told_its_kind(tmp_path, name, says):
    write(tmp_path, {name: b"x"})
    with pytest.raises(t2i.DataError, match=says):
        packed("folder", tmp_path / name, tmp_path)


def test_a_name_in_another_form_of_the_same_letters_is_found(tmp_path):
    source = write(
        tmp_path / "mine", {"cafe\u0301.png": PNG, "t.csv": "image,text\ncaf\u00e9.png,x\n"}
    )  # as macOS has it
    assert list(captions(packed("csv", source, tmp_path)[0]).values()) == [["x"]]


def test_shards_in_a_repository_of_the_hub_are_read(tmp_path):
    tar_file(tmp_path / "mine" / "data" / "train-000.tar", *SHARD[:4])
    write(tmp_path / "mine", {"README.md": "# kites"})
    assert len(packed("huggingface", tmp_path / "mine", tmp_path)[0]) == 2
