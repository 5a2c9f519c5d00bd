"""Kernel of `t2i.ops.crop_flip_normalise`: program (b, block) writes a block of image b's bytes as they lie."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from t2i.ops.triton.launch import launch


@triton.jit
def _cut(images, index, corner, flip, out, side, crop, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    place = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)  # over (crop, crop, 3)
    inside = place < crop * crop * 3
    channel = place % 3
    x = (place // 3) % crop
    y = place // (3 * crop)
    image = tl.load(index + row)
    top = tl.load(corner + 2 * row)
    left = tl.load(corner + 2 * row + 1)
    mirrored = tl.load(flip + row)
    x = tl.where(mirrored > 0, crop - 1 - x, x)
    source = ((image * side + top + y) * side + left + x) * 3 + channel
    value = tl.load(images + source, mask=inside, other=0).to(tl.float32)
    value = tl.div_rn(value, 127.5) - 1.0
    tl.store(out + row.to(tl.int64) * crop * crop * 3 + place, value.to(out.dtype.element_ty), mask=inside)


@torch.library.triton_op("t2i::crop_flip_normalise", mutates_args={})
def _forward(images: Tensor, index: Tensor, corner: Tensor, flip: Tensor, crop: int, dtype: torch.dtype) -> Tensor:
    out = torch.empty(len(index), crop, crop, 3, dtype=dtype, device=images.device)
    grid = (len(index), triton.cdiv(crop * crop * 3, 1024))
    launch(_cut)[grid](images, index, corner.contiguous(), flip, out, images.shape[1], crop, BLOCK=1024)
    return out.permute(0, 3, 1, 2)


def cut(images: Tensor, index: Tensor, corner: Tensor, flip: Tensor, crop: int, dtype: torch.dtype) -> Tensor:
    """Compute `t2i.ops.crop_flip_normalise.crop_flip_normalise` by a kernel."""
    with torch.cuda.device_of(images):  # not always the current one; nothing on a CPU
        out: Tensor = _forward(images, index, corner, flip, crop, dtype)
    return out
