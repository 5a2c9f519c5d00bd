"""Picture grids and strips: what a person looks at."""

import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from t2i.errors import ConfigError

GAP = 4  # pixels between pictures
MARGIN = 10


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
