"""Images in base64: the layout of MUGE and Chinese-CLIP, and columns of tables."""

import base64
import json

import pytest

from helpers import assert_all_accounted, packed
from source_files import captions, zip_file
from t2i.errors import DataError
from test_published import encoded, fill, listed, reasons


def text_of(number, urlsafe=False):
    return (base64.urlsafe_b64encode if urlsafe else base64.b64encode)(encoded(number)).decode()


def line(number, text, *images):
    return json.dumps({"text_id": number, "text": text, "image_ids": list(images)}, ensure_ascii=False) + "\n"


def muge(root, folder=""):
    return fill(
        root,
        {
            f"{folder}train_imgs.tsv": f"1\t{text_of(1)}\n2\t{text_of(2, True)}\r\n\n3\t{text_of(3).rstrip('=')}",
            f"{folder}train_texts.jsonl": line(1, "一只红色的风筝", 1, 2) + line(2, "风筝", 1) + line(3, "球", "3"),
            f"{folder}valid_imgs.tsv": f"1\t{text_of(4)}\n",
            f"{folder}valid_texts.jsonl": line(4, "一只碗", 1),
            f"{folder}test_imgs.tsv": f"9\t{text_of(5)}\n",
            f"{folder}test_texts.jsonl": line(5, "无图"),
        },
    )


@pytest.mark.parametrize("folder", ["", "MUGE/"])
def test_muge_is_read_with_its_splits(tmp_path, folder):
    source = muge(tmp_path / "x", folder)
    data, report = packed("csv", source, tmp_path)
    assert captions(data) == {
        f"{folder}train_imgs.tsv:1": ["一只红色的风筝", "风筝"],
        f"{folder}train_imgs.tsv:2": ["一只红色的风筝"],
        f"{folder}train_imgs.tsv:3": ["球"],
        f"{folder}valid_imgs.tsv:1": ["一只碗"],
    }
    assert data.splits.tolist() == [0, 0, 0, 1]
    assert [int(data.read_images([row])[0, 0, 0, 0]) for row in range(4)] == [20, 40, 60, 80]
    assert report.skipped == [(f"{source / folder / 'test_imgs.tsv'}:1", "no captions: no text has its id")]
    assert f"1 texts in {folder}test_texts.jsonl are of no image: their image_ids are empty" in report.notes
    assert (report.account.images, report.account.read, report.account.skipped, report.account.files) == (4, 6, 1, 11)


@pytest.mark.parametrize("name", ["train_imgs.tsv", "train_texts.jsonl"])
def test_one_file_of_the_layout_is_read_with_the_other(tmp_path, name):
    found, report = listed("csv", muge(tmp_path) / name)
    assert list(found) == ["train_imgs.tsv:1", "train_imgs.tsv:2", "train_imgs.tsv:3"]
    assert report.skipped == []


def test_lines_that_cannot_be_used_are_reported_one_by_one(tmp_path):
    good = text_of(1)
    files = {
        "train_imgs.tsv": f"1\t{good}\n2\n1\t{good}\n4\t{good[:-30]}!\n5\t{good}\n",
        "train_texts.jsonl": line(1, "a kite", 1, 7, 8)
        + "{\n"
        + line(3, "", 1)
        + line(4, "a bowl", 4)
        + '{"text": "x"}\n',
        "more.csv": "image,caption\na.png,a boat\n",
        "a.png": None,
    }
    data, report = packed("csv", fill(tmp_path / "x", files), tmp_path)
    assert captions(data) == {"a.png": ["a boat"], "train_imgs.tsv:1": ["a kite"]}
    why = {place.removeprefix(f"{tmp_path / 'x'}/"): reason for place, reason in report.skipped}
    assert why["train_imgs.tsv:2"] == "broken line: an id, a tab and an image in base64 expected"
    assert why["train_imgs.tsv:3"] == "a second image of the id 1"
    assert why["train_imgs.tsv:5"] == "no captions: no text has its id"
    assert why["train_imgs.tsv: train_imgs.tsv:4"].startswith("broken: no base64")
    assert why["train_texts.jsonl:1"] == "no image in train_imgs.tsv has the id 7, 8"
    assert why["train_texts.jsonl:2"].startswith("broken line: ")
    assert why["train_texts.jsonl:3"] == "no captions"
    assert why["train_texts.jsonl:5"] == "broken line: no 'image_ids'"
    assert_all_accounted(report)


def test_the_layout_in_a_zip_is_refused_with_what_to_do(tmp_path):
    files = {path.name: path.read_bytes() for path in muge(tmp_path / "x").iterdir()}
    with pytest.raises(DataError, match=r"imgs\.tsv.*base64.*unpack it"):
        packed("csv", zip_file(tmp_path / "muge.zip", files), tmp_path)


@pytest.mark.parametrize("form", ["text", "bytes", "url", "urlsafe", "struct"])
def test_parquet_with_images_in_base64_is_read(tmp_path, form):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    cells = [text_of(n, form == "urlsafe") for n in range(1, 4)]
    if form == "url":
        cells = [f"data:image/png;base64,{cell}" for cell in cells]
    if form in ("bytes", "struct"):
        cells = [cell.encode() for cell in cells]
    if form == "struct":
        cells = [{"bytes": cell, "path": f"{n}.png"} for n, cell in enumerate(cells)]
    table = pyarrow.table({"image": [*cells, None], "text": ["one", "two", "three", "four"]})
    (tmp_path / "x").mkdir()
    parquet.write_table(table, tmp_path / "x" / "train.parquet")
    data, report = packed("parquet", tmp_path / "x", tmp_path)
    assert list(captions(data).values()) == [["one"], ["two"], ["three"]]
    assert [int(data.read_images([row])[0, 0, 0, 0]) for row in range(3)] == [20, 40, 60]
    assert reasons(report) == ["broken: the row has no image"]


def test_damaged_base64_in_parquet_is_reported_for_its_row(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    cells = [text_of(1), text_of(2) + "?", "a.png"]
    (tmp_path / "x").mkdir()
    parquet.write_table(pyarrow.table({"image": cells, "text": ["1", "2", "3"]}), tmp_path / "x" / "a.parquet")
    data, report = packed("parquet", tmp_path / "x", tmp_path)
    assert list(captions(data).values()) == [["1"]]
    assert [reason.partition(" (")[0] for reason in reasons(report)] == [
        "broken: no base64",
        "unreadable: no bytes, and no image at 'a.png'",
    ]


@pytest.mark.parametrize("name", ["a.jsonl", "a.tsv", "a.csv", "a.json"])
def test_base64_in_other_tables_is_refused_with_what_to_do(tmp_path, name):
    rows = [{"image": text_of(n), "text": "a kite"} for n in range(2)]
    lines = {
        "a.jsonl": "".join(json.dumps(row) + "\n" for row in rows),
        "a.json": json.dumps(rows),
        "a.tsv": "image\ttext\n" + "".join("\t".join(row.values()) + "\n" for row in rows),
        "a.csv": "image,text\n" + "".join(",".join(row.values()) + "\n" for row in rows),
    }
    source = fill(tmp_path / "x", {name: lines[name]})
    with pytest.raises(DataError, match=rf"{name}:.*an image in base64.*t2i-prepare parquet.*to_parquet"):
        packed("csv", source / name, tmp_path)
