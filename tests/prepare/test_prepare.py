"""Folders of captioned pictures to packs: the layouts, the kinds of file, and everything that people's folders hold."""

import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import t2i
from helpers import assert_all_accounted
from t2i import prepare
from t2i.blossoms.pack import embedded_blossoms
from t2i.data.dataset import PackedDataset
from t2i.data.sampler import Sampler

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 128, 0), (0, 0, 255), (255, 255, 255)


def picture(path, colour=RED, size=(24, 24), **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path, **options)
    return path


def captioned(path, *captions, **options):
    picture(path, **options)
    path.with_suffix(".txt").write_text("\n".join(captions) + "\n", encoding="utf-8")


def lines(path, *rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))


def packed(source, tmp_path, kind="folder", size=16, **options):
    """Prepare a folder: the data set and the report."""
    out = tmp_path / "out of the test"
    report = prepare.pack(kind, source, out, size=size, show_progress=False, **options)
    assert_all_accounted(report)
    return PackedDataset(out, verify=True), report


def reasons(report, source):
    """Shorten a report to {name relative to the source: reason}."""
    return {str(path).removeprefix(f"{source}{os.sep}"): reason for path, reason in report.skipped}


def names(data):
    return bytes(data.extra("names")).decode().split("\n")


# Layouts.


def test_a_folder_of_pictures_with_a_text_beside_each_takes_classes_from_subfolders(tmp_path):
    source = tmp_path / "mine"
    captioned(source / "roses" / "one.jpg", "A red rose", "", "  a second caption  ")
    captioned(source / "roses" / "two.b.png", "another rose", colour=GREEN)
    captioned(source / "daisies" / "three.JPG", "a daisy", colour=BLUE, format="JPEG")
    data, report = packed(source, tmp_path)
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
    data, report = packed(source, tmp_path)
    assert data.class_names == []
    assert (data.classes == -1).all()
    assert report.classes == 0
    plan = Sampler(data, batch=8, crop=16).plan(0)
    assert (plan.image != plan.mismatched_image).all()


def test_pictures_at_the_top_and_in_subfolders_at_once_have_no_classes(tmp_path):
    source = tmp_path / "mine"
    captioned(source / "top.png", "at the top")
    captioned(source / "a" / "below.png", "below")
    assert packed(source, tmp_path)[0].class_names == []


@pytest.mark.parametrize("held_out", ["test", "validation"])
def test_train_and_test_folders_are_splits_and_no_classes(tmp_path, held_out):
    source = tmp_path / "mine"
    captioned(source / "train" / "a" / "1.png", "one")
    captioned(source / "train" / "b" / "2.png", "two")
    captioned(source / held_out / "c" / "3.png", "three")
    data, report = packed(source, tmp_path)
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
    data, report = packed(source, tmp_path)
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
    data, report = packed(source, tmp_path, classes=classes)
    assert (report.classes, data.class_names) == (0, [])
    assert report.notes == (["all images are of one class, only, which is no class"] if classes else [])
    plan = Sampler(data, batch=4, crop=16).plan(0)
    assert (plan.image != plan.mismatched_image).all()


@pytest.mark.parametrize("classes", [True, False])
def test_it_is_noted_that_every_image_is_held_out_with_classes_and_without(tmp_path, classes):
    for name in ("a", "b"):
        captioned(tmp_path / "mine" / "test" / name / "1.png", f"picture {name}")
    _, report = packed(tmp_path / "mine", tmp_path, classes=classes)
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
    data, report = packed(cub_layout(tmp_path / "birds", inner), tmp_path, "cub")
    assert data.class_names == ["001.Albatross", "002.Auklet"]
    assert data.splits.tolist() == [0, 1]
    assert data.captions_of(1) == ["bird 2", "again 2"]
    assert (report.images, report.captions, report.train, report.test) == (2, 4, 1, 1)
    corner = data.read_images([0])[0, 2, 2]
    assert np.abs(corner.astype(int) - GREEN).max() < 12


def test_cub_can_be_cropped_to_its_boxes(tmp_path):
    data, _ = packed(cub_layout(tmp_path / "birds"), tmp_path, "cub", boxes=True)
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
        packed(source, tmp_path, "cub", boxes=True)
    assert str(path) in str(caught.value)


