"""A few figures of a model in training, from a small fixed sample: what `t2i-train --eval-every` writes down.

    kid, kid_real            kernel distance x 1000 in the scorer's image features; of further real images
    kid_pixels, ..._real     the same of images of 16 px
    r_precision, ..._real    do images retrieve their captions; do real images
    diversity, ..._real      how much images of one caption differ, in pixels; images of one class
    copies, ..._real         share nearer to a training image than 99% of real images are

The scorer is a joint embedding that had no say in the training. Captions, noise and real images are the same each time, so that
a curve shows the model and not the sample.
"""

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from t2i.data.dataset import PackedDataset
from t2i.errors import ConfigError
from t2i.metrics.diversity import groups_of_one_class, pixel_distances
from t2i.metrics.fid import kernel_distance
from t2i.metrics.figures import TrainingImages
from t2i.metrics.inputs import center_crop
from t2i.metrics.neighbours import copies
from t2i.metrics.pixels import small_pixels
from t2i.metrics.retrieval import JointEmbedding, network_input, r_precision, ranked_captions
from t2i.metrics.scoring import NOISES, ImageSample, sample_images
from t2i.pipeline import Pipeline

Values = dict[str, float]
MAX_TRAINING = 20_000  # training images that copies are looked for among


@dataclasses.dataclass(frozen=True)
class _Real:
    """What of the real images is the same each time."""

    features: Tensor  # (M, T) of the scorer
    pixels: Tensor  # (M, 768)
    training: TrainingImages
    nearest: Tensor  # (M,) distance of the real images to the nearest of those
    captions: tuple[Tensor, NDArray[np.int64], NDArray[np.int64]] | None  # embeddings, own rows, mismatched rows
    values: Values  # their own figures


class LiveFigures:
    """Measure a generator on the same sample whenever it is called.

    Args:
        data: The training's data set.
        split: Whose captions and real images: "test", or "train" where nothing is held out.
        scorer: A joint embedding that had no say in the training.
        count: Images to generate.
        seed: Chooses captions, images and noise.
    """

    def __init__(
        self, data: PackedDataset, split: str, scorer: JointEmbedding, count: int = 500, seed: int = 0
    ) -> None:
        self.data, self.split, self.scorer, self.count, self.seed = data, split, scorer, count, seed
        self._real: _Real | None = None

    @torch.no_grad()
    def __call__(self, pipe: Pipeline, embed: Callable[[Tensor], Tensor] | None = None) -> Values:
        """Measure a model: its figures by name, and those of real images as `name_real`, where they can be had.

        Args:
            pipe: The model.
            embed: Embeds caption rows (n,) on the model's device: (n, T); without it, its text encoder reads the captions.
        """
        sample = sample_images(pipe, self.data, self.split, self.count, self.seed, embed)
        if self._real is None:
            self._real = self._measure_real(sample)
        real = self._real
        features = self._features(sample.generated)
        found = {
            "kid": 1000 * kernel_distance(features, real.features, seed=self.seed).mean,
            "kid_pixels": 1000 * kernel_distance(small_pixels(sample.generated), real.pixels, seed=self.seed).mean,
            "diversity": pixel_distances(sample.several),
            "copies": copies(real.training.nearest(sample.generated), real.nearest).share,
        }
        if real.captions is not None:
            found["r_precision"] = r_precision(features, *real.captions)
        return {name: value for name, value in (found | real.values).items() if np.isfinite(value)}

    def _features(self, images: NDArray[np.uint8]) -> Tensor:
        """Read the scorer's features of images (n, S, S, 3): (n, T), of the length that KID's kernel expects."""
        embedded = self.scorer.embed_images(network_input(images))
        return embedded * math.sqrt(embedded.shape[1])

    def _measure_real(self, sample: ImageSample) -> _Real:
        """Measure the real images of a sample."""
        features = self._features(sample.real)
        pixels = small_pixels(sample.real)
        size = sample.real.shape[1]
        training = TrainingImages.of(self.data, size, MAX_TRAINING)
        nearest = training.nearest(sample.real, sample.chosen)
        values = {"copies_real": copies(nearest, nearest).real}
        if len(sample.other):
            other = center_crop(self.data.read_images(sample.other), size)
            further = self._features(other)
            values["kid_real"] = 1000 * kernel_distance(further, features, seed=self.seed).mean
            values["kid_pixels_real"] = 1000 * kernel_distance(small_pixels(other), pixels, seed=self.seed).mean
        classes = self.data.classes[sample.chosen].astype(np.int64)
        groups = groups_of_one_class(classes, len(sample.several), NOISES, self.seed)
        if len(groups):
            values["diversity_real"] = pixel_distances(sample.real[groups])
        captions = self._captions(sample)
        if captions is not None:
            values["r_precision_real"] = r_precision(features[torch.from_numpy(sample.own)], *captions)
        return _Real(features, pixels, training, nearest, captions, values)

    def _captions(self, sample: ImageSample) -> tuple[Tensor, NDArray[np.int64], NDArray[np.int64]] | None:
        """Embed the split's captions, and choose the mismatched ones; None where there are too few of other classes."""
        try:
            return ranked_captions(self.scorer, self.data, self.data.split(self.split), sample.captions, self.seed)
        except ConfigError:
            return None
