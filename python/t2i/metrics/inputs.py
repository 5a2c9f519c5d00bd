"""Inputs of the metrics: caption embeddings and central crops."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from t2i.data.dataset import PackedDataset
from t2i.errors import ConfigError
from t2i.pipeline import Pipeline
from t2i.text.inputs import CaptionInputs


def center_crop(images: NDArray[np.uint8], crop: int) -> NDArray[np.uint8]:
    """Center-crop images (N, S, S, 3) to `crop` pixels."""
    edge = (images.shape[1] - crop) // 2
    return np.ascontiguousarray(images[:, edge : edge + crop, edge : edge + crop])


def embed_rows(pipe: Pipeline, pack: PackedDataset, rows: NDArray[np.int64], block: int = 256) -> Tensor:
    """Embed caption rows (n,): (n, T) on the CPU. ConfigError for a model without a text encoder."""
    if pipe.encoder is None:
        raise ConfigError(
            f"{pipe.folder or 'this model'} was trained on embeddings of {pipe.config.text.encoder} and has no text encoder: "
            "captions cannot be read, so that nothing of it can be measured; train on an encoder (--text.encoder RUN)"
        )
    inputs = CaptionInputs(pipe.encoder, pack, pipe.device)
    parts = np.array_split(rows, max(1, -(-len(rows) // block)))
    with torch.no_grad():
        return torch.cat([pipe.encoder(inputs(part)).cpu() for part in parts])
