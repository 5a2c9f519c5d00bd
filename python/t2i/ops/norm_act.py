"""Batch normalisation per group of the batch, residual add and (Leaky)ReLU, as one operation.

A batch that joins several kinds of rows (real, fake, ...) keeps their statistics apart: each of G equal groups is normalised
by its own, and the running statistics move once a group, in order, as G calls would move them. So that real, mismatched and
fake images can share one pass of the discriminator and still be what three passes compute.

The definition is plain PyTorch, which torch.compile fuses; `impl="triton"` is a pair of kernels of our own
(`ops/triton/norm_act.py`). Differentiable once.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

Impl = Literal["reference", "triton"]
LIBRARY = (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d)


def norm_act(
    x: Tensor,
    norm: _BatchNorm,
    slope: float = 1.0,
    residual: Tensor | None = None,
    groups: int = 1,
    *,
    impl: Impl = "reference",
) -> Tensor:
    """Normalise, add, activate: leaky_relu(norm(x) + residual, slope).

    Args:
        x: (B, C) or (B, C, H, W); the kernels read channels-last.
        norm: Weight, bias, running statistics (moved in training) and whether it trains.
        slope: Of LeakyReLU below 0; 0 is ReLU, 1 nothing at all.
        residual: Added before the activation; x's shape.
        groups: G; rows i B / G to (i + 1) B / G are group i. 1 in evaluation, whatever is asked for.
        impl: "reference" (PyTorch) or "triton".

    Returns:
        x's shape and dtype.
    """
    if not norm.training or (groups == 1 and impl == "reference") or not isinstance(norm, LIBRARY):
        y = norm(x)
        return activate(y if residual is None else y + residual, slope)
    if norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(groups)
    if impl == "triton":
        from t2i.ops.triton.norm_act import grouped_norm_act

        y, mean, variance = grouped_norm_act(x, norm.weight, norm.bias, residual, norm.eps, slope, groups)
    else:
        y, mean, variance = reference(x, norm.weight, norm.bias, residual, norm.eps, slope, groups)
    count = x.numel() // (x.shape[1] * groups)
    _move(norm, mean.detach(), variance.detach() * (count / (count - 1)))
    return y


def activate(x: Tensor, slope: float) -> Tensor:
    """Apply LeakyReLU; slope 0 is ReLU, 1 the identity."""
    if slope == 1.0:
        return x
    return F.relu(x) if slope == 0.0 else F.leaky_relu(x, slope)


def reference(
    x: Tensor, weight: Tensor, bias: Tensor, residual: Tensor | None, eps: float, slope: float, groups: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Define the operation; also returns mean and (biased) variance of each group, (G, C) float32 or float64."""
    wide = x.double() if x.dtype is torch.float64 else x.float()
    grouped = wide.unflatten(0, (groups, -1))  # (G, B / G, C, ...)
    over = [1, *range(3, grouped.dim())]
    variance, mean = torch.var_mean(grouped, dim=over, correction=0, keepdim=True)
    shape = [1, 1, -1, *(1 for _ in range(3, grouped.dim()))]
    y = (grouped - mean) * torch.rsqrt(variance + eps) * weight.view(shape) + bias.view(shape)
    y = y.flatten(0, 1)
    if residual is not None:
        y = y + residual
    return activate(y, slope).to(x.dtype), mean.flatten(1), variance.flatten(1)


@torch.no_grad()
def _move(norm: _BatchNorm, mean: Tensor, variance: Tensor) -> None:
    """Move the running statistics by each group's, in order."""
    rate = 0.1 if norm.momentum is None else norm.momentum
    assert norm.running_mean is not None
    assert norm.running_var is not None
    for group in range(len(mean)):
        norm.running_mean.lerp_(mean[group].to(norm.running_mean.dtype), rate)
        norm.running_var.lerp_(variance[group].to(norm.running_var.dtype), rate)
