"""Tables as people have them: from spreadsheets, other machines, trainers of other models, and the Hub's Parquet files."""

import io
import json
import unicodedata

import numpy as np
import pytest
from PIL import Image

from helpers import packed
from t2i.errors import DataError
from t2i.prepare.columns import SplitCells, split_columns, split_of_cell
from t2i.prepare.splits import splits_of_names


def image(path, number=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (20, 20), (number * 20 % 256, 0, 200)).save(path)
    return path


def images(folder, names):
    for number, name in enumerate(names):
        image(folder / name, number)


def captions_by_name(data):
    names = bytes(data.extra("names")).decode().split("\n")
    return {name: data.captions_of(row) for row, name in enumerate(names)}


# Splits.


@pytest.mark.parametrize(
    ("column", "value", "split", "unknown"),
    [
        ("split", "val", True, ""),
        ("split", "extra", None, "extra"),
        ("split", 3, None, "3"),
        ("set", "train", False, ""),
        ("subset", "validation", True, ""),
        ("partition", "Test", True, ""),
        ("phase", "testing", True, ""),
        *(
            (column, name, True, "")
            for column in ("split", "set")
            for name in ("holdout", "unseen", "Held-out", "hold out")
        ),
        ("split", "val_unseen", True, ""),
        ("set", "Lego 1234", None, "Lego 1234"),  # a set of bricks: no split, and it is said
        ("set", "dev board", None, "dev board"),
        ("set", "2", None, "2"),
        ("is_train", "1", False, ""),
        ("is_train", 0, True, ""),
        ("is_train", 0.0, True, ""),
        ("is_train", False, True, ""),
        ("Is Test", "TRUE", True, ""),
        ("is_val", "no", False, ""),
        *(("is_test", word, True, "") for word in ("t", "T", "y", "Y", "yes", "true", "1", "1.0", " True ")),
        *(("is_test", word, False, "") for word in ("f", "F", "n", "N", "No", "false", "0", "0.0")),
        ("is_train", "perhaps", None, "perhaps"),
        ("is_train", "", None, ""),
        ("is_train", "nan", None, ""),
        ("split", None, None, ""),
    ],
)
def test_a_split_is_read_from_columns_of_several_names(column, value, split, unknown):
    assert split_of_cell(column, value) == (split, unknown)


@pytest.mark.parametrize(
    ("row", "split"),
    [
        ({"split": "", "subset": "test"}, True),  # the first that says something
        ({"split": "train", "subset": "test"}, False),
        ({"is_test": "f", "is_val": "t"}, True),  # held out by any of them
        ({"is_train": "f", "is_test": "t"}, True),
        ({"is_train": "t", "is_test": "f", "is_val": "f"}, False),
        ({"is_test": "1", "split": "train"}, False),  # a name before a flag
        ({"is_test": "", "set": "9"}, None),
    ],
)
def test_the_split_of_a_row_is_read_from_all_of_its_columns(row, split):
    assert SplitCells().read(row, split_columns(list(row))) is split


@pytest.mark.parametrize(
    ("name", "held_out"),
    [("split", "val"), ("set", "test"), ("subset", "validation"), ("is_train", "0"), ("is_test", "True")],
)
def test_a_split_column_of_any_name_holds_images_out(name, held_out, tmp_path):
    images(tmp_path / "source", [f"{i}.png" for i in range(4)])
    training = {"is_train": "1", "is_test": "False"}.get(name, "train")
    rows = [f"{i}.png,thing {i},{held_out if i == 3 else training}" for i in range(4)]
    (tmp_path / "source" / "list.csv").write_text("\n".join([f"image,caption,{name}", *rows]))
    data, _ = packed("csv", tmp_path / "source" / "list.csv", tmp_path)
    assert data.splits.tolist() == [0, 0, 0, 1]


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (["train_1.jpg", "a/val_2.jpg", "TEST-3.jpg"], [False, True, True]),
        (["train1.png", "valid7.png"], [False, True]),
        (["test_1.jpg", "test_2.jpg"], None),  # of one kind alone: it may be what the images show
        (["train_1.jpg", "val_2.jpg", "kite.jpg"], None),
        (["001_train.jpg", "002_test.jpg"], None),
        (["_train_1.jpg", "_val_2.jpg"], None),
        (["训练_1.jpg", "测试_2.jpg"], [False, True]),
        (["training wheels.jpg", "test tube.jpg"], [False, True]),
        ([], None),
    ],
)
def test_names_of_images_say_the_split_where_each_of_them_does(names, splits):
    notes = []
    assert splits_of_names(names, notes) == (splits or [None] * len(names))
    assert len(notes) == bool(splits)


