"""Images of every kind: colours on white, orientation, fit, and what cannot be decoded."""

import json

import numpy as np
import pytest
from PIL import Image

from source_files import BLUE, GREEN, RED, WHITE, captioned, cut, names, packed_folder, picture


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
    data, report = packed_folder(path.parent, tmp_path)
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
    shown = packed_folder(path.parent, tmp_path)[0].read_images([0])[0].astype(int)
    assert np.abs(shown[:5] - RED).max() < 20
    assert np.abs(shown[11:] - BLUE).max() < 20


def test_stretch_keeps_the_borders_and_crop_cuts_them_off(tmp_path):
    wide = Image.new("RGB", (64, 32), GREEN)
    wide.paste(RED, (0, 0, 16, 32))
    wide.paste(BLUE, (48, 0, 64, 32))
    (tmp_path / "mine").mkdir()
    wide.save(tmp_path / "mine" / "a.png")
    (tmp_path / "mine" / "a.txt").write_text("a picture\n")
    stretched = packed_folder(tmp_path / "mine", tmp_path)[0].read_images([0])[0].astype(int)
    cropped = packed_folder(tmp_path / "mine", tmp_path, fit="crop", force=True)[0].read_images([0])[0].astype(int)
    assert np.abs(stretched[:, 0] - RED).max() < 12
    assert np.abs(stretched[:, 8] - GREEN).max() < 12
    assert np.abs(stretched[:, 15] - BLUE).max() < 12
    assert np.abs(cropped[:, 2:14] - GREEN).max() < 12


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
    data, report = packed_folder(source, tmp_path, max_pixels=1_000_000)
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
