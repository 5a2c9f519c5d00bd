"""Measures of nearest neighbours: precision, recall, density, coverage, and copies of training images.

All of them take features (N, D) of any kind, so that a training loop can call them on a small sample. They depend on the
number of images: compare only figures of equal counts.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from t2i.errors import ConfigError

NEIGHBOURS = 5  # k of Naeem et al.
COPY_QUANTILE = 0.01  # of real images are nearer to their nearest training image than a copy is allowed to be
BLOCK = 256  # rows whose distances are held at once
IDENTICAL = 1e-5  # distance, of `contrast_normalised` images: rounding alone is below it
CANDIDATES = 8  # nearest points by a matrix product, whose distances are then computed exactly


@dataclass(frozen=True)
class Neighbourhood:
    """How two sets overlap, by the balls that reach to each point's k-th nearest neighbour in its own set."""

    precision: float  # share of generated images inside the ball of some real image: fidelity
    recall: float  # share of real images inside the ball of some generated image: diversity
    density: float  # real balls per generated image, divided by k: fidelity, robust to outliers; may exceed 1
    coverage: float  # share of real images whose ball holds a generated image: diversity, robust to outliers


def neighbourhood(real: Tensor, generated: Tensor, k: int = NEIGHBOURS) -> Neighbourhood:
    """Compute precision, recall, density and coverage.

    Args:
        real: (N, D) features of real images.
        generated: (M, D) features of generated images.
        k: Neighbours to which the ball of a point reaches; the point itself does not count.

    Raises:
        ConfigError: a set has no more than k images, k is below 1, or the features are of different widths or not finite.

    Source: Kynkaanniemi et al. 2019, *Improved Precision and Recall Metric*, eqs. 1 and 2; Naeem et al. 2020, *Reliable
    Fidelity and Diversity Metrics*, eqs. 4 and 5. Balls are closed.

    Example:
        >>> line = torch.arange(8.0)[:, None]
        >>> neighbourhood(line, line, k=1)
        Neighbourhood(precision=1.0, recall=1.0, density=2.75, coverage=1.0)
    """
    real, generated = _checked(real, generated)
    if k < 1:
        raise ConfigError(f"neighbours must be at least 1, got {k}")
    if min(len(real), len(generated)) <= k:
        raise ConfigError(
            f"{k} neighbours need more than {k} images, got {len(real)} real and {len(generated)} generated"
        )
    real_radius, generated_radius = _radii(real, k), _radii(generated, k)
    inside, covered, recalled = [], [], []
    for start in range(0, len(real), BLOCK):
        rows = slice(start, start + BLOCK)
        distance = _distances(real[rows], generated)  # (n, M)
        within = distance <= real_radius[rows, None]
        inside.append(within.sum(dim=0))
        covered.append(within.any(dim=1))
        recalled.append((distance <= generated_radius).any(dim=1))
    count = torch.stack(inside).sum(dim=0)  # (M,) real balls that hold each generated image
    return Neighbourhood(
        precision=float((count > 0).double().mean()),
        recall=float(torch.cat(recalled).double().mean()),
        density=float(count.double().mean() / k),
        coverage=float(torch.cat(covered).double().mean()),
    )


def nearest_distance(points: Tensor, reference: Tensor, skip: Tensor | None = None) -> Tensor:
    """Measure the distance of each point to its nearest reference point.

    Args:
        points: (N, D).
        reference: (M, D).
        skip: (N,) int64 row of `reference` that does not count, the point itself; -1 where all count.

    Returns:
        (N,) Euclidean distances.

    Raises:
        ConfigError: features of different widths, not finite, or no reference.
    """
    points, reference = _checked(points, reference)
    found = []
    for start in range(0, len(points), BLOCK):
        block = points[start : start + BLOCK]
        distance = torch.cdist(block, reference, compute_mode="use_mm_for_euclid_dist")  # fast, to three digits
        if skip is not None:
            left_out = skip[start : start + BLOCK]
            rows = torch.nonzero(left_out >= 0)[:, 0]
            distance[rows, left_out[rows]] = torch.inf
        near, places = distance.topk(min(CANDIDATES, distance.shape[1]), dim=1, largest=False)
        exact = torch.linalg.vector_norm(block[:, None] - reference[places], dim=2)
        found.append(exact.masked_fill(near.isinf(), torch.inf).amin(dim=1))
    return torch.cat(found) if found else points.new_empty(0)