@pytest.mark.parametrize("kind", ["folder", "csv"])
def test_images_named_after_splits_are_held_out_and_it_is_said(kind, tmp_path):
    names = ["train_0.png", "train_1.png", "val_2.png"]
    images(tmp_path / "source", names)
    for name in names:
        (tmp_path / "source" / name).with_suffix(".txt").write_text(f"a thing, {name}")
    (tmp_path / "source" / "list.csv").write_text(
        "image,caption\n" + "".join(f"{name},thing {name}\n" for name in names)
    )
    data, report = packed(kind, tmp_path / "source" / ("list.csv" if kind == "csv" else ""), tmp_path)
    assert data.splits.tolist() == [0, 0, 1]
    assert any("val_1.jpg" in note for note in report.notes)


# Names.

TABLE = [
    # in the table, file of the source
    ("/home/ann/flowers/images/a.png", "images/a.png"),
    ("/mnt/data/a.png", "a.png"),
    ("C:\\Users\\ann\\flowers\\a.png", "a.png"),
    ("file:///data/photos/a.png", "photos/a.png"),
    ("a", "a.png"),
    ("a", "images/a.jpg"),
    ("sub/a", "images/sub/a.png"),
    ("A.PNG", "a.png"),
    ("IMAGES/a.png", "images/A.png"),
    ("photo.v2", "photo.v2.png"),
]


@pytest.mark.parametrize(("listed", "there"), TABLE)
def test_a_name_that_can_mean_one_file_only_is_that_file(listed, there, tmp_path):
    image(tmp_path / "source" / there)
    image(tmp_path / "source" / "other.png", 3)
    (tmp_path / "source" / "list.csv").write_text(f"image,caption\n{listed},a kite\nother.png,a ball\n")
    data, report = packed("csv", tmp_path / "source" / "list.csv", tmp_path)
    assert captions_by_name(data) == {there: ["a kite"], "other.png": ["a ball"]}
    assert bool(report.notes) == (":" in listed or listed.startswith("/"))


@pytest.mark.parametrize(
    ("listed", "there", "says"),
    [
        (
            "a.png",
            ["A.png", "sub/a.png"],
            "no such image: a.png (there is A.png)",
        ),  # beside it, but for case: taken below
        ("a", ["a.png", "a.jpg"], "no such image: a (there is a.jpg)"),
        ("A.PNG", ["a.png", "a.Png"], "no such image: A.PNG"),
        ("../../etc/passwd", ["a.png"], "leads out of the source"),
        ("/etc/passwd", ["a.png"], "leads out of the source"),
        ("/x/../../a.png", ["a.png"], "leads out of the source"),
        ("C:\\..\\a.png", ["a.png"], "leads out of the source"),
        ("b/a.png", ["c/a.png"], "no such image: b/a.png (there is c/a.png"),
    ],
)
def test_a_name_that_may_mean_two_files_or_none_is_reported(listed, there, says, tmp_path):
    for number, name in enumerate(there):
        image(tmp_path / "source" / name, number)
    image(tmp_path / "source" / "other.png", 3)
    (tmp_path / "source" / "list.csv").write_text(f"image,caption\n{listed},a kite\nother.png,a ball\n")
    data, report = packed("csv", tmp_path / "source" / "list.csv", tmp_path)
    if there[0] == "A.png":  # the one beside the table differs by case alone
        assert set(captions_by_name(data)) == {"A.png", "other.png"}
        return
    assert set(captions_by_name(data)) == {"other.png"}
    assert any(says in reason for _, reason in report.skipped)


# Captions.


def test_numbered_columns_are_captions_of_one_image(tmp_path):
    images(tmp_path / "source", ["a.png", "b.png"])
    (tmp_path / "source" / "list.csv").write_text(
        "image,caption_10,caption_2,Caption 1\na.png,ten,two,one\nb.png,nan,,a kite\n", encoding="utf-8"
    )
    data, _ = packed("csv", tmp_path / "source" / "list.csv", tmp_path)
    assert captions_by_name(data) == {"a.png": ["one", "two", "ten"], "b.png": ["a kite"]}


@pytest.mark.parametrize("cell", ["nan", "NaN", "None", "null", "<NA>", "N/A", " none "])
def test_what_a_program_wrote_for_an_empty_cell_is_no_caption(cell, tmp_path):
    images(tmp_path / "source", ["a.png", "b.png"])
    (tmp_path / "source" / "list.csv").write_text(f"image,caption\na.png,{cell}\nb.png,none of them fly\n")
    data, report = packed("csv", tmp_path / "source" / "list.csv", tmp_path)
    assert captions_by_name(data) == {"b.png": ["none of them fly"]}
    assert report.skipped == [(f"{tmp_path / 'source' / 'list.csv'}:2", "no captions")]


