"""Staged training: realism alone first, then matching too.

In the first stage the discriminator sees real and fake pairs only (c = 0), so that it scores whether an image is real; then
mismatched pairs join (c of the settings), and it scores whether the image matches the text as well.

The second stage begins after a given number of steps, or when realism is good enough: when the difference between the mean
scores of real and of fake pairs (0..1 each), averaged over about the last hundred steps, has fallen below a goal. It starts
at 1, and stays there while the discriminator separates all pairs.

Source: Reed et al. 2016, section 4.2 names the two tasks; the paper trains them together, and so does the preset `paper`.
"""

import torch
from torch import Tensor, nn

DECAY = 0.99  # of the EMA of the gap: about a hundred steps


class Stages(nn.Module):
    """Which stage a run is in; its two buffers are part of every checkpoint.

    Args:
        steps: Length of the first stage; None: until the gap falls below `goal`.
        goal: The gap of mean scores at which realism is good enough.
        every: Steps between two reads of the gap (each waits for the GPU).
    """

    gap: Tensor  # () float32: EMA of score(real) - score(fake)
    matching_from: Tensor  # () int64: first step of the second stage; -1: not decided yet

    def __init__(self, steps: int | None, goal: float, every: int = 50) -> None:
        super().__init__()
        self.goal, self.every = goal, every
        self.register_buffer("gap", torch.tensor(1.0))
        self.register_buffer("matching_from", torch.tensor(-1 if steps is None else steps, dtype=torch.int64))
        self._sync()
        self.register_load_state_dict_post_hook(lambda *_: self._sync())  # type: ignore[no-untyped-call]

    def _sync(self) -> None:
        """Copy the decision to the host: to read the tensor in every step would wait for the GPU."""
        self._from = int(self.matching_from)

    def matching(self, step: int) -> bool:
        """Return whether `step` (from 0) belongs to the second stage."""
        return 0 <= self._from <= step

    @torch.no_grad()
    def observe(self, step: int, real: Tensor, fake: Tensor) -> None:
        """Track a step's mean scores () of real and fake pairs, and begin the second stage where the gap is small enough."""
        self.gap.lerp_(real.float() - fake.float(), 1 - DECAY)
        if self._from < 0 and (step + 1) % self.every == 0 and float(self.gap) < self.goal:
            self.matching_from.fill_(step + 1)
            self._sync()
