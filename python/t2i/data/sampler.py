"""The sampler: what a step trains on, as a pure function of (data set, seed, step)."""

from typing import Any

from t2i import _native
from t2i.config.options import TrainConfig
from t2i.data.dataset import PackedDataset
from t2i.distributed import ALONE, Ranks
from t2i.errors import DataError

Plan = _native.Plan


class Sampler:
    """Decide what each step trains on.

    A mismatched image has none of the sampled captions, and mismatched captions are none of the image's, wherever the data
    allow it; `ambiguous_captions` is the share of captions for which they do not.

    `plan(step)` samples classes uniformly, an image of each, a mismatched partner of another class, captions with
    replacement, crops, flips and interpolation partners. A pure function of its arguments: no state, any order.

    Args:
        data: The packed data set.
        batch: B, images a step over all processes.
        seed: Random seed.
        split: "train", "test" or "all".
        crop: Side of the crop in pixels, at most the pack's image size.
        crop_low: Smallest crop offset.
        flip: Mirror half of the images.
        captions_per_image: K, sampled with replacement.
        class_uniform: Sample classes uniformly, then an image (the paper); otherwise images uniformly.
        distinct_classes: No class twice in a batch (the joint embedding's batches).
        mismatched: Mismatched pairs are needed; without need of them, an image of data that has none is its own mismatch.
        interpolation: "fixed", "uniform" U(0, 1) or "extrapolate" U(-0.5, 1.5).
        interpolation_weight: b where fixed.
        rank: This process.
        world: Number of processes; divides B.

    Raises:
        DataError: the split is empty, or nothing can be mismatched where that is needed: a single class, or the same captions
            everywhere.
        ConfigError: arguments that do not fit each other.

    Example:
        >>> plan = Sampler(PackedDataset("data/flowers"), batch=64, crop=64).plan(0)  # doctest: +SKIP
        >>> plan.image.shape, plan.caption.shape                                      # doctest: +SKIP
        ((64,), (64, 1))
    """

    def __init__(self, data: PackedDataset, *, batch: int = 64, **options: Any) -> None:
        self.data = data
        self.native = _native.Sampler(data.native, batch=batch, **options)
        self.images: int = self.native.images
        self.classes: int = self.native.classes
        self.ambiguous_captions: float = self.native.ambiguous_captions

    def plan(self, step: int) -> Plan:
        """Make the plan of one step: arrays of indices, see `t2i._native.Plan`."""
        return self.native.plan(step)


def sampler_from(config: TrainConfig, data: PackedDataset, ranks: Ranks = ALONE) -> Sampler:
    """Make the sampler that the settings of a GAN describe.

    Args:
        config: Batch, crops, captions, interpolation and seed.
        data: The packed data set.
        ranks: The processes that share the batch.

    Raises:
        DataError: the training split is empty, or nothing can be mismatched although `config.mismatch_weight` asks for it.
    """
    options: dict[str, Any] = {
        "batch": config.batch,
        "seed": config.seed,
        "crop": config.size,
        "crop_low": min(config.crop_low, data.image_size - config.size),
        "flip": config.flip,
        "captions_per_image": config.captions_per_image,
        "interpolation": config.interpolation,
        "interpolation_weight": config.interpolation_coefficient,
        "rank": ranks.rank,
        "world": ranks.world,
    }
    if not config.mismatch_weight:
        return Sampler(data, mismatched=False, **options)
    try:
        return Sampler(data, **options)
    except DataError as error:
        Sampler(data, mismatched=False, **options)  # raises where the data have another fault
        raise DataError(f"{error}; --mismatch-weight 0 trains without mismatched pairs") from error
