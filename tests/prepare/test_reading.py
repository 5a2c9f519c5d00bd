"""One reading of splits, columns, classes and text, whatever the source: tables of names, and the same data in each form."""

import csv
import io
import json
import zipfile

import numpy as np
import pytest
from PIL import Image

import t2i
from helpers import packed
from t2i import prepare
from t2i.prepare.collect import SourceOptions
from t2i.prepare.columns import find_columns
from t2i.prepare.kinds import archive_kind, image_kind, is_hidden
from t2i.prepare.lines import numbered_lines
from t2i.prepare.literals import captions_in_cell
from t2i.prepare.splits import split_of_file, split_of_folder, split_of_value
from t2i.prepare.tables import Fault, find_delimiter, read_rows
from t2i.prepare.tree import joined


def image(path, colour=(255, 0, 0), **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (20, 20), colour).save(path, **options)
    return path


def content(data):
    """What a pack holds: {name: (captions, class or None, held out)}."""
    names = bytes(data.extra("names")).decode().split("\n")
    return {
        name: (
            data.captions_of(row),
            data.class_names[data.classes[row]] if data.class_names else None,
            bool(data.splits[row]),
        )
        for row, name in enumerate(names)
    }


# Splits.

NAMES = ["test", "testing", "validation", "valid", "val", "dev", "eval", "evaluation"]


@pytest.mark.parametrize(
    ("value", "held_out"),
    [
        *((name, True) for name in NAMES),
        *((name, False) for name in ("train", "training", "Train", "TRAIN ", "restval", "trainval", "train2017")),
        *((name, True) for name in ("holdout", "heldout", "Held-Out", "my hold_out", "unseen", "val_unseen")),
        *((name, True) for name in ("Validation", " TEST", "val2014", "test-dev2015", "test_seen", "Val-1")),
        *((name, None) for name in ("", "extra", "unlabeled", "contest", "train or test", "0", None, 3)),
    ],
)
def test_a_value_of_a_split_column_is_read_by_its_words(value, held_out):
    assert split_of_value(value) is held_out


@pytest.mark.parametrize(
    ("name", "held_out"),
    [
        *((name, True) for name in NAMES),
        *(
            (name, True)
            for name in ("Test", "VAL", "val2017", "test_set", "valImages", "test-images", "validation data")
        ),
        *((name, False) for name in ("train", "Training", "train2014", "training_set", "trainImages")),
        *(
            (name, None)
            for name in ("red", "test tubes", "crash test", "images", "valley", "developers", "train station")
        ),
    ],
)
def test_a_folder_is_a_split_where_its_name_says_nothing_else(name, held_out):
    assert split_of_folder(name) is held_out


@pytest.mark.parametrize(
    ("name", "held_out"),
    [
        ("captions_val2014.json", True),
        ("test-00000-of-00001.parquet", True),
        ("cc3m-validation-0001.tar", True),
        ("dev.csv", True),
        ("my_eval_set.tsv", True),
        ("train.csv", False),
        ("captions_train2017.json", False),
        ("train_val.csv", None),
        ("list.csv", None),
        ("contest.csv", None),
        ("evaluations.csv", None),
    ],
)
def test_the_name_of_a_file_of_many_images_may_hold_a_split(name, held_out):
    assert split_of_file(name) is held_out


HELD_OUT = ["test", "testing", "valid", "Val", "dev", "eval", "evaluation", "validation", "val2014", "test_set"]
HELD_OUT += ["holdout", "held_out", "Hold-out"]


def folder_form(root, split):
    for name in ("train/a.png", f"{split}/b.png"):
        image(root / name)
        (root / name).with_suffix(".txt").write_text("x\n")
    return "folder"


def class_form(root, split):
    """The split below the class, as some have it."""
    for name in ("red/train/a.png", f"blue/{split}/b.png"):
        image(root / name)
        (root / name).with_suffix(".txt").write_text("x\n")
    return "folder"


