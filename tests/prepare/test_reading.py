"""Tables, text, names and kinds of file are read one way, whatever the source."""

import io
import json
import zipfile

import numpy as np
import pytest
from PIL import Image

import t2i
from helpers import packed
from source_files import content, image
from t2i import prepare
from t2i.prepare.collect import SourceOptions
from t2i.prepare.kinds import archive_kind, image_kind, is_hidden
from t2i.prepare.lines import numbered_lines
from t2i.prepare.tables import Fault, find_delimiter, read_rows
from t2i.prepare.tree import joined


def rows(text, tabs=False, **options):
    faults = []
    lines = numbered_lines(io.BytesIO(text.encode()), lambda number, reason: faults.append((number, reason)))
    found = list(read_rows(lines, tabs=tabs, **options))
    good = [
        (row.cells[row.columns.image], row.cells[row.columns.caption]) for row in found if not isinstance(row, Fault)
    ]
    return good, {row.line: row.reason for row in found if isinstance(row, Fault)}


@pytest.mark.parametrize(
    ("first", "delimiter"),
    [
        ("image,caption", ","),
        ("image;caption, long", ";"),
        ("image_name| comment_number| comment", "|"),
        ("a.jpg#0\tA child , in pink , runs", "\t"),
        ("a.jpg,a bar | and a kite", ","),
        ("image\tcaption, short", "\t"),
        ("a.jpg;one, two, three", ";"),
        ('"a.jpg","x"', ","),
    ],
)
def test_the_delimiter_is_the_one_that_makes_sense_of_the_first_line(first, delimiter):
    assert find_delimiter(first, False) == delimiter


GOOD = [(f"{n}.jpg", f"square {n}") for n in range(6)]


@pytest.mark.parametrize(
    ("text", "tabs", "lost", "faults"),
    [
        # A .tsv has no quoting: nothing is lost, and the quote stays.
        ('caption\timage\nsquare 0\t0.jpg\n"square 1\t1.jpg\nsquare 2\t2.jpg\n', True, {}, {}),
        # Never closed: to the end of the file.
        ('image,caption\n0.jpg,square 0\n1.jpg,"square 1\n2.jpg,square 2\n3.jpg,square 3\n', False, {1}, {3: 5}),
        # Closed by the next quote, with text behind it.
        ('image,caption\n0.jpg,"square 0\n1.jpg,square 1\n2.jpg,"square 2"\n3.jpg,square 3\n', False, {0}, {2: 4}),
        # Closed by the end of another caption: a valid row that swallowed two.
        ('image,caption\n0.jpg,"square 0\n1.jpg,square 1\n2.jpg,is 12"\n3.jpg,square 3\n', False, {0}, {2: 4}),
        # The same with the caption first.
        ('caption,image\n"square 0,0.jpg\nsquare 1,1.jpg\nit is 12",2.jpg\nsquare 3,3.jpg\n', False, {0}, {2: 4}),
        # Two open quotes.
        (
            'image,caption\n0.jpg,"square 0\n1.jpg,square 1\n2.jpg,"square 2\n3.jpg,square 3\n',
            False,
            {0, 2},
            {2: 4, 4: 5},
        ),
    ],
)
def test_a_quote_left_open_loses_its_own_row_only_and_is_named(text, tabs, lost, faults):
    good, named = rows(text, tabs)
    assert {name for name, _ in good} == {f"{n}.jpg" for n in range(text.count(".jpg"))} - {f"{n}.jpg" for n in lost}
    assert named.keys() == faults.keys()
    for line, last in faults.items():
        assert f"a quote is left open, which runs on to line {last}" in named[line]


def test_a_caption_of_several_lines_is_one_row():
    good, named = rows('image,caption\na.jpg,"one,\n two ""three""\n\nfour"\nb.jpg,five\n')
    assert good == [("a.jpg", 'one,\n two "three"\n\nfour'), ("b.jpg", "five")]
    assert named == {}


