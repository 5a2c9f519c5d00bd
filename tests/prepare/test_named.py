"""What is read as it was meant, or named with its reason: splits, encodings, quotes, formats, order and names in archives."""

import csv
import io
import json
import struct
import zipfile
import zlib

import pytest
from PIL import Image
from test_bringing import tar_file

import t2i
from helpers import packed
from t2i import prepare
from t2i.prepare.collect import SourceOptions
from t2i.prepare.kinds import image_kind
from t2i.prepare.lines import decode, numbered_lines
from t2i.prepare.splits import split_of_folder, split_of_value
from t2i.prepare.tables import Fault, Row, read_rows

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
    what = "samples" if kind == "webdataset" else "rows"
    assert note.startswith(f"3 {what} have the set '1', '2', which is no known name: read as training")
    assert "table" not in note


@pytest.mark.parametrize("column", ["set", "subset", "phase"])
@pytest.mark.parametrize("kind", ["csv", "webdataset"])
def test_a_set_that_is_never_a_split_is_something_else(column, kind, tmp_path):
    sets = ["Base Set", "Jungle", "Fossil"]
    files = {"list.csv": f"file_name,text,{column}\n" + "".join(f"{n}.png,x,{name}\n" for n, name in enumerate(sets))}
    source = source_of(tmp_path, files, images=3) if kind == "csv" else tmp_path / "mine"
    if kind == "webdataset":
        for n, name in enumerate(sets):
            facts = json.dumps({"text": "x", column: name}).encode()
            tar_file(source / f"{n}.tar", (f"{n}.png", PNG), (f"{n}.json", facts))
    data, report = packed(kind, source, tmp_path)
    assert (data.splits.tolist(), report.notes) == ([0, 0, 0], [])


def test_many_values_that_say_no_split_are_one_line(tmp_path):
    rows = "".join(f"{n}.png,x,Lego {n},perhaps\n" for n in range(9))
    source = source_of(tmp_path, {"list.csv": f"file_name,text,partition,is_val\n{rows}"}, images=9)
    _, report = packed("csv", source, tmp_path)
    assert [note.partition(":")[0] for note in report.notes] == [
        "9 rows have the partition 'Lego 0', 'Lego 1', 'Lego 2', 'Lego 3', 'Lego 4' and 4 more, which is no known name",
        "9 rows have the is_val 'perhaps', which is neither true nor false",
    ]