def metadata_form(root, split):
    rows = [{"file_name": "a.png", "text": "x", "split": "train"}, {"file_name": "b.png", "text": "x", "Split": split}]
    for row in rows:
        image(root / row["file_name"])
    (root / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return "folder"


def table_form(root, split):
    image(root / "a.png"), image(root / "b.png")
    (root / "t.csv").write_text(f"image,caption,SPLIT\na.png,x,train\nb.png,x,{split}\n")
    return "csv"


def table_name_form(root, split):
    image(root / "a.png"), image(root / "b.png")
    (root / "train.csv").write_text("image,caption\na.png,x\n")
    (root / f"{split}.csv").write_text("image,caption\nb.png,x\n")
    return "csv"


def coco_form(root, split):
    for name, image_name in (("train", "a.png"), (split, "b.png")):
        image(root / "images" / image_name)
        record = {"images": [{"id": 1, "file_name": image_name}], "annotations": [{"image_id": 1, "caption": "x"}]}
        (root / "annotations").mkdir(exist_ok=True)
        (root / "annotations" / f"captions_{name}.json").write_text(json.dumps(record))
    return "coco"


def karpathy_form(root, split):
    rows = [
        {"filename": name, "split": part, "sentences": [{"raw": "x"}]}
        for name, part in (("a.png", "train"), ("b.png", split))
    ]
    image(root / "images" / "a.png"), image(root / "images" / "b.png")
    (root / "dataset_mine.json").write_text(json.dumps({"images": rows}))
    return "coco"


def tar_form(root, split):
    from test_bringing import tar_file

    encoded = io.BytesIO()
    Image.new("RGB", (20, 20)).save(encoded, "PNG")
    tar_file(root / "train-000.tar", ("a.png", encoded.getvalue()), ("a.txt", b"x"))
    tar_file(root / f"{split}-000.tar", ("b.png", encoded.getvalue()), ("b.txt", b"x"))
    return "webdataset"


def parquet_form(root, split):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    encoded = io.BytesIO()
    Image.new("RGB", (20, 20)).save(encoded, "PNG")
    root.mkdir()
    parquet.write_table(
        pyarrow.table({"Image": [encoded.getvalue()] * 2, "Caption": ["x", "x"], "split": ["train", split]}),
        root / "a.parquet",
    )
    return "parquet"


FORMS = [
    folder_form,
    class_form,
    metadata_form,
    table_form,
    table_name_form,
    coco_form,
    karpathy_form,
    tar_form,
    parquet_form,
]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("split", HELD_OUT)
def test_every_name_of_a_held_out_split_is_read_in_every_source(tmp_path, form, split):
    data, report = packed(form(tmp_path / "mine", split), tmp_path / "mine", tmp_path)
    assert (report.train, report.test) == (1, 1)
    assert data.splits.tolist().count(1) == 1
    assert not {"train", split} & set(data.class_names)


def test_an_unknown_split_is_trained_on_and_said(tmp_path):
    source = tmp_path / "mine"
    image(source / "a.png"), image(source / "b.png")
    (source / "t.csv").write_text("image,text,split\na.png,x,secret\nb.png,y,secret\n")
    _, report = packed("csv", source, tmp_path)
    assert report.train == 2
    assert "2 rows have the split 'secret', which is no known name: read as training" in report.summary()


def test_a_source_that_is_all_held_out_says_so(tmp_path):
    source = tmp_path / "mine"
    image(source / "a.png")
    (source / "test.csv").write_text("image,text\na.png,x\n")
    assert "every image is held out" in packed("csv", source, tmp_path)[1].summary()


# Columns.


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["file_name", "text"], ("file_name", "text", None, ())),
        (["File Name", "CAPTION"], ("File Name", "CAPTION", None, ())),
        (["\ufeffimage", "caption", "split"], ("\ufeffimage", "caption", None, ("split",))),
        (["", "image", "Description", "Label"], ("image", "Description", "Label", ())),
        (["id", "image_name", "comment_number", "comment"], ("image_name", "comment", None, ())),
        (["image_id", "caption"], ("image_id", "caption", None, ())),
        (["raw", "sentids", "split", "filename", "img_id"], ("filename", "raw", None, ("split",))),
        (["text", "image-path", "class name"], ("image-path", "text", "class name", ())),
        (["caption", "text", "file"], ("file", "text", None, ())),
    ],
)
def test_columns_are_found_by_their_usual_names(names, found):
    columns = find_columns(names)
    assert (columns.image, columns.caption, columns.label, columns.splits) == found