def test_a_table_of_twenty_thousand_rows_loses_none_but_the_bad_ones():
    bad = set(range(7, 20_000, 200))
    text = "".join(f"{n}.jpg,{chr(34) if n in bad else ''}square {n}\n" for n in range(20_000))
    good, named = rows(f"image,caption\n{text}")
    assert len(good) == 20_000 - len(bad)
    assert len(named) == len(bad)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("0.jpg,square 0\n1.jpg,square 1\n", GOOD[:2]),  # no header
        ("square 0,0.jpg\nsquare 1,1.jpg\n", GOOD[:2]),  # no header, the caption first
        ("0.jpg#0\tsquare 0\n1.jpg#4\tsquare 1\n", GOOD[:2]),  # Flickr8k
        ("image_name| comment_number| comment\n0.jpg| 0| square 0\n1.jpg| 0| square 1\n", GOOD[:2]),  # Flickr30k
        ("image, caption\n0.jpg, square 0\n1.jpg, square 1\n", [("0.jpg", "square 0"), ("1.jpg", "square 1")]),
        ("sep=;\nfile_name;text\n0.jpg;square 0\n", GOOD[:1]),
        ('sep=,\nfile_name,text\n0.jpg,"square 0"\n', GOOD[:1]),
        (",image,caption\n0,0.jpg,square 0\n", GOOD[:1]),
        ("id,image_name,caption\n0,0.jpg,square 0\n", GOOD[:1]),
        ("\ufeffimage,caption,split\r\n0.jpg,square 0,valid\r\n", GOOD[:1]),
    ],
)
def test_tables_are_read_as_people_have_them(text, found):
    assert rows(text) == (found, {})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("Image,Findings\n0.jpg,square 0\n", "no column of captions; the columns are Image, Findings"),
        ("name,words\n0.jpg,square 0\n", "no column of images; the columns are name, words"),
        ("0.jpg,a,b\n", "3 columns and no header"),
    ],
)
def test_a_header_that_is_not_known_is_no_row(text, says):
    with pytest.raises(t2i.DataError, match=says):
        rows(text)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize(("kind", "name"), [("csv", "t.tsv"), ("folder", "metadata.jsonl"), ("folder", "a.txt")])
def test_every_encoding_that_says_what_it_is_reads_the_same(tmp_path, encoding, ending, kind, name):
    source = tmp_path / "mine"
    image(source / "a.png")
    text = {
        "t.tsv": "image\ttext\na.png\t\u00e9t\u00e9 \u732b\n",
        "metadata.jsonl": '{"file_name": "a.png", "text": "\u00e9t\u00e9 \u732b"}\n',
        "a.txt": "\u00e9t\u00e9 \u732b\n",
    }[name]
    mark = "\ufeff" if encoding.endswith("e") else ""
    (source / name).write_bytes((mark + text.replace("\n", ending)).encode(encoding))
    items = list(prepare.SOURCES[kind](source, prepare.Report(), SourceOptions()))
    assert [item.captions for item in items] == [("\u00e9t\u00e9 \u732b",)]


@pytest.mark.parametrize(("kind", "name"), [("csv", "t.csv"), ("folder", "metadata.jsonl"), ("folder", "b.txt")])
def test_text_of_an_unknown_encoding_is_named_and_never_guessed(tmp_path, kind, name):
    source = tmp_path / "mine"
    image(source / "a.png"), image(source / "b.png")
    (source / "a.txt").write_text("good\n") if kind == "folder" else None
    text = {
        "t.csv": "image,text\na.png,good\nb.png,caf\xe9\n",
        "metadata.jsonl": '{"file_name": "b.png", "text": "caf\xe9"}\n',
        "b.txt": "caf\xe9\n",
    }[name]
    (source / name).write_bytes(text.encode("latin-1"))
    data, report = packed(kind, source, tmp_path)
    assert content(data) == {"a.png": (["good"], None, False)}
    assert any("not UTF-8 text (byte 0xe9)" in reason for _, reason in report.skipped)


