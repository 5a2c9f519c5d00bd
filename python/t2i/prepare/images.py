"""Pictures of a source to square uint8 pixels, on all cores: by the native module, by Pillow for formats it does not know."""

import io
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from t2i import _native
from t2i.errors import DataError
from t2i.prepare.items import Item

Fit = Literal["stretch", "crop"]

# What Pillow may open. Left to itself it would ask Ghostscript to run a PostScript program.
PILLOW_FORMATS = ("BMP", "DIB", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
FILE_OVERHEAD = 16 << 20  # bytes a file may have beside eight for each allowed pixel, as in the native module


def load_images(
    items: Sequence[Item], size: int, fit: Fit, max_pixels: int
) -> tuple[NDArray[np.uint8], list[str | None]]:
    """Decode and resize pictures: uint8 (n, size, size, 3), and for each None or the reason it cannot be used."""
    out = np.zeros((len(items), size, size, 3), np.uint8)
    files = [row for row, item in enumerate(items) if item.read is None]
    embedded = [row for row, item in enumerate(items) if item.read is not None]
    reasons: list[str | None] = [None] * len(items)
    if files:
        whole = not embedded
        target = out if whole else np.zeros((len(files), size, size, 3), np.uint8)
        found = _load_files([items[row] for row in files], fit, max_pixels, target)
        for row, reason in zip(files, found, strict=True):
            reasons[row] = reason
        if not whole:
            out[files] = target
    if embedded:
        with ThreadPoolExecutor(os.cpu_count()) as threads:  # a thread holds one picture at a time
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
    answers = _native.load_images([str(item.path) for item in items], boxes, fit, max_pixels, out)
    reasons: list[str | None] = []
    for row, answer in enumerate(answers):
        if answer is not None and answer[0] == "unsupported":
            reasons.append(_load_with_pillow(items[row].path, items[row].box, fit, max_pixels, out[row]))
        else:
            reasons.append(None if answer is None else f"{answer[0]}: {answer[1]}")
    return reasons


def _load_embedded(item: Item, fit: Fit, max_pixels: int, out: NDArray[np.uint8]) -> str | None:
    """Decode a picture that is no file of its own into `out` (size, size, 3); the reason where that cannot be done."""
    assert item.read is not None
    try:
        data = item.read(8 * max_pixels + FILE_OVERHEAD)
        if isinstance(data, bytes):
            data = _native.decode_image(data, max_pixels)
        elif data.shape[0] * data.shape[1] > max_pixels:
            return f"too large: {data.shape[1]} x {data.shape[0]} pixels, the limit is {max_pixels}"
        if 0 in data.shape:
            return "broken: it has no pixels"
        _native.resize(data, out, fit)
    except DataError as error:
        kind, image, message = str(error).partition(" image: ")  # as the native module says it
        if kind == "unsupported":
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
        with Image.open(file, formats=PILLOW_FORMATS) as opened:
            if opened.width * opened.height > max_pixels:
                return f"too large: {opened.width} x {opened.height} pixels, the limit is {max_pixels}"
            picture = ImageOps.exif_transpose(opened).convert("RGBA")
    except Image.DecompressionBombError as error:  # Pillow's own limit is higher, but asked at once
        return f"too large: {error}"
    except UnidentifiedImageError:
        return "broken: no picture of a known format"
    except Exception as error:  # Pillow's parsers raise whatever they meet: struct.error, IndexError, EOFError, ...
        return f"broken: {' '.join(str(error).split()) or type(error).__name__}"
    white = Image.new("RGBA", picture.size, "white")
    array = np.ascontiguousarray(Image.alpha_composite(white, picture).convert("RGB"))
    if box is not None:
        x, y, width, height = (round(value) for value in box)
        array = np.ascontiguousarray(array[max(0, y) : y + height, max(0, x) : x + width])
        if array.size == 0:
            return "broken: the bounding box lies outside the picture"
    _native.resize(array, out, fit)
    return None
