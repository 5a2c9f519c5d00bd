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
    assert reason.endswith(f": {text.rpartition('/')[0]}")


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
    assert reasons[str(tmp_path / image)].endswith(f": {text.rpartition('/')[0]}")


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
    assert all(reason.endswith(": captions") for _, reason in report.skipped)


def parallel(pairs, *more, unique=False):
    """Write what each image of a folder has as its text in another, by pairs of these; `unique`: names of one image each."""
    files, expected = {}, {}
    for place, (images, texts) in enumerate(pairs):
        for number in range(3):
            name = number + 3 * place if unique else number
            image, text = f"{images}/{name}.jpg".lstrip("/"), f"{texts}/{name}.txt".lstrip("/")
            files |= {image: "", text: f"of {image}"}
            expected[image] = [f"of {image}"]
    return files | dict.fromkeys(more, ""), expected


@pytest.mark.parametrize(
    "folders",
    [
        ("2024/01/02", "2024/02/01"),
        ("1/1", "1/2", "2/1", "2/2"),
        ("00/01", "01/00", "00/00"),
        ("A+", "A-", "A"),
        ("c", "c++", "c#"),
        ("\N{GRINNING FACE}", "\N{SMILING FACE WITH SUNGLASSES}"),
        ("फूल", "फील", "बिल्ली", "बल्ला"),
        ("text", "picture", "table", "title"),
        ("train/images", "test/text"),
    ],
)
@pytest.mark.parametrize(
    ("images", "texts"), [("images", "captions"), ("my/img", "my/text_c10"), ("images1", "captions1")]
)
def test_a_tree_of_texts_that_mirrors_that_of_images_is_read(tmp_path, folders, images, texts):
    files, expected = parallel([(f"{images}/{folder}", f"{texts}/{folder}") for folder in folders])
    found, report = listed("folder", tmp_path, files)
    assert (found, report.skipped) == (expected, [])


@pytest.mark.parametrize("folders", [("1/2", "2/1"), ("A+", "A-"), ("text", "picture"), ("बिल्ली", "बल्ला")])
def test_a_text_whose_image_is_missing_in_the_mirrored_tree_is_no_other_ones(tmp_path, folders):
    first, second = folders
    files, expected = parallel([(f"images/{folder}", f"captions/{folder}") for folder in folders])
    del files[f"images/{first}/1.jpg"], files[f"captions/{second}/1.txt"]
    del expected[f"images/{first}/1.jpg"], expected[f"images/{second}/1.jpg"]
    found, report = listed("folder", tmp_path, files)
    assert found == expected
    assert [place for place, _ in report.skipped if place.endswith(".jpg")] == [
        str(tmp_path / f"images/{second}/1.jpg")
    ]


@pytest.mark.parametrize(
    "pairs",
    [
        *(
            [("images", name)]
            for name in (
                "blip",
                "desc",
                "caps",
                "cap",
                "alt",
                "meta",
                "titles",
                "notes",
                "gt",
                "recaption",
                "joycaption",
                "wd14",
            )
        ),
        *(
            [("images", name)]
            for name in ("文本", "标注", "描述", "キャプション", "텍스트", "descripción", "images/blip")
        ),
        [("", "meta")],
        [("images1", "captions1"), ("images2", "captions2")],
        [("train_pics", "train_text"), ("test_pics", "test_text")],
        [("bird_pics", "bird_text")],
        [("my_photo", "my_text")],
        [("dogs_photo", "dogs_captions")],
        [("raw_images", "clean_captions")],
        [("images_512x512", "captions_512")],
        [("img_align_celeba", "celeba_captions")],
        [("Flicker8k_Dataset", "Flickr8k_text")],
        [("images", "captions/train"), ("images", "captions/test")],
        [("images/train", "captions/training"), ("images/val", "captions/validation")],
        [("batch1/img", "batch1/cap"), ("batch2/img", "batch2/cap")],
        [("cat", "cat/blip"), ("dog", "dog/blip")],
        [("images/cat", "texts/cats"), ("images/dog", "texts/dogs")],
    ],
)
def test_a_folder_with_one_text_for_each_image_may_have_any_name(tmp_path, pairs):
    files, expected = parallel(pairs, "README.txt", unique=True)
    found, report = listed("folder", tmp_path, files)
    assert (found, report.skipped) == (expected, [])


@pytest.mark.parametrize(
    ("pairs", "more"),
    [
        ([("images", "docs")], ["images/3.jpg", "images/4.jpg", "images/5.jpg"]),  # texts of a few images only
        ([("images", "docs")], ["docs/a.txt", "docs/b.txt", "docs/c.txt"]),  # and other texts
        ([("images", "blip")], ["masks/1.png"]),  # a name of two images
        ([("images", "blip")], ["images/x.png", "images/x.txt"]),  # images whose texts are beside them
        ([("cats", "cats_dogs/dogs")], ["dogs/x.png"]),  # another class
        ([("train_images", "test_captions")], []),
        ([("images/train", "blip/val")], []),
        ([("images", "blip"), ("images", "llava")], []),  # two texts of each image
    ],
)
def test_a_folder_of_texts_that_may_be_of_something_else_is_not_read(tmp_path, pairs, more):
    files, expected = parallel(pairs, *more)
    files |= {name: "x" for name in more if name.endswith(".txt")}
    found, report = listed("folder", tmp_path, files)
    assert found.keys().isdisjoint(expected)
    reasons = {reason for place, reason in report.skipped if place in {str(tmp_path / image) for image in expected}}
    assert len(reasons) == 1  # in the same words, which say what to do
    assert "name the folders images and captions" in reasons.pop()


@pytest.mark.parametrize(("texts", "other"), [("captions", "captions/preview.png"), ("", "cover.png")])
def test_an_image_of_another_name_in_the_folder_of_texts_takes_nothing(tmp_path, texts, other):
    files, expected = parallel([("images", texts)], other)
    found, report = listed("folder", tmp_path, files)
    assert found == expected
    assert [place for place, _ in report.skipped] == [str(tmp_path / other)]


@pytest.mark.parametrize(("images", "others"), [("images_512", "masks"), ("originals", "thumbnails")])
def test_images_of_the_same_names_in_two_folders_are_refused_with_a_way_out(tmp_path, images, others):
    files, expected = parallel([(images, "captions")], *(f"{others}/{number}.png" for number in range(3)))
    found, report = listed("folder", tmp_path / "a", files)
    assert found == {}
    [reason] = {reason for _, reason in report.skipped}
    assert "or name the folders images and captions" in reason
    assert "move away other images of the same name" in reason
    assert listed("folder", tmp_path / "b", {name.replace(images, "images"): text for name, text in files.items()})[
        0
    ] == {name.replace(images, "images"): texts for name, texts in expected.items()}


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
