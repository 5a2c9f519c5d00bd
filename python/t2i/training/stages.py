"""Staged training: realism alone first, then matching too.

In the first stage the discriminator sees real and fake pairs only (c = 0), so that it judges whether a picture is real; then
mismatched pairs join (c of the settings), and it judges whether the picture fits the text as well.

The second stage begins after a given number of steps, or when realism is good enough: when the difference between the mean
scores of real and of fake pairs (0..1 each), averaged over about the last hundred steps, has fallen below a goal. It starts
at 1 and a discriminator that tells everything apart keeps it there, so a generator has to earn the second stage.

Source: Reed et al. 2016, section 4.2 names the two judgements; the paper trains them together, and so does the preset `paper`.
"""

import torch
from torch import Tensor, nn

MEMORY = 0.99  # decay of the average, a step: about a hundred steps


class Stages(nn.Module):
    """Which stage a run is in; its two numbers are part of every checkpoint.

    Args:
        steps: Length of the first stage; None: until the gap falls below `goal`.
        goal: The gap of mean scores at which realism is good enough.
        every: Steps between two looks at the gap (each makes a GPU wait).
    """

    gap: Tensor  # () float32: average of score(real) - score(fake)
    matching_from: Tensor  # () int64: first step of the second stage; -1: not decided yet

    def __init__(self, steps: int | None, goal: float, every: int = 50) -> None:
        super().__init__()
        self.goal, self.every = goal, every
        self.register_buffer("gap", torch.tensor(1.0))
        self.register_buffer("matching_from", torch.tensor(-1 if steps is None else steps, dtype=torch.int64))
        self._recall()
        self.register_load_state_dict_post_hook(lambda *_: self._recall())  # type: ignore[no-untyped-call]

    def _recall(self) -> None:
        """Keep the decision as a number as well: to look at the tensor in every step would make a GPU wait."""
        self._from = int(self.matching_from)

    def matching(self, step: int) -> bool:
        """Say whether `step` (from 0) belongs to the second stage."""
        return 0 <= self._from <= step

    @torch.no_grad()
    def observe(self, step: int, real: Tensor, fake: Tensor) -> None:
        """Take note of a step's mean scores () of real and fake pairs, and decide where it is time to."""
        self.gap.lerp_(real.float() - fake.float(), 1 - MEMORY)
        if self._from < 0 and (step + 1) % self.every == 0 and float(self.gap) < self.goal:
            self.matching_from.fill_(step + 1)
            self._recall()
