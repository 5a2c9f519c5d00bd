"""The loop between two steps: what is read from the device, and what comes before it."""

import contextlib
from types import SimpleNamespace

import pytest
import torch

from t2i.distributed import Ranks
from t2i.errors import PeerLost
from t2i.training.loop import Loop


class Pair(Ranks):
    """One of two processes; the other has ended."""

    def __init__(self):
        super().__init__(0, 2, 0)

    def main_process_first(self):
        return contextlib.nullcontext()

    def any(self, flag):
        raise PeerLost("another process of this run has ended")


class Unreadable:
    """Counters on a GPU that waits for an exchange with a process that has ended."""

    device = torch.device("cuda")

    def check(self, *_):
        raise AssertionError("read from the device: this would wait for ever")


def test_a_process_that_has_ended_is_noticed_before_anything_is_read_from_the_device(tmp_path):
    checkpoints = SimpleNamespace(restore=lambda metadata: (0, []), newest=lambda: "")
    config = SimpleNamespace(log_every=1, checkpoint_every=1, force=True)
    loop = Loop("gan", tmp_path, checkpoints, Unreadable(), config, steps=2, batch=8, metadata={}, ranks=Pair())
    with loop, pytest.raises(PeerLost):
        loop.record(0, {})
