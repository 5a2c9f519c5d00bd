"""Features without a network: images reduced to 16 x 16 pixels, which know nothing of ImageNet."""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

SIDE = 16
FLAT = 1e-5  # of -1..1: one level of one pixel of 256 x 256 is more, rounding less


def small_pixels(images: NDArray[np.uint8], side: int = SIDE) -> Tensor:
    """Reduce images by averaging areas.

    Args:
        images: uint8 (N, S, S, 3).
        side: Pixels of a side of the result.

    Returns:
        (N, 3 * side * side) float32 in [-1, 1].
    """
    parts = [
        F.adaptive_avg_pool2d(part.permute(0, 3, 1, 2).float(), side).flatten(1)
        for part in torch.from_numpy(np.ascontiguousarray(images)).split(512)
    ]
    return torch.cat(parts) / 127.5 - 1 if parts else torch.empty(0, 3 * side * side)


def contrast_normalised(pixels: Tensor) -> Tensor:
    """Centre each row (N, D) and scale it to length 1, so that a pale image is not near to every other one.

    A grey of one brightness has no contrast and becomes 0, not the rounding error of its mean at full length.
    """
    centred = pixels - pixels.mean(dim=1, keepdim=True)
    return F.normalize(torch.where(centred.abs().amax(dim=1, keepdim=True) > FLAT, centred, 0.0), dim=1)


def mirrored(pixels: Tensor, side: int = SIDE) -> Tensor:
    """Mirror images of `small_pixels` (N, 3 * side * side) left to right, as training does."""
    return pixels.view(-1, 3, side, side).flip(3).reshape(len(pixels), -1)
