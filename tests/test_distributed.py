"""Several processes: together they compute what one process computes of the joined batch, and they end together."""

import dataclasses
import hashlib
import json
import os
import re
import signal
import sys

import numpy as np
import pytest
import torch
from processes import results, together
from torch import nn

import t2i
from t2i import losses
from t2i.config import TextOptions, TrainConfig
from t2i.data import Loader, PackedDataset, Sampler
from t2i.distributed import ALONE, PeerLost, Ranks
from t2i.embeddings import text_encoder
from t2i.encoders import ImageEncoder
from t2i.ops.synchronised_norm import synchronise
from t2i.training import gan
from t2i.training.gan import FrozenText, GanStep, LearnedText

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no torch.distributed"),
]

TEXT = TextOptions(
    encoder="end-to-end", width=8, channels=(8, 8), dim=16, steps=3, batch=8, objective="contrastive", image_width=8
)
CONFIG = TrainConfig(
    size=16, generator_width=8, discriminator_width=8, noise_dim=8, projection_dim=8, batch=16, steps=6,
    precision="float32", device="cpu", captions_per_image=2, log_every=1, halve_every=0, ema=0.9,
    interpolation="uniform", sync_batch_norm=True, text=TEXT,
)  # fmt: skip


def one_step(ranks, folder, config, learned=False):
    """Update both networks once, in float64: gradients, running statistics, weights and measures, by name."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        data = PackedDataset(folder)
        torch.manual_seed(0)
        table = torch.randn(data.captions, config.text.dim)
        text = LearnedText(text_encoder(config.text)) if learned else FrozenText(table, None)
        judge = ImageEncoder(16, 8, config.text.dim).eval().requires_grad_(False) if config.alignment_weight else None
        sampler = Sampler(
            data, batch=16, crop=16, captions_per_image=2, interpolation="uniform", rank=ranks.rank, world=ranks.world
        )
        loader = Loader(
            sampler, torch.device("cpu"), batch=ranks.rows(16), crop=16, captions_per_image=2, mismatched_images=True,
            characters=True,
        )  # fmt: skip
        batch = loader.batch(0)
        batch.images, batch.mismatched_images = batch.images.double(), batch.mismatched_images.double()
        step = GanStep(config, text, torch.device("cpu"), torch.float32, judge, ranks)
        measured = ranks.mean(step(batch, 0))
        out = {f"measured {name}": value for name, value in measured.items()}
        for name, module in step.modules().items():
            out |= {f"gradient {name}.{k}": w.grad for k, w in module.named_parameters() if w.grad is not None}
            out |= {f"statistic {name}.{k}": b for k, b in module.named_buffers()}
            out |= {f"weight {name}.{k}": w for k, w in module.named_parameters()}
        return {name: value.detach().numpy() for name, value in out.items()}
    finally:
        torch.set_default_dtype(before)


STEPS = {
    "GAN-INT-CLS, mismatched pictures": ({}, False),
    "mismatched texts, the joint embedding's verdict, the noise read back": (
        {"mismatch": "text", "reuse_fakes": True, "alignment_weight": 0.7, "recovery_weight": 1.0,
         "interpolation_loss": 0.0},
        False,
    ),
    "stages, and a text encoder that learns": ({"stages": True, "realism_steps": 1}, True),
}  # fmt: skip


@pytest.mark.parametrize("world", [2, 4])
@pytest.mark.parametrize("case", STEPS)
def test_processes_with_joined_statistics_have_the_gradients_of_one_with_the_joined_batch(
    tiny_blossoms_folder, case, world
):
    options, learned = STEPS[case]
    text = dataclasses.replace(TEXT, encoder="end-to-end" if learned else "joint")
    config = dataclasses.replace(CONFIG, text=text, **options)
    expected = one_step(ALONE, tiny_blossoms_folder, config, learned)
    parts = results(world, one_step, tiny_blossoms_folder, config, learned)
    for name, value in expected.items():
        for part in parts:
            assert np.array_equal(part[name], parts[0][name]), f"{name} differs between processes"
        print(name, np.abs(parts[0][name] - value).max(), np.abs(value).max())
