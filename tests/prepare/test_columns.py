"""Columns of tables by their names, and the same rows as one data set in every form."""

import csv
import json

import pytest

import t2i
from helpers import packed
from source_files import content, image
from t2i.prepare.collect import SourceOptions
from t2i.prepare.columns import find_columns
from t2i.prepare.literals import captions_in_cell


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
        (["文件名", "描述", "类别", "划分"], ("文件名", "描述", "类别", ("划分",))),
        (["編號", "圖片", "說明", "分類"], ("圖片", "說明", "分類", ())),
        (["类别", "text", "image"], ("image", "text", "类别", ())),
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
    image(source / "b.png")
    rows = ["a.png,x,kite,train", "a.png,y,boat,train", "a.png,z,kite,test", "b.png,w,boat,train"]
    (source / "t.csv").write_text("\n".join(["image,text,label,split", *rows]) + "\n")
    data, report = packed("csv", source, tmp_path)
    assert content(data) == {"a.png": (["x"], "kite", False), "b.png": (["w"], "boat", False)}
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
