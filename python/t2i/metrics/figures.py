"""The figures of two sets of images, each beside the same figure of real images against further real images.

Everything here takes features or images in memory, so that a training loop can measure a small sample. A figure is a
dictionary with `value`, `real` (the same measure of real images against further real ones, or None) and `protocol`.
"""

import dataclasses
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from t2i.data.dataset import PackedDataset
from t2i.metrics.diversity import by_noise, feature_distances, pixel_distances
from t2i.metrics.fid import Gaussian, frechet_distance, kernel_distance
from t2i.metrics.inputs import center_crop
from t2i.metrics.neighbours import NEIGHBOURS, copies, nearest_distance, neighbourhood
from t2i.metrics.pixels import SIDE, contrast_normalised, mirrored, small_pixels

Figures = dict[str, dict[str, Any]]
TRAINING_BLOCK = 1024  # training images read at once


def frechet_figure(generated: Tensor, real: Tensor, other: Tensor | None, protocol: dict[str, Any]) -> dict[str, Any]:
    """Compute the Frechet distance of features (N, D) and (M, D), and of further real ones (K, D)."""
    target = Gaussian.of(real)
    return {
        "value": frechet_distance(Gaussian.of(generated), target),
        "real": None if other is None else frechet_distance(Gaussian.of(other), target),
        "protocol": protocol,
    }


def kernel_figure(
    generated: Tensor, real: Tensor, other: Tensor | None, protocol: dict[str, Any], seed: int
) -> dict[str, Any]:
    """Compute the kernel distance of features (N, D) and (M, D), and of further real ones (K, D)."""
    found = kernel_distance(generated, real, seed=seed)
    kernel = f"(x . y / {generated.shape[1]} + 1)^3, unbiased"
    how = {"subsets": found.subsets, "subset_size": found.subset_size, "kernel": kernel}
    return {
        "value": found.mean,
        "spread": found.spread,
        "real": None if other is None else kernel_distance(other, real, seed=seed).mean,
        "protocol": protocol | how,
    }


def neighbour_figures(generated: Tensor, real: Tensor, other: Tensor | None, protocol: dict[str, Any]) -> Figures:
    """Compute precision, recall, density and coverage of features (N, D) and (M, D), and of further real ones (K, D)."""
    found = neighbourhood(real, generated)
    floor = None if other is None else neighbourhood(real, other)
    return {
        name: {
            "value": getattr(found, name),
            "real": None if floor is None else getattr(floor, name),
            "protocol": protocol | {"neighbours": NEIGHBOURS},
        }
        for name in ("precision", "recall", "density", "coverage")
    }


def pixel_kernel_figure(
    generated: NDArray[np.uint8],
    real: NDArray[np.uint8],
    other: NDArray[np.uint8] | None,
    protocol: dict[str, Any],
    seed: int,
) -> dict[str, Any]:
    """Compute the kernel distance of images (N, S, S, 3) and (M, S, S, 3) reduced to 16 x 16 pixels in [-1, 1]."""
    how = protocol | {"features": f"{SIDE} x {SIDE} pixels, means of areas, -1..1"}
    further = None if other is None else small_pixels(other)
    return kernel_figure(small_pixels(generated), small_pixels(real), further, how, seed)


@dataclasses.dataclass(frozen=True)
class TrainingImages:
    """Training images and their mirror images, reduced to 16 px, brightness and contrast taken out, to find copies of.

    Args:
        rows: (n,) of the pack, ascending.
        views: Two of (n, 768).
    """

    rows: NDArray[np.int64]
    views: tuple[Tensor, Tensor]

    @classmethod
    def of(cls, pack: PackedDataset, size: int, limit: int | None = None) -> "TrainingImages":
        """Read them, center-cropped to `size` pixels; of more than `limit`, so many evenly spaced ones."""
        rows = pack.split("train")
        if limit is not None and len(rows) > limit:
            rows = rows[np.linspace(0, len(rows) - 1, limit).astype(np.int64)]
        blocks = np.array_split(rows, max(1, -(-len(rows) // TRAINING_BLOCK)))
        pixels = torch.cat([small_pixels(center_crop(pack.read_images(block), size)) for block in blocks])
        return cls(rows, (contrast_normalised(pixels), contrast_normalised(mirrored(pixels))))

    def nearest(self, images: NDArray[np.uint8], chosen: NDArray[np.int64] | None = None) -> Tensor:
        """Measure the distance of images uint8 (N, S, S, 3) to the nearest of these: (N,).

        Args:
            images: Generated or real ones.
            chosen: (N,) their rows, where they are images of the pack: they are not compared with themselves.
        """
        skip = None
        if chosen is not None:
            place = np.searchsorted(self.rows, chosen).clip(max=len(self.rows) - 1)
            skip = torch.from_numpy(np.where(self.rows[place] == chosen, place, -1))
        points = contrast_normalised(small_pixels(images))
        return torch.stack([nearest_distance(points, view, skip) for view in self.views]).amin(dim=0)


def copy_figure(
    generated: NDArray[np.uint8],
    real: NDArray[np.uint8],
    chosen: NDArray[np.int64],
    pack: PackedDataset,
    protocol: dict[str, Any],
) -> dict[str, Any]:
    """Compare the distance to the nearest training image, mirrored or not, of generated and of real images.

    Args:
        generated: (N, S, S, 3).
        real: (M, S, S, 3).
        chosen: (M,) rows of the real images; those of the training split are not compared with themselves.
        pack: Its training split is what may have been copied.
        protocol: Kept with the figure.
    """
    training = TrainingImages.of(pack, generated.shape[1])
    found = copies(training.nearest(generated), training.nearest(real, chosen))
    how = f"{SIDE} x {SIDE} pixels, brightness and contrast taken out; nearer than 1% of real images"
    return {
        "value": found.share,
        "real": found.real,
        "ratio": found.ratio,
        "threshold": found.threshold,
        "protocol": protocol | {"distance": how, "training_images": len(training.rows)},
    }


def pixel_diversity_figure(
    several: NDArray[np.uint8], real: NDArray[np.uint8], groups: NDArray[np.int64], protocol: dict[str, Any]
) -> dict[str, Any]:
    """Compute the diversity of images of one caption, in pixels.

    Args:
        several: (captions, noises, S, S, 3).
        real: (M, S, S, 3).
        groups: (g, noises) rows of real images of one class; may be empty.
        protocol: Kept with the figure.
    """
    return {
        "value": pixel_distances(several),
        "across_captions": pixel_distances(by_noise(several)),
        "real": pixel_distances(real[groups]) if len(groups) else None,
        "protocol": protocol | {"distance": "root mean square of pixel differences, 0..1"},
    }


def feature_diversity_figure(
    several: Tensor, real: Tensor, groups: NDArray[np.int64], protocol: dict[str, Any]
) -> dict[str, Any]:
    """Compute the diversity of images of one caption, in features.

    Args:
        several: (captions, noises, D).
        real: (M, D); their mean is the centre.
        groups: (g, noises) rows of real images of one class; may be empty.
        protocol: Kept with the figure.
    """
    centre = real.mean(dim=0)
    return {
        "value": feature_distances(several, centre),
        "across_captions": feature_distances(by_noise(several), centre),
        "real": feature_distances(real[groups], centre) if len(groups) else None,
        "protocol": protocol | {"distance": "1 - cosine of centred features"},
    }
