"""Updates that are not finite are skipped: a loss or a gradient that is NaN or infinite never reaches a weight.

The decision is made on the device, as gradient scaling makes it: a fused optimizer leaves weights, moments and its count of
steps alone where `found_inf` is 1. Nothing waits for the answer; the counters are read when metrics are written. An optimizer
that is not fused (RMSprop has no such form) waits and is not called.
"""

import functools
import itertools
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from t2i.distributed import ALONE, Ranks
from t2i.errors import Diverged

IN_A_ROW = 10  # skipped steps that end a run
CALM = 100  # steps in a row without a skipped one after which what was saved meanwhile counts as good


class NonFiniteGuard:
    """Apply an update where it is finite, skip and count it where it is not.

    Args:
        modules: Whose running statistics a skipped step must not change either.
        device: Where they live.
        ranks: The processes that gradients and running statistics are averaged over; all decide alike.
    """

    def __init__(self, modules: Iterable[nn.Module], device: torch.device, ranks: Ranks = ALONE) -> None:
        self.ranks, self.device = ranks, device
        buffers = itertools.chain.from_iterable(module.buffers() for module in modules)
        self.statistics = [buffer for buffer in buffers if buffer.is_floating_point()]
        self.before = [buffer.clone() for buffer in self.statistics]
        dtypes = dict.fromkeys(buffer.dtype for buffer in self.statistics)
        self._alike = [[i for i, buffer in enumerate(self.statistics) if buffer.dtype is dtype] for dtype in dtypes]
        self.fine = torch.zeros((), device=device)
        self._found: list[Tensor] = []  # of each update of this step: 1 where it was skipped
        self.skipped = torch.zeros((), dtype=torch.int64, device=device)
        self.in_a_row = torch.zeros((), dtype=torch.int64, device=device)
        self.steps, self.calm, self.first = (torch.zeros((), dtype=torch.int64, device=device) for _ in range(3))

    @torch.no_grad()
    def begin(self) -> None:
        """Begin a step: remember the running statistics."""
        self._found = []
        if self.statistics:
            torch._foreach_copy_(self.before, self.statistics)

    @torch.no_grad()
    def step(self, optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
        """Update, by the gradients of all processes, unless the loss or a gradient is NaN or infinite.

        Args:
            optimizer: Its gradients are there.
            loss: Scalar they are of.
        """
        weights = (weight for group in optimizer.param_groups for weight in group["params"])
        gradients = [weight.grad for weight in weights if weight.grad is not None]
        value = loss.detach().float()
        if self.ranks.world > 1:
            value = value.clone()  # averaged in place
        self.ranks.average([*gradients, value])
        norms = torch._foreach_norm(gradients)
        # 0 x is NaN for a NaN and for an infinity, and NaN is what a sum keeps.
        found = torch.stack([value, *(norm.float() for norm in norms)]).mul_(0).sum().isnan().float()
        if optimizer.defaults.get("fused"):
            optimizer.found_inf = found  # type: ignore[attr-defined]
            optimizer.step()
        elif not bool(found):
            optimizer.step()
        self._found.append(found)

    @torch.no_grad()
    def end(self) -> None:
        """End a step: after a skipped update, put the running statistics back, and count.

        All statistics are laid end to end and chosen between at once: 8 launches on a GPU, where one choice a buffer took 78.
        """
        self.ranks.average(self.statistics)
        bad = functools.reduce(torch.maximum, self._found or [self.fine]) > 0
        for alike in self._alike:
            now, then = ([tensors[place] for place in alike] for tensors in (self.statistics, self.before))
            kept = torch.where(bad, torch.cat([t.view(-1) for t in then]), torch.cat([t.view(-1) for t in now]))
            parts = kept.split([t.numel() for t in now])
            torch._foreach_copy_(now, [part.view(t.shape) for part, t in zip(parts, now, strict=True)])
        # `good` and `bad` as factors: on a GPU each operation on a counter is a launch.
        good = ~bad
        self.skipped.add_(bad)
        self.in_a_row.add_(1).mul_(bad)
        self.steps.add_(1)
        self.calm.add_(1).mul_(good)
        since = torch.where(self.first > 0, self.first, self.steps * bad)
        torch.mul(since, self.calm < CALM, out=self.first)

    def first_skipped(self) -> int:
        """Return the first step that was skipped, from 1, of those that nothing calm has followed; 0: none. Waits."""
        return int(self.first)

    def check(self, step: int, checkpoint: Callable[[], str], flag: str = "--learning-rate") -> int:
        """Read the counters; waits for the device.

        Args:
            step: Steps done, for the message.
            checkpoint: Says what to go back to, for the message.
            flag: What to lower, for the message.

        Returns:
            Steps skipped since the run was started or resumed.

        Raises:
            Diverged: too many in a row.
        """
        if int(self.in_a_row) >= IN_A_ROW:
            raise Diverged(
                f"losses or gradients were not finite in {int(self.in_a_row)} steps in a row, up to step {step}; "
                f"{checkpoint()}; lower {flag}, or use --precision float32"
            )
        return int(self.skipped)
