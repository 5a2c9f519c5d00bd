"""K-means, and the colour at an image's border: the style of a photograph, as far as it is measured."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from t2i.errors import ConfigError
from t2i.metrics.draws import draws


def kmeans(points: NDArray[Any], clusters: int, seed: int, rounds: int = 100) -> NDArray[np.int64]:
    """Group points (N, D) into `clusters`: k-means++ starts, Lloyd's rounds until nothing moves. Returns labels (N,).

    Raises:
        ConfigError: fewer points than clusters, no cluster, or a point that is not finite.

    Source: Arthur and Vassilvitskii 2007.
    """
    if not 1 <= clusters <= len(points):
        raise ConfigError(f"K-means needs 1 to {len(points)} clusters for as many points, got {clusters}")
    rng = draws(seed)
    x = np.asarray(points, np.float64)
    if not np.isfinite(x).all():
        raise ConfigError("K-means needs finite points, got NaN or infinity")
    centres = x[rng.integers(len(x))][None]
    nearest = ((x - centres[0]) ** 2).sum(1)
    while len(centres) < clusters:
        total = nearest.sum()
        chosen = rng.choice(len(x), p=nearest / total) if total > 0 else rng.integers(len(x))
        centres = np.append(centres, x[chosen][None], axis=0)
        nearest = np.minimum(nearest, ((x - x[chosen]) ** 2).sum(1))
    labels = np.full(len(x), -1)
    for _ in range(rounds):
        distances = (centres**2).sum(1) - 2 * x @ centres.T  # (N, clusters), less |x|^2
        before, labels = labels, distances.argmin(1)
        if (labels == before).all():
            break
        for cluster in np.unique(labels):  # one that lost all its points stays where it is
            centres[cluster] = x[labels == cluster].mean(0)
    return labels


def border_colour(images: NDArray[np.uint8], ring: int | None = None) -> NDArray[np.float64]:
    """Average the colour of the outermost `ring` pixels (an eighth of the side): uint8 (N, S, S, 3) -> (N, 3) in 0..255."""
    side = images.shape[1]
    width = max(1, side // 8) if ring is None else ring
    mask = np.ones((side, side), bool)
    mask[width:-width, width:-width] = False
    colours: NDArray[np.float64] = images[:, mask].mean(1, dtype=np.float64)
    return colours
