"""Means of embeddings by group, such as the captions of an image or of a class."""

import torch
from torch import Tensor


def group_means(rows: Tensor, index: Tensor, counts: Tensor) -> Tensor:
    """Average rows (M, T) by group: `index` (M,) of 0..G - 1, with `counts` (G,) rows each: (G, T)."""
    total = torch.zeros(len(counts), rows.shape[1], dtype=rows.dtype, device=rows.device)
    return total.index_add_(0, index, rows) / counts[:, None]
