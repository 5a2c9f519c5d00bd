"""A caption is its own image's or nobody's: texts in other folders, names that differ in case, ids of two images."""

import io
import json

import pytest
from PIL import Image

from helpers import assert_all_accounted
from t2i import prepare
from t2i.errors import DataError
from t2i.prepare.collect import SourceOptions


def encoded():
    file = io.BytesIO()
    Image.new("RGB", (20, 20)).save(file, "PNG")
    return file.getvalue()


PNG = encoded()


def listed(kind, root, files):
    """Write files, images by their names, and list them: {image: captions}, and the report."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(PNG if name.lower().endswith((".png", ".jpg")) else text.encode())
    report = prepare.Report()
    items = list(prepare.SOURCES[kind](root, report, SourceOptions()))
    report.images = len(items)
    assert_all_accounted(report)
    return {item.named: list(item.captions) for item in items}, report


# Ids.


def coco(*images):
    annotations = [{"image_id": number, "caption": f"caption {number}, {n}"} for number in (1, 2) for n in (0, 1)]
    content = {"images": [{"id": id, "file_name": name} for id, name in images], "annotations": annotations}
    return {"captions_all.json": json.dumps(content), **{name: "" for _, name in images}}


def test_an_id_of_two_images_is_named_and_its_captions_are_not_guessed(tmp_path):
    """As two files of annotations give where they are joined."""
    found, report = listed("coco", tmp_path, coco((1, "a.png"), (2, "b.png"), (1, "c.png")))
    assert found == {"b.png": ["caption 2, 0", "caption 2, 1"]}
    place = f"{tmp_path / 'captions_all.json'}: image 1"
    assert report.skipped[0][0] == place
    assert report.skipped[0][1].startswith("2 images have this id, so its captions could be any one's: a.png, c.png")
    assert report.skipped[1:] == [(place, "no captions")] * 2


def test_an_image_that_is_listed_twice_is_one(tmp_path):
    found, report = listed("coco", tmp_path, coco((1, "a.png"), (2, "b.png"), (1, "a.png"), ("1", "a.png")))
    assert found == {"a.png": ["caption 1, 0", "caption 1, 1"], "b.png": ["caption 2, 0", "caption 2, 1"]}
    assert report.skipped == []


def test_a_number_that_cub_gives_to_two_images_is_refused(tmp_path):
    files = {"CUB_200_2011/images.txt": "1 c/a.png\n1 c/b.png\n"}
    for name in "ab":
        files |= {f"CUB_200_2011/images/c/{name}.png": "", f"text_c10/c/{name}.txt": "x"}
    with pytest.raises(DataError, match=r"images\.txt must have a number for each line, and has 1 twice"):
        listed("cub", tmp_path, files)
