"""Batch normalisation's counters of batches, moved once a step: on a GPU each pass through each layer is a launch otherwise."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch.nn.modules.batchnorm import _BatchNorm


class Counters:
    """Move counters (`num_batches_tracked`) together, by what a step is known to do.

    Args:
        batches: How many batches each layer normalises in a step; kinds of rows that are joined count apart.
    """

    def __init__(self, batches: Mapping[_BatchNorm, int]) -> None:
        self.batches = {norm: count for norm, count in batches.items() if norm.num_batches_tracked is not None}

    @contextmanager
    def together(self) -> Iterator[None]:
        """Let no layer count inside, and count for all of them after it; where that fails, the counters are as before."""
        counters = [norm.num_batches_tracked for norm in self.batches if norm.num_batches_tracked is not None]
        for norm in self.batches:
            norm.num_batches_tracked = None
        try:
            yield
        finally:
            for norm, counter in zip(self.batches, counters, strict=True):
                norm.num_batches_tracked = counter
        if counters:
            torch._foreach_add_(counters, list(self.batches.values()))