def test_pictures_and_captions_that_cub_lists_and_lacks_are_reported(tmp_path):
    source = cub_layout(tmp_path / "birds")
    with open(source / "CUB_200_2011" / "images.txt", "a") as file:
        file.write("3 003.None/bird_c.jpg\n4 ../../../secret.jpg\n")
    (source / "CUB_200_2011" / "images" / "002.Auklet" / "bird_b.jpg").unlink()
    data, report = packed(source, tmp_path, "cub")
    assert len(data) == 1
    assert reasons(report, source) == {
        "text_c10/003.None/bird_c.txt": "No such file or directory",
        "CUB_200_2011/images/002.Auklet/bird_b.jpg": "no such image",
        "../../../secret.jpg": "leads out of the source folder",
    }


def test_oxford102_is_read_as_published(oxford102, tmp_path):
    data, report = packed(oxford102, tmp_path, "oxford102", size=38)
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
        packed(tmp_path, tmp_path, kind)


# Kinds of file.


def rgba(colour, alpha):
    return Image.new("RGBA", (24, 24), (*colour, alpha))


def animated(path):
    frames = [Image.new("RGB", (24, 24), colour) for colour in (RED, BLUE)]
    frames[0].save(path, save_all=True, append_images=frames[1:])


@pytest.mark.parametrize(
    ("name", "write", "colour"),
    [
        ("a.jpg", lambda path: picture(path), RED),
        ("a.jpeg", lambda path: picture(path, quality=90, progressive=True), RED),
        ("a.png", lambda path: picture(path), RED),
        ("a.webp", lambda path: picture(path, lossless=True), RED),
        ("a.bmp", lambda path: picture(path), RED),
        ("a.gif", lambda path: picture(path), RED),
        ("a.tiff", lambda path: picture(path), RED),
        ("wrong.png", lambda path: picture(path, format="JPEG"), RED),  # the bytes say what it is, not the ending
        ("moving.gif", animated, RED),  # its first picture
        ("clear.png", lambda path: rgba(RED, 0).save(path), WHITE),
        ("half.png", lambda path: rgba(BLUE, 127).save(path), (128, 128, 255)),  # 127/255 of blue on white
        ("half.webp", lambda path: rgba(BLUE, 127).save(path, lossless=True, exact=True), (128, 128, 255)),
        ("half.tiff", lambda path: rgba(BLUE, 127).save(path), (128, 128, 255)),
        ("ink.jpg", lambda path: Image.new("CMYK", (24, 24), (0, 255, 255, 0)).save(path), RED),
        ("grey.jpg", lambda path: Image.new("L", (24, 24), 77).save(path), (77, 77, 77)),
        ("grey.png", lambda path: Image.new("L", (24, 24), 77).save(path), (77, 77, 77)),
        ("deep.png", lambda path: Image.fromarray(np.full((24, 24), 77 * 257, np.uint16)).save(path), (77, 77, 77)),
        ("two.png", lambda path: Image.new("1", (24, 24), 1).save(path), WHITE),
        ("palette.png", lambda path: Image.new("RGB", (24, 24), GREEN).quantize(4).save(path), GREEN),
    ],
)
def test_every_kind_of_picture_keeps_its_colour_on_white(tmp_path, name, write, colour):
    path = tmp_path / "mine" / name
    path.parent.mkdir()
    write(path)
    path.with_suffix(".txt").write_text("a picture\n")
    data, report = packed(path.parent, tmp_path)
    assert report.skipped == []
    assert np.abs(data.read_images([0])[0].astype(int) - colour).max() <= 3


@pytest.mark.parametrize(
    ("name", "mode", "options"),
    [
        ("a.jpg", "RGB", {"quality": 95}),
        ("a.png", "RGB", {}),
        ("a.webp", "RGB", {"lossless": True}),
        ("ink.jpg", "CMYK", {"quality": 95}),  # left to Pillow
        ("a.tiff", "RGB", {}),  # the same; Pillow turns this format by itself, and once is enough
    ],
)
def test_the_exif_orientation_turns_the_picture(tmp_path, name, mode, options):
    stored = Image.new("RGB", (32, 16), RED)
    stored.paste(BLUE, (16, 0, 32, 16))  # red left, blue right
    tag = Image.Exif()
    tag[0x112] = 6  # to be turned clockwise: what is stored left stands on top
    path = tmp_path / "mine" / name
    path.parent.mkdir()
    stored.convert(mode).save(path, exif=tag, **options)
    path.with_suffix(".txt").write_text("a picture\n")
    shown = packed(path.parent, tmp_path)[0].read_images([0])[0].astype(int)
    assert np.abs(shown[:5] - RED).max() < 20
    assert np.abs(shown[11:] - BLUE).max() < 20


