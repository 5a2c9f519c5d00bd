"""What is read as it was meant, or named with its reason: splits, encodings, quotes, formats, order and names in archives."""

import io
import json

import pytest
from PIL import Image
from test_bringing import tar_file

from helpers import packed
from t2i.prepare.splits import split_of_folder, split_of_value

BUFFER = io.BytesIO()
Image.new("RGB", (20, 20), (200, 30, 30)).save(BUFFER, "PNG")
PNG = BUFFER.getvalue()


def source_of(tmp_path, files, images=0):
    """Write files of text or bytes, and images 0.png, 1.png ..., into a folder."""
    source = tmp_path / "mine"
    for name, data in {**files, **{f"{n}.png": PNG for n in range(images)}}.items():
        path = source / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.encode() if isinstance(data, str) else data)
    return source


def captions(data):
    names = bytes(data.extra("names")).decode().split("\n")
    return {name: data.captions_of(row) for row, name in enumerate(names)}


# Splits.


@pytest.mark.parametrize(("no", "yes"), [("f", "t"), ("N", "Y"), ("No", "Yes"), ("FALSE", "TRUE"), ("0.0", "1.0")])
def test_a_flag_is_read_as_databases_and_spreadsheets_write_it(no, yes, tmp_path):
    rows = "".join(f"{n}.png,thing {n},{yes if n == 2 else no}\n" for n in range(3))
    source = source_of(tmp_path, {"list.csv": f"file_name,text,is_test\n{rows}"}, images=3)
    data, report = packed("csv", source, tmp_path)
    assert data.splits.tolist() == [0, 0, 1]
    assert report.notes == []


@pytest.mark.parametrize("name", ["unseen", "household out", "out held", "hold"])
def test_what_no_split_says_for_sure_is_no_split(name):
    assert split_of_folder(name) is None
    assert name == "unseen" or split_of_value(name) is None


def parquet_rows(rows):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    file = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist([{"image": PNG, "text": "x", **row} for row in rows]), file)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["csv", "webdataset", "parquet"])
def test_a_value_that_says_no_split_is_named_whatever_the_column_and_the_source(kind, tmp_path):
    rows = [{"set": "1"}, {"set": "2"}, {"set": "2"}, {"set": "holdout"}]
    if kind == "csv":
        table = "".join(f"{n}.png,x,{row['set']}\n" for n, row in enumerate(rows))
        source = source_of(tmp_path, {"list.csv": f"file_name,text,set\n{table}"}, images=4)
    elif kind == "parquet":
        source = source_of(tmp_path, {"a.parquet": parquet_rows(rows)})
    else:
        source = tmp_path / "mine"
        samples = [
            ((f"{n}.png", PNG), (f"{n}.json", json.dumps({"text": "x", **row}).encode())) for n, row in enumerate(rows)
        ]
        tar_file(source / "a.tar", *(member for sample in samples for member in sample))
    data, report = packed(kind, source, tmp_path)
    assert sorted(data.splits.tolist()) == [0, 0, 0, 1]
    (note,) = report.notes
    assert note.startswith("3 rows have the set '1', '2', which is no known name: read as training")


def test_many_values_that_say_no_split_are_one_line(tmp_path):
    rows = "".join(f"{n}.png,x,Lego {n},perhaps\n" for n in range(9))
    source = source_of(tmp_path, {"list.csv": f"file_name,text,set,is_val\n{rows}"}, images=9)
    _, report = packed("csv", source, tmp_path)
    assert [note.partition(":")[0] for note in report.notes] == [
        "9 rows have the set 'Lego 0', 'Lego 1', 'Lego 2', 'Lego 3', 'Lego 4' and 4 more, which is no known name",
        "9 rows have the is_val 'perhaps', which is neither true nor false",
    ]


def test_a_column_of_lists_is_no_split_and_no_reason_to_stop(tmp_path):
    source = source_of(tmp_path, {"a.parquet": parquet_rows([{"set": ["a", "b"]}])})
    _, report = packed("parquet", source, tmp_path)
    assert (report.train, report.skipped) == (1, [])
    assert "which is no known name" in report.notes[0]
