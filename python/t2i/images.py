"""Conversions between uint8 images, network inputs in [-1, 1] and PIL images."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from t2i.errors import ConfigError
from t2i.files import write_atomically

MOST_A_SIDE = {".webp": 16_383, ".gif": 65_535, ".jpg": 65_500, ".jpeg": 65_500}  # pixels of a format


def to_uint8(images: Tensor) -> NDArray[np.uint8]:
    """Turn (B, 3, H, W) in [-1, 1] into uint8 (B, H, W, 3), rounding to the nearest."""
    scaled = images.detach().float().clamp(-1, 1).add(1).mul(127.5).round()
    array: NDArray[np.uint8] = scaled.to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    return array


def to_pil(images: Tensor) -> list[Image.Image]:
    """Turn (B, 3, H, W) in [-1, 1] into B PIL pictures."""
    return [Image.fromarray(picture) for picture in to_uint8(images)]


def check_format(path: Path, width: int, height: int) -> None:
    """Raise ConfigError where the format that the name ends in holds no image of so many pixels."""
    most = MOST_A_SIDE.get(path.suffix.lower())
    if most is not None and max(width, height) > most:
        raise ConfigError(
            f"{path} would have {width:,} x {height:,} pixels, and {path.suffix} takes at most {most:,} a side; choose a "
            ".png, or smaller or fewer images (--side, --count)"
        )


def save_image(picture: Image.Image, path: Path, **options: Any) -> None:
    """Write an image atomically; its format follows the ending of the name (.png, .jpg, .webp).

    Args:
        picture: The image, or the first frame of an animation.
        path: Where to; its folder is made.
        options: Of Pillow's writer.

    Raises:
        ConfigError: the folder cannot be made, or the format holds no image of that size.
        CheckpointError: the file cannot be written, on a full disk for one.
    """
    check_format(path, *picture.size)
    encoded = io.BytesIO()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(encoded, format=Image.registered_extensions().get(path.suffix.lower()), **options)
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror or error}; choose another --out") from error
    write_atomically(path, encoded.getvalue())


def normalise(images: Tensor) -> Tensor:
    """Turn uint8 NHWC images into float32 NCHW (channels last in memory) in [-1, 1]."""
    return scale(images).permute(0, 3, 1, 2)


def scale(pixels: Tensor) -> Tensor:
    """Turn uint8 into float32 in [-1, 1], to the same bit on every device."""
    # By a tensor and not by a number, which a GPU multiplies by the rounded reciprocal of.
    return pixels.float() / torch.full((), 127.5, device=pixels.device) - 1


def averaged(images: Tensor, size: int) -> Tensor:
    """Average images (B, 3, S, S) down to `size` pixels a side, which divides S."""
    factor = images.shape[-1] // size
    return images if factor == 1 else F.avg_pool2d(images, factor)
