"""Folders of captioned images: which files belong together, classes, splits, CUB and Oxford-102 as published."""

import json

import numpy as np
import pytest
from PIL import Image

import t2i
from source_files import BLUE, GREEN, RED, captioned, lines, names, packed_folder, picture, reasons
from t2i import prepare
from t2i.data.sampler import Sampler


def test_a_folder_of_pictures_with_a_text_beside_each_takes_classes_from_subfolders(tmp_path):
    source = tmp_path / "mine"
    captioned(source / "roses" / "one.jpg", "A red rose", "", "  a second caption  ")
    captioned(source / "roses" / "two.b.png", "another rose", colour=GREEN)
    captioned(source / "daisies" / "three.JPG", "a daisy", colour=BLUE, format="JPEG")
    data, report = packed_folder(source, tmp_path)
    assert names(data) == ["daisies/three.JPG", "roses/one.jpg", "roses/two.b.png"]
    assert [data.class_names[number] for number in data.classes] == ["daisies", "roses", "roses"]
    assert [data.captions_of(row) for row in range(3)] == [
        ["a daisy"],
        ["A red rose", "a second caption"],
        ["another rose"],
    ]
    assert np.abs(data.read_images([0, 1, 2])[:, 8, 8].astype(int) - [BLUE, RED, GREEN]).max() <= 3
    assert (report.images, report.captions, report.classes, report.train, report.test) == (3, 4, 2, 3, 0)
    assert report.skipped == []


def test_without_subfolders_there_are_no_classes_and_training_can_still_mismatch(tmp_path):
    source = tmp_path / "mine"
    for number in range(4):
        captioned(source / f"{number}.png", f"picture {number}")
    data, report = packed_folder(source, tmp_path)
    assert data.class_names == []
    assert (data.classes == -1).all()
    assert report.classes == 0
    plan = Sampler(data, batch=8, crop=16).plan(0)
    assert (plan.image != plan.mismatched_image).all()


def test_pictures_at_the_top_and_in_subfolders_at_once_have_no_classes(tmp_path):
    source = tmp_path / "mine"
    captioned(source / "top.png", "at the top")
    captioned(source / "a" / "below.png", "below")
    assert packed_folder(source, tmp_path)[0].class_names == []


@pytest.mark.parametrize("held_out", ["test", "validation"])
def test_train_and_test_folders_are_splits_and_no_classes(tmp_path, held_out):
    source = tmp_path / "mine"
    captioned(source / "train" / "a" / "1.png", "one")
    captioned(source / "train" / "b" / "2.png", "two")
    captioned(source / held_out / "c" / "3.png", "three")
    data, report = packed_folder(source, tmp_path)
    split = {name: int(test) for name, test in zip(names(data), data.splits, strict=True)}
    assert split == {"train/a/1.png": 0, "train/b/2.png": 0, f"{held_out}/c/3.png": 1}
    assert sorted(data.class_names) == ["a", "b", "c"]
    assert (report.train, report.test) == (2, 1)


def test_metadata_holds_captions_as_a_string_or_a_list(tmp_path):
    source = tmp_path / "mine"
    for name in ("a.png", "sub/b.png", "other/c.png"):
        picture(source / name)
    lines(
        source / "metadata.jsonl",
        {"file_name": "a.png", "text": " One caption "},
        "",
        {"file_name": "sub/../sub/b.png", "text": ["First", "", "Second"], "more": 1},
    )
    lines(source / "other" / "metadata.jsonl", {"file_name": "c.png", "text": "relative to its own folder"})
    data, report = packed_folder(source, tmp_path)
    assert {name: data.captions_of(row) for row, name in enumerate(names(data))} == {
        "a.png": ["One caption"],
        "sub/b.png": ["First", "Second"],
        "other/c.png": ["relative to its own folder"],
    }
    assert report.skipped == []


@pytest.mark.parametrize("classes", [True, False])
def test_one_class_is_none_and_training_can_still_mismatch(tmp_path, classes):
    source = tmp_path / "mine"
    for number in range(3):
        picture(source / f"{number}.png")
    rows = [{"file_name": f"{number}.png", "text": f"picture {number}", "label": "only"} for number in range(3)]
    lines(source / "metadata.jsonl", *rows)
    data, report = packed_folder(source, tmp_path, classes=classes)
    assert (report.classes, data.class_names) == (0, [])
    assert report.notes == (["all images are of one class, only, which is no class"] if classes else [])
    plan = Sampler(data, batch=4, crop=16).plan(0)
    assert (plan.image != plan.mismatched_image).all()


@pytest.mark.parametrize("classes", [True, False])
def test_it_is_noted_that_every_image_is_held_out_with_classes_and_without(tmp_path, classes):
    for name in ("a", "b"):
        captioned(tmp_path / "mine" / "test" / name / "1.png", f"picture {name}")
    _, report = packed_folder(tmp_path / "mine", tmp_path, classes=classes)
    assert "every image is held out by its split, so that there is none to train on" in report.notes