@pytest.mark.parametrize(
    "content",
    [
        {"a.png": "a kite", "b.png": ["a ball", "a red ball"]},
        {"a": "a kite", "b": ["a ball", "a red ball"]},
        {"a": {"caption": "a kite", "tags": "sky, kite"}, "b": {"captions": ["a ball", "a red ball"]}},
        {
            "about": "kites",
            "data": [{"image": "a.png", "caption": "a kite"}, {"image": "b", "text": ["a ball", "a red ball"]}],
        },
        {"images/a.png": {"text": "a kite"}, "images/b.png": {"text": ["a ball", "a red ball"]}},
    ],
)
def test_a_json_object_of_captions_by_image_is_read(content, tmp_path):
    images(tmp_path / "source", ["images/a.png", "images/b.png"])
    (tmp_path / "source" / "captions.json").write_text(json.dumps(content))
    data, _ = packed("csv", tmp_path / "source" / "captions.json", tmp_path)
    assert captions_by_name(data) == {"images/a.png": ["a kite"], "images/b.png": ["a ball", "a red ball"]}
    hinted = "caption" in json.dumps(content) or ".png" in json.dumps(content)
    with pytest.raises(DataError, match=r"t2i-prepare csv .*captions\.json" if hinted else "no captioned images"):
        packed("folder", tmp_path / "source", tmp_path / "other")


def test_an_image_and_its_text_may_be_written_in_two_forms_of_unicode(tmp_path):
    image(tmp_path / "source" / unicodedata.normalize("NFC", "café.png"))
    (tmp_path / "source" / unicodedata.normalize("NFD", "café.txt")).write_text("a cup")
    data, report = packed("folder", tmp_path / "source", tmp_path)
    assert list(captions_by_name(data).values()) == [["a cup"]]
    assert report.skipped == []


def test_an_image_without_extension_is_not_reported_for_its_own_text(tmp_path):
    image(tmp_path / "source" / "a.png").rename(tmp_path / "source" / "a")
    image(tmp_path / "source" / "b.png", 2)
    for name in "ab":
        (tmp_path / "source" / f"{name}.txt").write_text(f"thing {name}")
    data, report = packed("folder", tmp_path / "source", tmp_path)
    assert captions_by_name(data) == {"a": ["thing a"], "b.png": ["thing b"]}
    assert report.skipped == []


# Parquet.


def png(number):
    data = io.BytesIO()
    Image.new("RGB", (20, 20), (number * 20 % 256, 0, 200)).save(data, "PNG")
    return data.getvalue()


ROWS = [  # path, picture, caption, label
    ("a.png", 1, "a kite", "sky"),
    ("a.png", 1, "a red kite", "sky"),
    ("b.png", 2, "a ball", "toy"),
    ("b.png", 3, "another ball under the same name", "toy"),
    ("", 1, "no path", "sky"),
    ("c.png", 1, "the first picture under another name", "sky"),
    ("a.png", 1, "a kite of another class", "toy"),
]


@pytest.mark.parametrize("form", ["parquet", "arrow"])
def test_rows_that_repeat_an_image_are_its_captions(form, tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    source = tmp_path / "source"
    source.mkdir()
    table = pyarrow.table(
        {
            "image": [{"bytes": png(number), "path": path} for path, number, _, _ in ROWS],
            "text": [caption for _, _, caption, _ in ROWS],
            "label": [label for *_, label in ROWS],
        }
    )
    if form == "parquet":
        parquet.write_table(table, source / "train.parquet", row_group_size=2)
    else:
        (source / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data.arrow"}]}))
        with (
            pyarrow.OSFile(str(source / "data.arrow"), "wb") as file,
            pyarrow.ipc.new_stream(file, table.schema) as out,
        ):
            out.write_table(table, max_chunksize=2)
    data, report = packed("huggingface", source, tmp_path)
    captions = [data.captions_of(row) for row in range(len(data))]
    assert captions == [["a kite", "a red kite"], *([caption] for _, _, caption, _ in ROWS[2:6])]
    assert len(np.unique(data.read_images(np.arange(len(data)))[:, 0, 0], axis=0)) == 3
    assert report.notes == ["2 rows repeat the image of a row before them: their captions are its captions"]
    [(place, reason)] = report.skipped
    assert place.endswith(":6")
    assert reason == "another class for its image: toy, after sky"


@pytest.mark.parametrize("image_type", ["bytes", "struct without path"])
def test_images_without_paths_stay_a_row_each(image_type, tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    (tmp_path / "source").mkdir()
    pictures = [png(1), png(1), png(2)]
    column = pictures if image_type == "bytes" else [{"bytes": picture} for picture in pictures]
    table = pyarrow.table({"jpg": column, "txt": ["a kite", "a red kite", "a ball"]})
    parquet.write_table(table, tmp_path / "source" / "train.parquet")
    _, report = packed("parquet", tmp_path / "source", tmp_path)
    assert (report.images, report.skipped) == (3, [])
