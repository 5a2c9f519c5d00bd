"""Diversity: how much images of one caption differ by their noise, beside real images of one class.

A generator that ignores its noise generates one image per caption and scores 0, which FID alone may not show.
"""

import math
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from t2i.errors import ConfigError
from t2i.metrics.draws import draws

SHARED = 5  # captions that are drawn from the same noise vectors; the next ones have others
Many = TypeVar("Many", NDArray[np.uint8], Tensor)


def by_noise(several: Many) -> Many:
    """Regroup images by their noise: what one noise vector gives for several captions.

    Were the noise the same for all captions, the figures would rest on a handful of vectors (docs/metrics.md).

    Args:
        several: (captions, noises, ...) images or features; `SHARED` captions in turn have the same noise.

    Returns:
        (groups, SHARED, ...), or fewer in a group where there are fewer captions; captions behind the last whole group are
        left out.

    Raises:
        ConfigError: there is no caption.
    """
    if not len(several):
        raise ConfigError("diversity needs images of at least one caption, got none")
    side = min(SHARED, len(several))
    whole = several[: len(several) // side * side]
    blocks = whole.reshape(-1, side, *whole.shape[1:]).swapaxes(1, 2)
    return blocks.reshape(-1, side, *whole.shape[2:])


def pixel_distances(images: NDArray[np.uint8]) -> float:
    """Average the root mean square difference of pixels, 0..1, over all pairs inside each group.

    Args:
        images: (groups, n, H, W, 3) with n of at least 2.
    """
    vectors = torch.from_numpy(np.ascontiguousarray(images)).flatten(2).float() / 255  # (groups, n, D)
    distances = torch.cdist(vectors, vectors, compute_mode="donot_use_mm_for_euclid_dist")
    return _mean_of_pairs(distances / math.sqrt(vectors.shape[2]))


def feature_distances(features: Tensor, centre: Tensor) -> float:
    """Average 1 - cosine of features over all pairs inside each group; equal features differ by 0, wherever the centre is.

    Args:
        features: (groups, n, D) with n of at least 2.
        centre: (D,) subtracted first, the mean over real images: features are never negative, so their cosines are all high.

    Raises:
        ConfigError: groups of one image, or features that are not finite.
    """
    if not (torch.isfinite(features).all() and torch.isfinite(centre).all()):
        raise ConfigError("diversity needs finite features, got NaN or infinity")
    directions = F.normalize(features - centre, dim=2)
    # At the centre there is no direction, and 1 - cosine would be 1 for images that are all the same.
    same = torch.cdist(features.float(), features.float(), p=torch.inf) == 0
    return _mean_of_pairs((1 - directions @ directions.transpose(1, 2)).masked_fill(same, 0))


def _mean_of_pairs(distances: Tensor) -> float:
    """Average (groups, n, n) over the pairs of two different images."""
    count = distances.shape[1]
    if count < 2 or not len(distances):
        raise ConfigError(f"diversity needs groups of at least 2 images, got {tuple(distances.shape[:2])}")
    first, second = torch.triu_indices(count, count, offset=1)
    return float(distances[:, first, second].double().mean())


def groups_of_one_class(classes: NDArray[np.int64], groups: int, size: int, seed: int) -> NDArray[np.int64]:
    """Sample groups of distinct images of one class each, the classes uniformly among those that are large enough.

    Args:
        classes: (N,) class of each image, or -1; without classes any images make a group.
        groups: How many.
        size: Images per group.
        seed: Of the sample.

    Returns:
        (groups, size) rows; (0, size) where no class is large enough, or none is wanted.
    """
    rng = draws(seed)
    able = [rows for label in np.unique(classes) if len(rows := np.flatnonzero(classes == label)) >= size]
    if not able or groups < 1:
        return np.empty((0, size), np.int64)
    return np.stack([rng.choice(able[rng.integers(len(able))], size, replace=False) for _ in range(groups)])
