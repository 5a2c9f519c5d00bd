"""Batch normalisation per group of the batch, residual add and (Leaky)ReLU, as one operation.

A batch that joins several kinds of rows (real, fake, ...) keeps their statistics apart: each of G equal groups is normalised
by its own, and the running statistics move once a group, in order, as G calls would move them. So that real, mismatched and
fake images can share one pass of the discriminator and still be what three passes compute.

Plain PyTorch, which torch.compile fuses: two passes over the map forward (statistics; the rest), and two backward, whose
formula is written out because derived from `reference` it takes five sums a channel where two are enough. Kernels of our own
stood here; they read and wrote the same bytes in more launches, and are gone. Differentiable once.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm

LIBRARY = (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d)


def norm_act(
    x: Tensor, norm: _BatchNorm, slope: float = 1.0, residual: Tensor | None = None, groups: int = 1
) -> Tensor:
    """Normalise, add, activate: leaky_relu(norm(x) + residual, slope).

    Args:
        x: (B, C) or (B, C, H, W).
        norm: Weight, bias, running statistics (moved in training) and whether it trains.
        slope: Of LeakyReLU below 0; 0 is ReLU, 1 nothing at all.
        residual: Added before the activation; x's shape.
        groups: G; rows i B / G to (i + 1) B / G are group i. 1 in evaluation, whatever is asked for.

    Returns:
        x's shape and dtype.
    """
    library = groups == 1 and not torch.compiler.is_compiling()  # one call; its gradient reads the output as well
    if not norm.training or library or not isinstance(norm, LIBRARY):
        y: Tensor = norm(x)
        return activate(y if residual is None else y + residual, slope)
    if norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(groups)
    y, mean, variance = _GroupedNorm.apply(x, norm.weight, norm.bias, residual, norm.eps, slope, groups)
    count = x.numel() // (x.shape[1] * groups)
    _move(norm, mean, variance * (count / (count - 1)))
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
    grouped = _grouped(x, groups)
    over, shape = _axes(grouped)
    variance, mean = torch.var_mean(grouped, dim=over, correction=0, keepdim=True)
    y = (grouped - mean) * torch.rsqrt(variance + eps) * weight.view(shape) + bias.view(shape)
    y = y.flatten(0, 1)
    if residual is not None:
        y = y + residual
    return activate(y, slope).to(x.dtype), mean.flatten(1), variance.flatten(1)


def _grouped(x: Tensor, groups: int) -> Tensor:
    """Give each group its own dimension, (G, B / G, C, ...), in float32 or float64."""
    wide = x.double() if x.dtype is torch.float64 else x.float()
    grouped: Tensor = wide.unflatten(0, (groups, -1))
    return grouped


def _axes(grouped: Tensor) -> tuple[list[int], list[int]]:
    """Say what a statistic of (G, B / G, C, ...) is taken over, and the shape of a value a channel beside it."""
    return [1, *range(3, grouped.dim())], [1, 1, -1, *(1 for _ in range(3, grouped.dim()))]


class _GroupedNorm(torch.autograd.Function):
    """`reference`, with its gradient in two passes.

    Source of the gradient: Ioffe and Szegedy 2015, section 3.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        residual: Tensor | None,
        eps: float,
        slope: float,
        groups: int,
    ) -> tuple[Tensor, Tensor, Tensor]:
        y, mean, variance = reference(x, weight, bias, residual, eps, slope, groups)
        # Where a residual was added, only y tells on which side of 0 a place was; else x does, which is read anyway.
        ctx.save_for_backward(x, weight, bias, mean, variance, None if residual is None or slope == 1.0 else y)
        ctx.eps, ctx.slope, ctx.groups, ctx.has_residual = eps, slope, groups, residual is not None
        ctx.mark_non_differentiable(mean, variance)
        return y, mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, mean, variance, y = ctx.saved_tensors
        grouped, incoming = _grouped(x, ctx.groups), _grouped(grad, ctx.groups)
        over, shape = _axes(grouped)
        each = [ctx.groups, *shape[1:]]
        rstd = torch.rsqrt(variance + ctx.eps).view(each)
        normal = (grouped - mean.view(each)) * rstd
        if ctx.slope != 1.0:
            above = normal * weight.view(shape) + bias.view(shape) if y is None else _grouped(y, ctx.groups)
            incoming = torch.where(above > 0, incoming, incoming * ctx.slope)
        total, dot = incoming.sum(over, keepdim=True), (incoming * normal).sum(over, keepdim=True)
        count = grouped.numel() // (ctx.groups * grouped.shape[2])
        to_x = weight.view(shape) * rstd * (incoming - total / count - normal * (dot / count))
        to_residual = incoming.flatten(0, 1).to(grad.dtype) if ctx.has_residual else None
        to_weight, to_bias = dot.sum(0).flatten().to(weight.dtype), total.sum(0).flatten().to(bias.dtype)
        return to_x.flatten(0, 1).to(x.dtype), to_weight, to_bias, to_residual, None, None, None


@torch.no_grad()
def _move(norm: _BatchNorm, mean: Tensor, variance: Tensor) -> None:
    """Move the running statistics by each group's, in order."""
    rate = 0.1 if norm.momentum is None else norm.momentum
    assert norm.running_mean is not None
    assert norm.running_var is not None
    for group in range(len(mean)):
        norm.running_mean.lerp_(mean[group].to(norm.running_mean.dtype), rate)
        norm.running_var.lerp_(variance[group].to(norm.running_var.dtype), rate)
