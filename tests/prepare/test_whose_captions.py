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


def numbered(folders):
    return {
        f"{folder}/{number}.{end}": f"a {folder} {number}"
        for folder in folders
        for number in (1, 2, 3)
        for end in ("png", "txt")
    }


@pytest.mark.parametrize(
    ("folders", "image", "text"),
    [
        (("cats", "dogs", "birds"), "cats/2.png", "dogs/2.txt"),
        (("train", "test"), "train/2.png", "test/2.txt"),
        (("train", "test"), "test/2.png", "train/2.txt"),
        (("captions", "photos"), "photos/2.png", "captions/2.txt"),  # classes that are called so
        (("Cats", "cats"), "cats/2.png", "Cats/2.txt"),  # folders that differ in case
        (("images/train", "images/test"), "images/train/2.png", "images/test/2.txt"),
    ],
)
def test_a_text_of_another_class_or_split_is_no_caption_and_is_named(tmp_path, folders, image, text):
    files = numbered(folders)
    del files[image.replace(".png", ".txt")], files[text.replace(".txt", ".png")]
    found, report = listed("folder", tmp_path, files)
    assert found == {name: [files[name]] for name in files if name.endswith(".png") and name != image}
    [(place, reason)] = report.skipped
    assert place == str(tmp_path / image)
    assert reason.startswith("no captions: ")
    assert reason.endswith(f": {text}")


@pytest.mark.parametrize(
    ("image", "text"),
    [
        ("cats/logo.png", "docs/logo.txt"),  # a notice of copyright
        ("cats/a.png", "text/dogs/a.txt"),
        ("images/train/a.png", "text/test/a.txt"),
        ("images/a.png", "text/test/a.txt"),
        ("train_images/a.png", "test_captions/a.txt"),
        ("cats/images/a.png", "dogs/text/a.txt"),
        ("a.png", "dogs/text/a.txt"),
        ("images/a.png", "text/b/a.txt"),
    ],
)
def test_a_text_that_another_image_may_have_meant_is_not_taken(tmp_path, image, text):
    files = {image: "", text: "x", "dogs/images/b.png": "", "dogs/text/b.txt": "y"}
    files |= {"thumbs/a.png": "", "b/a.png": "", "b/a.txt": "z", "cats/c.png": "", "cats/c.txt": "c"}
    found, report = listed("folder", tmp_path, files)
    assert found == {"dogs/images/b.png": ["y"], "b/a.png": ["z"], "cats/c.png": ["c"]}
    reasons = dict(report.skipped)
    assert set(reasons) == {str(tmp_path / image), str(tmp_path / "thumbs/a.png")}
    assert reasons[str(tmp_path / image)].endswith(f": {text}")


@pytest.mark.parametrize(
    ("image", "text"),
    [
        ("images/a.png", "text/a.txt"),
        ("images/a.png", "a.txt"),
        ("a.png", "captions/a.txt"),
        ("images/a.png", "captions/a.png.txt"),
        ("red/a.png", "text/red/a.txt"),
        ("images/red/a.png", "text/red/a.txt"),
        ("images/red/a.png", "text_c10/red/a.txt"),
        ("red/images/a.png", "red/labels/a.txt"),
        ("train/a.png", "captions/a.txt"),
        ("train/images/red/a.png", "train/text/a.txt"),
        ("train_images/a.png", "train_captions/a.txt"),
        ("trainImages/a.png", "trainCaptions/a.txt"),
        ("images/train/a.png", "annotations/train/a.txt"),
        ("JPEGImages/a.png", "Annotations/a.txt"),
        ("jpg/a.png", "text_c10/class_00001/a.txt"),
        ("mine/data/images/a.png", "mine/data/prompts/a.txt"),
    ],
)
def test_texts_in_a_folder_of_their_own_are_found(tmp_path, image, text):
    found, report = listed("folder", tmp_path, {image: "", text: "x", "images/b.png": "", "images/b.txt": "y"})
    assert found == {image: ["x"], "images/b.png": ["y"]}
    assert report.skipped == []


def test_a_text_that_two_images_may_mean_is_no_ones(tmp_path):
    files = {"train/a.png": "", "test/a.png": "", "captions/a.txt": "x", "test/b.png": "", "captions/b.txt": "y"}
    found, report = listed("folder", tmp_path, files)
    assert found == {"test/b.png": ["y"]}
    assert len(report.skipped) == 2
    assert all(reason.endswith(": captions/a.txt") for _, reason in report.skipped)


@pytest.mark.parametrize(
    ("files", "found", "skipped"),
    [
        ({"A.jpg": "", "A.txt": "upper", "a.jpg": ""}, {"A.jpg": ["upper"]}, {"a.jpg"}),
        ({"A.JPG": "", "a.txt": "x"}, {"A.JPG": ["x"]}, set()),
        ({"A.jpg": "", "A.TXT": "x", "a.jpg": ""}, {"A.jpg": ["x"]}, {"a.jpg"}),
        ({"AB.jpg": "", "Ab.jpg": "", "ab.txt": "x"}, {}, {"AB.jpg", "Ab.jpg"}),
        ({"A.jpg": "", "A.txt": "x", "a.txt": "y"}, {"A.jpg": ["x"]}, {"a.txt"}),
        ({"a.jpg": "", "a.txt": "x", "a.TXT": "y"}, {"a.jpg": ["x"]}, {"a.TXT"}),
        (
            {"a.jpg": "", "a.png": "", "a.txt": "x"},
            {"a.jpg": ["x"], "a.png": ["x"]},
            set(),
        ),  # one picture in two formats
    ],
)
def test_a_text_of_another_case_is_taken_where_one_image_can_be_meant(tmp_path, files, found, skipped):
    if len({name.casefold() for name in files}) < len(files):
        (tmp_path / "Case").touch()
        if (tmp_path / "case").exists():
            pytest.skip("the file system knows no case")
        (tmp_path / "Case").unlink()
    result, report = listed("folder", tmp_path, files)
    assert result == found
    assert {place for place, _ in report.skipped} == {str(tmp_path / name) for name in skipped}


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