@dataclass(frozen=True)
class Copies:
    """How near generated images are to training images, compared with how near real images are."""

    share: float  # of generated images that are nearer to a training image than the threshold
    real: float  # the same share of real images: about COPY_QUANTILE, and those that the training set holds too
    threshold: float  # distance
    ratio: float | None  # median distance of generated images over that of real images; far below 1: memorised


def copies(generated: Tensor, real: Tensor, quantile: float = COPY_QUANTILE) -> Copies:
    """Count generated images that are suspiciously near to a training image.

    A generated image counts as a copy where it is nearer to its nearest training image than nearly all real images are to
    theirs: nearer than the given quantile of them. Real images that the training set holds too (IDENTICAL) say nothing of how
    near different images are: the quantile and the median are of the others. With them the threshold would be 0, which no
    copy is below, wherever one image in a hundred is there twice.

    Args:
        generated: (N,) distance of generated images to the nearest training image, from `nearest_distance`.
        real: (M,) the same of real images, themselves left out: held-out images, or the training images themselves.
        quantile: Share of the real images below the threshold.

    Raises:
        ConfigError: no images, a quantile outside 0..1, or a distance that is NaN or infinite.
    """
    if not len(generated) or not len(real) or not 0 <= quantile <= 1:
        raise ConfigError(
            f"copies need images and a quantile of 0..1, got {len(generated)}, {len(real)} and {quantile}"
        )
    generated, real = generated.double(), real.double()
    if not (torch.isfinite(generated).all() and torch.isfinite(real).all()):
        raise ConfigError("copies need finite distances, got NaN or infinity; is there one training image alone?")
    others = real[real >= IDENTICAL]
    threshold = torch.quantile(others, quantile).clamp_min(IDENTICAL) if len(others) else real.new_tensor(IDENTICAL)
    return Copies(
        share=float((generated < threshold).double().mean()),
        real=float((real < threshold).double().mean()),
        threshold=float(threshold),
        ratio=float(generated.median() / others.median()) if len(others) else None,
    )


def _checked(one: Tensor, two: Tensor) -> tuple[Tensor, Tensor]:
    """Return features in one type that has distances, float32 or float64; ConfigError where they cannot be compared."""
    if one.dim() != 2 or two.dim() != 2 or one.shape[1] != two.shape[1] or not len(two):
        raise ConfigError(f"features must be (N, D) and (M, D), got {tuple(one.shape)} and {tuple(two.shape)}")
    if not (torch.isfinite(one).all() and torch.isfinite(two).all()):
        raise ConfigError("features must be finite, got NaN or infinity")
    kind = torch.float64 if torch.float64 in (one.dtype, two.dtype) else torch.float32
    return one.to(kind), two.to(kind)


def _distances(one: Tensor, two: Tensor) -> Tensor:
    """Compute Euclidean distances (N, M), exactly 0 for equal rows: by differences, not by a matrix product."""
    return torch.cdist(one, two, compute_mode="donot_use_mm_for_euclid_dist")


def _radii(points: Tensor, k: int) -> Tensor:
    """Measure the distance of each point to its k-th nearest neighbour among the others: (N,)."""
    parts = [_distances(points[start : start + BLOCK], points) for start in range(0, len(points), BLOCK)]
    return torch.cat([part.kthvalue(k + 1, dim=1).values for part in parts])  # the nearest is the point itself
