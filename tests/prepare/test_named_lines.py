"""Captions on lines that begin with the name of an image, as Flickr8k-CN, COCO-CN and others publish them."""

import pytest

from helpers import packed
from t2i.errors import DataError
from t2i.prepare import Report
from t2i.prepare.sources.table import table as read_table
from test_published import fill, listed, reasons

NAME = "1000268201_693b08cb0e"
STEM = "COCO_val2014_000000123599"


@pytest.mark.parametrize(
    ("base", "lines", "image"),
    [
        (
            "flickr8kzhm.caption.txt",
            f"{NAME}.jpg#zhm#0 一个女孩, 在木屋里\n{NAME}.jpg#zhm#1 粉色 裙子\n",
            f"{NAME}.jpg",
        ),
        ("flickr8kzhc.caption.txt", f"{NAME}#zhc#0\t一个女孩, 在木屋里\n{NAME}#zhc#1\t粉色 裙子\n", f"{NAME}.jpg"),
        ("seg.txt", f"{NAME}#enc2zhm#0 一个女孩, 在木屋里\n{NAME}#enc2zhm#1   粉色 裙子\n", f"{NAME}.jpg"),
        ("imageid.human-written-caption.txt", f"{STEM}#0\t一个女孩, 在木屋里\n{STEM}#1\t粉色 裙子\n", f"{STEM}.jpg"),
        ("captions.txt", "my kite.jpg: 一个女孩, 在木屋里\nmy kite.jpg : 粉色 裙子\n", "my kite.jpg"),
        ("captions.txt", "\ufeffa.PNG：一个女孩, 在木屋里\r\n\r\na.PNG：粉色 裙子\r\n", "a.PNG"),
    ],
)
@pytest.mark.parametrize("place", ["", "images/"])
def test_lines_of_an_image_and_its_caption_are_read(tmp_path, base, lines, image, place):
    source = fill(tmp_path / "x", {base: lines, f"{place}{image}": None})
    for whole in (source, source / base):
        found, report = listed("csv", whole)
        assert found == {f"{place}{image}": (["一个女孩, 在木屋里", "粉色 裙子"], False)}
        assert report.skipped == []
    _, report = listed("folder", source)
    [(_, hint), *_] = [each for each in report.skipped if base in each[0]]
    assert "t2i-prepare csv" in hint


def test_lines_of_another_form_are_reported_one_by_one(tmp_path):
    text = (
        "a.png: a kite\nanother line of it\nb.png:\nc.png: a boat\nhttp://x.org/a.png\nd.png: 8:30 in b.png: a clock\n"
    )
    source = fill(tmp_path / "x", {"captions.txt": text, "a.png": None, "b.png": None, "d.png": None})
    found, report = listed("csv", source)
    assert found == {"a.png": (["a kite"], False), "d.png": (["8:30 in b.png: a clock"], False)}
    why = {place.rpartition(":")[2]: reason for place, reason in report.skipped}
    assert why["2"] == why["5"] == "broken line: the name of an image and its caption expected, as in the first line"
    assert (why["3"], why["4"]) == ("no captions", "no such image: c.png")
    assert report.account.files == 4


@pytest.mark.parametrize(
    ("text", "found"),
    [  # tables with cells are read as before
        ("a.png#0,a kite: red\n", ["a kite: red"]),
        ("image,caption\na.png,a.png: a kite\n", ["a.png: a kite"]),
        ("a.png#0\ta kite#3 and b\n", ["a kite#3 and b"]),
        ("caption;image\nb.png: a kite;a.png\n", ["b.png: a kite"]),
        ("image,caption\na#1,a kite\n", None),  # with a header, #1 may be of the name
    ],
)
def test_tables_with_cells_are_no_such_lines(tmp_path, text, found):
    source = fill(tmp_path / "x", {"captions.txt": text, "a.png": None, "a#1.png": None})
    images, _ = listed("csv", source)
    assert images == ({"a.png": (found, False)} if found else {"a#1.png": (["a kite"], False)})


def test_segmented_captions_are_not_read_beside_the_written_ones(tmp_path):
    files = {
        "flickr8kzhc.caption.txt": "a1.png#zhc#0 一个女孩\n",
        "seg.flickr8kzhc.caption.txt": "a1.png#zhc#0 一个 女孩\n",
        "human.txt": "a1#0 粉色裙子\n",
        "human.bosonseg.txt": "a1#0 粉色 裙子\n",
        "a1.png": None,
    }
    found, report = listed("csv", fill(tmp_path, files))
    assert found == {"a1.png": (["一个女孩", "粉色裙子"], False)}
    assert reasons(report) == ["not read: the segmented captions of a table beside it"] * 2
    assert (report.account.images, report.account.read, report.account.skipped) == (1, 2, 2)


