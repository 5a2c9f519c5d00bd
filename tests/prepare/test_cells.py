"""What a cell of captions or classes holds, read alike in every source: objects, languages, empty cells, repeated columns."""

import csv
import io
import json
import tarfile

import pytest
from PIL import Image

from t2i import prepare
from t2i.errors import DataError
from t2i.prepare.collect import SourceOptions
from t2i.prepare.columns import captions_of_cell, class_of, distinct, find_columns
from t2i.prepare.languages import are_languages


def encoded(number):
    file = io.BytesIO()
    Image.new("RGB", (20, 20), (number * 20 % 256, 0, 200)).save(file, "PNG")
    return file.getvalue()


def add_to_tar(tar, name, data):
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def write(root, form, header, rows):
    """Write rows of cells beside their images, or with their images inside."""
    root.mkdir(exist_ok=True)
    embedded = form in ("parquet", "arrow", "tar")
    if not embedded:
        for number in range(len(rows)):
            (root / f"{number}.png").write_bytes(encoded(number))
    names = [f"{number}.png" for number in range(len(rows))]
    if form in ("parquet", "arrow", "metadata.parquet"):
        pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        image = [{"bytes": encoded(n), "path": None} for n in range(len(rows))] if embedded else names
        columns = [pyarrow.array(image), *map(pyarrow.array, zip(*rows, strict=True))]
        table = pyarrow.Table.from_arrays(columns, names=["image", *header])
        if form == "arrow":
            (root / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data.arrow"}]}))
            with (
                pyarrow.OSFile(str(root / "data.arrow"), "wb") as file,
                pyarrow.ipc.new_stream(file, table.schema) as out,
            ):
                out.write_table(table)
        else:
            parquet.write_table(table, root / ("t.parquet" if embedded else form))
        return
    objects = [
        "{" + ", ".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in zip(header, row, strict=True)) + "}"
        for row in rows
    ]
    if form == "tar":
        with tarfile.open(root / "t.tar", "w") as tar:
            for number, text in enumerate(objects):
                add_to_tar(tar, f"{number}.png", encoded(number))
                add_to_tar(tar, f"{number}.json", text.encode())
    elif form == "sidecars":
        for number, text in enumerate(objects):
            (root / f"{number}.json").write_text(text)
    elif form == "metadata.jsonl":
        lines = (f'{{"file_name": "{name}", {text[1:]}' for name, text in zip(names, objects, strict=True))
        (root / form).write_text("\n".join(lines))
    elif form == "by image.json":
        lines = (f'"{name}": {text}' for name, text in zip(names, objects, strict=True))
        (root / form).write_text("{" + ", ".join(lines) + "}")
    else:
        with open(root / form, "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerows([["file_name", *header], *([name, *row] for name, row in zip(names, rows, strict=True))])


KINDS = {
    "metadata.jsonl": "folder",
    "metadata.parquet": "folder",
    "sidecars": "folder",
    "by image.json": "csv",
    "t.csv": "csv",
    "parquet": "parquet",
    "arrow": "huggingface",
    "tar": "webdataset",
}
OBJECTS = [form for form in KINDS if form not in ("t.csv", "metadata.parquet")]


def listed(root, form, header, rows, **options):
    """List what was written: (captions, class) by row, and the report."""
    write(root, form, header, rows)
    report = prepare.Report()
    source = root / form if KINDS[form] == "csv" else root
    items = list(prepare.SOURCES[KINDS[form]](source, report, SourceOptions(**options)))
    return {
        int("".join(filter(str.isdigit, item.place()[len(str(root)) :]))): (list(item.captions), item.class_name)
        for item in items
    }, report


# Objects.


@pytest.mark.parametrize(
    ("cell", "captions"),
    [
        ({"en": "a kite", "zh": "风筝"}, ["a kite", "风筝"]),
        ({"zh-CN": "风筝", "pt_BR": "uma pipa", "EN": "a kite"}, ["风筝", "uma pipa", "a kite"]),
        ({"eng_Latn": "a kite", "zho_Hans": "风筝"}, ["a kite", "风筝"]),
        ({"English": "a kite", "chinese": "风筝", "中文": "风筝"}, ["a kite", "风筝", "风筝"]),
        ({"caption_en": "a kite", "caption_zh": "风筝"}, ["a kite", "风筝"]),
        ({"en": ["a kite", "a toy"], "zh": None}, ["a kite", "a toy"]),
        ({"en": None, "zh": "nan"}, []),
        ({"caption": "a kite", "model": "blip2-opt", "created": "2024-01-03"}, ["a kite"]),
        ({"caption": None, "model": "blip2-opt"}, []),
        ({"text": "", "caption": "a kite"}, ["a kite"]),
        ({"text": "a kite", "score": 0.3}, ["a kite"]),
        ({"caption_1": "b", "caption_0": "a", "source": "x"}, ["a", "b"]),
        ({"caption": "a", "caption_cn": "b", "caption_model": "blip"}, ["a", "b"]),
        ({"text": "a", "text_zh": "b", "prompt": "describe it"}, ["a", "b"]),
        ({"short_caption": "a", "detailed_caption": "b", "url": "x"}, ["a", "b"]),
        ({"caption_short": "a", "caption_long": ["b"], "caption_score": 3}, ["a", "b"]),
        ({"text": "a", "negative_prompt": "b", "alt_text": "c"}, ["a"]),
        ({"10": "c", "2": "b", "0": "a"}, ["a", "b", "c"]),
        ([{"raw": "a kite", "tokens": ["a", "kite"]}, {"raw": "a toy", "tokens": []}], ["a kite", "a toy"]),
        (["a kite", None, "nan", " "], ["a kite"]),
        ('["a kite", "None"]', ["a kite"]),
        (float("nan"), []),
        ({}, []),
        (None, []),
        ("none of them fly", ["none of them fly"]),
    ],
)
def test_the_captions_of_a_cell(cell, captions):
    assert captions_of_cell(cell) == captions


@pytest.mark.parametrize(
    "keys",
    [
        ("en", "cn"),
        ("en", "jp", "kr"),
        ("chs", "cht", "ua", "chn"),
        ("simplified chinese", "Traditional_Chinese", "Chinese (Simplified)", "Brazilian Portuguese"),
        ("caption_en", "caption_cn"),
        ("br", "gr", "cz", "dk", "se", "zh_cn", "zh-hans", "hant", "en_us", "eng", "zho", "chi", "jpn", "kor"),
    ],
)
def test_keys_that_are_languages(keys):
    assert are_languages(keys, ("caption",))
    assert captions_of_cell(dict.fromkeys(keys, "x")) == ["x"] * len(keys)


@pytest.mark.parametrize(
    "keys",
    [
        ("traditional", "simplified"),
        ("blip", "human"),
        ("us", "uk"),
        ("en", "alt"),
        ("en", "by"),
        ("cat", "dog"),
        ("title", "author"),
        ("en", "url"),
        ("alt", "src"),
        ("id",),
        ("id", "no"),
        ("by",),
        ("raw_url",),
        ("en", "source"),
        ("image_id",),
        ("caption_model",),
        ("",),
    ],
)
def test_keys_that_are_no_languages(keys):
    assert not are_languages(keys, ("caption",))
    cell = dict.fromkeys(keys, "x")
    with pytest.raises(
        DataError, match=f"text holds an object of {', '.join(keys)}, none .* --caption-column text.{keys[0]}"
    ):
        captions_of_cell(cell)


TITLES = [{"title": f"Kite {number}", "author": "Ann Lee", "licence": "CC-BY"} for number in range(2)]


@pytest.mark.parametrize("form", OBJECTS)
def test_what_is_said_of_an_image_is_no_caption_until_it_is_chosen(tmp_path, form):
    rows = [[row] for row in TITLES]
    found, report = listed(tmp_path, form, ["text"], rows)
    assert found == {}
    assert (
        len(
            [
                why
                for _, why in report.skipped
                if "title, author, licence" in why and "--caption-column text.title" in why
            ]
        )
        == 2
    )
    found, _ = listed(tmp_path, form, ["text"], rows, caption_column="text.Title")
    assert found == {0: (["Kite 0"], None), 1: (["Kite 1"], None)}
    found, report = listed(tmp_path, form, ["text"], rows, caption_column="text.name")
    assert found == {}
    assert (
        len([why for _, why in report.skipped if "no 'name' in text, which holds an object of title, author" in why])
        == 2
    )


@pytest.mark.parametrize("form", ["by image.json", "metadata.jsonl"])
def test_columns_that_are_no_captions_are_listed(tmp_path, form):
    rows = [list(row.values()) for row in TITLES]
    found, report = listed(tmp_path, form, list(TITLES[0]), rows)
    assert found == {}
    says = "no column of captions; the columns are file_name, title, author, licence: choose one with --caption-column"
    says += ", or several with commas"
    said = says if form == "by image.json" else f"broken line: {says}"
    assert [why for _, why in report.skipped if says in why] == [said] * 2
    found, _ = listed(tmp_path, form, list(TITLES[0]), rows, caption_column="title")
    assert found == {0: (["Kite 0"], None), 1: (["Kite 1"], None)}
    found, _ = listed(tmp_path, form, list(TITLES[0]), rows, caption_column="author,title")
    assert found == {0: (["Ann Lee", "Kite 0"], None), 1: (["Ann Lee", "Kite 1"], None)}
    assert listed(tmp_path, form, list(TITLES[0]), rows, caption_column="title,name")[0] == {}


@pytest.mark.parametrize("form", OBJECTS)
def test_several_keys_of_an_object_are_chosen_with_commas(tmp_path, form):
    rows = [[{"short": "a", "long": "b", "by": "Ann"}], [{"short": "c", "long": None}]]
    found, report = listed(tmp_path, form, ["text"], rows)
    assert found == {}
    assert any("or several, as in text.short,long" in why for _, why in report.skipped)
    for chosen in ("text.short,long", "text.short, text.long"):
        found, _ = listed(tmp_path, form, ["text"], rows, caption_column=chosen)
        assert found == {0: (["a", "b"], None), 1: (["c"], None)}
    found, report = listed(tmp_path, form, ["text"], rows, caption_column="text.short,middle")
    assert found == {}
    assert any("no 'middle' in text" in why for _, why in report.skipped)


@pytest.mark.parametrize(
    "keys", [("0", "1"), ("caption", "caption_cn"), ("short_caption", "detailed_caption"), ("caption_en", "caption_cn")]
)
def test_the_captions_of_an_object_by_image(tmp_path, keys):
    header, rows = [*keys, "label"], [["a", "b", "sky"], ["c", "d", "toy"]]
    if keys[0] == "0" or keys[0] == "caption_en":
        header, rows = header[:2], [row[:2] for row in rows]
    found, report = listed(tmp_path, "by image.json", header, rows)
    assert found == {n: (row[:2], row[2] if len(row) > 2 else None) for n, row in enumerate(rows)}
    assert report.notes == []


def test_an_object_by_image_may_hold_class_and_split(tmp_path):
    found, _ = listed(tmp_path, "by image.json", ["caption", "label"], [["a kite", "sky"], ["a ball", "toy"]])
    assert found == {0: (["a kite"], "sky"), 1: (["a ball"], "toy")}
    found, _ = listed(tmp_path, "by image.json", ["en", "zh"], [["a kite", "风筝"], ["a ball", None]])
    assert found == {0: (["a kite", "风筝"], None), 1: (["a ball"], None)}


# Columns.


@pytest.mark.parametrize("form", KINDS)
@pytest.mark.parametrize(
    "header",
    [
        ["caption", "caption", "caption"],
        ["caption", "caption2", "caption3"],
        ["caption", "caption.1", "caption.2"],
        ["caption", "caption_2", "caption_10"],
        ["Caption", "caption", "CAPTION"],
        ["caption_0", "caption_1", "caption_2"],
    ],
)
def test_columns_that_repeat_a_name_are_captions_of_one_image(tmp_path, form, header):
    found, report = listed(tmp_path, form, header, [["a", "b", "c"], ["d", "e", "nan"]])
    assert found == {0: (["a", "b", "c"], None), 1: (["d", "e"], None)}
    assert report.notes == []


@pytest.mark.parametrize("form", KINDS)
def test_columns_that_may_hold_captions_and_are_not_read_are_named(tmp_path, form):
    rows = [["a", "b", "c", "d"], ["e", "f", "g", "h"]]
    header = ["text", "caption", "prompt_2", "author"]
    found, report = listed(tmp_path, form, header, rows)
    assert found == {0: (["a"], None), 1: (["e"], None)}
    assert report.notes == [
        "not read for captions beside others: caption, prompt_2; --caption-column takes one of them instead, "
        "or several with commas"
    ]
    found, report = listed(tmp_path, form, header, rows, caption_column="prompt_2")
    assert found == {0: (["c"], None), 1: (["g"], None)}
    assert report.notes == []


@pytest.mark.parametrize("form", [form for form in KINDS if form != "by image.json"])  # an object, all of which is read
@pytest.mark.parametrize(
    ("other", "named"),
    [
        ("caption_cn", True),  # of two languages one is read
        ("zh_caption", True),
        ("short_caption", True),
        ("blip_caption", True),
        ("num_captions", False),  # what says something about captions
        ("caption_id", False),
        ("caption_score", False),
    ],
)
def test_captions_of_another_language_or_kind_are_named_where_they_are_not_read(tmp_path, form, other, named):
    rows = [["a kite", "风筝"], ["a red kite", "红色风筝"]]
    found, report = listed(tmp_path, form, ["caption", other], rows)
    assert found == {0: (["a kite"], None), 1: (["a red kite"], None)}
    assert [other in note for note in report.notes] == ([True] if named else [])
    found, report = listed(tmp_path, form, ["caption", other], rows, caption_column=f"caption,{other}")
    assert found == {0: (rows[0], None), 1: (rows[1], None)}
    assert report.notes == []


@pytest.mark.parametrize("form", KINDS)
def test_a_column_that_is_chosen_and_repeated_is_read_whole(tmp_path, form):
    header, rows = ["titel", "text", "titel", "titel_2"], [["a", "b", "c", "d"], ["e", "f", "g", "h"]]
    found, _ = listed(tmp_path, form, header, rows, caption_column="Titel")
    assert found == {0: (["a", "c"], None), 1: (["e", "g"], None)}


def test_repeated_names_are_numbered():
    assert distinct(["a", "a", "a.1", "", "", "a"]) == ["a", "a.2", "a.1", "", "", "a.3"]
    assert len(set(distinct(["a"] * 100_000))) == 100_000
    found = find_columns(["image", "caption", "caption_1", f"caption_{'1' * 5000}"])
    assert (found.caption, found.more) == ("caption", ("caption_1",))


def test_an_image_column_that_is_repeated_is_the_first(tmp_path):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    images = [pyarrow.array([{"bytes": encoded(n + place), "path": f"{n}.png"} for n in range(2)]) for place in (0, 5)]
    table = pyarrow.Table.from_arrays([*images, pyarrow.array(["a", "b"])], names=["image", "image", "text"])
    parquet.write_table(table, tmp_path / "t.parquet")
    items = list(prepare.SOURCES["parquet"](tmp_path, prepare.Report(), SourceOptions()))
    assert [item.read(1 << 20) for item in items] == [encoded(0), encoded(1)]


def test_an_image_that_a_json_object_names_twice_has_both_captions(tmp_path):
    (tmp_path / "a.png").write_bytes(encoded(0))
    (tmp_path / "t.json").write_text('{"a.png": "x", "a.png": ["y", "z"]}')
    [item] = prepare.SOURCES["csv"](tmp_path / "t.json", prepare.Report(), SourceOptions())
    assert item.captions == ("x", "y", "z")


# Empty cells.

NO_CLASS = [None, "", " ", "nan", "NaN", "<NA>", "N/A", "#N/A"]
EMPTY = [None, "", " ", "nan", "NaN", "None", "null", "<NA>", "N/A", "#N/A"]


@pytest.mark.parametrize("form", KINDS)
def test_an_empty_caption_is_none_in_every_source(tmp_path, form):
    found, report = listed(tmp_path, form, ["text"], [["a kite"], *([cell] for cell in EMPTY)])
    assert found == {0: (["a kite"], None)}
    assert len(report.skipped) == len(EMPTY)
    assert all(why.endswith("no captions") for _, why in report.skipped)


@pytest.mark.parametrize("form", [form for form in KINDS if form != "sidecars"])
def test_an_empty_class_is_none_in_every_source(tmp_path, form):
    found, report = listed(tmp_path, form, ["text", "label"], [["a kite", "sky"], *(["x", cell] for cell in NO_CLASS)])
    assert found == {0: (["a kite"], "sky"), **{number: (["x"], None) for number in range(1, len(NO_CLASS) + 1)}}
    assert report.skipped == []


@pytest.mark.parametrize("form", [form for form in KINDS if form != "sidecars"])
def test_a_class_may_be_called_none(tmp_path, form):
    names = ["none", "None", "Null", "One"]
    found, _ = listed(tmp_path, form, ["text", "label"], [["x", name] for name in names])
    assert [name for _, name in found.values()] == names


def test_a_numbered_class_may_have_any_name():
    names = ("cat", "none", "n/a", " ")
    assert [class_of({"label": number}, "label", names) for number in range(4)] == ["cat", "none", "n/a", None]


@pytest.mark.parametrize("form", KINDS)
def test_an_empty_column_hides_no_full_one(tmp_path, form):
    rows = [["", "comment", "a kite"], [None, None, "a ball"], ["a toy", "x", "y"]]
    found, report = listed(tmp_path, form, ["text", "comment", "caption"], rows)
    assert {number: found[number][0] for number in found} == {0: ["a kite"], 1: ["a ball"], 2: ["a toy"]}
    assert report.skipped == []


@pytest.mark.parametrize("form", ["tar", "sidecars"])
def test_an_empty_name_beside_an_empty_column_hides_no_caption(tmp_path, form):
    header, rows = ["file_name", "text", "caption", "class", "label"], [[None, None, "cap", None, "sky"]]
    found, _ = listed(tmp_path, form, header, rows)
    assert found == {0: (["cap"], "sky" if form == "tar" else None)}


def test_an_empty_split_is_no_unknown_one(tmp_path):
    _, report = listed(
        tmp_path, "t.csv", ["text", "split"], [["a", "train"], ["b", "nan"], ["c", "N/A"], ["d", "extra"]]
    )
    (note,) = report.splits.notes()
    assert note.startswith("1 rows have the split 'extra', which is no known name: read as training")


def test_a_class_file_that_is_empty_is_no_class(tmp_path):
    with tarfile.open(tmp_path / "t.tar", "w") as tar:
        for number, name in enumerate((b"3", b"N/A", b"nan\n", b" ", b"none")):
            add_to_tar(tar, f"{number}.png", encoded(number))
            add_to_tar(tar, f"{number}.txt", b"x")
            add_to_tar(tar, f"{number}.cls", name)
    items = prepare.SOURCES["webdataset"](tmp_path, prepare.Report(), SourceOptions())
    assert [item.class_name for item in items] == ["3", None, None, None, "none"]
