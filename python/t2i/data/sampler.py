"""The sampler: what a step trains on, as a pure function of (data set, seed, step)."""

from typing import Any

from t2i import _native
from t2i.config.options import TrainConfig
from t2i.data.dataset import PackedDataset
from t2i.distributed import ALONE, Ranks

Plan = _native.Plan


class Sampler:
    """Decide what each step trains on.

    `plan(step)` draws classes uniformly, a picture in each, a mismatched partner of another class, captions with
    replacement, crops, flips and interpolation partners. A pure function of its arguments: no state, any order.

    Args:
        data: The packed data set.
        batch: B, pictures a step over all processes.
        seed: Everything random follows from it.
        split: "train", "test" or "all".
        crop: Side of the crop in pixels, at most the pack's picture size.
        crop_low: Smallest crop offset.
        flip: Mirror half of the pictures.
        captions_per_image: K, drawn with replacement.
        class_uniform: Draw classes uniformly, then a picture (the paper); otherwise pictures uniformly.
        distinct_classes: No class twice in a batch (the joint embedding's batches).
        interpolation: "fixed", "uniform" U(0, 1) or "extrapolate" U(-0.5, 1.5).
        interpolation_weight: b where fixed.
        rank: This process.
        world: Number of processes; divides B.

    Raises:
        DataError: the split is empty or has a single class, so that nothing can be mismatched.
        ConfigError: arguments that do not fit each other.
    """

    def __init__(self, data: PackedDataset, *, batch: int = 64, **options: Any) -> None:
        self.data = data
        self.native = _native.Sampler(data.native, batch=batch, **options)
        self.images: int = self.native.images
        self.classes: int = self.native.classes

    def plan(self, step: int) -> Plan:
        """Draw the plan of one step: arrays of indices, see `t2i._native.Plan`."""
        return self.native.plan(step)


def sampler_from(config: TrainConfig, data: PackedDataset, ranks: Ranks = ALONE) -> Sampler:
    """Make the sampler that the settings of a GAN describe.

    Args:
        config: Batch, crops, captions, interpolation and seed.
        data: The packed data set.
        ranks: The processes that share the batch.
    """
    return Sampler(
        data,
        batch=config.batch,
        seed=config.seed,
        crop=config.size,
        crop_low=min(config.crop_low, data.image_size - config.size),
        flip=config.flip,
        captions_per_image=config.captions_per_image,
        interpolation=config.interpolation,
        interpolation_weight=config.interpolation_coefficient,
        rank=ranks.rank,
        world=ranks.world,
    )