def test_stretch_keeps_the_borders_and_crop_cuts_them_off(tmp_path):
    wide = Image.new("RGB", (64, 32), GREEN)
    wide.paste(RED, (0, 0, 16, 32))
    wide.paste(BLUE, (48, 0, 64, 32))
    (tmp_path / "mine").mkdir()
    wide.save(tmp_path / "mine" / "a.png")
    (tmp_path / "mine" / "a.txt").write_text("a picture\n")
    stretched = packed(tmp_path / "mine", tmp_path)[0].read_images([0])[0].astype(int)
    cropped = packed(tmp_path / "mine", tmp_path, fit="crop", force=True)[0].read_images([0])[0].astype(int)
    assert np.abs(stretched[:, 0] - RED).max() < 12
    assert np.abs(stretched[:, 8] - GREEN).max() < 12
    assert np.abs(stretched[:, 15] - BLUE).max() < 12
    assert np.abs(cropped[:, 2:14] - GREEN).max() < 12


def cut(path, ending):
    picture(path, size=(64, 64))
    path.write_bytes(path.read_bytes()[:-ending])


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")  # Pillow warns before it gives up
@pytest.mark.parametrize(
    ("name", "write", "reason"),
    [
        ("a.jpg", lambda path: cut(path, 20), "broken"),
        ("a.png", lambda path: cut(path, 20), "broken"),
        ("a.webp", lambda path: cut(path, 20), "broken"),
        ("a.bmp", lambda path: cut(path, 2000), "broken"),
        ("a.gif", lambda path: path.write_bytes(b"GIF89a"), "broken"),
        ("a.tiff", lambda path: path.write_bytes(b"II*\0\xff\xff\xff\xff"), "broken"),
        ("a.jpg", lambda path: path.write_bytes(b""), "broken"),
        ("a.png", lambda path: path.write_text("a letter"), "broken"),
        ("a.png", lambda path: picture(path, size=(1001, 1000)), "too large"),
        ("a.bmp", lambda path: picture(path, size=(1001, 1000)), "too large"),
        ("a.png", lambda path: path.mkdir(), "unreadable"),
    ],
)
def test_a_bad_picture_is_left_out_and_reported_with_its_reason(tmp_path, name, write, reason):
    source = tmp_path / "mine"
    captioned(source / "good.png", "a good one")
    write(source / name)
    (source / name).with_suffix(".txt").write_text("a bad one\n")
    data, report = packed(source, tmp_path, max_pixels=1_000_000)
    assert names(data) == ["good.png"]
    ((path, why),) = report.skipped
    assert path == str(source / name)
    assert why.startswith(f"{reason}: ")
    assert "\n" not in why
    record = json.loads((data.path / "report.json").read_text())
    whole = {"captions": 1, "char_cnn_rnn": {"truncated": 0, "unknown": 0}}
    counts = record.pop("source")
    assert record == {**whole, "skipped": 1, "reasons": {reason: 1}, "files": [[path, why]]}
    assert counts["images"] == 1
    assert counts["images"] + counts["read"] + counts["skipped"] + sum(counts["ignored"].values()) == counts["files"]
    assert f"1 skipped:\n  {path}: {why}" in report.summary()


