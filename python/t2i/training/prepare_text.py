"""The text side of a GAN's training, made ready before its first step."""

from pathlib import Path

import torch
from torch import nn

from t2i.config.options import TrainConfig
from t2i.data.dataset import PackedDataset
from t2i.errors import ConfigError
from t2i.models.encoders import ImageEncoder
from t2i.text.build import text_encoder
from t2i.text.inputs import CaptionInputs, train_rows
from t2i.text.minilm import MiniLmEncoder
from t2i.text.ngrams import NgramEncoder
from t2i.text.pretrained import encoder_file, holds_encoder, load_text
from t2i.text.protocol import TextEncoder
from t2i.text.table import caption_table, read_table
from t2i.training.text import train_text
from t2i.training.text_source import FrozenText, LearnedText, TextSource


def learned_text(encoder: TextEncoder, data: PackedDataset, device: torch.device) -> LearnedText:
    """Make an encoder ready to learn with the GAN; only the paper's characters are part of a batch."""
    inputs = None
    if isinstance(encoder, (NgramEncoder, MiniLmEncoder)):
        # What is left out would depend on more than (seed, step), and a resumed run on where it was stopped.
        encoder.dropout = 0.0
    if encoder.kind != "char-cnn-rnn":
        inputs = CaptionInputs(encoder, data, device)
        inputs.fit(encoder, train_rows(data))
    return LearnedText(encoder.to(device), inputs)


def prepare_text(
    config: TrainConfig, data: PackedDataset, folder: Path, device: torch.device, precision: torch.dtype
) -> tuple[TextSource, nn.Module | None]:
    """Make the text source that the settings ask for: end-to-end, joint (trained first), or frozen from a file.

    Returns:
        The source, and the frozen image side of the joint embedding where `config.alignment_weight` asks for it.

    Raises:
        ConfigError: the file has embeddings and no image side, which `config.alignment_weight` needs.
    """
    options = config.text
    if options.encoder == "end-to-end":
        torch.manual_seed(config.seed)
        return learned_text(text_encoder(options), data, device), None
    path = train_text(config, data, folder) if options.encoder == "joint" else encoder_file(options.encoder)
    if not holds_encoder(path):
        if config.alignment_weight:
            raise ConfigError(f"{path} holds embeddings and no image side to score images: add --alignment-weight 0")
        return FrozenText(read_table(path, data).to(device), None), None
    encoder = load_text(path, options).to(device)
    alignment_encoder: nn.Module | None = None
    if config.alignment_weight:
        alignment_encoder = ImageEncoder.load(path, options.dim, config.size).requires_grad_(False)
        alignment_encoder = alignment_encoder.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return FrozenText(caption_table(encoder, data, device, precision), encoder), alignment_encoder