def test_the_captions_of_a_split_and_lists_of_names_without_extension_hold_out(tmp_path):
    stems = [f"{n}_b{n}" for n in range(6)]
    files = {f"images/{stem}.jpg": None for stem in stems}
    whole = "".join(f"{stem}#zhm#{n} 第{n}句\n" for stem in stems for n in range(2))
    lists = {"x_train.txt": stems[:3], "x_val.txt": stems[3:4], "x_test.txt": stems[4:]}
    files |= {"x.caption.txt": whole} | {name: "\n".join(names) + "\n" for name, names in lists.items()}
    found, report = listed("csv", fill(tmp_path / "whole", files))
    assert [test for _, test in found.values()] == [False] * 3 + [True] * 3
    assert all(len(captions) == 2 for captions, _ in found.values())
    assert (report.account.read, report.account.skipped) == (4, 0)
    assert "3 images are held out by x_test.txt, x_val.txt" in report.notes

    files = {f"images/{stem}.jpg": None for stem in stems}
    files |= {name: "".join(f"{stem}#zhm#0 一句\n" for stem in names) for name, names in lists.items()}
    found, _ = listed("csv", fill(tmp_path / "split", files))
    assert {name: test for name, (_, test) in found.items()} == {
        f"images/{stem}.jpg": stem not in stems[:3] for stem in stems
    }


@pytest.mark.parametrize(
    ("lines", "images"),
    [
        ("1\n0\n1\n", 0),  # flags
        ("kite\nboat\n", 0),  # words, such as classes
        ("p9\np8\n", 0),  # of no image
        ("p1 2\n", 0),
        ("p1\n", 1),
        ("p1\np7\n", 1),
        ("same1\n", 0),  # of two images
    ],
)
def test_a_list_without_extensions_is_one_of_images_only_where_that_is_plain(tmp_path, lines, images):
    names = ["1.png", "0.png", "kite.png", "p1.png", "a/same1.png", "b/same1.png"]
    files = dict.fromkeys(names) | {"list.csv": "image,text\n" + "".join(f"{name},a kite\n" for name in names)}
    found, report = listed("csv", fill(tmp_path, files | {"test.txt": lines}))
    assert [name for name, (_, test) in found.items() if test] == ["p1.png"][:images]
    unknown = [note for note in report.notes if "of no captioned image" in note]
    assert bool(unknown) == (lines in ("p1\np7\n", "same1\n"))


def test_a_list_without_extensions_counts_whatever_folder_its_images_are_in(tmp_path):
    files = {f"images/{split}2014/COCO_{split}_{n}.jpg": None for split in ("train", "val") for n in range(2)}
    text = "".join(f"COCO_{split}_{n}#0\t一句\n" for split in ("train", "val") for n in range(2))
    source = fill(tmp_path, files | {"train.caption.txt": text, "coco-cn_test.txt": "COCO_train_1\n"})
    found, _ = listed("csv", source, images=source / "images" / "train2014")
    assert {name.rpartition("/")[2]: test for name, (_, test) in found.items()} == {
        "COCO_train_0.jpg": False,
        "COCO_train_1.jpg": True,
    }


@pytest.mark.parametrize("kind", ["csv", "folder"])
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("about.txt", "a.png a red kite over a beach\n"),
        ("words", "images/a.png = a red kite\n"),
        ("about.yaml", "- file a.png shows a kite\n"),
    ],
)
def test_a_text_that_names_images_in_an_unknown_form_is_named_with_the_forms_that_are_read(tmp_path, kind, name, text):
    source = fill(tmp_path / "x", {name: text, "images/a.png": None})
    with pytest.raises(DataError, match=rf"{name}: it names images, such as .*a\.png.*NAME\.jpg: .* csv .*{name}"):
        packed(kind, source, tmp_path)
    report = Report()
    assert list(read_table(source, report)) == []
    assert (report.account.skipped, report.account.files) == (2, 2)


def test_a_table_by_name_in_an_unknown_form_is_refused_with_the_forms(tmp_path):
    source = fill(tmp_path / "x", {"captions.txt": "a.png a red kite, flying\n", "a.png": None})
    with pytest.raises(DataError, match=r"captions\.txt: .*NAME\.jpg, a tab and its caption"):
        packed("csv", source, tmp_path)


@pytest.mark.parametrize("text", ["a.png 3\n", "a.png\n", "the kite of last year\n", "a.png 0.5 0.5 0.1\n"])
def test_other_texts_are_ignored_by_rule_as_before(tmp_path, text):
    source = fill(
        tmp_path, {"notes.txt": text, "metadata.jsonl": {"file_name": "a.png", "text": "a kite"}, "a.png": None}
    )
    _, report = listed("folder", source)
    assert report.skipped == []


def test_ai_challenger_is_read_with_its_folders_of_images(tmp_path):
    files = {}
    for split, day in (("train", 20170902), ("validation", 20170910)):
        rows = [{"url": "http://x.org/a", "image_id": f"{split}1.jpg", "caption": ["一个女孩", "粉色裙子"]}]
        files[f"caption_{split}_annotations_{day}.json"] = rows
        files[f"caption_{split}_images_{day}/{split}1.jpg"] = None
    found, report = listed("csv", fill(tmp_path, files))
    assert found == {
        "caption_train_images_20170902/train1.jpg": (["一个女孩", "粉色裙子"], False),
        "caption_validation_images_20170910/validation1.jpg": (["一个女孩", "粉色裙子"], True),
    }
    assert (report.skipped, report.account.read) == ([], 2)