def test_a_split_of_save_to_disk_that_has_no_known_name_is_named(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    files = {"dataset_dict.json": json.dumps({"splits": ["train", "holdout", "extra"]})}
    for split in ("train", "holdout", "extra"):
        stream = io.BytesIO()
        rows = pyarrow.table({"image": [PNG], "text": [split]})
        with pyarrow.ipc.new_stream(stream, rows.schema) as writer:
            writer.write_table(rows)
        files[f"{split}/data.arrow"] = stream.getvalue()
        files[f"{split}/state.json"] = json.dumps({"_data_files": [{"filename": "data.arrow"}]})
    data, report = packed("huggingface", source_of(tmp_path, files), tmp_path)
    assert data.splits.tolist() == [0, 1, 0]
    assert report.notes == ["no known names of splits, read as training: extra"]


def test_a_column_of_lists_is_no_split_and_no_reason_to_stop(tmp_path):
    source = source_of(tmp_path, {"a.parquet": parquet_rows([{"partition": ["a", "b"]}])})
    _, report = packed("parquet", source, tmp_path)
    assert (report.train, report.skipped) == (1, [])
    assert "which is no known name" in report.notes[0]


# Encodings.

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


# The line ends of old Macs.


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


# Quotes in tables of tabs and bars.


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


# Formats.


def encoded(kind):
    file = io.BytesIO()
    Image.new("P" if kind == "mapped TGA" else "RGB", (20, 20), 9).save(file, kind.removeprefix("mapped "))
    return file.getvalue()


UNREAD = ["TGA", "mapped TGA", "PCX", "SGI", "EPS", "ICNS", "DDS"]


@pytest.mark.parametrize("kind", UNREAD)
@pytest.mark.parametrize("source", ["folder", "csv", "webdataset"])
def test_an_image_of_a_format_that_is_not_read_is_named_with_it(kind, source, tmp_path):
    name = f"x.{kind[-4:].strip().lower()}"
    files = {"0.png": PNG, "0.txt": "good", name: encoded(kind), "x.txt": "a kite"}
    if source == "csv":
        files = {**files, "list.csv": f"file_name,text\n0.png,good\n{name},a kite\n"}
    place = source_of(tmp_path, files) if source != "webdataset" else tmp_path / "mine"
    if source == "webdataset":
        tar_file(
            place / "a.tar",
            *((name, data if isinstance(data, bytes) else data.encode()) for name, data in files.items()),
        )
    data, report = packed(source, place, tmp_path)
    assert captions(data) == {"0.png": ["good"]}
    said = {"ICNS": "icon", "EPS": "PostScript"}.get(kind, kind.removeprefix("mapped "))
    assert f"unsupported: {said} is not read; convert it to JPEG or PNG" in [reason for _, reason in report.skipped]


@pytest.mark.parametrize("source", ["folder", "webdataset"])
def test_an_index_that_begins_like_an_image_is_none(source, tmp_path):
    index = b"\0\0\2" + bytes(9) + b"\x20\0\x20\0\x20\x08" + bytes(30)
    files = {"0.png": PNG, "0.txt": b"good", "features.idx": index}
    place = source_of(tmp_path, files) if source == "folder" else tmp_path / "mine"
    if source == "webdataset":
        tar_file(place / "a.tar", *files.items())
    data, report = packed(source, place, tmp_path)
    assert captions(data) == {"0.png": ["good"]}
    assert [reason for _, reason in report.skipped] == ["no image in its sample"] * (source == "webdataset")
    assert image_kind(index) == "TGA"
    assert image_kind(index[:8] + b"\3\0\1\0" + index[12:]) is None  # a picture that lies beside its origin


@pytest.mark.parametrize("source", ["folder", "csv", "webdataset"])
def test_a_cameras_raw_file_is_not_taken_for_the_preview_in_it(source, tmp_path):
    file = io.BytesIO()
    Image.new("RGB", (20, 20)).save(file, "TIFF")
    files = {"0.png": PNG, "0.txt": b"good", "x.dng": file.getvalue(), "x.txt": b"a kite"}
    if source == "csv":
        files = {**files, "list.csv": b"file_name,text\n0.png,good\nx.dng,a kite\n"}
    place = source_of(tmp_path, files) if source != "webdataset" else tmp_path / "mine"
    if source == "webdataset":
        tar_file(place / "a.tar", *files.items())
    data, report = packed(source, place, tmp_path)
    assert captions(data) == {"0.png": ["good"]}
    assert any("a camera's raw file" in reason for _, reason in report.skipped)


def test_a_file_of_any_kind_with_a_caption_beside_it_is_named(tmp_path):
    files = {
        "0.png": PNG,
        "0.txt": "good",
        "0.bin": b"\0\1",
        "v.mp4": b"\0\0\0\x18ftypisom",
        "v.txt": "a kite",
        "w.mp4": b"\0",
    }
    _, report = packed("folder", source_of(tmp_path, files), tmp_path)
    assert report.skipped == [
        (str(tmp_path / "mine" / "v.mp4"), "no image of a known format, though v.txt may be its caption")
    ]
    assert dict(report.account.ignored) == {"of other kinds": 2, "text files without an image of the same name": 1}


@pytest.mark.parametrize(
    "data",
    [
        b"\0\0\2\0\1\0\x20\x20" + bytes(40),  # a cursor
        b"\0\0\1\xba" + bytes(40),  # MPEG
        bytes(18),
        b"\x0a\x0a\1\1 text",
        b"\1\xda",
        b"\0\0\2" + bytes(9) + b"\x14\0\x14\0\x20\xff",
    ],
)
def test_bytes_that_only_begin_like_an_image_are_none(data):
    assert image_kind(data) is None


# The order of members in archives.

SAMPLES = [(f"{n}.png", f"{n}.txt", f"{n}.cls") for n in range(4)]
ORDERS = {
    "one by one": [name for sample in SAMPLES for name in sample],
    "kind by kind": [name for kind in zip(*SAMPLES, strict=True) for name in kind],
    "texts first": [name for kind in zip(*SAMPLES, strict=True) for name in sorted(kind, reverse=True)][::-1],
    "any": ["0.png", "0.txt", "2.txt", "1.png", "1.cls", "0.cls", "2.cls", "3.cls", "2.png", "3.txt", "1.txt", "3.png"],
}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(
    ("name", "mode", "kept"), [("a.tar", "w", 99), ("a.tar.gz", "w:gz", 99), ("a.tar.gz", "w:gz", 0)]
)
def test_the_members_of_a_sample_may_stand_apart(order, name, mode, kept, tmp_path, monkeypatch):
    monkeypatch.setattr("t2i.prepare.sources.webdataset.MAX_WAITING_BYTES", kept)
    content = {".png": PNG, ".txt": b"a kite", ".cls": b"7"}
    members = [(name, f"a kite, {name[0]}".encode() if ".txt" in name else content[name[1:]]) for name in ORDERS[order]]
    tar_file(tmp_path / "mine" / name, *members)
    data, report = packed("webdataset", tmp_path / "mine", tmp_path)
    assert captions(data) == {f"{n}.png": [f"a kite, {n}"] for n in range(4)}
    # Where image and text follow each other the sample is whole, and a class that comes later is not waited for.
    late = [(f"{tmp_path / 'mine' / name}: 0.cls", "no image in its sample")] if order == "any" else []
    assert report.skipped == late
    assert list(data.class_names) == ([] if late else ["7"])


def test_what_stays_alone_in_a_shard_is_named(tmp_path):
    members = [
        ("0.png", PNG),
        ("1.txt", b"x"),
        ("2.png", PNG),
        ("2.txt", b"x"),
        ("0.cls", b"7"),
        ("0.png", PNG),
        ("2.txt", b"y"),
    ]
    tar_file(tmp_path / "mine" / "a.tar", *members)
    data, report = packed("webdataset", tmp_path / "mine", tmp_path)
    assert captions(data) == {"2.png": ["x"]}
    assert sorted((place.rpartition(": ")[2], reason) for place, reason in report.skipped) == [
        ("0.png", "a second member of this name in its sample"),
        ("0.png", "no captions: neither a .txt nor a .json in its sample"),
        ("1.txt", "no image in its sample"),
        ("2.txt", "no image in its sample"),
    ]


# Names in zips.


class Old(zipfile.ZipInfo):
    """A member as old programs write it: its name in some encoding, and no word of which."""

    encoding = "gbk"

    def _encodeFilenameFlags(self):  # noqa: N802
        return self.filename.encode(self.encoding), self.flag_bits & ~0x800


def old_zip(path, files, encoding="gbk", unicode_path=False):
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as made:
        for name, data in files.items():
            member = Old(name)
            member.encoding = encoding
            if unicode_path:
                field = b"\1" + struct.pack("<I", zlib.crc32(name.encode(encoding))) + name.encode()
                member.extra = struct.pack("<HH", 0x7075, len(field)) + field
            made.writestr(member, data)
    return path


CHINESE = {
    "花/乗.png": PNG,
    "花/乗.txt": "一只风筝",
    "鸟/二.png": PNG,
    "鸟/二.txt": "一只鸟",
}  # 乗 has a backslash in GBK


@pytest.mark.parametrize(
    ("encoding", "unicode_path", "options"),
    [
        ("gbk", False, SourceOptions(zip_names="gb18030")),
        ("gbk", True, SourceOptions()),
        ("utf-8", False, SourceOptions()),
        ("gbk", True, SourceOptions(zip_names="big5")),  # what the archive says itself comes first
    ],
)
def test_names_of_a_zip_are_read_where_their_encoding_is_known(encoding, unicode_path, options, tmp_path):
    source = old_zip(tmp_path / "a.zip", CHINESE, encoding, unicode_path)
    data, report = packed("folder", source, tmp_path, options=options)
    assert captions(data) == {"花/乗.png": ["一只风筝"], "鸟/二.png": ["一只鸟"]}
    assert set(data.class_names) == {"花", "鸟"}
    assert report.notes == report.skipped == []


def test_names_of_a_zip_of_unknown_encoding_are_noted_with_what_to_do(tmp_path):
    source = old_zip(tmp_path / "a.zip", {"花/一.png": PNG, "花/一.txt": "x", "b.png": PNG, "b.txt": "y"})
    _, report = packed("folder", source, tmp_path)
    assert report.notes[0] == (
        "a.zip does not say the encoding of its names; they are read as cp437, such as '╗¿/╥╗.png': --zip-names gb18030 "
        "would make that '花/一.png'"
    )
    source = old_zip(tmp_path / "b.zip", {"\xfc.png": PNG, "\xfc.txt": "x"}, "cp437")
    data, report = packed("folder", source, tmp_path)
    assert list(captions(data)) == ["\xfc.png"]
    assert "such as '\xfc.png': --zip-names" in report.notes[0]


def test_a_table_whose_images_have_other_names_in_a_zip_says_why(tmp_path):
    table = {"metadata.csv": "file_name,text\n花.png,a flower\n", "花.png": PNG}
    source = old_zip(tmp_path / "a.zip", table)
    with pytest.raises(t2i.DataError, match=r"--zip-names gb18030 would make that '花\.png'"):
        packed("folder", source, tmp_path)
    data, _ = packed("folder", source, tmp_path, options=SourceOptions(zip_names="gb18030"))
    assert captions(data) == {"花.png": ["a flower"]}
    place = source_of(tmp_path, {"metadata.csv": table["metadata.csv"]})  # images.zip beside its table
    old_zip(place / "images.zip", {"花.png": PNG})
    data, _ = packed("folder", place, tmp_path, options=SourceOptions(zip_names="gb18030"))
    assert captions(data) == {"花.png": ["a flower"]}


def test_a_name_that_is_not_of_the_encoding_given_is_named(tmp_path):
    source = old_zip(tmp_path / "a.zip", {"a.png": PNG, "a.txt": "x", "\xfc.png": PNG}, "latin-1")
    data, report = packed("folder", source, tmp_path, options=SourceOptions(zip_names="utf-8"))
    assert list(captions(data)) == ["a.png"]
    assert [reason for _, reason in report.skipped] == ["its name is not utf-8"]


@pytest.mark.parametrize("name", ["klingon", "hex", "utf-16"])
def test_an_encoding_of_names_that_is_none_is_refused(name, tmp_path):
    with pytest.raises(t2i.ConfigError, match=f"--zip-names must be an encoding, such as gb18030 or cp932, got {name}"):
        packed("folder", source_of(tmp_path, {}, 1), tmp_path, options=SourceOptions(zip_names=name))
    with pytest.raises(t2i.ConfigError, match="--zip-names has no effect on cub"):
        packed("cub", tmp_path / "mine", tmp_path, options=SourceOptions(zip_names="gb18030"))
