"""Optimisers, the learning-rate schedule and the exponential moving average (EMA) of weights."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

Move = Callable[[list[Tensor], list[Tensor], Tensor], None]


def adam(parameters: Iterable[nn.Parameter], learning_rate: float, beta1: float, beta2: float) -> torch.optim.Adam:
    """Make the paper's Adam (2e-4, 0.5, 0.999), fused: one kernel for all tensors on CPU and GPU alike.

    On a GPU the learning rate is a tensor and the count of steps lies there too, so that a CUDA graph can replay an update.
    """
    listed = list(parameters)
    device = listed[0].device
    on_gpu = device.type == "cuda"
    rate = torch.tensor(learning_rate, device=device) if on_gpu else learning_rate
    return torch.optim.Adam(listed, lr=rate, betas=(beta1, beta2), fused=True, capturable=on_gpu)


def halving_schedule(learning_rate: float, step: int, epoch_steps: int, every: int) -> float:
    """Learning rate at `step` (from 0): halved at the start of every epoch, counted from 1, divisible by `every`.

    Source: the released program; `every` is 100 for birds and flowers, 40 for COCO. 0 never halves.
    """
    if every == 0:
        return learning_rate
    epoch = step // epoch_steps + 1
    return float(learning_rate * 0.5 ** (epoch // every))


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Set every group's learning rate."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(learning_rate)
        else:
            group["lr"] = learning_rate


def ema_rate(decay: float, step: int) -> float:
    """Return how far the EMA moves at `step` (from 0): 1 - decay.

    The decay warms up as (1 + step) / (10 + step), so that the random start has no weight soon.
    """
    return 1 - min(decay, (1 + step) / (10 + step))


@torch.no_grad()
def update_ema(ema: nn.Module, model: nn.Module, rate: float | Tensor, move: Move | None = None) -> None:
    """Update `ema`, the exponential moving average of `model`, weights and running statistics alike, in place.

    Args:
        ema: Changed in place.
        model: Not changed.
        rate: How far, of `ema_rate`; a tensor () on the device where a CUDA graph is to see it change.
        move: `lerp_tensors`, compiled: one pass over the weights (12 bytes each) where PyTorch's operations take three (32).
    """
    mine: list[Tensor] = [*ema.parameters()]
    theirs: list[Tensor] = [*model.parameters()]
    counters: list[tuple[Tensor, Tensor]] = []  # of batch normalisation
    for a, b in zip(ema.buffers(), model.buffers(), strict=True):
        if a.is_floating_point():
            mine.append(a)
            theirs.append(b)
        else:
            counters.append((a, b))
    if counters:
        torch._foreach_copy_([a for a, _ in counters], [b for _, b in counters])
    if isinstance(rate, Tensor):
        (move or lerp_tensors)(mine, theirs, rate)
    else:
        torch._foreach_lerp_(mine, theirs, rate)


def lerp_tensors(mine: list[Tensor], theirs: list[Tensor], rate: Tensor) -> None:
    """Interpolate tensors with others in place, by a rate () on the device: mine += rate * (theirs - mine)."""
    torch._foreach_add_(mine, torch._foreach_mul(torch._foreach_sub(theirs, mine), rate))