@pytest.mark.parametrize(
    ("names", "options", "says"),
    [
        (["a", "text"], {}, "no column of images; the columns are a, text: choose one with --image-column"),
        (["image", "Findings"], {}, "no column of captions; the columns are image, Findings: .* --caption-column"),
        (["image", "text"], {"caption": "title"}, "no column 'title'; the columns are image, text"),
        (["image", "text"], {"image": "Path"}, "no column 'Path'; the columns are image, text"),
        (["image"], {"caption": "image"}, "no column 'image'"),
    ],
)
def test_a_column_that_is_not_there_lists_those_that_are(names, options, says):
    with pytest.raises(t2i.DataError, match=says):
        find_columns(names, **options)


def test_columns_are_chosen_by_name_without_case():
    columns = find_columns(["Bild", "Titel", "text", "image"], image="bild", caption="TITEL")
    assert (columns.image, columns.caption) == ("Bild", "Titel")


@pytest.mark.parametrize("form", ["jsonl", "csv", "tsv", "parquet"])
def test_image_and_caption_columns_are_chosen_in_every_form(tmp_path, form):
    source = tmp_path / "mine"
    image(source / "a.png")
    options = SourceOptions(image_column="Bild", caption_column="titel")
    row = {"text": "not this", "Bild": "a.png", "Titel": "a kite"}
    if form == "jsonl":
        (source / "metadata.jsonl").write_text(json.dumps(row))
    elif form == "parquet":
        pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        parquet.write_table(pyarrow.Table.from_pylist([row]), source / "metadata.parquet")
    else:
        mark = "," if form == "csv" else "\t"
        (source / f"t.{form}").write_text(f"{mark.join(row)}\n{mark.join(row.values())}\n")
    data, _ = packed("csv" if form in ("csv", "tsv") else "folder", source, tmp_path, options=options)
    assert content(data) == {"a.png": (["a kite"], None, False)}


