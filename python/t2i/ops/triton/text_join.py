"""Kernel of `t2i.ops.text_join`: a matrix product whose rows of one picture get the picture's shift as they are written."""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from t2i.ops.triton.launch import INTERPRETED, launch, like, rows


@triton.jit
def _product(
    features, weight, shift, out, count, inner, outer, places,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, EXACT: tl.constexpr,
):  # fmt: skip
    m = tl.program_id(0) * BM + tl.arange(0, BM)
    n = tl.program_id(1) * BN + tl.arange(0, BN)
    total = tl.zeros((BM, BN), tl.float32)
    for start in range(0, inner, BK):
        k = start + tl.arange(0, BK)
        left = tl.load(
            features + m.to(tl.int64)[:, None] * inner + k[None, :],
            mask=(m < count)[:, None] & (k < inner)[None, :], other=0.0,
        )  # fmt: skip
        right = tl.load(
            weight + n[None, :] * inner + k[:, None], mask=(n < outer)[None, :] & (k < inner)[:, None], other=0.0
        )
        if EXACT:
            total += tl.dot(left.to(tl.float32), right.to(tl.float32), input_precision="ieee")
        else:
            total += tl.dot(left, right)
    inside = (m < count)[:, None] & (n < outer)[None, :]
    total += tl.load(shift + (m // places)[:, None] * outer + n[None, :], mask=inside, other=0.0).to(tl.float32)
    tl.store(out + m.to(tl.int64)[:, None] * outer + n[None, :], total.to(out.dtype.element_ty), mask=inside)


@torch.library.triton_op("t2i::shifted_product", mutates_args={})
def _forward(features: Tensor, weight: Tensor, shift: Tensor) -> Tensor:
    flat, weight, shift = rows(features), weight.contiguous(), shift.contiguous()
    outer, inner = weight.shape
    out = flat.new_empty(len(flat), outer)
    grid = (triton.cdiv(len(flat), 64), triton.cdiv(outer, 64))
    exact = flat.dtype is torch.float32 or INTERPRETED  # which multiplies bfloat16 as the integers it keeps it in
    launch(_product)[grid](
        flat, weight, shift, out, len(flat), inner, outer, len(flat) // len(shift),
        BM=64, BN=64, BK=32, EXACT=exact,
    )  # fmt: skip
    return like(out, features.new_empty(1).expand(features.shape[0], outer, *features.shape[2:]))


def _save(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(inputs[0], inputs[1])


def _differentiate(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    features, weight = ctx.saved_tensors
    incoming, flat = rows(grad), rows(features)
    return like(incoming @ weight, features), incoming.t() @ flat, grad.sum(dim=(2, 3))


_forward.register_autograd(_differentiate, setup_context=_save)


def shifted_product(features: Tensor, weight: Tensor, shift: Tensor) -> Tensor:
    """Multiply (B, C, H, W) by (D, C) at every place and add (B, D): (B, D, H, W), channels last."""
    out: Tensor = _forward(features, weight, shift)
    return out
