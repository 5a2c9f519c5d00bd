"""Kernels against their definitions in PyTorch: value and every gradient, odd sizes, other layouts, bfloat16.

On a machine without a GPU they run in Triton's interpreter.
"""

import pytest
import torch

from t2i.blossoms.pack import pack_blossoms
from t2i.ops.crop_flip_normalise import crop_flip_normalise
from t2i.ops.text_join import text_join

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def numbers(*shape, seed=0, dtype=torch.float32):
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=rng, dtype=torch.float64).to(DEVICE, dtype)


def gradients(out, inputs):
    weight = numbers(*out.shape, seed=9).to(out.dtype)
    return torch.autograd.grad((out * weight).sum(), inputs, retain_graph=True)


JOINS = [(2, 5, 3, 7, 4, 4, True), (3, 70, 9, 65, 4, 4, False), (1, 1, 1, 1, 1, 1, False), (5, 40, 8, 33, 3, 2, True)]


@pytest.mark.parametrize(("batch", "channels", "words", "out", "height", "width", "last"), JOINS)
def test_the_join_is_a_convolution_of_image_and_repeated_text(batch, channels, words, out, height, width, last):
    features = numbers(batch, channels, height, width)
    features = features.contiguous(memory_format=torch.channels_last) if last else features
    inputs = [features, numbers(batch, words, seed=1), numbers(out, channels + words, 1, 1, seed=2)]
    exact = [value.double().requires_grad_() for value in inputs]
    repeated = exact[1][:, :, None, None].expand(-1, -1, height, width)
    expected = torch.nn.functional.conv2d(torch.cat([exact[0], repeated], dim=1), exact[2])
    given = [value.clone().requires_grad_() for value in inputs]
    found = text_join(*given, None)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)
    for ours, theirs in zip(gradients(found, given), gradients(expected, exact), strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-5, atol=1e-5)


def test_an_image_with_two_texts_is_joined_to_each():
    features, texts, weight = numbers(4, 5, 3, 3), numbers(6, 7, seed=1), numbers(6, 12, 1, 1, seed=2)
    given = [value.clone().requires_grad_() for value in (features, texts, weight)]
    found = text_join(*given, None, [0, 0, 1])
    exact = [value.clone().requires_grad_() for value in (features, texts, weight)]
    expected = text_join(torch.cat([exact[0][:2], exact[0]]), *exact[1:], None)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    for ours, theirs in zip(gradients(found, given), gradients(expected, exact), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("side", "crop"), [(9, 9), (9, 4), (11, 7)])
def test_a_crop_is_cut_mirrored_and_scaled_as_the_native_module_does(side, crop, dtype, tmp_path):
    from t2i.data.dataset import PackedDataset
    from t2i.data.sampler import Sampler
    from t2i.images import normalise

    pack_blossoms(tmp_path / "pack", images=40, size=16, show_progress=False)
    data = PackedDataset(tmp_path / "pack")
    plan = Sampler(data, batch=8, crop=crop, seed=side).plan(3)
    host = torch.empty(8, crop, crop, 3, dtype=torch.uint8)
    data.native.fill(plan, images=host.numpy())
    everything = torch.from_numpy(data.read_images(range(len(data)))).to(DEVICE)
    index, corner, flip = (torch.tensor(part).long().to(DEVICE) for part in (plan.image, plan.crop, plan.flip))
    expected = normalise(host).to(dtype).to(DEVICE)
    for impl in ("reference", "triton"):
        found = crop_flip_normalise(everything, index, corner, flip, crop, dtype, impl=impl)
        if (
            DEVICE == "cpu" and dtype is torch.bfloat16 and impl == "triton"
        ):  # the interpreter cuts where hardware rounds
            torch.testing.assert_close(found, expected, rtol=2**-7, atol=0)
        else:
            assert torch.equal(found, expected)
        assert found.is_contiguous(memory_format=torch.channels_last)
