"""Kernels of `t2i.ops.norm_act`.

Rows are (B H W, C), channels last. Statistics: each program walks a share of a group's rows for a block of channels and joins
means and squared deviations tile by tile (Chan's rule: no cancellation, one reading); the shares are joined in a fixed order,
so that two runs give equal bits. Backward reads x, y and the gradient twice: once for two sums a channel, once for dx.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from t2i.ops.triton.launch import block, launch, like, rows

SHARES = 16  # of a group's rows, at most


@triton.jit
def _statistics(x, mean_out, square_out, count, channels, share, BR: tl.constexpr, BC: tl.constexpr):
    group, column, part = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    parts = tl.num_programs(2)
    c = column * BC + tl.arange(0, BC)
    first, last = part * share, tl.minimum((part + 1) * share, count)
    mean = tl.zeros((BC,), tl.float32)
    square = tl.zeros((BC,), tl.float32)
    seen = 0.0
    for start in range(first, last, BR):
        r = start + tl.arange(0, BR)
        inside = (r < last)[:, None] & (c < channels)[None, :]
        place = (group * count + r).to(tl.int64)[:, None] * channels + c[None, :]
        tile = tl.load(x + place, mask=inside, other=0.0).to(tl.float32)
        number = tl.minimum(last - start, BR).to(tl.float32)
        tile_mean = tl.sum(tile, 0) / number
        off = tl.where(inside, tile - tile_mean[None, :], 0.0)
        total = seen + number
        delta = tile_mean - mean
        square += tl.sum(off * off, 0) + delta * delta * (seen * number / total)
        mean += delta * (number / total)
        seen = total
    at = (group * parts + part) * channels + c
    tl.store(mean_out + at, mean, mask=c < channels)
    tl.store(square_out + at, square, mask=c < channels)


@triton.jit
def _apply(
    x,
    residual,
    weight,
    bias,
    mean,
    rstd,
    y,
    count,
    channels,
    slope,
    HAS_RESIDUAL: tl.constexpr,
    BR: tl.constexpr,
    BC: tl.constexpr,
):
    group, tile, column = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    c = column * BC + tl.arange(0, BC)
    r = tile * BR + tl.arange(0, BR)
    inside = (r < count)[:, None] & (c < channels)[None, :]
    place = (group * count + r).to(tl.int64)[:, None] * channels + c[None, :]
    here = c < channels
    scale = tl.load(weight + c, mask=here, other=0.0).to(tl.float32)
    scale *= tl.load(rstd + group * channels + c, mask=here, other=0.0)
    shift = tl.load(bias + c, mask=here, other=0.0).to(tl.float32)
    centre = tl.load(mean + group * channels + c, mask=here, other=0.0)
    value = tl.load(x + place, mask=inside, other=0.0).to(tl.float32)
    value = (value - centre[None, :]) * scale[None, :] + shift[None, :]
    if HAS_RESIDUAL:
        value += tl.load(residual + place, mask=inside, other=0.0).to(tl.float32)
    value = tl.where(value > 0, value, value * slope)
    tl.store(y + place, value.to(y.dtype.element_ty), mask=inside)


@triton.jit
def _sums(x, y, grad, mean, rstd, sum_out, dot_out, count, channels, share, slope, BR: tl.constexpr, BC: tl.constexpr):
    group, column, part = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    parts = tl.num_programs(2)
    c = column * BC + tl.arange(0, BC)
    here = c < channels
    centre = tl.load(mean + group * channels + c, mask=here, other=0.0)
    scale = tl.load(rstd + group * channels + c, mask=here, other=0.0)
    first, last = part * share, tl.minimum((part + 1) * share, count)
    total = tl.zeros((BC,), tl.float32)
    dot = tl.zeros((BC,), tl.float32)
    for start in range(first, last, BR):
        r = start + tl.arange(0, BR)
        inside = (r < last)[:, None] & here[None, :]
        place = (group * count + r).to(tl.int64)[:, None] * channels + c[None, :]
        g = tl.load(grad + place, mask=inside, other=0.0).to(tl.float32)
        g = tl.where(tl.load(y + place, mask=inside, other=0.0).to(tl.float32) > 0, g, g * slope)
        normal = (tl.load(x + place, mask=inside, other=0.0).to(tl.float32) - centre[None, :]) * scale[None, :]
        total += tl.sum(g, 0)
        dot += tl.sum(g * normal, 0)
    at = (group * parts + part) * channels + c
    tl.store(sum_out + at, total, mask=here)
    tl.store(dot_out + at, dot, mask=here)


@triton.jit
def _gradient(
    x,
    y,
    grad,
    weight,
    mean,
    rstd,
    sums,
    dots,
    to_x,
    to_residual,
    count,
    channels,
    slope,
    HAS_RESIDUAL: tl.constexpr,
    BR: tl.constexpr,
    BC: tl.constexpr,
):
    group, tile, column = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    c = column * BC + tl.arange(0, BC)
    here = c < channels
    r = tile * BR + tl.arange(0, BR)
    inside = (r < count)[:, None] & here[None, :]
    place = (group * count + r).to(tl.int64)[:, None] * channels + c[None, :]
    at = group * channels + c
    scale = tl.load(rstd + at, mask=here, other=0.0)
    centre = tl.load(mean + at, mask=here, other=0.0)
    total = tl.load(sums + at, mask=here, other=0.0) / count
    dot = tl.load(dots + at, mask=here, other=0.0) / count
    g = tl.load(grad + place, mask=inside, other=0.0).to(tl.float32)
    g = tl.where(tl.load(y + place, mask=inside, other=0.0).to(tl.float32) > 0, g, g * slope)
    if HAS_RESIDUAL:
        tl.store(to_residual + place, g.to(to_residual.dtype.element_ty), mask=inside)
    normal = (tl.load(x + place, mask=inside, other=0.0).to(tl.float32) - centre[None, :]) * scale[None, :]
    factor = tl.load(weight + c, mask=here, other=0.0).to(tl.float32) * scale
    value = factor[None, :] * (g - total[None, :] - normal * dot[None, :])
    tl.store(to_x + place, value.to(to_x.dtype.element_ty), mask=inside)


def _sizes(count: int, channels: int) -> tuple[int, int, int, int]:
    """Choose rows and channels of a tile, rows of a share, and the number of shares."""
    wide, high = block(channels, 64), block(count, 64)
    share = -(-count // SHARES)
    share = -(-share // high) * high
    return high, wide, share, -(-count // share)


@torch.library.triton_op("t2i::norm_act_forward", mutates_args={})
def _forward(
    x: Tensor, weight: Tensor, bias: Tensor, residual: Tensor | None, eps: float, slope: float, groups: int
) -> tuple[Tensor, Tensor, Tensor]:
    flat = rows(x)
    more = flat if residual is None else rows(residual)
    count, channels = len(flat) // groups, flat.shape[1]
    high, wide, share, parts = _sizes(count, channels)
    columns = triton.cdiv(channels, wide)
    means = torch.empty(groups, parts, channels, device=x.device)
    squares = torch.empty_like(means)
    launch(_statistics)[(groups, columns, parts)](flat, means, squares, count, channels, share, BR=high, BC=wide)
    numbers = (torch.arange(parts + 1, device=x.device) * share).clamp(max=count).diff().float()[None, :, None]
    mean = (means * numbers).sum(1) / count  # (G, C)
    variance = (squares.sum(1) + (numbers * (means - mean[:, None]).square()).sum(1)) / count
    y = torch.empty_like(flat)
    launch(_apply)[(groups, triton.cdiv(count, high), columns)](
        flat,
        more,
        weight,
        bias,
        mean,
        torch.rsqrt(variance + eps),
        y,
        count,
        channels,
        slope,
        HAS_RESIDUAL=residual is not None,
        BR=high,
        BC=wide,
    )
    return like(y, x), mean, variance


@torch.library.triton_op("t2i::norm_act_backward", mutates_args={})
def _backward(
    grad: Tensor,
    x: Tensor,
    y: Tensor,
    weight: Tensor,
    mean: Tensor,
    variance: Tensor,
    eps: float,
    slope: float,
    has_residual: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    groups = len(mean)
    flat, out, incoming = rows(x), rows(y), rows(grad)
    count, channels = len(flat) // groups, flat.shape[1]
    high, wide, share, parts = _sizes(count, channels)
    columns = triton.cdiv(channels, wide)
    rstd = torch.rsqrt(variance + eps)
    sums = torch.empty(groups, parts, channels, device=x.device)
    dots = torch.empty_like(sums)
    launch(_sums)[(groups, columns, parts)](
        flat, out, incoming, mean, rstd, sums, dots, count, channels, share, slope, BR=high, BC=wide
    )
    total, dot = sums.sum(1), dots.sum(1)  # (G, C)
    to_x = torch.empty_like(flat)
    to_residual = torch.empty_like(flat) if has_residual else flat.new_empty(0)
    launch(_gradient)[(groups, triton.cdiv(count, high), columns)](
        flat,
        out,
        incoming,
        weight,
        mean,
        rstd,
        total,
        dot,
        to_x,
        to_residual,
        count,
        channels,
        slope,
        HAS_RESIDUAL=has_residual,
        BR=high,
        BC=wide,
    )
    kept = like(to_residual, x) if has_residual else to_residual
    return like(to_x, x), dot.sum(0), total.sum(0), kept


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, weight, _, residual, eps, slope, _ = inputs
    y, mean, variance = output
    ctx.save_for_backward(x, y, weight, mean, variance)
    ctx.eps, ctx.slope, ctx.has_residual = eps, slope, residual is not None
    ctx.mark_non_differentiable(mean, variance)


def _differentiate(ctx: Any, grad: Tensor, *_: Any) -> tuple[Any, ...]:
    x, y, weight, mean, variance = ctx.saved_tensors
    to_x, to_weight, to_bias, to_residual = _backward(
        grad, x, y, weight, mean, variance, ctx.eps, ctx.slope, ctx.has_residual
    )
    kept = to_residual if ctx.has_residual else None
    return to_x, to_weight.to(weight.dtype), to_bias.to(weight.dtype), kept, None, None, None


_forward.register_autograd(_differentiate, setup_context=_save)


def grouped_norm_act(
    x: Tensor, weight: Tensor, bias: Tensor, residual: Tensor | None, eps: float, slope: float, groups: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute `t2i.ops.norm_act.reference` by kernels: y, and mean and variance (G, C) float32, which have no gradient."""
    y, mean, variance = _forward(x, weight, bias, residual, eps, slope, groups)
    return y, mean, variance