@pytest.mark.parametrize(
    ("text", "caption"),
    [
        ("a  red\tkite ", "a red kite"),
        (" a\u00a0red\u2003kite", "a red kite"),
        ("a\nred\r\n\r\nkite", "a red kite"),
        ("a\x0bred\x85kite", "a red kite"),
        ("a\u2028red kite", "a red kite"),
    ],
)
def test_white_space_is_one_space(tmp_path, text, caption):
    source = tmp_path / "mine"
    image(source / "a.png")
    (source / "metadata.jsonl").write_text(json.dumps({"file_name": "a.png", "text": text}))
    assert content(packed("folder", source, tmp_path)[0])["a.png"][0] == [caption]


def test_lines_of_a_caption_file_end_at_line_feeds_only(tmp_path):
    source = tmp_path / "mine"
    image(source / "a.png")
    (source / "a.txt").write_text("one\x85still one\ntwo\x0cstill two\n", encoding="utf-8")
    assert content(packed("folder", source, tmp_path)[0])["a.png"][0] == ["one still one", "two still two"]


@pytest.mark.parametrize(
    ("folder", "name", "path"),
    [
        ("", "a.png", "a.png"),
        ("x", "a.png", "x/a.png"),
        ("x", "./y/../a.png", "x/a.png"),
        ("x", "../a.png", "a.png"),
        ("x", "../../a.png", None),
        ("", "/a.png", None),
        ("", "C:\\a.png", None),
        ("", "C:/a.png", None),
        ("", "", None),
        ("", "a\0.png", None),
        ("", "..", None),
    ],
)
def test_names_of_tables_are_joined_below_the_source_or_not_at_all(folder, name, path):
    assert joined(folder, name) == path


@pytest.mark.parametrize("name", ["con.png", "x/NUL", "aux.tar.png", "Com1.jpg", "x\\lpt9.png"])
def test_names_of_windows_devices_are_refused_there(name, monkeypatch):
    assert joined("", name) is not None
    monkeypatch.setattr("sys.platform", "win32")
    assert joined("", name) is None
    assert joined("", "console.png") == "console.png"


@pytest.mark.parametrize(
    ("name", "hidden"),
    [
        ("a.png", False),
        (".a.png", True),
        ("x/._a.png", True),
        ("__MACOSX/a.png", True),
        (".git/x/a.png", True),
        ("x/Thumbs.db", True),
        ("desktop.ini", True),
        ("@eaDir/a.jpg", True),
        ("a..png", False),
        ("_a.png", False),
        ("./a.png", False),
        ("./.a.png", True),
    ],
)
def test_what_systems_leave_behind_is_hidden(name, hidden):
    assert is_hidden(name) is hidden


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "TIFF", "BMP", "WEBP", "PPM", "AVIF"])
def test_images_are_told_by_their_bytes(kind):
    Image.init()
    if kind not in Image.SAVE:
        pytest.skip(f"this Pillow does not write {kind}")
    file = io.BytesIO()
    Image.new("RGB", (9, 9), (1, 2, 3)).save(file, kind)
    assert image_kind(file.getvalue()[:512]).upper() == {"PPM": "PNM"}.get(kind, kind)


@pytest.mark.parametrize(
    "data", [b"", b"a caption\n", b'{"a": 1}', b"P7 of the list", b"BMW is a car, and no image", b"\0" * 600]
)
def test_other_bytes_are_no_image_and_no_archive(data):
    assert image_kind(data) is None
    assert archive_kind(data) is None


def test_a_zip_is_told_by_its_bytes():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as made:
        made.writestr("a", "b")
    assert archive_kind(file.getvalue()[:512]) == "zip"


def test_pixels_do_not_depend_on_the_form(tmp_path):
    source = tmp_path / "mine"
    image(source / "a.png", (9, 99, 199))
    (source / "a.txt").write_text("x\n")
    with zipfile.ZipFile(tmp_path / "mine.zip", "w") as made:
        for path in sorted(source.iterdir()):
            made.write(path, path.name)
    one = packed("folder", source, tmp_path)[0].read_images([0])
    other = packed("folder", tmp_path / "mine.zip", tmp_path)[0].read_images([0])
    assert np.array_equal(one, other)
