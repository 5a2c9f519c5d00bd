"""Pictures that nobody vouches for: cut, mutated, or made to swell. Each is refused by name; none ends the process."""

import io
import json
import re
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers import forget_peak, peak
from promises import cases, count
from t2i import prepare
from t2i.config.sizes import MAX_PIXELS
from t2i.prepare.images import _load_embedded
from t2i.prepare.items import Item

HERE = Path(__file__).parent
MEMORY = 256 * 2**20


def drawn(rng, mode="RGB", sides=(16, 96)):
    """A picture of waves and noise, so that every part of a coded file says something."""
    height, width = rng.integers(*sides, 2)
    y, x = np.mgrid[:height, :width]
    waves = np.sin(x[..., None] / rng.uniform(2, 9, 4) + y[..., None] / rng.uniform(2, 9, 4)) * 99 + 128
    pixels = np.clip(waves + rng.normal(0, 12, waves.shape), 0, 255).astype(np.uint8)
    return Image.fromarray(pixels, "RGBA").convert(mode)


def coded(rng, kind):
    """One file of a kind, with options at random."""
    file = io.BytesIO()
    if kind == "jpeg":
        exif = Image.Exif()
        exif[0x112] = int(rng.integers(1, 9))
        drawn(rng, ["RGB", "L", "CMYK"][rng.integers(3)]).save(
            file,
            "JPEG",
            quality=int(rng.integers(20, 98)),
            progressive=bool(rng.integers(2)),
            subsampling=int(rng.integers(3)),
            restart_marker_rows=int(rng.integers(2)),
            exif=exif,
        )
    elif kind == "png":
        drawn(rng, ["RGB", "L", "RGBA", "LA", "P", "1"][rng.integers(6)]).save(file, "PNG", optimize=True)
    else:
        drawn(rng, ["RGB", "RGBA"][rng.integers(2)]).save(
            file, "WEBP", lossless=bool(rng.integers(2)), quality=int(rng.integers(100))
        )
    return file.getvalue()


@pytest.mark.promise(10)
def test_jpegs_cut_at_any_byte_are_reported_and_none_is_accepted(tmp_path, tally):
    rng = np.random.default_rng(10)
    source = tmp_path / "mine"
    source.mkdir()
    names = [f"{case:04d}.jpg" for case in cases(10)]
    for name in names:
        whole = coded(rng, "jpeg")
        (source / name).write_bytes(whole[: rng.integers(len(whole))])
        (source / name).with_suffix(".txt").write_text("cut\n")
    drawn(rng).convert("RGB").save(source / "whole.jpg")
    (source / "whole.txt").write_text("whole\n")
    report = prepare.pack("folder", source, tmp_path / "out", size=16, show_progress=False)
    found = {str(place): reason for place, reason in report.skipped}
    for name in tally(names):
        assert found[str(source / name)].startswith("broken: ")
    assert report.images == 1
    listed = json.loads((tmp_path / "out" / "report.json").read_text())
    assert len(listed["files"]) == listed["skipped"] == len(names)


