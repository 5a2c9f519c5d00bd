"""Splits that lists beside the captions say: class lists, and CUB's train_test_split.txt."""

import io

import pytest
from PIL import Image

import t2i
from helpers import packed

CLASSES = ("001.Albatross", "002.Auklet", "003.Gull")
PIXELS = io.BytesIO()
Image.new("RGB", (20, 20), (200, 30, 30)).save(PIXELS, "JPEG")
JPEG = PIXELS.getvalue()


def write(root, files):
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data if isinstance(data, bytes) else data.encode())
    return root


def layout(kind, root, lists):
    """Write an image of each of three classes, and lists beside them."""
    files = dict(lists)
    for number, name in enumerate(CLASSES, 1):
        files[f"text_c10/{name}/{number}.txt"] = "a bird\n"
        files[f"jpg/{number}.jpg" if kind == "oxford102" else f"CUB_200_2011/images/{name}/{number}.jpg"] = JPEG
    if kind == "cub":
        files["CUB_200_2011/images.txt"] = "".join(f"{i} {name}/{i}.jpg\n" for i, name in enumerate(CLASSES, 1))
    return write(root, files)


def held_out(data):
    names = bytes(data.extra("names")).decode().split("\n")
    return {name.rpartition("/")[2] for name, split in zip(names, data.splits.tolist(), strict=True) if split}


LISTS = {
    "test classes": ({"testclasses.txt": "003.Gull\n", "trainvalclasses.txt": "001.Albatross\n"}, {"3.jpg"}, []),
    "training and validation": (
        {"trainclasses.txt": "001.Albatross\n003.Gull\n", "valclasses.txt": "002.Auklet\n"},
        {"2.jpg"},
        ["no usable testclasses.txt: all classes but those of trainclasses.txt are held out"],
    ),
    "training alone": (
        {"trainclasses.txt": "002.Auklet\n"},
        {"1.jpg", "3.jpg"},
        ["no usable testclasses.txt: all classes but those of trainclasses.txt are held out"],
    ),
    "training with validation": (
        {"trainvalclasses.txt": "001.Albatross\n002.Auklet\n", "valclasses.txt": "002.Auklet\n"},
        {"3.jpg"},
        ["no usable testclasses.txt: all classes but those of trainvalclasses.txt are held out"],
    ),
    "all in training with validation": (
        {"trainvalclasses.txt": "\n".join(CLASSES), "valclasses.txt": "002.Auklet\n"},
        {"2.jpg"},
        ["no usable testclasses.txt: the classes of valclasses.txt are held out"],
    ),
    "validation alone": (
        {"valclasses.txt": "002.Auklet\n"},
        {"2.jpg"},
        ["no usable testclasses.txt: the classes of valclasses.txt are held out"],
    ),
    "numbers": (
        {"testclasses.txt": "2\n3\n"},
        set(),
        [
            "2 names in testclasses.txt match no class, such as '2'; the classes have names such as '001.Albatross'",
            "no usable testclasses.txt: nothing is held out",
        ],
    ),
    "one of them a number": (
        {"testclasses.txt": "2\n003.Gull\n"},
        {"3.jpg"},
        ["1 names in testclasses.txt match no class, such as '2'; the classes have names such as '001.Albatross'"],
    ),
    "none": ({}, set(), ["no usable testclasses.txt: nothing is held out"]),
}


@pytest.mark.parametrize("kind", ["oxford102", "cub"])
@pytest.mark.parametrize("case", LISTS)
def test_class_lists_say_what_is_held_out_or_the_report_says_that_nothing_is(tmp_path, kind, case):
    lists, wanted, notes = LISTS[case]
    data, report = packed(kind, layout(kind, tmp_path / "source", lists), tmp_path)
    assert held_out(data) == wanted
    assert report.notes == notes
    assert report.skipped == []


@pytest.mark.parametrize(
    ("lists", "wanted", "notes"),
    [
        ({}, {"1.jpg", "3.jpg"}, ["no usable testclasses.txt: 2 images are held out by train_test_split.txt"]),
        ({"testclasses.txt": "002.Auklet\n"}, {"2.jpg"}, []),
        (
            {"CUB_200_2011/train_test_split.txt": "1 0\n2 1\n"},
            {"1.jpg"},
            [
                "no usable testclasses.txt: 1 images are held out by train_test_split.txt",
                "1 images are not in train_test_split.txt: read as training",
            ],
        ),
    ],
)
def test_cubs_own_split_is_read_where_no_class_list_is(tmp_path, lists, wanted, notes):
    source = layout("cub", tmp_path / "source", {"CUB_200_2011/train_test_split.txt": "1 0\n2 1\n3 0\n"} | lists)
    data, report = packed("cub", source, tmp_path)
    assert (held_out(data), report.notes) == (wanted, notes)


def test_a_list_that_cannot_be_read_is_refused_by_name(tmp_path):
    source = layout("cub", tmp_path / "source", {"CUB_200_2011/train_test_split.txt": "1 0\n2 yes\n3 0\n"})
    with pytest.raises(t2i.DataError, match=r"train_test_split.txt must hold 0 and 1, got 'yes'"):
        packed("cub", source, tmp_path)
    (source / "testclasses.txt").mkdir()
    with pytest.raises(t2i.DataError, match=r"testclasses.txt \(list of classes\): it is not a file"):
        packed("cub", source, tmp_path)


@pytest.mark.parametrize("kind", ["oxford102", "cub"])
def test_a_file_in_place_of_the_folder_of_captions_is_refused(tmp_path, kind):
    source = write(tmp_path, {"text_c10": "x", "jpg/1.jpg": JPEG, "images.txt": "1 a/1.jpg\n"})
    with pytest.raises(t2i.DataError, match=r"text_c10 must be a folder \(captions\)"):
        packed(kind, source, tmp_path)


def test_stackgan_without_test_says_that_nothing_is_held_out(tmp_path):
    files = {"train/filenames.pickle": b"\x80\x02]q\x00X\x03\x00\x00\x00a/1q\x01a.", "images/a/1.jpg": JPEG}
    data, report = packed("stackgan", write(tmp_path / "source", files | {"text/a/1.txt": "x"}), tmp_path)
    assert len(data) == 1
    assert report.notes == ["no test/filenames.pickle: nothing is held out"]