def label_rows(root, form):
    rows = [
        {"file_name": f"{n}.png", "text": f"number {n}", "label": "ab"[n % 2], "split": "test" if n > 3 else "train"}
        for n in range(6)
    ]
    for row in rows:
        image(root / row["file_name"])
    if form == "metadata.jsonl":
        (root / form).write_text("\n".join(map(json.dumps, rows)))
    elif form == "metadata.json":
        (root / form).write_text(json.dumps(rows))
    elif form.endswith("parquet"):
        pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        parquet.write_table(pyarrow.Table.from_pylist(rows), root / form)
    else:
        with open(root / form, "w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), delimiter="\t" if form.endswith("tsv") else ",")
            writer.writeheader()
            writer.writerows(rows)


@pytest.mark.parametrize(
    ("kind", "form"),
    [
        ("folder", "metadata.jsonl"),
        ("folder", "metadata.csv"),
        ("folder", "metadata.parquet"),
        ("folder", "metadata.json"),
        ("huggingface", "metadata.jsonl"),
        ("csv", "metadata.csv"),
        ("csv", "list.tsv"),
        ("parquet", "list.parquet"),
    ],
)
def test_the_same_rows_are_the_same_data_set_in_every_form(tmp_path, kind, form):
    source = tmp_path / "mine"
    source.mkdir()
    label_rows(source, form)
    data, report = packed(kind, source, tmp_path)
    assert content(data) == {f"{n}.png": ([f"number {n}"], "ab"[n % 2], n > 3) for n in range(6)}
    assert (report.classes, report.train, report.test) == (2, 4, 2)


@pytest.mark.parametrize("form", ["metadata.jsonl", "metadata.csv", "t.csv", "list.json", "captions_a.json"])
def test_several_rows_of_one_file_are_captions_of_one_image(tmp_path, form):
    source = tmp_path / "mine"
    image(source / "a.png"), image(source / "b.png")
    rows = [("a.png", "one"), ("b.png", "two"), ("./a.png", "three")]
    listed = [{"file_name": name, "text": text} for name, text in rows]
    if form.endswith("jsonl"):
        (source / form).write_text("\n".join(map(json.dumps, listed)))
    elif form == "list.json":
        (source / form).write_text(json.dumps(listed))
    elif form == "captions_a.json":
        images = [{"id": str(n), "file_name": name} for n, (name, _) in enumerate(rows)]
        captions = [{"image_id": n, "caption": text} for n, (_, text) in enumerate(rows)]
        (source / form).write_text(json.dumps({"images": images, "annotations": captions}))
    else:
        (source / form).write_text("file_name,text\n" + "".join(f"{name},{text}\n" for name, text in rows))
    kind = "folder" if form.startswith("metadata") else "coco" if form.startswith("captions") else "csv"
    place = source / form if form == "list.json" else source
    data, report = packed(kind, place, tmp_path)
    assert content(data) == {"a.png": (["one", "three"], None, False), "b.png": (["two"], None, False)}
    assert report.skipped == []


def test_rows_of_one_image_that_disagree_are_named(tmp_path):
    source = tmp_path / "mine"
    image(source / "a.png")
    (source / "t.csv").write_text("image,text,label,split\na.png,x,kite,train\na.png,y,boat,train\na.png,z,kite,test\n")
    data, report = packed("csv", source, tmp_path)
    assert content(data) == {"a.png": (["x"], "kite", False)}
    assert [reason for _, reason in report.skipped] == [
        "another class for its image: boat, after kite",
        "another split for its image than on a row before",
    ]


@pytest.mark.parametrize(
    ("cell", "captions"),
    [
        ('["a", "b"]', ["a", "b"]),
        ("['a', 'b']", ["a", "b"]),
        ("['a' 'b']", ["a", "b"]),
        ("['it\\'s'\n \"b, 'c' d\"]", ["it's", "b, 'c' d"]),
        ('["a", null]', ["a", None]),
        ("['a', None]", ["a", None]),
        ("('a', \"b's\")", ["a", "b's"]),
        ("('a' and b)", "('a' and b)"),
        ("[]", []),
        (" [ ] ", " [ ] "),
        ('{"en": "a", "de": "b"}', {"en": "a", "de": "b"}),
        (
            "[{'raw': 'a', 'sentid': 3}, {'raw': 'b', 'sentid': 4}]",
            [{"raw": "a", "sentid": 3}, {"raw": "b", "sentid": 4}],
        ),
        ("{'a', 'b'}", "{'a', 'b'}"),
        ("{a kite}", "{a kite}"),
        ('["Help" on a wall]', '["Help" on a wall]'),
        ('{"x": 0.5}', '{"x": 0.5}'),
        ("['\\d' 'b']", ["\\d", "b"]),
        ("['it\\'s']", ["it's"]),
        (f"['x', {'-' * 9999}1]", f"['x', {'-' * 9999}1]"),
        ("[a]", "[a]"),
        ("[1, 2]", "[1, 2]"),
        ('["a", 2]', '["a", 2]'),
        ("a [b]", "a [b]"),
        ('["a"', '["a"'),
        ("['a' + 'b']", "['a' + 'b']"),
        (["a"], ["a"]),
        ("['" + "[" * 5000 + "']", ["[" * 5000]),
        ("['x', " + "[" * 5000 + "]", "['x', " + "[" * 5000 + "]"),
    ],
)
def test_a_cell_that_is_a_list_of_strings_is_several_captions(cell, captions):
    assert captions_in_cell(cell) == captions


# Tables.


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


# Text.


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


# Names and kinds of file.


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
