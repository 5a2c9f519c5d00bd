"""Batch normalisation per group of the batch, residual add and (Leaky)ReLU, as one operation.

A batch that joins several kinds of rows (real, fake, ...) keeps their statistics apart: each of G equal groups is normalised
by its own, and the running statistics move once a group, in order, as G calls would move them. So that real, mismatched and
fake images can share one pass of the discriminator and still be what three passes compute.

Plain PyTorch, which torch.compile fuses: two passes over the map forward (statistics; the rest), and two backward, whose
formula is written out because derived from `reference` it takes five sums a channel where two are enough. Kernels of our own
stood here; they read and wrote the same bytes in more launches, and are gone. Differentiable once.

A backward pass that needs an activated map only to know the side of 0 reads one bit a place instead (`pack`), which the
compiled forward pass writes beside the map; the gradient is the same to the bit. Run operation by operation, packing would
cost more than it saves, and the map is read.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm

WORD = 32  # bits
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
    if _packs(x) and x.requires_grad:
        y: Tensor = _Activation.apply(x, slope)
        return y
    return F.relu(x) if slope == 0.0 else F.leaky_relu(x, slope)


def pack(above: Tensor) -> Tensor:
    """Pack booleans (..., C), C divisible by 32, into int32 (..., C / 32): place i of 32 is bit i."""
    places = torch.arange(WORD, dtype=torch.int32, device=above.device)
    # A sum without a conversion behind it: compiled, it is then fused with what else reads the map.
    bits = above.unflatten(-1, (-1, WORD)).to(torch.int32) << places
    packed: Tensor = bits.sum(-1, dtype=torch.int32)
    return packed


def unpack(packed: Tensor) -> Tensor:
    """Undo `pack`."""
    places = torch.arange(WORD, dtype=torch.int32, device=packed.device)
    return ((packed.unsqueeze(-1) >> places) & 1).to(torch.bool).flatten(-2)


def _packs(x: Tensor) -> bool:
    """Return whether the side of 0 is kept in bits: in compiled code, of maps."""
    return torch.compiler.is_compiling() and x.dim() == 4 and x.shape[1] % WORD == 0


def reference(
    x: Tensor, weight: Tensor, bias: Tensor, residual: Tensor | None, eps: float, slope: float, groups: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Define the operation; also returns mean and (biased) variance of each group, (G, C) float32 or float64."""
    grouped = _grouped(x, groups)
    variance, mean = torch.var_mean(grouped, dim=1, correction=0, keepdim=True)
    y = (grouped - mean) * torch.rsqrt(variance + eps) * weight + bias
    if residual is not None:
        y = y + _grouped(residual, groups)
    return _as(activate(y, slope), x), mean.flatten(1), variance.flatten(1)


def _grouped(x: Tensor, groups: int) -> Tensor:
    """Lay x out as (G, rows, C), in float32 or float64; rows are a group's places.

    In the order of channels-last memory: compiled kernels then walk through maps as they lie.
    """
    wide = x.double() if x.dtype is torch.float64 else x.float()
    return wide.movedim(1, -1).reshape(groups, -1, x.shape[1])


def _as(grouped: Tensor, x: Tensor) -> Tensor:
    """Undo `_grouped`: x's shape and dtype, channels last in memory."""
    places = [x.shape[0], *x.shape[2:], x.shape[1]]
    return grouped.to(x.dtype).view(places).movedim(-1, 1)


class _Activation(torch.autograd.Function):
    """LeakyReLU of (B, C, H, W), C divisible by 32, that keeps one bit a place for its gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, slope: float) -> Tensor:
        ctx.save_for_backward(pack(x.movedim(1, -1) > 0))
        ctx.slope = slope
        return F.relu(x) if slope == 0.0 else F.leaky_relu(x, slope)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (packed,) = ctx.saved_tensors
        return torch.where(unpack(packed).movedim(-1, 1), grad, grad * ctx.slope), None


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
        side = None if residual is None or slope == 1.0 else y
        packed = side is not None and _packs(side)
        ctx.save_for_backward(x, weight, bias, mean, variance, pack(y.movedim(1, -1) > 0) if packed else side)
        ctx.eps, ctx.slope, ctx.groups, ctx.has_residual, ctx.packed = eps, slope, groups, residual is not None, packed
        ctx.mark_non_differentiable(mean, variance)
        return y, mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, mean, variance, side = ctx.saved_tensors
        grouped, incoming = _grouped(x, ctx.groups), _grouped(grad, ctx.groups)  # (G, rows, C)
        rstd = torch.rsqrt(variance + ctx.eps).unsqueeze(1)
        normal = (grouped - mean.unsqueeze(1)) * rstd
        if ctx.slope != 1.0:
            if ctx.packed:
                above = unpack(side).view(grouped.shape)
            else:
                above = (normal * weight + bias if side is None else _grouped(side, ctx.groups)) > 0
            incoming = torch.where(above, incoming, incoming * ctx.slope)
        total, dot = incoming.sum(1, keepdim=True), (incoming * normal).sum(1, keepdim=True)
        count = grouped.shape[1]
        to_x = weight * rstd * (incoming - total / count - normal * (dot / count))
        to_residual = _as(incoming, grad) if ctx.has_residual else None
        to_weight, to_bias = dot.sum(0).flatten().to(weight.dtype), total.sum(0).flatten().to(bias.dtype)
        return _as(to_x, x), to_weight, to_bias, to_residual, None, None, None


@torch.no_grad()
def _move(norm: _BatchNorm, mean: Tensor, variance: Tensor) -> None:
    """Move the running statistics by each group's, in order."""
    rate = 0.1 if norm.momentum is None else norm.momentum
    assert norm.running_mean is not None
    assert norm.running_var is not None
    for group in range(len(mean)):
        norm.running_mean.lerp_(mean[group].to(norm.running_mean.dtype), rate)
        norm.running_var.lerp_(variance[group].to(norm.running_var.dtype), rate)
