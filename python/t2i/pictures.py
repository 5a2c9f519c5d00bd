"""Picture grids and strips: what a person looks at."""

import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from t2i import _native
from t2i.data import normalise
from t2i.errors import ConfigError, DataError

GAP = 4  # pixels between pictures
MARGIN = 10
MOST_PIXELS = 100_000_000  # of a picture that a user names


def to_uint8(images: Tensor) -> NDArray[np.uint8]:
    """Turn (B, 3, H, W) in [-1, 1] into uint8 (B, H, W, 3), rounding to the nearest."""
    scaled = images.detach().float().clamp(-1, 1).add(1).mul(127.5).round()
    array: NDArray[np.uint8] = scaled.to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    return array


def to_pil(images: Tensor) -> list[Image.Image]:
    """Turn (B, 3, H, W) in [-1, 1] into B PIL pictures."""
    return [Image.fromarray(picture) for picture in to_uint8(images)]


def grid(pictures: NDArray[np.uint8], captions: Sequence[str], *, side: int = 96, text_width: int = 240) -> Image.Image:
    """Lay pictures out, one caption a row, the caption to the left.

    Args:
        pictures: uint8 (rows, columns, H, W, 3).
        captions: one a row.
        side: pixels a picture is shown at.
        text_width: pixels the caption column takes.
    """
    rows, columns = pictures.shape[:2]
    width = MARGIN + text_width + columns * (side + GAP) + MARGIN - GAP
    height = 2 * MARGIN + rows * (side + GAP) - GAP
    sheet = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=13)
    for row in range(rows):
        top = MARGIN + row * (side + GAP)
        lines = textwrap.wrap(captions[row], width=max(8, int((text_width - MARGIN) / 6.6))) or [""]
        most = max(1, side // 16)
        if len(lines) > most:
            lines = [*lines[: most - 1], lines[most - 1].rstrip(",. ") + " ..."]
        draw.multiline_text((MARGIN, top + side / 2), "\n".join(lines), fill="black", font=font, anchor="lm", spacing=3)
        for column in range(columns):
            picture = Image.fromarray(pictures[row, column]).resize((side, side), Image.Resampling.BICUBIC)
            sheet.paste(picture, (MARGIN + text_width + column * (side + GAP), top))
    return sheet


def save(picture: Image.Image, path: Path) -> None:
    """Write a picture; its format follows the ending of the name (.png, .jpg, .webp). ConfigError where it cannot be."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path)
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror or error}; choose another --out") from error


def table(
    down: NDArray[np.uint8], across: Sequence[str], pictures: NDArray[np.uint8], *, side: int = 96
) -> Image.Image:
    """Lay a style-transfer table out: style pictures down the left, captions across the top, what was drawn between.

    Args:
        down: uint8 (rows, H, W, 3).
        across: captions, one a column.
        pictures: uint8 (rows, columns, H, W, 3).
        side: pixels a picture is shown at.
    """
    rows, columns = pictures.shape[:2]
    font = ImageFont.load_default(size=12)
    width = max(8, int(side / 6.2))
    wrapped = [textwrap.wrap(caption, width=width) or [""] for caption in across]
    cut = [[*lines[:7], lines[7].rstrip(",. ") + " ..."] if len(lines) > 8 else lines for lines in wrapped]
    head = 16 * max(map(len, cut)) + MARGIN
    left = MARGIN + side + 4 * GAP
    sheet = Image.new("RGB", (left + columns * (side + GAP) + MARGIN, head + rows * (side + GAP) + MARGIN), "white")
    draw = ImageDraw.Draw(sheet)

    def paste(picture: NDArray[np.uint8], x: int, row: int) -> None:
        shown = Image.fromarray(picture).resize((side, side), Image.Resampling.BICUBIC)
        sheet.paste(shown, (x, head + row * (side + GAP)))

    for column, lines in enumerate(cut):
        middle = left + column * (side + GAP) + side / 2
        draw.multiline_text((middle, head - 6), "\n".join(lines), fill="black", font=font, anchor="md", align="center")
    for row in range(rows):
        paste(down[row], MARGIN, row)
        for column in range(columns):
            paste(pictures[row, column], left + column * (side + GAP), row)
    return sheet


def save_animation(strips: NDArray[np.uint8], path: Path, *, side: int = 128, milliseconds: int = 80) -> None:
    """Write strips as a film, .gif or .webp: all strips side by side, there and back again, for ever.

    Args:
        strips: uint8 (strips, steps, H, W, 3).
        path: where to.
        side: pixels a picture is shown at.
        milliseconds: each frame is shown; the ends three times as long.

    Raises:
        ConfigError: it cannot be written there.
    """
    count, steps = strips.shape[:2]
    frames = []
    for step in [*range(steps), *range(steps - 2, 0, -1)]:
        frame = Image.new("RGB", (count * (side + GAP) - GAP, side), "white")
        for strip in range(count):
            shown = Image.fromarray(strips[strip, step]).resize((side, side), Image.Resampling.BICUBIC)
            frame.paste(shown, (strip * (side + GAP), 0))
        frames.append(frame)
    times = [milliseconds * (3 if step in (0, steps - 1) else 1) for step in range(len(frames))]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        frames[0].save(path, save_all=True, append_images=frames[1:], duration=times, loop=0)
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror or error}; choose another --out") from error


def read_pictures(pictures: Sequence[Image.Image | str | Path], size: int, most_pixels: int = MOST_PIXELS) -> Tensor:
    """Read pictures, scale them to (n, 3, size, size) in [-1, 1], the longer side cut off.

    Files of more than `most_pixels` are refused before they are decoded.

    Raises:
        ConfigError: none given.
        DataError: a file is missing or is no picture; the message names it.
    """
    from t2i.prepare import Item, load_images  # only here: a picture's reader is no cost of drawing

    if not pictures:
        raise ConfigError("style transfer needs at least one picture")
    out = np.zeros((len(pictures), size, size, 3), np.uint8)
    for row, picture in enumerate(pictures):
        if isinstance(picture, Image.Image):
            _native.resize(np.ascontiguousarray(picture.convert("RGB")), out[row], "crop")
            continue
        path = Path(picture)
        if not path.is_file():
            raise DataError(f"no such picture: {path}")
        loaded, reasons = load_images([Item(path, ())], size, "crop", most_pixels)
        if reasons[0] is not None:
            raise DataError(f"{path} is not a picture that can be read ({reasons[0]})")
        out[row] = loaded[0]
    return normalise(torch.from_numpy(out))
