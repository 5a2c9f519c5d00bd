"""Text of other encodings, line ends of old Macs and quotes: read as they were meant, or named."""

import csv
import io
import json

import pytest

import t2i
from source_files import PNG, source_of, tar_file
from t2i import prepare
from t2i.prepare.collect import SourceOptions
from t2i.prepare.lines import decode, numbered_lines
from t2i.prepare.tables import Fault, Row, read_rows

WORDS = "海上的红色风筝 a red kite"
CODES = ["utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be", "iso2022_jp_2", "hz", "gb18030"]
JSON_OF = {"file_name": "0.png", "text": WORDS}
COCO = {"images": [{"id": 1, "file_name": "0.png"}], "annotations": [{"image_id": 1, "caption": WORDS}]}
TEXTS = {
    # kind, name of the file, its text
    "a text": ("folder", "0.txt", f"{WORDS}\n{WORDS}\n"),
    "a json": ("folder", "0.json", json.dumps(JSON_OF, ensure_ascii=False)),
    "lines of json": ("folder", "metadata.jsonl", json.dumps(JSON_OF, ensure_ascii=False) + "\r\n"),
    "a list of json": ("folder", "metadata.json", json.dumps([JSON_OF], ensure_ascii=False)),
    "a table": ("csv", "list.csv", f"file_name,text\r\n0.png,{WORDS}\r\n"),
    "a table of tabs": ("csv", "list.tsv", f"file_name\ttext\n0.png\t{WORDS}\n"),
    "COCO": ("coco", "annotations/captions_a.json", json.dumps(COCO, ensure_ascii=False)),
    "a text of a shard": ("webdataset", "0.txt", WORDS),
    "a json of a shard": ("webdataset", "0.json", json.dumps(JSON_OF, ensure_ascii=False)),
}


def listed(kind, source):
    """The items of a source, and the reasons for what is not among them."""
    report = prepare.Report()
    try:
        return list(prepare.SOURCES[kind](source, report, SourceOptions())), [reason for _, reason in report.skipped]
    except t2i.DataError as error:
        return [], [str(error)]


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("form", TEXTS)
def test_text_of_another_encoding_is_refused_with_the_same_words_everywhere(form, code, tmp_path):
    kind, name, text = TEXTS[form]
    files = {"0.png": PNG, name: text.encode(code)}
    source = source_of(tmp_path, files) if kind != "webdataset" else tmp_path / "mine"
    if kind == "webdataset":
        tar_file(source / "a.tar", *files.items())
    items, reasons = listed(kind, source)
    assert items == []
    assert any("not UTF-8 text" in reason for reason in reasons), reasons
    assert kind == "webdataset" or any("save it as UTF-8" in reason for reason in reasons)


def test_a_table_of_two_bytes_a_character_without_a_mark_is_refused_as_a_whole(tmp_path):
    table = "file_name,text\r\n" + "0.png,a kite\r\n" * 50
    source = source_of(tmp_path, {"list.csv": table.encode("utf-16-le")}, images=1)
    assert listed("csv", source) == (
        [],
        [
            "it is not UTF-8 text (byte 0x00, as in UTF-32, or in UTF-16 without a byte order mark); save it as UTF-8",
            "no line names it",
        ],
    )


@pytest.mark.parametrize(
    "text",
    [
        *("ma~{n}ana ~ {kite}", "~{a kite~}", "~}~{", "a ~{kite}", "{~kite~}", "海 ~{kite~}"),
        *("a ~{ab~} b", "~{kite~}", "a ~{Kite~}", "~{'_'~}"),
    ],
)
def test_tildes_and_braces_are_no_other_encoding(text):
    assert decode(text.encode()) == text


@pytest.mark.parametrize("text", ["中文", "风筝", "一只红色的风筝", "a kite: 风筝"])
def test_hz_is_another_encoding(text):
    with pytest.raises(t2i.DataError, match="as in HZ"):
        decode(text.encode("hz"))


def test_lists_of_classes_are_read_with_a_byte_order_mark(tmp_path):
    files = {
        "jpg/image_00001.jpg": PNG,
        "text_c10/class_00001/image_00001.txt": "a flower\n",
        "testclasses.txt": "\ufeffclass_00001\n",
        "cat_to_name.json": '\ufeff{"1": "pink primrose"}',
    }
    ((item,), _) = listed("oxford102", source_of(tmp_path, files))
    assert (item.class_name, item.test) == ("pink primrose", True)


