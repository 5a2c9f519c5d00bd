"""Captions by language, a line for each image of a list, as Multi30k has them."""

import pytest

from helpers import packed
from t2i.errors import DataError
from test_published import fill, listed, reasons

FILES = {
    "train.en": "a red kite\na ball, and a bowl\n",
    "train.de": "ein Drachen\nein Ball\n",
    "train.zh": "一只风筝\n一个球\n",
    "train_images.txt": "1.jpg\n2.jpg\n",
    "test_2016_flickr.en": "a boat\n",
    "splits/test_2016_flickr.txt": "3.jpg#0\n",
    **{f"images/{n}.jpg": None for n in (1, 2, 3)},
}


def test_multi30k_is_read_in_every_language(tmp_path):
    found, report = listed("csv", fill(tmp_path, FILES))
    assert found == {
        "images/3.jpg": (["a boat"], True),
        "images/1.jpg": (["ein Drachen", "a red kite", "一只风筝"], False),
        "images/2.jpg": (["ein Ball", "a ball, and a bowl", "一个球"], False),
    }
    assert report.skipped == []
    assert (report.account.images, report.account.read, report.account.files) == (3, 6, 9)


def test_one_file_of_captions_is_read_with_its_list(tmp_path):
    found, report = listed("csv", fill(tmp_path, FILES) / "train.zh")
    assert found == {"images/1.jpg": (["一只风筝"], False), "images/2.jpg": (["一个球"], False)}
    assert report.skipped == []


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"train.de": "ein Drachen\n"}, "not read: it has 1 lines, and train_images.txt has 2 names of images"),
        ({"train.lc.norm.en": "a red kite\na ball\n"}, "not read: a normalised form of the captions in train.en"),
        ({"val.en": "x\n", "val.de": "y\n"}, "put these into val_images.txt beside it, one a line in the same order"),
        ({"train.de": "ein Drachen\n\n"}, "not read: it has 1 lines, and train_images.txt has 2 names of images"),
        ({"train.en": "\na ball\n"}, "no captions"),
    ],
)
def test_files_that_do_not_fit_are_reported(tmp_path, changed, says):
    found, report = listed("csv", fill(tmp_path, {**FILES, **changed}))
    assert {reason for reason in reasons(report) if says in reason}, report.skipped
    assert {name: test for name, (_, test) in found.items()} == {f"images/{n}.jpg": n == 3 for n in (1, 2, 3)}
    counts = report.account
    assert counts.images + counts.read + counts.skipped + counts.ignored.total() == counts.files


def test_the_other_kinds_say_how_such_files_are_read(tmp_path):
    with pytest.raises(
        DataError, match=r"train\.de: lines of captions, whose images train_images\.txt names; t2i-prepare csv"
    ):
        packed("folder", fill(tmp_path / "x", FILES), tmp_path)


@pytest.mark.parametrize("files", [{"main.ts": "let x = 1\n"}, {"train.en": "\0\1"}, {"a.so": b"\x7fELF\0"}])
def test_other_files_with_such_endings_are_none(tmp_path, files):
    table = {"list.csv": "image,text\na.png,a kite\n", "a.png": None}
    _, report = listed("csv", fill(tmp_path, table | files))
    assert report.skipped == []
