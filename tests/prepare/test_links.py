"""Links in a source: refused where they lead out, followed where the user says so, and never round for ever."""

import pytest
from PIL import Image

from helpers import call, packed
from t2i.errors import DataError
from t2i.prepare.collect import SourceOptions

FOLLOW = SourceOptions(follow_links=True)


@pytest.fixture
def store(tmp_path):
    """A store of three pictures elsewhere, and a source of links to it: two files, and a folder with one more."""
    place, source = tmp_path / "store", tmp_path / "source"
    (place / "more").mkdir(parents=True)
    source.mkdir()
    for number, name in enumerate(("a.png", "b.png", "more/c.png")):
        Image.new("RGB", (20, 20), (80 * number, 0, 0)).save(place / name)
        (place / name).with_suffix(".txt").write_text(f"picture {number}")
    for name in ("a.png", "a.txt", "b.png", "b.txt"):
        (source / name).symlink_to(place / name)
    (source / "more").symlink_to(place / "more")
    return source


def test_without_the_flag_links_out_are_refused_and_the_flag_is_named(store, tmp_path):
    with pytest.raises(DataError, match="5 links are not followed: --follow-links reads what they lead to"):
        packed("folder", store, tmp_path)
    Image.new("RGB", (20, 20)).save(store / "own.png")
    (store / "own.txt").write_text("a picture of its own")
    data, report = packed("folder", store, tmp_path)
    assert len(data) == 1
    assert any("5 links are not followed" in note for note in report.notes)


def test_with_it_what_they_lead_to_is_packed(store, tmp_path):
    data, report = packed("folder", store, tmp_path, options=FOLLOW)
    assert sorted(data.captions_of(image)[0] for image in range(len(data))) == ["picture 0", "picture 1", "picture 2"]
    assert report.skipped == []
    assert not any("links" in note for note in report.notes)


def test_a_link_to_a_folder_above_is_not_followed_round(store, tmp_path):
    (store / "loop").symlink_to(store)
    data, report = packed("folder", store, tmp_path, options=FOLLOW)
    assert len(data) == 3
    assert [reason for _, reason in report.skipped] == ["a link to a folder that is read already"]


def test_a_table_may_name_what_a_link_leads_to(store, tmp_path):
    (store / "captions.csv").write_text("file,caption\na.png,one\nb.png,two\nmore/c.png,three\n../store/a.png,four\n")
    for name in ("a.txt", "b.txt"):
        (store / name).unlink()
    data, report = packed("csv", store / "captions.csv", tmp_path, options=FOLLOW)
    assert sorted(data.captions_of(image)[0] for image in range(len(data))) == ["one", "three", "two"]
    assert len(report.skipped) == 1  # a name that leads out is no link


def test_the_flag_of_the_command(store, tmp_path):
    code, out, err = call("t2i-prepare", "folder", store, "--out", tmp_path / "p", "--size", 16, "--follow-links")
    assert code == 0, err
    assert "3 images, 3 captions" in out