@pytest.mark.promise(10)
def test_a_jpeg_that_lacks_only_its_last_bytes_is_refused(tally):
    """Every pixel is there: only the look at the end-of-image marker notices."""
    rng = np.random.default_rng(100)
    for case in tally(range(len(cases(10)) // 5)):
        file = io.BytesIO()
        drawn(rng, sides=(48, 96)).convert("RGB").save(file, "JPEG", quality=90, progressive=bool(case % 2))
        assert load(file.getvalue()) is None
        for end in (1, 2):
            found = load(file.getvalue()[:-end])
            assert found == "broken: it ends without an end-of-image marker, so it was cut"


def mutated(rng, whole):
    """Change a file as a broken disk, a bad transfer or an enemy does."""
    data = bytearray(whole)
    for _ in range(rng.integers(1, 4)):
        at = int(rng.integers(len(data)))
        end = min(len(data), at + int(rng.integers(1, 40)))
        match rng.integers(7):
            case 0:
                data[at] ^= 1 << int(rng.integers(8))
            case 1:
                data[at:end] = rng.bytes(end - at)
            case 2:
                data[at:end] = b"\xff" * (end - at)
            case 3:
                data[at:end] = b""
            case 4:
                data[at:at] = data[at:end] * int(rng.integers(1, 30))
            case 5:
                at = int(rng.integers(min(64, len(data))))  # headers hold the sizes
                data[at] = int(rng.choice([0, 1, 0x7F, 0x80, 0xFF]))
            case 6:
                del data[at:]
        if not data:
            data += b"\xff"
    if data[:4] == b"\x89PNG" and rng.integers(2):  # right checksums let a mutation through to the decoder
        data = bytearray(with_checksums(bytes(data)))
    return bytes(data)


def with_checksums(data):
    out, at = data[:8], 8
    while at + 12 <= len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        body = data[at + 4 : at + 8 + length]
        if at + 12 + length > len(data):
            break
        out += data[at : at + 4] + body + struct.pack(">I", zlib.crc32(body))
        at += 12 + length
    return out + data[at:]


def load(data, max_pixels=MAX_PIXELS):
    out = np.zeros((16, 16, 3), np.uint8)
    return _load_embedded(Item(Path("x"), ("x",), read=lambda limit: data), "stretch", max_pixels, out)


def decode_mutated(files):
    """Decode so many mutated files in this process; prints the slowest, in seconds of work, and the memory at its most."""
    rng = np.random.default_rng(11)
    seeds = [coded(rng, kind) for kind in ("jpeg", "png", "webp") for _ in range(12)]
    slowest = refused = 0
    for number in range(files):
        data = mutated(rng, seeds[number % len(seeds)])
        before = time.thread_time()
        refused += load(data) is not None
        slowest = max(slowest, time.thread_time() - before)
    print(json.dumps({"slowest": slowest, "memory": peak(), "refused": refused}))


def in_a_process(call):
    """Run a function of this file in a process of its own: what it printed. An abort or a signal is a failure here."""
    code = f"import sys; sys.path[:0] = {[str(HERE), str(HERE.parent)]!r}; import test_hostile_images as t; t.{call}"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


@pytest.mark.promise(11)
def test_mutated_pictures_neither_abort_nor_hang_nor_swell(tally):
    found = in_a_process(f"decode_mutated({count(11)})")
    for _ in tally(cases(11)):
        assert found["slowest"] < 2
        assert found["memory"] < MEMORY
    assert found["refused"] > count(11) // 2  # most were really broken


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width, height, *chunks, depth=8, colour=2):
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(chunks) + chunk(b"IEND", b"")


def zeros(megabytes):
    """A zlib stream of that many megabytes of zeros, a thousandth of it long."""
    packer = zlib.compressobj(1)
    return b"".join(packer.compress(bytes(1 << 20)) for _ in range(megabytes)) + packer.flush()


def bombs():
    """Name, file, and whether it must be refused: a picture with a bomb in its text may be decoded without the text."""
    swollen = zeros(100)
    small = chunk(b"IDAT", zlib.compress(b"\0" * 8 * 25))
    for width, height in (
        (60_000, 60_000),
        (2**31 - 1, 1),
        (1, 2**31 - 1),
        (2**31 - 1, 2**31 - 1),
        (10_001, 10_000),
        (10**8 + 1, 1),
    ):
        for depth, colour in ((8, 2), (16, 6), (1, 0), (8, 3)):
            yield (
                f"png {width}x{height} {depth} {colour}",
                png(width, height, chunk(b"IDAT", small), depth=depth, colour=colour),
                True,
            )
    yield "png of swollen pixels", png(8, 8, chunk(b"IDAT", swollen)), False
    yield "png with swollen zTXt", png(8, 8, chunk(b"zTXt", b"Comment\0\0" + swollen), small), False
    yield "png with swollen iTXt", png(8, 8, chunk(b"iTXt", b"Comment\0\1\0\0\0" + swollen), small), False
    yield "png with swollen iCCP", png(8, 8, chunk(b"iCCP", b"profile\0\0" + swollen), small), False
    yield "png of a hundred thousand text chunks", png(8, 8, chunk(b"tEXt", b"a\0b") * 100_000, small), False
    rng = np.random.default_rng(12)
    for width, height in ((65_535, 65_535), (65_535, 1_600), (1_600, 65_535)):
        jpeg = bytearray(coded(rng, "jpeg"))
        at = next(jpeg.index(bytes([0xFF, marker])) for marker in (0xC0, 0xC2) if bytes([0xFF, marker]) in jpeg)
        jpeg[at + 5 : at + 9] = struct.pack(">HH", height, width)
        yield f"jpeg {width}x{height}", bytes(jpeg), True
    scans = bytearray()
    drawing = io.BytesIO()
    drawn(rng, "L").save(drawing, "JPEG", progressive=True)
    whole = drawing.getvalue()
    scan = whole.rindex(b"\xff\xda")
    scans += whole[:scan] + whole[scan:-2] * 5000 + b"\xff\xd9"
    yield "jpeg of five thousand scans", bytes(scans), True
    lossless = b"\x2f" + struct.pack("<I", 16_383 | 16_383 << 14) + bytes(3)
    yield (
        "webp 16384x16384",
        b"RIFF" + struct.pack("<I", 4 + 8 + 8) + b"WEBPVP8L" + struct.pack("<I", 8) + lossless,
        True,
    )
    extended = bytes(4) + (2**24 - 1).to_bytes(3, "little") * 2
    yield "webp canvas of 2^48", b"RIFF" + struct.pack("<I", 22) + b"WEBPVP8X" + struct.pack("<I", 10) + extended, True
    yield (
        "gif 65535x65535",
        b"GIF89a"
        + struct.pack("<HHBBB", 65_535, 65_535, 0, 0, 0)
        + b","
        + struct.pack("<HHHHB", 0, 0, 65_535, 65_535, 0)
        + b"\x02\x02\x4c\x01\x00;",
        True,
    )
    head = struct.pack("<IiiHHIIiiII", 40, 60_000, 60_000, 1, 24, 0, 0, 0, 0, 0, 0)
    yield "bmp 60000x60000", b"BM" + struct.pack("<IHHI", 54 + 400, 0, 0, 54) + head + bytes(400), True
    yield "ppm 60000x60000", b"P6 60000 60000 255\n" + bytes(400), True
    yield "postscript", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 99999 99999\nshowpage\n", True
    rows = [(256, 4, 1, 60_000), (257, 4, 1, 60_000), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 8)]
    rows += [(277, 3, 1, 1), (278, 4, 1, 60_000), (279, 4, 1, 100)]
    body = struct.pack("<H", len(rows)) + b"".join(struct.pack("<HHII", *row) for row in rows) + bytes(4)
    yield "tiff 60000x60000", b"II*\0" + struct.pack("<I", 8) + body + bytes(100), True


