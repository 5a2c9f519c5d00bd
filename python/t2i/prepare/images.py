"""Decode and resize images to square uint8 arrays on all cores: the native module, and Pillow for formats it lacks."""

import contextlib
import io
import os
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from t2i import _native
from t2i.errors import DataError
from t2i.prepare.items import Item
from t2i.prepare.kinds import HEAD, POINTER, RAW, RAW_ENDINGS, ending, image_kind, is_pointer

Fit = Literal["stretch", "crop"]

# What Pillow may open. Left to itself it would ask Ghostscript to run a PostScript program.
PILLOW_FORMATS = ("AVIF", "BMP", "DIB", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
ORIENTATION = 0x112  # of EXIF
GROUP_BYTES = 8 << 20  # of files that one native call decodes: some hundred pictures from the web, one from a camera
BAND_PIXELS = 1 << 20  # laid on white at once
FILE_OVERHEAD = 16 << 20  # bytes a file may have beside eight for each allowed pixel, as in the native module


def load_images(
    items: Sequence[Item], size: int, fit: Fit, max_pixels: int
) -> tuple[NDArray[np.uint8], list[str | None]]:
    """Decode and resize images: uint8 (n, size, size, 3), and for each None or the reason it cannot be used."""
    out = np.zeros((len(items), size, size, 3), np.uint8)
    reasons = [RAW if ending(item.member or item.path.name) in RAW_ENDINGS else None for item in items]
    files = [row for row, item in enumerate(items) if item.read is None and reasons[row] is None]
    embedded = [row for row, item in enumerate(items) if item.read is not None and reasons[row] is None]
    if files:
        whole = len(files) == len(items)
        target = out if whole else np.zeros((len(files), size, size, 3), np.uint8)
        found = _load_files([items[row] for row in files], fit, max_pixels, target)
        for row, reason in zip(files, found, strict=True):
            reasons[row] = reason
        if not whole:
            out[files] = target
    if embedded:
        with ThreadPoolExecutor(os.cpu_count()) as threads:  # a thread holds one image at a time
            answers = threads.map(lambda row: _load_embedded(items[row], fit, max_pixels, out[row]), embedded)
            for row, reason in zip(embedded, answers, strict=True):
                reasons[row] = reason
    for row, reason in enumerate(reasons):
        if reason is not None:
            out[row] = 0
    return out, reasons


def _load_files(items: Sequence[Item], fit: Fit, max_pixels: int, out: NDArray[np.uint8]) -> list[str | None]:
    boxes = None
    if any(item.box for item in items):
        boxes = np.array([item.box or (np.nan,) * 4 for item in items], np.float32)
    answers: list[tuple[str, str] | None] = []
    for rows in _groups(items):
        some = None if boxes is None else boxes[rows]
        answers += _native.load_images([str(item.path) for item in items[rows]], some, fit, max_pixels, out[rows])
    reasons: list[str | None] = []
    for row, answer in enumerate(answers):
        if (answer is not None and _ask_pillow(*answer)) or (answer is None and _file_for_pillow(items[row].path)):
            reasons.append(_load_with_pillow(items[row].path, items[row].box, fit, max_pixels, out[row]))
        else:
            reasons.append(None if answer is None else f"{answer[0]}: {answer[1]}")
    return reasons


def _groups(items: Sequence[Item]) -> Iterator[slice]:
    """Cut files into groups of a few megabytes: a native call ends before Ctrl-C is seen, and should end soon."""
    first, total = 0, 0
    for row, item in enumerate(items):
        try:
            length = item.path.stat().st_size
        except OSError:
            length = 0  # which the native module says
        if row > first and total + length > GROUP_BYTES:
            yield slice(first, row)
            first, total = row, 0
        total += length
    if items:
        yield slice(first, len(items))


def _ask_pillow(kind: str, message: str) -> bool:
    """Return whether to retry with Pillow: other formats, and complete JPEGs with stray bytes between their headers.

    The native module checks the end-of-image marker before it decodes, so truncated files are still refused.
    """
    return kind == "unsupported" or (kind == "broken" and "Extra bytes between headers" in message)


def _file_for_pillow(path: Path) -> bool:
    try:
        with open(path, "rb") as file:
            return _for_pillow(file.read(XMP_BYTES), path.read_bytes)
    except OSError:
        return False


def _load_embedded(item: Item, fit: Fit, max_pixels: int, out: NDArray[np.uint8]) -> str | None:
    """Decode an image that is no file of its own into `out` (size, size, 3); the reason where that cannot be done."""
    assert item.read is not None
    try:
        data = item.read(8 * max_pixels + FILE_OVERHEAD)
        if isinstance(data, bytes) and _for_pillow(data[:XMP_BYTES], partial(bytes, data)):
            return _load_with_pillow(io.BytesIO(data), None, fit, max_pixels, out)
        if isinstance(data, bytes):
            data = _native.decode_image(data, max_pixels)
        elif data.shape[0] * data.shape[1] > max_pixels:
            return f"too large: {data.shape[1]} x {data.shape[0]} pixels, the limit is {max_pixels}"
        if 0 in data.shape:
            return "broken: it has no pixels"
        _native.resize(data, out, fit)
    except DataError as error:
        kind, image, message = str(error).partition(" image: ")  # as the native module says it
        if image and _ask_pillow(kind, message):
            assert isinstance(data, bytes)
            return _load_with_pillow(io.BytesIO(data), None, fit, max_pixels, out)
        return f"{kind}: {message}" if image else str(error)
    except OSError as error:
        return f"unreadable: {error.strerror or error}"
    return None


def _load_with_pillow(
    file: Path | io.BytesIO,
    box: tuple[float, float, float, float] | None,
    fit: Fit,
    max_pixels: int,
    out: NDArray[np.uint8],
) -> str | None:
    """Decode what the native module does not know into `out` (size, size, 3); the reason where Pillow cannot either."""
    try:
        # A file that is open, and no path: Pillow would map a TIFF, and turn a mapped one wrongly (12.3).
        with (
            open(file, "rb") if isinstance(file, Path) else contextlib.nullcontext(file) as raw,
            Image.open(raw, formats=_formats()) as opened,
        ):
            if opened.width * opened.height > max_pixels:
                return f"too large: {opened.width} x {opened.height} pixels, the limit is {max_pixels}"
            image = _eight_bits(opened)
            ImageOps.exif_transpose(image, in_place=True)
            array = _on_white(image)
    except Image.DecompressionBombError as error:  # Pillow's own limit is higher, but asked at once
        return f"too large: {error}"
    except UnidentifiedImageError:
        return _unidentified(file)
    except DataError as error:
        return str(error)
    except Exception as error:  # Pillow's parsers raise whatever they meet: struct.error, IndexError, EOFError, ...
        return f"broken: {' '.join(str(error).split()) or type(error).__name__}"
    if box is not None:
        x, y, width, height = (round(value) for value in box)
        array = np.ascontiguousarray(array[max(0, y) : y + height, max(0, x) : x + width])
        if array.size == 0:
            return "broken: the bounding box lies outside the image"
    _native.resize(array, out, fit)
    return None


def _on_white(image: Image.Image) -> NDArray[np.uint8]:
    """Lay an image on white: (H, W, 3). Band by band: as a whole it would take five times the memory of its pixels."""
    out = np.empty((image.height, image.width, 3), np.uint8)
    rows = max(1, BAND_PIXELS // max(1, image.width))
    for top in range(0, image.height, rows):
        band = image.crop((0, top, image.width, min(image.height, top + rows))).convert("RGBA")
        white = Image.new("RGBA", band.size, "white")
        out[top : top + rows] = np.asarray(Image.alpha_composite(white, band).convert("RGB"))
    return out


@cache
def _formats() -> list[str]:
    Image.init()
    return [name for name in PILLOW_FORMATS if name in Image.OPEN]  # a Pillow may be built without AVIF


def _eight_bits(image: Image.Image) -> Image.Image:
    """Reduce a grey image of more than 8 bits to its upper 8 bits.

    Raises:
        DataError: it has 32-bit or floating-point samples, whose black and white levels are unknown.
    """
    if image.mode == "F" or (image.mode == "I" and image.format not in ("PPM", "PNG")):
        what = "floating-point" if image.mode == "F" else "32-bit"
        raise DataError(f"unsupported: {what} samples; scale the image to 8 or 16 bits a sample")
    if not image.mode.startswith("I"):
        return image
    samples = image.tag_v2.get(258) if image.format == "TIFF" else None  # type: ignore[attr-defined]
    bits = samples[0] if samples and 8 < samples[0] < 16 else 16
    grey = Image.fromarray((np.asarray(image).astype(np.int64) >> (bits - 8)).clip(0, 255).astype(np.uint8))
    orientation = image.getexif().get(ORIENTATION)
    if orientation is not None:
        grey.getexif()[ORIENTATION] = orientation
    return grey


def _unidentified(file: Path | io.BytesIO) -> str:
    """Return the reason for a file that Pillow does not identify: a known but unsupported format, or none."""
    try:
        if isinstance(file, Path):
            with open(file, "rb") as opened:
                start = opened.read(HEAD)
        else:
            start = file.getvalue()[:HEAD]
    except OSError as error:
        return f"unreadable: {error.strerror or error}"
    if is_pointer(start):
        return f"broken: {POINTER}"
    kind = image_kind(start)
    if kind is None or kind in ("JPEG", "PNG", "GIF", "TIFF", "WebP", "BMP", "PNM", "JPEG 2000"):
        return "broken: no image of a known format"
    return f"unsupported: {kind} is not read; convert it to JPEG or PNG"


# What Pillow reads, and the native decoders do not: an orientation in XMP, or in EXIF that ImageMagick wrote as text.
_TURNED = re.compile(rb'tiff:Orientation(?:="|>)[2-8]|Raw profile type (?:exif|APP1)|XML:com\.adobe\.xmp\x00\x01')
# Of JPEG the first alone: every search is a pass over the file.
_MARKS = (b"tiff:Orientation", b"Raw profile type", b"XML:com.adobe.xmp")
XMP_BYTES = 1 << 18  # from the front of a file: XMP and EXIF stand before the pixels, but for WebP


def _for_pillow(start: bytes, whole: Callable[[], bytes]) -> bool:
    """Return whether the file may have an orientation that only Pillow reads."""
    if start[:4] == b"RIFF" and start[12:16] == b"VP8X" and len(start) > 20 and start[20] & 4:  # XMP, at its end
        return _TURNED.search(whole()) is not None
    marks = _MARKS[:1] if start.startswith(b"\xff\xd8") else _MARKS
    if not any(mark in start for mark in marks):  # many times faster than the expression
        return False
    return _TURNED.search(start) is not None