def cub_layout(root, inner="CUB_200_2011"):
    """Write two birds as CUB lays them out: a 40 x 20 picture, green but for a red box on the right."""
    images = root / inner / "images"
    numbered = []
    for number, name in enumerate(("001.Albatross/bird_a", "002.Auklet/bird_b"), 1):
        bird = Image.new("RGB", (40, 20), GREEN)
        bird.paste(RED, (30, 5, 40, 15))
        (images / name).parent.mkdir(parents=True)
        bird.save(images / f"{name}.jpg", quality=95, subsampling=0)
        texts = root / "text_c10" / f"{name}.txt"
        texts.parent.mkdir(parents=True)
        texts.write_text(f"bird {number}\nagain {number}\n")
        numbered.append(f"{number} {name}.jpg")
    (root / inner / "images.txt").write_text("\n".join(numbered) + "\n")
    (root / inner / "bounding_boxes.txt").write_text("1 30.0 5.0 10.0 10.0\n2 0.0 0.0 20.0 20.0\n")
    (root / "testclasses.txt").write_text("002.Auklet\n")
    return root


@pytest.mark.parametrize("inner", ["CUB_200_2011", "."])
def test_cub_is_read_as_published(tmp_path, inner):
    data, report = packed_folder(cub_layout(tmp_path / "birds", inner), tmp_path, "cub")
    assert data.class_names == ["001.Albatross", "002.Auklet"]
    assert data.splits.tolist() == [0, 1]
    assert data.captions_of(1) == ["bird 2", "again 2"]
    assert (report.images, report.captions, report.train, report.test) == (2, 4, 1, 1)
    corner = data.read_images([0])[0, 2, 2]
    assert np.abs(corner.astype(int) - GREEN).max() < 12


def test_cub_can_be_cropped_to_its_boxes(tmp_path):
    data, _ = packed_folder(cub_layout(tmp_path / "birds"), tmp_path, "cub", boxes=True)
    first, second = data.read_images([0, 1]).astype(int)
    assert np.abs(first[4:12, 4:12] - RED).max() < 25  # the box is the red square
    assert np.abs(second[4:12, 4:12] - GREEN).max() < 25


@pytest.mark.parametrize(
    ("file", "text", "says"),
    [
        ("images.txt", "1\n", "2 columns, got '1'"),
        ("bounding_boxes.txt", "1 2 3\n", "5 columns, got '1 2 3'"),
        ("bounding_boxes.txt", "1 a b c d\n", "must hold numbers"),
        ("images.txt", None, "list of images"),
    ],
)
def test_a_broken_list_of_cub_is_named(tmp_path, file, text, says):
    source = cub_layout(tmp_path / "birds")
    path = source / "CUB_200_2011" / file
    path.unlink() if text is None else path.write_text(text)
    with pytest.raises(t2i.DataError, match=says) as caught:
        packed_folder(source, tmp_path, "cub", boxes=True)
    assert str(path) in str(caught.value)


def test_pictures_and_captions_that_cub_lists_and_lacks_are_reported(tmp_path):
    source = cub_layout(tmp_path / "birds")
    with open(source / "CUB_200_2011" / "images.txt", "a") as file:
        file.write("3 003.None/bird_c.jpg\n4 ../../../secret.jpg\n")
    (source / "CUB_200_2011" / "images" / "002.Auklet" / "bird_b.jpg").unlink()
    data, report = packed_folder(source, tmp_path, "cub")
    assert len(data) == 1
    assert reasons(report, source) == {
        "text_c10/003.None/bird_c.txt": "No such file or directory",
        "CUB_200_2011/images/002.Auklet/bird_b.jpg": "no such image",
        "../../../secret.jpg": "leads out of the source folder",
    }


def test_oxford102_is_read_as_published(oxford102, tmp_path):
    data, report = packed_folder(oxford102, tmp_path, "oxford102", size=38)
    files = sorted((oxford102 / "text_c10").rglob("*.txt"))
    assert report.skipped == []
    assert report.images == len(files) > 200
    assert report.captions == 10 * report.images
    held_out = (oxford102 / "testclasses.txt").read_text().split()
    assert data.splits.tolist() == [int(file.parent.name in held_out) for file in files]
    row = len(files) // 2
    wanted = prepare.read_lines(files[row])
    assert data.captions_of(row) == wanted
    titles = json.loads((oxford102 / "cat_to_name.json").read_text())
    assert data.class_names[data.classes[row]] == titles[str(int(files[row].parent.name.removeprefix("class_")))]
    original = Image.open(oxford102 / "jpg" / f"{files[row].stem}.jpg").resize((38, 38), Image.Resampling.LANCZOS)
    assert np.abs(data.read_images([row])[0].astype(int) - np.asarray(original)).mean() < 1.5


@pytest.mark.parametrize(("kind", "missing"), [("oxford102", "jpg"), ("cub", "text_c10")])
def test_a_folder_that_is_not_the_layout_asked_for_says_what_is_missing(tmp_path, kind, missing):
    with pytest.raises(t2i.DataError, match=f"no such file or folder: .*{missing}"):
        packed_folder(tmp_path, tmp_path, kind)