# What people's folders hold.


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("{not json", "broken line"),
        ("[1, 2]", "broken line"),
        ("null", "broken line"),
        ("7" * 5000, "broken line"),  # more digits than Python reads
        ("[" * 100_000, "broken line"),
        ({"text": "no name"}, "broken line: no column of images; the columns are text: .* --image-column"),
        (
            {"file_name": "bad.png"},
            "broken line: no column of captions; the columns are file_name: .* --caption-column",
        ),
        ({"file_name": 3, "text": "x"}, "no such image: 3"),
        ({"file_name": [3], "text": "x"}, "broken line: file_name must be a string"),
        ({"file_name": "bad.png", "text": 3}, "broken line: .* a list of strings"),
        ({"file_name": "bad.png", "text": ["x", 3]}, "broken line: .* a list of strings"),
        ({"file_name": "bad.png", "text": {"x": 1}}, "broken line: .* a list of strings"),
        ({"file_name": "bad.png", "text": "half a character \ud83c"}, "broken line: .*surrogates"),
        ({"file_name": "bad.png", "text": "  "}, "no captions"),
        ({"file_name": "bad.png", "text": []}, "no captions"),
        ({"file_name": "bad.png", "text": "x" * 65_537}, "a caption of over 65536 bytes"),
        ({"file_name": "", "text": "x"}, "no path"),
        ({"file_name": "../outside.png", "text": "x"}, "leads out"),
        ({"file_name": "sub/../../outside.png", "text": "x"}, "leads out"),
        ({"file_name": "ABSOLUTE", "text": "x"}, "leads out"),
        ({"file_name": "link.png", "text": "x"}, "leads out"),
        ({"file_name": "linked/outside.png", "text": "x"}, "leads out"),
        ({"file_name": "loop/a.png", "text": "x"}, "leads out|no such image"),
        ({"file_name": "nul\0.png", "text": "x"}, "leads out"),
        ({"file_name": "half\ud83c.png", "text": "x"}, "leads out|no such image"),
        ({"file_name": "missing.png", "text": "x"}, "no such image: missing.png"),
        ({"file_name": "x" * 5000 + ".png", "text": "x"}, "no such image"),
        ({"file_name": ".", "text": "x"}, "no such image"),
    ],
)
def test_a_bad_line_of_metadata_is_reported_with_its_number_and_the_rest_is_kept(tmp_path, row, reason):
    source = tmp_path / "mine"
    picture(source / "good.png")
    picture(source / "sub" / "also good.png")
    secret = picture(tmp_path / "outside.png")
    (source / "link.png").symlink_to(secret)
    (source / "linked").symlink_to(tmp_path, target_is_directory=True)
    (source / "loop").symlink_to(source / "loop")
    if isinstance(row, dict) and row.get("file_name") == "ABSOLUTE":
        row = {**row, "file_name": str(secret)}
    good = ({"file_name": "good.png", "text": "g"}, {"file_name": "sub/also good.png", "text": "h"})
    lines(source / "metadata.jsonl", good[0], row, good[1])
    data, report = packed(source, tmp_path)
    assert names(data) == ["good.png", "sub/also good.png"]
    why = dict(report.skipped)[f"{source / 'metadata.jsonl'}:2"]
    assert re.search(reason, why), why
    assert "\n" not in why


def test_links_that_lead_out_of_an_image_folder_are_not_followed(tmp_path):
    outside, source = tmp_path / "outside", tmp_path / "mine"
    captioned(outside / "secret.png", "a secret")
    lines(outside / "metadata.jsonl", {"file_name": "good.png", "text": "from elsewhere"})
    captioned(source / "good.png", "a good one")
    (source / "a.png").symlink_to(outside / "secret.png")
    picture(source / "b.png")
    (source / "b.txt").symlink_to(outside / "secret.txt")
    (source / "metadata.jsonl").symlink_to(outside / "metadata.jsonl")
    (source / "folder").symlink_to(outside, target_is_directory=True)
    data, report = packed(source, tmp_path)
    assert [data.captions_of(row) for row in range(len(data))] == [["a good one"]]
    assert reasons(report, source) == {
        "a.png": "a link out of the source folder",
        "b.png": "no captions: neither a line in metadata.jsonl nor a .txt beside it (--captions name takes the file's name)",
        "folder": "a link out of the source folder",
        "b.txt": "a link out of the source folder",
        "metadata.jsonl": "a link out of the source folder",
    }


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            None,
            "no captions: neither a line in metadata.jsonl nor a .txt beside it (--captions name takes the file's name)",
        ),
        (b"", "no captions"),
        (b" \n\n", "no captions"),
        (b"caf\xe9", "it is not UTF-8 text (byte 0xe9); save it as UTF-8"),
        (b"x" * 2_000_001, "caption file of over 2 MB"),
    ],
)
def test_a_picture_without_a_usable_caption_is_reported(tmp_path, text, reason):
    source = tmp_path / "mine"
    captioned(source / "good.png", "a good one")
    picture(source / "bad.png")
    if text is not None:
        (source / "bad.txt").write_bytes(text)
    data, report = packed(source, tmp_path)
    assert names(data) == ["good.png"]
    assert [why for _, why in report.skipped] == [reason]


