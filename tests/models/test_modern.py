"""The modern generator: shapes, what the text and the noise can change, and its parts against slow references."""

import pytest
import torch
import torch.nn.functional as F

from t2i.errors import ConfigError
from t2i.models.modern import ConditionalNorm, ModernGenerator, block_channels


@pytest.mark.parametrize(
    ("size", "width", "channels"),
    [
        (16, 8, [32, 16, 8]),
        (32, 24, [144, 96, 48, 24]),
        (64, 24, [240, 144, 96, 48, 24]),
        (128, 16, [160, 160, 96, 64, 32, 16]),  # no wider below 8 px
    ],
)
def test_channels_double_roughly_from_the_image_inwards(size: int, width: int, channels: list[int]) -> None:
    assert block_channels(size, width) == channels


@pytest.mark.parametrize("size", [0, 8, 48])
def test_a_size_that_no_doubling_reaches_is_refused(size: int) -> None:
    with pytest.raises(ConfigError, match=f"power of two of at least 16.*got {size}"):
        ModernGenerator(size=size)


@pytest.mark.parametrize("size", [16, 32, 64, 128])
def test_an_image_has_the_asked_size_and_lies_within_the_range(size: int) -> None:
    torch.manual_seed(0)
    images = ModernGenerator(size=size, width=4)(torch.randn(3, 32), torch.randn(3, 128))
    assert images.shape == (3, 3, size, size)
    assert float(images.detach().abs().max()) <= 1


def test_every_parameter_gets_a_gradient() -> None:
    torch.manual_seed(0)
    network = ModernGenerator(size=32, width=4)
    network(torch.randn(4, 32), torch.randn(4, 128)).square().mean().backward()
    silent = [name for name, weight in network.named_parameters() if weight.grad is None or not weight.grad.any()]
    assert not silent


def test_the_text_reaches_every_block() -> None:
    """With the text taken from the start alone, the image still follows it, and the reverse."""
    torch.manual_seed(0)
    network = ModernGenerator(size=32, width=4).eval()
    conditions = []
    for block in network.up:
        block.norm1.register_forward_hook(lambda module, inputs, output: conditions.append(inputs[1]))
    noise = torch.randn(1, 32).expand(2, -1)
    network(noise, torch.randn(2, 128))
    assert len(conditions) == len(network.up)
    assert all(float((both[0] - both[1]).detach().abs().max()) > 0 for both in conditions)


def test_conditional_norm_is_batch_norm_then_an_affine_map_then_leaky_relu_in_float64() -> None:
    torch.manual_seed(0)
    layer = ConditionalNorm(5, 7).double()
    x, condition = torch.randn(4, 5, 3, 3, dtype=torch.float64), torch.randn(4, 7, dtype=torch.float64)
    mean, variance = x.mean(dim=(0, 2, 3), keepdim=True), x.var(dim=(0, 2, 3), keepdim=True, correction=0)
    scale, shift = (condition @ layer.affine.weight.T + layer.affine.bias).split(5, dim=1)
    expected = (x - mean) / (variance + 1e-5).sqrt() * (1 + scale[:, :, None, None]) + shift[:, :, None, None]
    torch.testing.assert_close(layer(x, condition), torch.where(expected > 0, expected, 0.2 * expected))


def test_bfloat16_draws_nearly_what_float32_does() -> None:
    torch.manual_seed(0)
    network = ModernGenerator(size=32, width=8).eval()
    noise, text = torch.randn(4, 32), torch.randn(4, 128)
    exact = network(noise, text)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = network(noise, text)
    assert float(F.l1_loss(rounded.float(), exact).detach()) < 0.02