def decode_bombs():
    """Decode every bomb in this process; prints what each was refused with, and the memory above that of before."""
    made = list(bombs())
    before = peak()
    reasons = {name: load(data) for name, data, _ in made}
    print(json.dumps({"reasons": reasons, "grown": peak() - before}))


@pytest.mark.promise(12)
def test_decompression_bombs_are_refused_before_anything_is_allocated(tally):
    found = in_a_process("decode_bombs()")
    made = [(name, must) for name, _, must in bombs()]
    assert len(made) >= count(12)
    for name, must in tally(made):
        assert name in found["reasons"]
        assert found["reasons"][name] is not None or not must, name
    assert found["grown"] < 64 * 2**20


DENSE = [("1", "group4", 4), ("L", "tiff_lzw", 4), ("RGB", "tiff_adobe_deflate", 7), ("CMYK", "tiff_lzw", 7)]
SIDE = 4000


def decode_dense(mode, compression):
    """Decode a TIFF of some kilobytes that is within the limit of pixels; prints the memory above that of before."""
    data = io.BytesIO()
    Image.new(mode, (SIDE, SIDE)).save(data, "TIFF", compression=compression)
    forget_peak()  # what making it took does not count
    before = peak()
    assert load(data.getvalue()) is None
    print(json.dumps({"bytes": len(data.getvalue()), "grown": peak() - before}))


@pytest.mark.promise(12)
def test_a_small_file_of_many_pixels_takes_the_memory_of_its_pixels_once(tally):
    """What Pillow holds of a pixel (1 or 4 bytes), and three bytes of what comes of it: a 97 KB TIFF once took 2.3 GB."""
    for mode, compression, pixel in tally(DENSE):
        found = in_a_process(f"decode_dense({mode!r}, {compression!r})")
        assert found["bytes"] < 600_000
        assert found["grown"] < pixel * SIDE * SIDE + 48 * 2**20, mode


@pytest.mark.promise(12)
@pytest.mark.parametrize("kind", ["png", "jpg", "webp", "gif", "bmp", "ppm", "tif"])
@pytest.mark.parametrize("limit", [99, 100])
def test_the_limit_of_pixels_is_a_flag(tmp_path, limit, kind, monkeypatch, capsys):
    """Of every decoder; the last four are Pillow's, whose own limit is higher."""
    from t2i.cli import main

    source = tmp_path / "mine"
    source.mkdir()
    Image.new("RGB", (10, 10)).save(source / f"a.{kind}")
    (source / "a.txt").write_text("ten by ten\n")
    arguments = ["t2i-prepare", "folder", str(source), "--out", str(tmp_path / "out"), "--size", "16"]
    monkeypatch.setattr(sys, "argv", [*arguments, "--max-pixels", str(limit)])
    if limit == 100:
        main.prepare()
        return
    with pytest.raises(SystemExit) as stopped:
        main.prepare()
    assert stopped.value.code == 2
    assert re.search(r"10 ?x ?10 pixels(?: are more than|,) the limit (?:of|is) 99", capsys.readouterr().err)


@pytest.mark.promise(12)
def test_pillow_is_asked_for_images_alone():
    """Left to itself it would hand PostScript to Ghostscript, a program of whoever wrote the file."""
    for start in (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n", b"\xc5\xd0\xd3\xc6" + bytes(60)):
        assert load(start) in (
            "broken: no image of a known format",
            "unsupported: PostScript is not read; convert it to JPEG or PNG",
        )