def test_a_caption_file_with_a_byte_order_mark_and_windows_lines_reads_the_same(tmp_path):
    source = tmp_path / "mine"
    picture(source / "a.png")
    (source / "a.txt").write_bytes(b"\xef\xbb\xbfOne\r\nTwo\r\n")
    assert packed(source, tmp_path)[0].captions_of(0) == ["One", "Two"]


def test_captions_that_the_papers_alphabet_lacks_are_kept_and_counted(tmp_path):
    source = tmp_path / "mine"
    captions = [
        "\u7ea2\u8272\u7684\u82b1",
        "\u4e94\u7247\u767d\u8272\u82b1\u74e3",
        "caf\u00e9",
        "plain",
        "x" * 250,
        "\u201cx\u201d" * 90,
    ]
    for number, caption in enumerate(captions):
        captioned(source / f"{number}.png", caption)
    data, report = packed(source, tmp_path)
    assert [data.captions_of(row) for row in range(6)] == [[caption] for caption in captions]
    assert (report.truncated, report.unknown) == (2, 4)
    assert json.loads((data.path / "report.json").read_text())["char_cnn_rnn"] == {"truncated": 2, "unknown": 4}
    assert "2 are cut at 201 characters, 4 have characters outside its alphabet; the n-grams of" in report.summary()
    captioned(source / "long.png", "y" * 65_537)
    captioned(source / "6.png", "y" * 65_536)
    data, report = packed(source, tmp_path / "again")
    assert data.captions_of(6) == ["y" * 65_536]
    assert reasons(report, source) == {"long.txt": "a caption of over 65536 bytes"}


def test_captions_of_the_alphabet_alone_are_not_worth_a_line(tmp_path):
    captioned(tmp_path / "mine" / "a.png", "A flower of 5 petals; very red!")
    _, report = packed(tmp_path / "mine", tmp_path)
    assert "alphabet" not in report.summary()


def test_a_file_name_that_is_no_text_is_packed_and_can_be_printed(tmp_path):
    source = tmp_path / "mine"
    captioned(source / "good.png", "a good one")
    try:
        shutil.copy(source / "good.png", os.fsencode(source) + b"/\xff.png")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    data, report = packed(source, tmp_path)
    assert len(data) == 1
    report.summary().encode()
    shutil.copy(source / "good.txt", os.fsencode(source) + b"/\xff.txt")
    data, report = packed(source, tmp_path, force=True)
    assert names(data) == ["good.png", "?.png"]


@pytest.mark.parametrize(
    ("fill", "says"),
    [
        (lambda source: None, "has no captioned images"),
        (lambda source: picture(source / "a.png"), "has no captioned images.*no captions: neither"),
        (lambda source: captioned(source / "a.png", ""), "has no captioned images.*no captions"),
        (lambda source: lines(source / "metadata.jsonl", "{"), "has no captioned images.*jsonl:1: broken line"),
        (lambda source: (captioned(source / "a.png", "x"), cut(source / "a.png", 9)), "none of the 1 images"),
    ],
)
def test_a_folder_with_nothing_usable_is_refused_in_one_line(tmp_path, fill, says):
    source = tmp_path / "mine"
    source.mkdir()
    fill(source)
    with pytest.raises(t2i.DataError, match=says) as caught:
        packed(source, tmp_path)
    assert str(source) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out of the test" / "pack.json").exists()


def test_no_such_folder_and_impossible_sizes_are_refused(tmp_path):
    with pytest.raises(t2i.DataError, match=r"no such file or folder: .*nothing"):
        packed(tmp_path / "nothing", tmp_path)
    for size in (8, 5000):
        with pytest.raises(t2i.ConfigError, match=f"from 16 to 2048, got {size}"):
            packed(tmp_path, tmp_path, size=size)


