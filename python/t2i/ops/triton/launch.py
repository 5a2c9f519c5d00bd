"""What all kernels share: how one is started, so that torch.compile sees it and Triton's interpreter can run it."""

from typing import Any

import torch
import triton
from torch.library import wrap_triton
from triton.runtime.jit import JITFunction

INTERPRETED = bool(triton.knobs.runtime.interpret)  # TRITON_INTERPRET=1: kernels run on the CPU, statement by statement


def launch(kernel: Any) -> Any:
    """Prepare a kernel for `[grid](...)`: visible to torch.compile on a GPU, as it is in the interpreter."""
    return wrap_triton(kernel) if isinstance(kernel, JITFunction) else kernel


def rows(x: torch.Tensor) -> torch.Tensor:
    """See (B, C, H, W), channels last, as (B H W, C); (B, C) as it is. Copies where memory lies otherwise."""
    if x.dim() == 2:
        return x.contiguous()
    return x.permute(0, 2, 3, 1).contiguous().view(-1, x.shape[1])


def like(flat: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """See (B H W, C) as x's shape (B, C, H, W), channels last."""
    if x.dim() == 2:
        return flat
    batch, channels, height, width = x.shape
    return flat.view(batch, height, width, channels).permute(0, 3, 1, 2)


def block(size: int, most: int) -> int:
    """Choose a block: the power of two that covers `size`, at most `most`."""
    return min(int(triton.next_power_of_2(size)), most)
