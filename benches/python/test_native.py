"""The native module's calls from Python, by pytest-benchmark: `make bench`. Answers are compared with the rivals'."""

import sys
from pathlib import Path

import numpy as np
import pytest

from t2i import _native
from t2i.blossoms.pack import pack_blossoms
from t2i.data.dataset import PackedDataset
from t2i.data.sampler import Sampler

sys.path.insert(0, str(Path(__file__).parents[1]))
from rivals.tokenizer import one_hot, tokenize

CAPTIONS = [
    f"this flower has {number} pink petals and a yellow center with many thin stamens." for number in range(256)
]


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pack")
    pack_blossoms(folder, images=500, size=76, show_progress=False)
    return PackedDataset(folder)


def test_encode(benchmark):
    ids = np.zeros((len(CAPTIONS), _native.CAPTION_LENGTH), np.uint8)
    benchmark(_native.encode, CAPTIONS, ids)
    assert np.array_equal(ids, np.stack([tokenize(caption) for caption in CAPTIONS]))


def test_usual_encode(benchmark):
    benchmark(lambda: [tokenize(caption) for caption in CAPTIONS])


def test_one_hot(benchmark):
    ids = np.zeros((64, _native.CAPTION_LENGTH), np.uint8)
    _native.encode(CAPTIONS[:64], ids)
    columns = np.empty((64, _native.ALPHABET_SIZE, _native.CAPTION_LENGTH), np.float32)
    benchmark(_native.one_hot, ids, columns)
    assert np.array_equal(columns[3], one_hot(ids[3]).numpy())


def test_plan(benchmark, pack):
    sampler = Sampler(pack, batch=512, captions_per_image=4)
    assert np.array_equal(benchmark(sampler.plan, 7).image, sampler.plan(7).image)


@pytest.mark.parametrize("threads", [1, 2])
def test_fill(benchmark, pack, threads):
    plan = Sampler(pack, batch=512, crop=64).plan(0)
    images = np.empty((512, 64, 64, 3), np.uint8)
    benchmark(pack.native.fill, plan, images=images, threads=threads)
    once = np.empty_like(images)
    pack.native.fill(plan, images=once, threads=1)
    assert np.array_equal(images, once)
