"""Threads that share a loader get the batches that one thread gets."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from t2i.data.device_loader import DeviceLoader
from t2i.data.loader import Loader
from t2i.data.sampler import Sampler

CPU = torch.device("cpu")
STEPS = 120


@pytest.mark.parametrize("kind", [Loader, DeviceLoader])
def test_two_threads_share_a_loader(blossoms, kind):
    sampler = Sampler(blossoms, batch=8, seed=1, crop=32)
    loader = kind(sampler, CPU, batch=8, crop=32, characters=True)
    alone = [loader.batch(step) for step in range(STEPS)]
    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(loader.batch, range(STEPS)))
    for one, other in zip(alone, together, strict=True):
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.captions, other.captions)
        assert torch.equal(one.caption_ids, other.caption_ids)
