"""Inputs as people have them: captions and lists of other projects, the Hub's cache, and hints at near misses."""

import gzip
import json

import pytest

import t2i
from helpers import packed
from source_files import PNG, SHARD, captions, tar_file, write
from t2i.prepare.collect import SourceOptions

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
