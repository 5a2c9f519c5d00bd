"""Inputs of the metrics: caption embeddings and central crops."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from t2i.data.dataset import PackedDataset
from t2i.pipeline import Pipeline
from t2i.text.inputs import CaptionInputs


def center_crop(images: NDArray[np.uint8], crop: int) -> NDArray[np.uint8]:
    """Center-crop images (N, S, S, 3) to `crop` pixels."""
    edge = (images.shape[1] - crop) // 2
    return np.ascontiguousarray(images[:, edge : edge + crop, edge : edge + crop])


def embed_rows(pipe: Pipeline, pack: PackedDataset, rows: NDArray[np.int64], block: int = 256) -> Tensor:
    """Embed caption rows (n,): (n, T) on the CPU."""
    assert pipe.encoder is not None  # a style encoder is trained with one
    inputs = CaptionInputs(pipe.encoder, pack, pipe.device)
    parts = np.array_split(rows, max(1, -(-len(rows) // block)))
    with torch.no_grad():
        return torch.cat([pipe.encoder(inputs(part)).cpu() for part in parts])
