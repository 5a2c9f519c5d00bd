"""The readers of archives, tables and pickles under hypothesis: whatever the bytes, an answer or a named fault."""

import io
import pickle
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import t2i
from promises import TORTURE
from t2i.prepare import Report
from t2i.prepare.collect import SourceOptions
from t2i.prepare.packing import pack
from t2i.prepare.sources.coco import coco
from t2i.prepare.sources.folder import folder
from t2i.prepare.sources.pickles import load
from t2i.prepare.sources.rows import read_listing
from t2i.prepare.sources.table import table
from t2i.prepare.sources.tar import BLOCK, Fault, Member, members
from t2i.prepare.tree import FolderTree

MANY = settings(max_examples=20_000 if TORTURE else 60)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


def archive(entries, format):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=format) as tar:
        for name, data in entries:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return file.getvalue()


def answer(call, path):
    """What a reader answers, or None where it refuses with one line that names the file."""
    try:
        return call()
    except t2i.DataError as error:
        message = str(error)
    assert str(path) in message
    assert "\n" not in message
    return None


NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\\:"), min_size=1, max_size=150)
ENTRIES = st.lists(st.tuples(NAMES, st.binary(max_size=1500)), max_size=4)
FORMATS = st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])


@MANY
@given(entries=ENTRIES, format=FORMATS)
def test_every_archive_of_python_reads_the_same(place, entries, format):
    path = place / "a.tar"
    path.write_bytes(archive(entries, format))
    with tarfile.open(path) as tar:
        wanted = [Member(m.name, m.offset_data, m.size) for m in tar]
    found = list(members(path))
    assert [m for m in found if isinstance(m, Member)] == [
        m for m in wanted if not m.name.startswith("/") and ".." not in m.name.split("/")
    ]
    assert len(found) == len(wanted)


CHANGES = st.lists(st.tuples(st.integers(0, 10_000), st.binary(min_size=1, max_size=20)), max_size=6)


@MANY
@given(entries=ENTRIES, format=FORMATS, changes=CHANGES, length=st.integers(0, 20_000))
def test_a_changed_archive_gives_members_inside_it_or_faults(place, entries, format, changes, length):
    data = bytearray(archive(entries, format))
    for at, new in changes:
        at %= max(1, len(data))
        data[at : at + len(new)] = new
    path = place / "a.tar"
    path.write_bytes(data[:length])
    found = list(members(path))
    assert len(found) <= len(data) // BLOCK + 1
    for member in found:
        if isinstance(member, Member):
            assert 0 <= member.offset <= member.offset + member.size <= len(data[:length])
            assert ".." not in member.name.split("/")
            assert not member.name.startswith("/")
        else:
            assert isinstance(member, Fault)
            assert member.reason


@MANY
@given(data=st.binary(max_size=600))
def test_any_bytes_are_an_archive_or_a_fault(place, data):
    (place / "a.tar").write_bytes(data)
    assert all(isinstance(member, (Member, Fault)) for member in members(place / "a.tar"))


@MANY
@given(data=st.binary(max_size=300))
def test_any_bytes_are_a_table_of_nothing_or_named_lines(place, data):
    path = place / "t.csv"
    path.write_bytes(data)
    report = Report()
    assert list(table(path, report)) == []
    assert all(str(where).startswith(str(path)) for where, _ in report.skipped)


@MANY
@given(
    data=st.binary(max_size=300)
    | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(repr).map(str.encode)
)
def test_any_bytes_as_captions_of_coco_are_refused_by_name(place, data):
    path = place / "captions_train.json"
    path.write_bytes(data)
    report = Report()
    assert answer(lambda: list(coco(path, report)), path) in ([], None)


