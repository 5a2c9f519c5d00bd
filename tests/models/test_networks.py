"""Networks against the specification: parameter counts, shapes, and identities in float64."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import t2i
from t2i.models.paper import Residual


def parameters(module: nn.Module) -> int:
    return sum(weight.numel() for weight in module.parameters())


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: t2i.Generator(), 18_905_472),
        (lambda: t2i.Generator(convolution_bias=True), 18_909_699),
        (lambda: t2i.Discriminator(), 4_030_080),
        (lambda: t2i.Discriminator(convolution_bias=True), 4_032_321),
        (lambda: t2i.Discriminator(width=128), 15_563_648),
        (lambda: t2i.Discriminator(width=128, convolution_bias=True), 15_568_129),
        (lambda: t2i.Generator(width=196), 41_101_080),
        (lambda: t2i.Generator(width=196, convolution_bias=True), 41_107_551),
        (lambda: t2i.Discriminator(width=196, text_norm=False), 36_183_440),
        (lambda: t2i.Discriminator(width=196, text_norm=False, convolution_bias=True), 36_190_301),
        (lambda: t2i.CharCnnRnn(), 2_994_560),
        (lambda: t2i.CharCnnRnn(width=256), 1_814_144),
        (lambda: t2i.CharCnnRnn(variant="long"), 4_045_184),
    ],
)
def test_parameter_counts_are_the_released_programs(make, expected):
    with torch.device("meta"):
        assert parameters(make()) == expected


@pytest.mark.parametrize("size", [16, 32, 64, 128])
def test_every_size_gives_pictures_and_scores_of_the_right_shape(size):
    generator, discriminator = t2i.Generator(size=size, width=8), t2i.Discriminator(size=size, width=8)
    images = generator(torch.randn(3, 100), torch.randn(3, 1024))
    assert images.shape == (3, 3, size, size)
    assert images.abs().max() <= 1
    assert discriminator(images, torch.randn(3, 1024)).shape == (3,)


@pytest.mark.parametrize("size", [0, 8, 48, 65, 100])
def test_a_size_that_is_no_power_of_two_is_refused_with_the_size(size):
    with pytest.raises(t2i.ConfigError, match=f"power of two.*{size}"):
        t2i.Generator(size=size)


def released_generator(net: t2i.Generator, noise: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    """The generator of paper.md, layer by layer, for 64 x 64: the slow, obvious form."""
    x = torch.cat([noise, F.leaky_relu(net.text(text), 0.2)], 1)[:, :, None, None]
    x = net.project_norm(F.conv_transpose2d(x, net.project.weight, net.project.bias, 1, 0))
    x = released_residual(net.project_residual, x, F.relu)
    x = net.up_norm[0](F.conv_transpose2d(x, net.up[0].weight, net.up[0].bias, 2, 1))
    x = released_residual(net.up_residual, x, F.relu)
    for layer in (1, 2):
        x = F.relu(net.up_norm[layer](F.conv_transpose2d(x, net.up[layer].weight, net.up[layer].bias, 2, 1)))
    return torch.tanh(F.conv_transpose2d(x, net.to_rgb.weight, net.to_rgb.bias, 2, 1))


def released_residual(block: Residual, x: torch.Tensor, activation) -> torch.Tensor:
    y = activation(block.reduce_norm(F.conv2d(x, block.reduce.weight, block.reduce.bias)))
    y = activation(block.middle_norm(F.conv2d(y, block.middle.weight, block.middle.bias, padding=1)))
    return activation(x + block.expand_norm(F.conv2d(y, block.expand.weight, block.expand.bias, padding=1)))


def released_discriminator(net: t2i.Discriminator, images: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    """The discriminator of paper.md for 64 x 64, with the repeated and concatenated text."""

    def leaky(x: torch.Tensor) -> torch.Tensor:
        return F.leaky_relu(x, 0.2)

    x = leaky(F.conv2d(images, net.down[0].weight, net.down[0].bias, 2, 1))
    x = leaky(net.down_norm[0](F.conv2d(x, net.down[1].weight, net.down[1].bias, 2, 1)))
    x = net.down_norm[1](F.conv2d(x, net.down[2].weight, net.down[2].bias, 2, 1))
    x = net.down_norm[2](F.conv2d(x, net.down[3].weight, net.down[3].bias, 2, 1))
    x = released_residual(net.residual, x, leaky)
    t = leaky(net.text_norm(net.text(text)))[:, :, None, None].expand(-1, -1, 4, 4)
    x = leaky(net.join_norm(net.join(torch.cat([x, t], 1))))
    return F.conv2d(x, net.to_logit.weight, net.to_logit.bias).flatten()


@pytest.mark.parametrize("bias", [False, True])
def test_generator_equals_the_specification_layer_by_layer(bias):
    torch.manual_seed(0)
    net = t2i.Generator(width=8, convolution_bias=bias).double()
    if bias:
        for layer in net.modules():
            if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
                nn.init.normal_(layer.bias)
    noise, text = torch.randn(4, 100).double(), torch.randn(4, 1024).double()
    torch.testing.assert_close(net(noise, text), released_generator(net, noise, text), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("bias", [False, True])
def test_discriminator_equals_the_specification_layer_by_layer(bias):
    torch.manual_seed(0)
    net = t2i.Discriminator(width=8, convolution_bias=bias).double()
    if bias:
        for layer in net.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.normal_(layer.bias)
    images, text = torch.randn(4, 3, 64, 64).double(), torch.randn(4, 1024).double()
    torch.testing.assert_close(
        net(images, text).double(), released_discriminator(net, images, text), rtol=1e-5, atol=1e-5
    )


def test_three_passes_keep_the_batch_statistics_of_each_kind_apart():
    torch.manual_seed(0)
    net = t2i.Discriminator(width=8)
    real, fake, text = torch.randn(6, 3, 64, 64), torch.randn(6, 3, 64, 64) * 3, torch.randn(6, 1024)
    apart = torch.cat([net(real, text), net(fake, text)])
    joined = net(torch.cat([real, fake]), torch.cat([text, text]))
    assert (apart - joined).abs().max() > 1e-2


def test_the_shared_trunk_is_exact_for_the_mismatched_text():
    torch.manual_seed(0)
    net = t2i.Discriminator(width=8)
    images, text, other = torch.randn(6, 3, 64, 64), torch.randn(6, 1024), torch.randn(6, 1024)
    trunk = net.features(images)
    torch.testing.assert_close(net.score(trunk, text), net(images, text))
    torch.testing.assert_close(net.score(trunk, other), net(images, other))


def test_starting_weights_are_drawn_as_the_released_program_draws_them():
    torch.manual_seed(0)
    net = t2i.Generator()
    assert abs(net.up[0].weight.std().item() - 0.02) < 1e-3
    assert abs(net.project_norm.weight.mean().item() - 1) < 5e-3
    assert abs(net.project_norm.weight.std().item() - 0.02) < 2e-3
    assert net.project_norm.bias.abs().max() == 0
    assert net.text.weight.abs().max() <= 1 / 32
    assert abs(net.text.weight.std().item() - (1 / 32) / 3**0.5) < 1e-3


def test_the_text_reaches_every_picture_and_every_score():
    torch.manual_seed(0)
    generator, discriminator = t2i.Generator(width=8).eval(), t2i.Discriminator(width=8).eval()
    noise = torch.randn(1, 100).expand(2, -1)
    text = torch.randn(2, 1024)
    first, second = generator(noise, text)
    assert (first - second).abs().max() > 0
    scores = discriminator(first.expand(2, -1, -1, -1), text)
    assert scores[0] != scores[1]
