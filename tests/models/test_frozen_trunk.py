"""The frozen trunk on a CPU gives what its modules and autograd give."""

import pytest
import torch
from torch import Tensor

from t2i.models.efficientnet import EfficientNetLite0
from t2i.models.feature_discriminator import BLOCKS, FrozenTaps
from t2i.models.frozen_trunk import _Layer, frozen_taps


@pytest.fixture(scope="module")
def trunk() -> EfficientNetLite0:
    torch.manual_seed(0)
    return EfficientNetLite0().eval().requires_grad_(False)


def by_modules(trunk: EfficientNetLite0, images: Tensor, blocks: tuple[int, ...]) -> list[Tensor]:
    x, found = trunk.stem(images * (127.5 / 128) + 0.5 / 128), []
    for index, block in enumerate(trunk.blocks):
        x = block(x)
        if index in blocks:
            found.append(x)
    return found


def gradient(taps: list[Tensor], images: Tensor) -> Tensor:
    torch.manual_seed(1)
    (found,) = torch.autograd.grad([(tap * torch.randn(tap.shape)).mean() / tap.std().detach() for tap in taps], images)
    return found


@pytest.mark.parametrize("blocks", [BLOCKS, (15,), (0,), (1, 2, 3)])
@pytest.mark.parametrize("size", [16, 64, 50, 33])
def test_taps_and_gradient_are_those_of_the_modules(
    trunk: EfficientNetLite0, size: int, blocks: tuple[int, ...]
) -> None:
    torch.manual_seed(size)
    images = (torch.rand(3, 3, size, size) * 2 - 1).requires_grad_()
    expected, found = by_modules(trunk, images, blocks), frozen_taps(trunk, images, blocks, torch.float32)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    one, other = gradient(found, images), gradient(expected, images)
    assert float((one - other).norm() / other.norm()) < 1e-3


@pytest.mark.parametrize("size", [64, 33])
def test_in_bfloat16_they_are_close(trunk: EfficientNetLite0, size: int) -> None:
    torch.manual_seed(2)
    images = (torch.rand(8, 3, size, size) * 2 - 1).requires_grad_()
    expected, found = by_modules(trunk, images, BLOCKS), frozen_taps(trunk, images, BLOCKS, torch.bfloat16)
    for one, other in zip(found, expected, strict=True):
        assert one.dtype is torch.float32
        assert float((one - other).detach().norm() / other.detach().norm()) < 0.05
    pair = gradient(found, images).flatten(), gradient(expected, images).flatten()
    assert float(torch.cosine_similarity(*pair, dim=0)) > 0.85


@pytest.mark.parametrize("precision", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("side", [4, 7, 8])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (5, 1), (5, 2), (1, 1)])
@pytest.mark.parametrize("depthwise", [True, False])
def test_a_layers_gradient_is_autograds(
    kernel: int, stride: int, side: int, precision: torch.dtype, depthwise: bool
) -> None:
    torch.manual_seed(3)
    module = torch.nn.Conv2d(6, 6, kernel, stride, groups=6 if depthwise else 1)
    layer = _Layer.of(module, False, precision)
    x = torch.randn(2, 6, side, side, dtype=precision).contiguous(memory_format=torch.channels_last).requires_grad_()
    y = layer.forward(x)
    assert y.shape[2] == -(-side // stride)
    grad = torch.randn_like(y)
    (expected,) = torch.autograd.grad(y, x, grad)
    with torch.no_grad():
        found = layer.backward(grad, side)
    close = {"rtol": 1e-9, "atol": 1e-9} if precision is torch.float64 else {"rtol": 0.02, "atol": 0.02}
    torch.testing.assert_close(found, expected, **close)


def test_nothing_is_kept_where_no_gradient_is_asked_for(trunk: EfficientNetLite0) -> None:
    images = torch.zeros(1, 3, 32, 32)
    assert all(tap.grad_fn is None for tap in frozen_taps(trunk, images, BLOCKS, torch.float32))
    tap = frozen_taps(trunk, images.requires_grad_(), BLOCKS, torch.float32)[0]
    assert len(tap.grad_fn.saved_tensors) == 32  # the stem, and two activations a block but the first, which has one


def test_a_nan_in_an_image_reaches_the_taps_and_the_gradient(trunk: EfficientNetLite0) -> None:
    images = torch.zeros(1, 3, 32, 32)
    images[0, 0, 0, 0] = float("nan")
    images.requires_grad_()
    found = frozen_taps(trunk, images, BLOCKS, torch.bfloat16)
    assert found[0].isnan().any()
    assert gradient(found, images).isnan().any()


def test_the_taps_of_a_discriminator_follow_the_precision_of_the_rest(trunk: EfficientNetLite0) -> None:
    taps, images = FrozenTaps(trunk), torch.rand(2, 3, 32, 32) * 2 - 1
    plain = taps.raw(images)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = taps.raw(images)
    for one, other in zip(plain, mixed, strict=True):
        assert one.dtype is other.dtype is torch.float32
        assert not torch.equal(one, other)
        torch.testing.assert_close(other, other.bfloat16().float(), rtol=0, atol=0)
