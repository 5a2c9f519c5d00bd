"""The modern generator: shapes, what the text and the noise can change, and its parts against slow references."""

import math

import pytest
import torch
import torch.nn.functional as F

from t2i.errors import ConfigError
from t2i.models.modern import ConditionalNorm, ModernGenerator, Position, block_channels


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


def test_position_waves_equal_the_formula_at_every_place_in_float64() -> None:
    torch.manual_seed(0)
    layer = Position(6, side=4, frequencies=3).double()
    condition = torch.randn(2, 6, dtype=torch.float64)
    waves = layer(condition)
    for row in range(2):
        change = layer.transform.weight @ condition[row] + layer.transform.bias
        for y in range(4):
            for x in range(4):
                px, py = (x + 0.5) / 4 - 0.5, (y + 0.5) / 4 - 0.5
                qx = px + change[0] * px + change[1] * py + change[4]
                qy = py + change[2] * px + change[3] * py + change[5]
                for k in range(3):
                    angle = 2 * math.pi * (layer.waves[k, 0] * qx + layer.waves[k, 1] * qy) + layer.phases[k]
                    assert float(waves[row, k, y, x].detach()) == pytest.approx(
                        math.sin(float(angle.detach())), abs=1e-12
                    )


def test_a_shift_of_the_position_moves_the_waves_by_whole_places() -> None:
    torch.manual_seed(0)
    layer = Position(1, side=8, frequencies=4).double()
    with torch.no_grad():
        layer.transform.weight.zero_()
        layer.transform.bias.copy_(torch.tensor([0.0, 0, 0, 0, 0.25, 0]))  # two of eight places to the left
    moved = layer(torch.zeros(1, 1, dtype=torch.float64))
    with torch.no_grad():
        layer.transform.bias.zero_()
    still = layer(torch.zeros(1, 1, dtype=torch.float64))
    torch.testing.assert_close(moved[..., :6], still[..., 2:])


def test_bfloat16_draws_nearly_what_float32_does() -> None:
    torch.manual_seed(0)
    network = ModernGenerator(size=32, width=8).eval()
    noise, text = torch.randn(4, 32), torch.randn(4, 128)
    exact = network(noise, text)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = network(noise, text)
    assert float(F.l1_loss(rounded.float(), exact).detach()) < 0.02
