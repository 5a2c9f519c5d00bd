"""What people's folders hold beside good images, what is refused, and where packs are written."""

import errno
import json
import os
import re
import shutil
from pathlib import Path

import pytest

import t2i
from source_files import captioned, cut, lines, names, packed_folder, picture, reasons
from t2i import files, prepare
from t2i.blossoms.pack import embedded_blossoms
from t2i.data.dataset import PackedDataset


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
    data, report = packed_folder(source, tmp_path)
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
    data, report = packed_folder(source, tmp_path)
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
    data, report = packed_folder(source, tmp_path)
    assert names(data) == ["good.png"]
    assert [why for _, why in report.skipped] == [reason]


def test_a_caption_file_with_a_byte_order_mark_and_windows_lines_reads_the_same(tmp_path):
    source = tmp_path / "mine"
    picture(source / "a.png")
    (source / "a.txt").write_bytes(b"\xef\xbb\xbfOne\r\nTwo\r\n")
    assert packed_folder(source, tmp_path)[0].captions_of(0) == ["One", "Two"]


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
    data, report = packed_folder(source, tmp_path)
    assert [data.captions_of(row) for row in range(6)] == [[caption] for caption in captions]
    assert (report.truncated, report.unknown) == (2, 4)
    assert json.loads((data.path / "report.json").read_text())["char_cnn_rnn"] == {"truncated": 2, "unknown": 4}
    assert (
        "2 are cut at 201 characters, 4 have characters outside its alphabet); the presets drawings and modern can"
        in report.summary()
    )
    captioned(source / "long.png", "y" * 65_537)
    captioned(source / "6.png", "y" * 65_536)
    data, report = packed_folder(source, tmp_path / "again")
    assert data.captions_of(6) == ["y" * 65_536]
    assert reasons(report, source) == {"long.txt": "a caption of over 65536 bytes"}


def test_captions_of_the_alphabet_alone_are_not_worth_a_line(tmp_path):
    captioned(tmp_path / "mine" / "a.png", "A flower of 5 petals; very red!")
    _, report = packed_folder(tmp_path / "mine", tmp_path)
    assert "alphabet" not in report.summary()


def test_a_file_name_that_is_no_text_is_packed_and_can_be_printed(tmp_path):
    source = tmp_path / "mine"
    captioned(source / "good.png", "a good one")
    try:
        shutil.copy(source / "good.png", os.fsencode(source) + b"/\xff.png")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    data, report = packed_folder(source, tmp_path)
    assert len(data) == 1
    report.summary().encode()
    shutil.copy(source / "good.txt", os.fsencode(source) + b"/\xff.txt")
    data, report = packed_folder(source, tmp_path, force=True)
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
        packed_folder(source, tmp_path)
    assert str(source) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out of the test" / "pack.json").exists()


def test_no_such_folder_and_impossible_sizes_are_refused(tmp_path):
    with pytest.raises(t2i.DataError, match=r"no such file or folder: .*nothing"):
        packed_folder(tmp_path / "nothing", tmp_path)
    for size in (8, 5000):
        with pytest.raises(t2i.ConfigError, match=f"from 16 to 2048, got {size}"):
            packed_folder(tmp_path, tmp_path, size=size)


def test_a_pack_that_is_there_is_kept_unless_it_may_be_replaced(tmp_path):
    source, empty = tmp_path / "mine", tmp_path / "empty"
    captioned(source / "a.png", "one")
    empty.mkdir()
    data, _ = packed_folder(source, tmp_path)
    with pytest.raises(t2i.DataError, match=r"already holds a packed data set; .* --force"):
        packed_folder(source, tmp_path)
    with pytest.raises(t2i.DataError, match="no captioned images"):
        packed_folder(empty, tmp_path, force=True)
    assert PackedDataset(data.path, verify=True).fingerprint == data.fingerprint
    captioned(source / "b.png", "two")
    assert len(packed_folder(source, tmp_path, force=True)[0]) == 2