@pytest.mark.parametrize(
    ("table", "found"),
    [
        ('file_name,text\r0.png,"a kite\nover the sea"\r1.png,two\r', ["a kite over the sea", "two"]),
        ("file_name,text\r0.png,one\r1.png,two\n", ["one", "two"]),
        ('file_name\ttext\r0.png\t"a kite\nover the sea"\r1.png\ttwo\r\n', ["a kite over the sea", "two"]),
        ("file_name,text\r\r\n0.png,one\r\r\n1.png,two\r\r\n", ["one", "two"]),
        ('file_name,text\r\n0.png,"one\rmore"\r\n1.png,two\r\n', ["one more", "two"]),
    ],
)
def test_a_table_of_carriage_returns_may_have_line_feeds_too(table, found, tmp_path):
    items, reasons = listed("csv", source_of(tmp_path, {"list.csv": table}, images=2))
    assert [caption for item in items for caption in item.captions] == found
    assert reasons == []


def test_a_carriage_return_within_a_line_is_named_for_what_it_is(tmp_path):
    table = "file_name,text\n0.png,a\rkite\n1.png,two\n"
    items, reasons = listed("csv", source_of(tmp_path, {"list.csv": table}, images=2))
    assert [item.captions for item in items] == [("two",)]
    assert "broken line: a carriage return in a cell without quotes" in reasons


def cells(name, text):
    """The captions by image of a table, and the reasons for the rows that are none."""
    reasons = []
    lines = numbered_lines(io.BytesIO(text.encode()), lambda _, reason: reasons.append(reason))
    found = list(read_rows(lines, tabs=name.endswith(".tsv")))
    reasons += [row.reason for row in found if isinstance(row, Fault)]
    return {r.cells[r.columns.image]: r.cells[r.columns.caption] for r in found if isinstance(r, Row)}, reasons


WRITTEN = [
    ("0.jpg", 'a "red" kite, over the sea'),
    ("1.jpg", "a kite\nin the sky\n\nat noon"),
    ("2.jpg", "plain"),
    ("3.jpg", "tabs\tand | bars"),
    ("4.jpg", '"quoted as a whole"'),
    ("5.jpg", '"'),
    ("6.jpg", '12" by 9"'),
    ("7.jpg", "in one line, a comma"),
]


@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("columns", ["image text label", "image text", "text image", "label text image"])
@pytest.mark.parametrize(
    ("name", "delimiter"), [("list.csv", "\t"), ("list.csv", "|"), ("list.tsv", "\t"), ("list.txt", "\t")]
)
def test_what_a_program_quoted_is_read_back_whatever_the_delimiter(name, delimiter, columns, ending, quoting):
    file = io.StringIO()
    writer = csv.DictWriter(
        file, columns.split(), delimiter=delimiter, quoting=quoting, lineterminator=ending, extrasaction="ignore"
    )
    writer.writeheader()
    writer.writerows({"image": image, "text": text, "label": "k"} for image, text in WRITTEN)
    assert cells(name, file.getvalue()) == (dict(WRITTEN), [])


def test_excels_text_of_tabs_quotes_cells_with_commas(tmp_path):
    table = 'file_name\ttext\r\n0.png\t"a ""red"" kite, over the sea"\r\n1.png\t"two, three"\r\n'
    source = source_of(tmp_path, {"list.txt": table.encode("utf-16")}, images=2)
    items, reasons = listed("csv", source / "list.txt")
    assert [item.captions for item in items] == [('a "red" kite, over the sea',), ("two, three",)]
    assert reasons == []


LOOSE = {
    "Flickr8k.token.txt": (
        "",
        "{0}#0\t{1}\n",
        {
            "0.jpg": '"A dog runs .',
            "1.jpg": 'A dog" runs .',
            "2.jpg": '"Stop" sign , a dog , "Go',
            "3.jpg": 'A sign says " no " .',
            "4.jpg": '"',
            "5.jpg": 'A dog in the sun"',
            "6.jpg": '""A dog""',
            "7.jpg": '"A dog .',
        },
    ),
    "results.csv": (
        "image_name| comment_number| comment\n",
        "{0}| 0| {1}\n",
        {
            "0.jpg": '"A dog runs .',
            "1.jpg": '"A dog" .',
            "2.jpg": 'A man " sits .',
            "3.jpg": '"A sign , whole"',
            "4.jpg": '"A dog .',
        },
    ),
    "list.tsv": (
        "image\ttext\n",
        "{0}\t{1}\n",
        {"0.jpg": '"No smoking"', "1.jpg": '"one, two"', "2.jpg": '"open', "3.jpg": 'shut"', "4.jpg": 'a ""b"" c'},
    ),
}


@pytest.mark.parametrize("name", LOOSE)
def test_quotes_that_no_program_set_stay_in_the_text(name):
    header, form, rows = LOOSE[name]
    assert cells(name, header + "".join(form.format(*row) for row in rows.items())) == (rows, [])


@pytest.mark.parametrize("name", ["list.csv", "list.tsv"])
def test_a_quote_left_open_swallows_no_row_of_names_without_an_extension(name):
    table = 'image_id\tcaption\n10\t"a dog\n11\ta cat\n12\tis 12"\n13\tfour\n'
    assert cells(name, table) == ({"10": '"a dog', "11": "a cat", "12": 'is 12"', "13": "four"}, [])
