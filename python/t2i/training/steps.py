"""The step of the networks that the settings name; what a loop needs to know of both is their shared methods."""

import torch
from torch import nn

from t2i.config.options import TrainConfig
from t2i.data.dataset import PackedDataset
from t2i.distributed import ALONE, Ranks
from t2i.training.modern_step import ModernStep
from t2i.training.reference import Reference
from t2i.training.step import GanStep
from t2i.training.text_source import FrozenText, TextSource

Step = GanStep | ModernStep


def make_step(
    config: TrainConfig,
    text: TextSource,
    device: torch.device,
    precision: torch.dtype,
    alignment_encoder: nn.Module | None = None,
    ranks: Ranks = ALONE,
    data: PackedDataset | None = None,
) -> Step:
    """Make the step that trains `config.network`, with random weights from torch's generator.

    Args:
        config: The settings.
        text: Where text embeddings come from.
        device: Where the networks live.
        precision: Of products and convolutions.
        alignment_encoder: Image side of the joint embedding, where `config.alignment_weight` asks for it.
        ranks: The processes that share the batch.
        data: The data set; the modern step standardises by it. None, where only shapes matter.

    Raises:
        ConfigError: the frozen features of the modern step cannot be had.
    """
    if config.network == "paper":
        return GanStep(config, text, device, precision, alignment_encoder, ranks)
    assert isinstance(text, FrozenText)
    reference = None if data is None else Reference.of(data, config.size)
    return ModernStep(config, text, device, precision, alignment_encoder, ranks, reference)