# Where it is written.


def test_a_pack_that_is_there_is_kept_unless_it_may_be_replaced(tmp_path):
    source, empty = tmp_path / "mine", tmp_path / "empty"
    captioned(source / "a.png", "one")
    empty.mkdir()
    data, _ = packed(source, tmp_path)
    with pytest.raises(t2i.DataError, match=r"already holds a packed data set; .* --force"):
        packed(source, tmp_path)
    with pytest.raises(t2i.DataError, match="no captioned images"):
        packed(empty, tmp_path, force=True)
    assert PackedDataset(data.path, verify=True).fingerprint == data.fingerprint
    captioned(source / "b.png", "two")
    assert len(packed(source, tmp_path, force=True)[0]) == 2


def test_what_a_stopped_preparation_left_is_replaced(tmp_path):
    source, out = tmp_path / "mine", tmp_path / "out of the test"
    captioned(source / "a.png", "one")
    (out / ".preparing").mkdir(parents=True)
    (out / ".preparing" / "writer.json").write_text('{"suffix": "", "replaces": []}')
    for name in ("shard-00000.safetensors", "shard-00007.safetensors", ".shard-00001.safetensors.0123456789ab.partial"):
        (out / name).write_bytes(b"half")
    packed(source, tmp_path)
    assert sorted(path.name for path in out.iterdir()) == ["pack.json", "report.json", "shard-00000.safetensors"]


def test_many_pictures_fill_several_shards_in_order(tmp_path, monkeypatch):
    monkeypatch.setattr("t2i.prepare.writer.SHARD_IMAGES", 3)
    source = tmp_path / "mine"
    for number in range(8):
        captioned(source / f"{number}.png", *(f"caption {number}",) * (number + 1), colour=(number, 0, 0))
    data, _ = packed(source, tmp_path)
    record = json.loads((data.path / "pack.json").read_text())
    assert [shard["images"] for shard in record["shards"]] == [3, 3, 2]
    assert data.read_images(range(8))[:, 0, 0, 0].tolist() == list(range(8))
    assert [len(data.captions_of(row)) for row in range(8)] == list(range(1, 9))


def test_the_same_folder_gives_the_same_bytes(tmp_path):
    source = tmp_path / "mine"
    for number in range(5):
        captioned(source / "ab"[number % 2] / f"{number}.jpg", f"caption {number}", colour=(40 * number, 9, 9))
    data, _ = packed(source, tmp_path)
    before = [path.read_bytes() for path in sorted(data.path.iterdir())]
    data, _ = packed(source, tmp_path, force=True)
    assert [path.read_bytes() for path in sorted(data.path.iterdir())] == before


def test_a_folder_that_cannot_be_written_is_refused_in_one_line(tmp_path):
    source = tmp_path / "mine"
    captioned(source / "a.png", "one")
    (tmp_path / "out of the test").write_text("a file is in the way")
    with pytest.raises(t2i.DataError, match=r"cannot write into .*; choose another --out"):
        packed(source, tmp_path)


def test_blossoms_are_drawn_once_and_found_again(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    first = embedded_blossoms(16, tmp_path / "run", images=20)
    assert PackedDataset(first).image_size == 19  # room for crops of 16
    assert first.is_relative_to(tmp_path / "cache")
    stamp = (first / "pack.json").stat().st_mtime_ns
    assert embedded_blossoms(16, tmp_path / "run", images=20) == first
    assert (first / "pack.json").stat().st_mtime_ns == stamp


@pytest.mark.promise(28)
def test_without_a_cache_folder_blossoms_go_into_the_run(tmp_path, monkeypatch):
    (tmp_path / "cache").write_text("a file is in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert embedded_blossoms(16, tmp_path / "run", images=20).parent == tmp_path / "run"


def test_inside_takes_names_below_the_root_only(tmp_path):
    assert prepare.inside(tmp_path, "a/b.png") == Path(tmp_path / "a" / "b.png")
    assert prepare.inside(tmp_path, "a/../b.png") == Path(tmp_path / "b.png")
    for name in ("", "..", "../x", "/x", "a/../../x", "a\0b"):
        assert prepare.inside(tmp_path, name) is None
