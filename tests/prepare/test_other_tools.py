"""Sources as other tools write them: ModelScope, gallery-dl, LAION's tables of URLs, OFA, numbered classes of the Hub."""

import base64
import io
import json

import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from source_files import PNG, write
from t2i.prepare import SOURCES, Report, SourceOptions, pack
from test_published import listed, reasons

DOWNLOAD = "t2i-prepare downloads nothing: img2dataset does"


@pytest.mark.parametrize(
    ("kind", "name", "content"),
    [
        ("csv", "laion.csv", "url,caption\nhttp://a.org/1.jpg,a kite\n"),  # Wukong
        ("csv", "wit.tsv", "language\timage_url\tcaption\nen\thttp://a.org/1.jpg\ta kite\n"),
        ("csv", "Train_GCC-training.tsv", "a kite\thttp://a.org/1.jpg\n"),  # Conceptual Captions, without a header
        ("csv", "a.jsonl", json.dumps({"image": "https://a.org/1.jpg", "caption": "a kite"})),
        ("parquet", "part-0.parquet", {"URL": ["http://a.org/1.jpg"], "TEXT": ["a kite"]}),
    ],
)
def test_images_of_which_only_urls_are_there_have_to_be_downloaded(tmp_path, kind, name, content):
    if isinstance(content, dict):
        pyarrow.parquet.write_table(pyarrow.table(content), tmp_path / name)
    else:
        write(tmp_path, {name: content})
    found, report = listed(kind, tmp_path)
    assert found == {}
    assert [DOWNLOAD in reason for reason in reasons(report)] == [True]


def test_images_in_base64_are_not_shown_as_the_columns_of_a_table(tmp_path):
    file = io.BytesIO()
    Image.effect_noise((40, 40), 60).save(file, "JPEG")
    cells = ["0", "162365", "a kite", "sky", base64.b64encode(file.getvalue()).decode()]
    write(tmp_path, {"caption_train.tsv": "\t".join(cells) + "\n"})  # OFA's, without a header
    _, report = listed("csv", tmp_path)
    [reason] = reasons(report)
    assert reason.startswith("it holds an image in base64")
    assert cells[4][:40] not in reason


@pytest.mark.parametrize("name", ["a.png.json", "a.json"])  # gallery-dl's, and others'
def test_the_json_of_an_image_may_have_its_whole_name(tmp_path, name):
    write(tmp_path, {"a.png": PNG, name: {"caption": "a kite", "id": 1}, "b.png": PNG, "b.txt": "a boat"})
    found, _ = listed("folder", tmp_path)
    assert found == {"a.png": (["a kite"], False), "b.png": (["a boat"], False)}


@pytest.mark.parametrize("column", ["Target:FILE", "image:FILE", "Image:file"])
def test_the_column_that_modelscope_marks_as_files_has_the_images(tmp_path, column):
    write(tmp_path, {"train.csv": f"{column},text\nimg/1.png,红色风筝\n", "img/1.png": PNG})
    found, _ = listed("csv", tmp_path)
    assert found == {"img/1.png": (["红色风筝"], False)}


def test_of_two_columns_marked_as_files_neither_is_chosen(tmp_path):
    write(tmp_path, {"train.csv": "source:FILE,target:FILE,text\n1.png,2.png,a kite\n", "1.png": PNG, "2.png": PNG})
    found, report = listed("csv", tmp_path)
    assert found == {}
    assert reasons(report)[0].startswith("no column of images; the columns are source:FILE, target:FILE, text")


@pytest.mark.parametrize(
    "places", [("images/1.png", "images/2.png"), ("1.png", "2.png"), ("train/images/1.png", "images/2.png")]
)
def test_tables_in_folders_of_splits_may_share_the_images_beside_these(tmp_path, places):
    files = {"train/cn_train.txt": "1.png#0\t一\n1.png#1\t二\n", "val/cna_val.txt": "2.png#0\t三\n"}  # Flickr30k-CNA
    write(tmp_path, files | dict.fromkeys(places, PNG))
    found, report = listed("csv", tmp_path)
    assert found == {places[0]: (["一", "二"], False), places[1]: (["三"], True)}, report.skipped


def test_a_table_in_a_folder_of_a_split_prefers_its_own_images(tmp_path):
    write(tmp_path, {"train/a.csv": "image,text\n1.png,a kite\n", "train/images/1.png": PNG, "images/1.png": PNG})
    found, _ = listed("csv", tmp_path)
    assert found == {"train/images/1.png": (["a kite"], False)}


def hub_classes(path):
    features = {"label": {"names": ["T-shirt", "trouser"], "_type": "ClassLabel"}}
    images = [{"bytes": PNG, "path": None}] * 3
    table = pyarrow.table({"image": images, "label": [0, 1, 0]})
    note = json.dumps({"info": {"features": features}})
    pyarrow.parquet.write_table(table.replace_schema_metadata({"huggingface": note}), path)


def test_numbered_classes_may_be_the_captions_by_their_names(tmp_path):
    hub_classes(tmp_path / "train-00000-of-00001.parquet")
    items = list(SOURCES["parquet"](tmp_path, Report(), SourceOptions(caption_column="label")))
    assert [item.captions for item in items] == [("T-shirt",), ("trouser",), ("T-shirt",)]


def test_no_message_suggests_the_command_that_has_just_failed(tmp_path):
    images = pyarrow.array([{"bytes": PNG, "path": None}])
    source = tmp_path / "x"
    source.mkdir()
    pyarrow.parquet.write_table(pyarrow.table({"image": images, "text": [3]}), source / "train.parquet")
    with pytest.raises(Exception, match="text must be a string") as raised:
        pack("parquet", source, tmp_path / "out", show_progress=False)
    assert "read by t2i-prepare parquet" not in str(raised.value)
