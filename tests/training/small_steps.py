"""A GAN of width 8 at 16 px and batches of random numbers for it."""

import dataclasses

import torch

from t2i.config.options import TrainConfig
from t2i.data.loader import Batch


def tiny(**changes) -> TrainConfig:
    plain = TrainConfig(size=16, generator_width=8, discriminator_width=8, batch=8, noise_dim=6, projection_dim=8)
    return dataclasses.replace(plain, **changes)


def batch_of(step: int, rows: int = 8, size: int = 16) -> Batch:
    rng = torch.Generator().manual_seed(100 + step)
    images, wrong = (torch.rand(rows, 3, size, size, generator=rng) * 2 - 1 for _ in range(2))
    captions, other = (torch.randint(0, 40, (rows, 2), generator=rng) for _ in range(2))
    half = rows // 2
    return Batch(
        images.contiguous(memory_format=torch.channels_last),
        wrong.contiguous(memory_format=torch.channels_last),
        torch.arange(rows),
        captions,
        other,
        None,
        None,
        torch.arange(half) + half,
        torch.full((half,), 0.5),
    )
