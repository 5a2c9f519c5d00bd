"""Image grids and strips: what a person looks at."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from t2i.images import save_image
from t2i.plots.fonts import font_for, wrapped

GAP = 4  # pixels between images
MARGIN = 10
TEXT_WIDTH = 240  # pixels of the captions beside a grid
HEAD_LINES = 8  # of a caption above a table


def grid_size(rows: int, columns: int, side: int, text_width: int = TEXT_WIDTH) -> tuple[int, int]:
    """Return the width and height of a `grid` in pixels."""
    return 2 * MARGIN + text_width + columns * (side + GAP) - GAP, 2 * MARGIN + rows * (side + GAP) - GAP


def table_size(rows: int, columns: int, side: int, lines: int = HEAD_LINES) -> tuple[int, int]:
    """Return the width and height of a `table` in pixels; `lines` is the most that a caption takes."""
    width = 2 * MARGIN + side + 4 * GAP + columns * (side + GAP)
    return width, 2 * MARGIN + 16 * lines + rows * (side + GAP)


def animation_size(strips: int, side: int) -> tuple[int, int]:
    """Return the width and height of a frame of an animation in pixels."""
    return strips * (side + GAP) - GAP, side


def cut_lines(lines: list[str], most: int) -> list[str]:
    """Leave the first lines of a caption, with dots where there are more."""
    return lines if len(lines) <= most else [*lines[: most - 1], lines[most - 1].rstrip(",. ") + " ..."]


def grid(
    images: NDArray[np.uint8], captions: Sequence[str], *, side: int = 96, text_width: int = TEXT_WIDTH
) -> Image.Image:
    """Lay images out, a row for each caption, the caption at the left.

    Args:
        images: uint8 (rows, columns, H, W, 3).
        captions: one a row.
        side: pixels an image is shown at.
        text_width: pixels the caption column takes.
    """
    rows, columns = images.shape[:2]
    sheet = Image.new("RGB", grid_size(rows, columns, side, text_width), "white")
    draw = ImageDraw.Draw(sheet)
    for row in range(rows):
        font = font_for(captions[row], 13)
        top = MARGIN + row * (side + GAP)
        lines = wrapped(captions[row], font, text_width - 2 * MARGIN, max(8, int((text_width - MARGIN) / 6.6)))
        text = "\n".join(cut_lines(lines, max(1, side // 16)))
        draw.multiline_text((MARGIN, top + side / 2), text, fill="black", font=font, anchor="lm", spacing=3)
        for column in range(columns):
            image = Image.fromarray(images[row, column]).resize((side, side), Image.Resampling.BICUBIC)
            sheet.paste(image, (MARGIN + text_width + column * (side + GAP), top))
    return sheet


def table(down: NDArray[np.uint8], across: Sequence[str], images: NDArray[np.uint8], *, side: int = 96) -> Image.Image:
    """Lay a style-transfer table out: style images at the left, captions at the top, generated images between.

    Args:
        down: uint8 (rows, H, W, 3).
        across: captions, one a column.
        images: uint8 (rows, columns, H, W, 3).
        side: pixels an image is shown at.
    """
    rows, columns = images.shape[:2]
    fonts = [font_for(caption, 12) for caption in across]
    width = max(8, int(side / 6.2))
    heads = [wrapped(caption, font, side, width) for caption, font in zip(across, fonts, strict=True)]
    cut = [cut_lines(lines, HEAD_LINES) for lines in heads]
    most = max(map(len, cut))
    head, left = 16 * most + MARGIN, MARGIN + side + 4 * GAP
    sheet = Image.new("RGB", table_size(rows, columns, side, most), "white")
    draw = ImageDraw.Draw(sheet)

    def paste(image: NDArray[np.uint8], x: int, row: int) -> None:
        shown = Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC)
        sheet.paste(shown, (x, head + row * (side + GAP)))

    for column, lines in enumerate(cut):
        middle = left + column * (side + GAP) + side / 2
        text = "\n".join(lines)
        draw.multiline_text((middle, head - 6), text, fill="black", font=fonts[column], anchor="md", align="center")
    for row in range(rows):
        paste(down[row], MARGIN, row)
        for column in range(columns):
            paste(images[row, column], left + column * (side + GAP), row)
    return sheet


def save_animation(strips: NDArray[np.uint8], path: Path, *, side: int = 128, milliseconds: int = 80) -> None:
    """Write strips as an animation, .gif or .webp: all strips side by side, forwards and backwards, in a loop.

    Args:
        strips: uint8 (strips, steps, H, W, 3).
        path: where to.
        side: pixels an image is shown at.
        milliseconds: each frame is shown; the ends three times as long.

    Raises:
        ConfigError: the folder cannot be made, or the format holds no frame of that size.
        CheckpointError: the file cannot be written, on a full disk for one.
    """
    count, steps = strips.shape[:2]
    frames = []
    for step in [*range(steps), *range(steps - 2, 0, -1)]:
        frame = Image.new("RGB", animation_size(count, side), "white")
        for strip in range(count):
            shown = Image.fromarray(strips[strip, step]).resize((side, side), Image.Resampling.BICUBIC)
            frame.paste(shown, (strip * (side + GAP), 0))
        frames.append(frame)
    times = [milliseconds * (3 if step in (0, steps - 1) else 1) for step in range(len(frames))]
    save_image(frames[0], path, save_all=True, append_images=frames[1:], duration=times, loop=0)
