"""A 1-d convolution over one-hot characters, without the one-hot.

A convolution of width K over one-hot columns only ever picks K columns of its weight and adds them up: K table gathers.
The (B, 70, 201) float tensor, 56 KB a caption, need not exist. Exact: the error in float64 is 0.

Differentiable once and twice in weight and bias; character ids have no gradient.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor


def one_hot_convolution(
    captions: Tensor, weight: Tensor, bias: Tensor | None, *, impl: Literal["gather", "reference"] = "gather"
) -> Tensor:
    """Convolve captions.

    Args:
        captions: (B, L) integer character ids; 0 (padding) and ids above A give zeros.
        weight: (C, A, K) as `nn.Conv1d` holds it.
        bias: (C,) or None.
        impl: "gather" (table look-ups) or "reference" (builds the one-hot).

    Returns:
        (B, C, L - K + 1) in the weight's dtype.
    """
    if impl == "reference":
        return reference(captions, weight, bias)
    channels, alphabet, taps = weight.shape
    length = captions.shape[1] - taps + 1
    # One row of zeros in front (padding) and one behind (unknown), so that an id is its own row number.
    table = F.pad(weight.permute(2, 1, 0), (0, 0, 1, 1)).reshape(taps * (alphabet + 2), channels)
    ids = captions.long().clamp(max=alphabet + 1)
    offsets = torch.arange(taps, device=ids.device) * (alphabet + 2)
    rows = ids.unfold(1, taps, 1) + offsets  # (B, length, K)
    total = F.embedding_bag(rows.reshape(-1, taps), table, mode="sum")  # (B * length, C)
    if bias is not None:
        total = total + bias
    return total.view(captions.shape[0], length, channels).transpose(1, 2)


def reference(captions: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Define the operation: one-hot, then `conv1d`."""
    alphabet = weight.shape[1]
    ids = captions.long().clamp(max=alphabet + 1)
    one_hot = F.one_hot(ids, alphabet + 2)[:, :, 1:-1].to(weight.dtype)  # (B, L, A)
    return F.conv1d(one_hot.transpose(1, 2), weight, bias)
