"""The noise of an image is a matter of its seed and its place alone."""

import pytest
import torch

from t2i import runtime
from t2i.noise import noise_of

CPU = torch.device("cpu")


@pytest.mark.parametrize("length", [1, 2, 8, 10, 16, 32, 100, 128])
def test_an_image_has_the_same_noise_however_many_there_are(length):
    many = noise_of(3, 40, length, CPU)
    assert many.shape == (40, length)
    for count in (1, 2, 3, 5, 8, 17):
        assert torch.equal(noise_of(3, count, length, CPU), many[:count])
    assert not torch.equal(noise_of(3, 40, length, CPU, draw=1), many)
    assert not torch.equal(noise_of(4, 40, length, CPU), many)


@pytest.mark.parametrize(("length", "count"), [(16, 1), (32, 3), (100, 4), (100, 8)])
def test_whole_blocks_are_what_they_were(length, count):
    """Images of the same seed as before, where the count had no say in them."""
    assert torch.equal(noise_of(0, count, length, CPU), runtime.noise((count, length), CPU, 0, 0, "generate"))


def test_it_is_normal():
    noise = noise_of(0, 20_000, 3, CPU)
    assert abs(float(noise.mean())) < 0.02
    assert abs(float(noise.std()) - 1) < 0.02