@MANY
@given(
    name=st.sampled_from(["a.tsv", "a.txt", "a.jsonl", "a.json", "metadata.json1"]),
    data=st.binary(max_size=300)
    | st.text(max_size=300).map(str.encode)
    | st.text('",;|\t\na.jpg#0', max_size=99).map(str.encode),
)
def test_any_bytes_are_a_list_of_nothing_or_refused_by_name(place, name, data):
    path = place / name
    path.write_bytes(data)
    report = Report()
    assert answer(lambda: list(table(path, report)), path) in ([], None)
    assert all(str(where).startswith(str(path)) for where, _ in report.skipped)


@MANY
@given(rows=st.lists(st.tuples(st.booleans(), st.text('ab ,"', max_size=9)), max_size=9))
def test_no_quote_loses_a_row_of_another_image(place, rows):
    """Rows whose caption begins with a quote may be lost; every other row is read, whatever stands between."""
    path, wanted = place / "q.csv", []
    lines = ["image,caption"]
    for number, (quote, text) in enumerate(rows):
        clean = text.replace(",", " ").replace('"', "")
        lines.append(f'{number}.jpg,"{clean}' if quote else f"{number}.jpg,{clean}x")
        wanted += [] if quote else [f"{number}.jpg"]
    path.write_text("\n".join(lines) + "\n")
    report = Report()
    read = read_listing(FolderTree(place, report), "q.csv", report, SourceOptions())
    assert [row.cells["image"] for row in read] == wanted
    assert len(report.skipped) == len(rows) - len(wanted)


@MANY
@given(data=st.binary(max_size=400), good=st.booleans(), at=st.integers(0, 400))
def test_any_bytes_are_a_zip_or_a_named_fault(place, data, good, at):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as made:
        made.writestr("a.png", b"no image")
        made.writestr("a.txt", b"x")
    raw = file.getvalue()
    path = place / "a.zip"
    path.write_bytes(raw[:at] + data[:5] + raw[at + 5 :] if good else data)
    report = Report()
    found = answer(lambda: list(folder(path, report)), path)
    assert found is None or all(item.path == path for item in found)


@MANY
@given(data=st.binary(max_size=300))
def test_any_bytes_as_metadata_are_named_lines(tmp_path_factory, place, data):
    source = place / "mine"
    source.mkdir(exist_ok=True)
    (source / "metadata.jsonl").write_bytes(data)
    report = Report()
    assert list(folder(source, report)) == []
    assert all(str(where).startswith(f"{source}/metadata.jsonl") for where, _ in report.skipped)


def is_plain(value, outer=()):
    """Whether a value is made of plain values and arrays of numbers, and of nothing else."""
    if any(value is each for each in outer):
        return True  # a list that holds itself
    if type(value) in (list, tuple, set, frozenset, dict):
        parts = [*value, *value.values()] if isinstance(value, dict) else value
        return all(is_plain(part, (*outer, value)) for part in parts)
    if isinstance(value, np.ndarray | np.generic | np.dtype):
        return not np.asarray(value).dtype.hasobject if not isinstance(value, np.dtype) else not value.hasobject
    return value is None or type(value) in (bool, int, float, complex, str, bytes, bytearray)


@MANY
@given(data=st.binary(max_size=200))
@example(data=pickle.dumps({"a": [1, (2.0, b"x")], "b": np.arange(3)}))
@example(data=pickle.dumps(Path("/")))
def test_any_bytes_are_a_pickle_of_plain_values_or_refused(place, data):
    path = place / "a.pickle"
    path.write_bytes(data)
    assert is_plain(answer(lambda: load(path), path))


@given(
    kind=st.sampled_from(["csv", "coco", "webdataset", "stackgan", "cub", "oxford102", "huggingface", "folder"]),
    data=st.binary(max_size=100),
)
def test_every_source_refuses_a_folder_of_noise_in_one_line(place, kind, data):
    source = place / "noise"
    for name in ("a.csv", "captions_a.json", "a.tar", "train/filenames.pickle", "images.txt", "state.json"):
        path = Path(source / name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    with pytest.raises((t2i.DataError, t2i.ConfigError)) as caught:
        pack(kind, source, place / "out", show_progress=False)
    assert "\n" not in str(caught.value)