def test_what_a_stopped_preparation_left_is_replaced(tmp_path):
    source, out = tmp_path / "mine", tmp_path / "out of the test"
    captioned(source / "a.png", "one")
    (out / ".preparing").mkdir(parents=True)
    (out / ".preparing" / "writer.json").write_text('{"suffix": "", "replaces": []}')
    for name in ("shard-00000.safetensors", "shard-00007.safetensors", ".shard-00001.safetensors.0123456789ab.partial"):
        (out / name).write_bytes(b"half")
    packed_folder(source, tmp_path)
    assert sorted(path.name for path in out.iterdir()) == ["pack.json", "report.json", "shard-00000.safetensors"]


def test_many_pictures_fill_several_shards_in_order(tmp_path, monkeypatch):
    monkeypatch.setattr("t2i.prepare.writer.SHARD_IMAGES", 3)
    source = tmp_path / "mine"
    for number in range(8):
        captioned(source / f"{number}.png", *(f"caption {number}",) * (number + 1), colour=(number, 0, 0))
    data, _ = packed_folder(source, tmp_path)
    record = json.loads((data.path / "pack.json").read_text())
    assert [shard["images"] for shard in record["shards"]] == [3, 3, 2]
    assert data.read_images(range(8))[:, 0, 0, 0].tolist() == list(range(8))
    assert [len(data.captions_of(row)) for row in range(8)] == list(range(1, 9))


def test_the_same_folder_gives_the_same_bytes(tmp_path):
    source = tmp_path / "mine"
    for number in range(5):
        captioned(source / "ab"[number % 2] / f"{number}.jpg", f"caption {number}", colour=(40 * number, 9, 9))
    data, _ = packed_folder(source, tmp_path)
    before = [path.read_bytes() for path in sorted(data.path.iterdir())]
    data, _ = packed_folder(source, tmp_path, force=True)
    assert [path.read_bytes() for path in sorted(data.path.iterdir())] == before


def test_a_folder_that_cannot_be_written_is_refused_in_one_line(tmp_path):
    source = tmp_path / "mine"
    captioned(source / "a.png", "one")
    (tmp_path / "out of the test").write_text("a file is in the way")
    with pytest.raises(t2i.DataError, match=r"cannot write into .*; choose another --out"):
        packed_folder(source, tmp_path)


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


def test_where_the_cache_is_full_blossoms_go_into_the_run(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    real = files._write_synced

    def full(path, data):
        real(path, data[: len(data) // 2])
        if "cache" in path.parts:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(path, data)

    monkeypatch.setattr(files, "_write_synced", full)
    found = embedded_blossoms(16, tmp_path / "run", images=20)
    assert found.parent == tmp_path / "run"
    assert len(PackedDataset(found, verify=True)) == 20


def test_where_blossoms_can_be_written_nowhere_each_reason_is_said(tmp_path, monkeypatch):
    for name in ("cache", "run"):
        (tmp_path / name).write_text("a file is in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(t2i.DataError, match=r"nowhere; choose another --out \(.*cache.*; .*run.*\)"):
        embedded_blossoms(16, tmp_path / "run", images=20)


def test_a_user_without_a_home_has_blossoms_in_the_run(tmp_path, monkeypatch):
    def homeless(cls):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", classmethod(homeless))
    with pytest.raises(t2i.ConfigError, match="XDG_CACHE_HOME=DIR"):
        files.cache_folder()
    assert embedded_blossoms(16, tmp_path / "run", images=20).parent == tmp_path / "run"


def test_inside_takes_names_below_the_root_only(tmp_path):
    assert prepare.inside(tmp_path, "a/b.png") == Path(tmp_path / "a" / "b.png")
    assert prepare.inside(tmp_path, "a/../b.png") == Path(tmp_path / "b.png")
    for name in ("", "..", "../x", "/x", "a/../../x", "a\0b"):
        assert prepare.inside(tmp_path, name) is None
