"""Kernels of `t2i.ops.one_hot_convolution`: an output column is the sum of K rows of a table."""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from t2i.ops.triton.launch import block, launch


@triton.jit
def _gather(ids, table, bias, out, length, width, channels, slots, TAPS: tl.constexpr, BC: tl.constexpr):
    row, place = tl.program_id(0), tl.program_id(1)
    c = tl.program_id(2) * BC + tl.arange(0, BC)
    here = c < channels
    total = tl.load(bias + c, mask=here, other=0.0).to(tl.float32)
    for tap in tl.static_range(TAPS):
        letter = tl.load(ids + row * length + place + tap)
        total += tl.load(table + (tap * slots + letter) * channels + c, mask=here, other=0.0).to(tl.float32)
    at = (row * width + place).to(tl.int64) * channels
    tl.store(out + at + c, total.to(out.dtype.element_ty), mask=here)


@triton.jit
def _scatter(ids, grad, to_table, length, width, channels, slots, TAPS: tl.constexpr, BC: tl.constexpr):
    row, place = tl.program_id(0), tl.program_id(1)
    c = tl.program_id(2) * BC + tl.arange(0, BC)
    here = c < channels
    at = (row * width + place).to(tl.int64) * channels
    g = tl.load(grad + at + c, mask=here, other=0.0).to(tl.float32)
    for tap in tl.static_range(TAPS):
        letter = tl.load(ids + row * length + place + tap)
        tl.atomic_add(to_table + (tap * slots + letter) * channels + c, g, mask=here)


@torch.library.triton_op("t2i::one_hot_convolution", mutates_args={})
def _forward(ids: Tensor, table: Tensor, bias: Tensor, taps: int) -> Tensor:
    rows, length = ids.shape
    width, channels = length - taps + 1, table.shape[1]
    out = table.new_empty(rows, width, channels)
    wide = block(channels, 256)
    launch(_gather)[(rows, width, triton.cdiv(channels, wide))](
        ids, table, bias, out, length, width, channels, len(table) // taps, TAPS=taps, BC=wide
    )
    return out


@torch.library.triton_op("t2i::one_hot_convolution_backward", mutates_args={})
def _backward(grad: Tensor, ids: Tensor, size: int, taps: int) -> Tensor:
    grad = grad.contiguous()
    rows, width, channels = grad.shape
    table = torch.zeros(size, channels, device=grad.device)
    wide = block(channels, 256)
    launch(_scatter)[(rows, width, triton.cdiv(channels, wide))](
        ids, grad, table, ids.shape[1], width, channels, size // taps, TAPS=taps, BC=wide
    )
    return table


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(inputs[0])
    ctx.size, ctx.dtype, ctx.taps = len(inputs[1]), inputs[1].dtype, inputs[3]


def _differentiate(ctx: Any, grad: Tensor) -> tuple[None, Tensor, Tensor, None]:
    (ids,) = ctx.saved_tensors
    to_table = _backward(grad, ids, ctx.size, ctx.taps)
    return None, to_table.to(ctx.dtype), grad.float().sum(dim=(0, 1)).to(ctx.dtype), None


_forward.register_autograd(_differentiate, setup_context=_save)


def gathered(ids: Tensor, table: Tensor, bias: Tensor, taps: int) -> Tensor:
    """Sum rows of a table.

    Args:
        ids: (B, L) int64, each below the slots of a tap.
        table: (K slots, C), tap by tap.
        bias: (C,).
        taps: K.

    Returns:
        (B, L - K + 1, C). The table's gradient is summed by atomic additions: two runs on a GPU may differ in the last bit.
    """
    out: Tensor = _forward(ids, table, bias, taps)
    return out
