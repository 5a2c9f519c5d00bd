"""Images in archives: compressed shards, zips, bombs and damaged ones."""

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

import t2i
from helpers import packed
from source_files import PNG, SHARD, captions, encoded, tar_file, write, zip_file
from t2i import prepare
from t2i.data.dataset import PackedDataset
from t2i.prepare.collect import SourceOptions
from t2i.prepare.lines import MAX_LINE_BYTES


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
