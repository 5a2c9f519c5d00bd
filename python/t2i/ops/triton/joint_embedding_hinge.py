"""Kernel of `t2i.ops.joint_embedding_hinge`: program i sums image i's row and text i's column."""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from t2i.ops.triton.launch import block, launch


@triton.jit
def _rows(scores, losses, active_row, active_column, count, BC: tl.constexpr):
    i = tl.program_id(0)
    own = tl.load(scores + i * count + i).to(tl.float32)
    total = tl.zeros((BC,), tl.float32)
    number = tl.zeros((BC,), tl.float32)
    for start in range(0, count, BC):
        j = start + tl.arange(0, BC)
        other = (j < count) & (j != i)
        by_image = tl.load(scores + i * count + j, mask=other, other=0.0).to(tl.float32) - own + 1
        by_text = tl.load(scores + j * count + i, mask=other, other=0.0).to(tl.float32) - own + 1
        image = other & (by_image > 0)
        text = other & (by_text > 0)
        total += tl.where(image, by_image, 0.0) + tl.where(text, by_text, 0.0)
        number += image.to(tl.float32) + text.to(tl.float32)
        tl.store(active_row + i * count + j, image.to(tl.float32), mask=j < count)
        tl.store(active_column + j * count + i, text.to(tl.float32), mask=j < count)
    tl.store(losses + i, tl.sum(total, 0))
    tl.store(active_row + i * count + i, -tl.sum(number, 0))


@torch.library.triton_op("t2i::joint_embedding_hinge", mutates_args={})
def _forward(scores: Tensor) -> tuple[Tensor, Tensor]:
    scores = scores.contiguous()
    count = len(scores)
    losses = torch.empty(count, device=scores.device)
    row, column = (torch.empty(count, count, device=scores.device) for _ in range(2))
    launch(_rows)[(count,)](scores, losses, row, column, count, BC=block(count, 64))
    return losses.sum() / count**2, (row + column) / count**2


def _save(ctx: Any, inputs: tuple[Tensor], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(output[1])
    ctx.dtype = inputs[0].dtype
    ctx.mark_non_differentiable(output[1])


def _differentiate(ctx: Any, grad: Tensor, _: Tensor) -> Tensor:
    (slope,) = ctx.saved_tensors
    to_scores: Tensor = (grad * slope).to(ctx.dtype)
    return to_scores


_forward.register_autograd(_differentiate, setup_context=_save)


def hinge(scores: Tensor) -> Tensor:
    """Compute the loss () of scores (B, B)."""
    loss: Tensor = _forward(scores)[0]
    return loss
