"""The discriminator on frozen features: the trunk stays as it is, every tap teaches, the scores follow the text."""

import pytest
import torch

from t2i.errors import ConfigError
from t2i.models.efficientnet import EfficientNetLite0
from t2i.models.feature_discriminator import FeatureDiscriminator, FrozenTaps, TapHead


@pytest.fixture(scope="module")
def taps() -> FrozenTaps:
    """A trunk of random weights: what is tested here does not depend on ImageNet."""
    torch.manual_seed(0)
    made = FrozenTaps(EfficientNetLite0())
    made.fit(torch.rand(8, 3, 64, 64) * 2 - 1)
    return made


def test_taps_have_the_channels_and_strides_of_efficientnet_lite0(taps: FrozenTaps) -> None:
    shapes = [tuple(tap.shape[1:]) for tap in taps(torch.zeros(1, 3, 64, 64))]
    assert shapes == [(16, 32, 32), (24, 16, 16), (40, 8, 8), (112, 4, 4), (320, 2, 2)]


def test_taps_of_the_images_they_were_fitted_to_have_mean_0_and_deviation_1() -> None:
    torch.manual_seed(1)
    made = FrozenTaps(EfficientNetLite0())
    images = torch.rand(8, 3, 32, 32) * 2 - 1
    made.fit(images)
    for tap in made(images)[:4]:  # the last is 1 x 1 here, eight numbers a channel, many of them equal
        torch.testing.assert_close(tap.mean(dim=(0, 2, 3)), torch.zeros(tap.shape[1]), atol=1e-3, rtol=0)
        torch.testing.assert_close(tap.std(dim=(0, 2, 3)), torch.ones(tap.shape[1]), atol=1e-2, rtol=0)


def test_smaller_images_are_enlarged_and_larger_ones_left_as_they_are() -> None:
    torch.manual_seed(2)
    trunk = EfficientNetLite0()
    small, large = FrozenTaps(trunk), FrozenTaps(trunk, size=48)
    images = torch.rand(8, 3, 32, 32) * 2 - 1
    enlarged = torch.nn.functional.interpolate(images, (48, 48), mode="bilinear")
    small.fit(enlarged)
    large.fit(images)
    for found, expected in zip(large(images), small(enlarged), strict=True):
        assert torch.equal(found, expected)
    for found, expected in zip(large.raw(images.repeat(1, 1, 2, 2)), small.raw(images.repeat(1, 1, 2, 2)), strict=True):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("blocks", [(), (3, 1), (2, 2), (0, 16)])
def test_taps_out_of_order_or_beyond_the_trunk_are_refused(blocks: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match="ascending blocks below 16"):
        FrozenTaps(EfficientNetLite0(), blocks)


def test_the_trunk_is_neither_trained_nor_kept_in_the_state(taps: FrozenTaps) -> None:
    assert not list(taps.parameters())
    assert set(taps.state_dict()) == {f"{kind}{index}" for kind in ("mean", "scale") for index in range(5)}


def test_the_trunk_is_the_same_after_an_update_of_the_heads(taps: FrozenTaps) -> None:
    before = {name: tensor.clone() for name, tensor in taps._trunk[0].state_dict().items()}
    heads = FeatureDiscriminator(taps.channels, text_dim=16)
    optimizer = torch.optim.Adam(heads.parameters(), 1e-3)
    images = torch.rand(4, 3, 64, 64, requires_grad=True)
    sum(scores.mean() for scores in heads.score(heads.features(taps(images)), torch.randn(4, 1, 16))).backward()
    optimizer.step()
    after = taps._trunk[0].state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(weight.grad is None for weight in taps._trunk[0].parameters())


@pytest.mark.parametrize("tap", range(5))
def test_the_gradient_of_each_tap_reaches_the_image_and_every_weight_of_its_head(taps: FrozenTaps, tap: int) -> None:
    torch.manual_seed(2)
    heads = FeatureDiscriminator(taps.channels, text_dim=16)
    images = (torch.rand(4, 3, 64, 64) * 2 - 1).requires_grad_()
    scores = heads.score(heads.features(taps(images)), torch.randn(4, 1, 16))
    scores[tap].sum().backward()
    assert images.grad is not None
    assert float(images.grad.abs().max()) > 0
    touched = {
        name.split(".")[1] for name, weight in heads.named_parameters() if weight.grad is not None and weight.grad.any()
    }
    assert touched == {str(tap)}


def test_heads_keep_their_names_where_the_shallowest_tap_is_left_out(taps: FrozenTaps) -> None:
    every = FeatureDiscriminator(taps.channels, text_dim=16).state_dict()
    fewer = FeatureDiscriminator(taps.channels[1:], text_dim=16).state_dict()
    assert {name: t.shape for name, t in fewer.items()} == {
        name: t.shape for name, t in every.items() if not name.startswith("heads.0.")
    }


def test_the_score_is_the_realism_plus_the_projection_on_the_text_in_float64() -> None:
    torch.manual_seed(3)
    head = TapHead(6, text_dim=5, width=8).double().eval()
    tap, text = torch.randn(2, 6, 4, 4, dtype=torch.float64), torch.randn(2, 3, 5, dtype=torch.float64)
    features = head.features(tap)
    scores = head.score(features, text)
    assert scores.dtype is torch.float32
    assert scores.shape == (2, 3, 4, 4)
    realism = head.realism.weight[0, :, 0, 0]
    for row in range(2):
        for number in range(3):
            query = head.text.weight @ text[row, number] / 8**0.5
            for y in range(4):
                for x in range(4):
                    expected = features[row, :, y, x] @ (realism + query) + head.realism.bias[0]
                    found = scores[row, number, y, x]
                    assert float(found.detach()) == pytest.approx(float(expected.detach()), abs=1e-6)


def test_heads_have_a_spectral_norm_of_one() -> None:
    torch.manual_seed(4)
    head = TapHead(6, text_dim=5, reduction=4)
    for _ in range(200):  # power iteration runs with each call in training
        head.features(torch.zeros(1, 6, 8, 8))
    for layer in (head.first, head.second):
        norm = torch.linalg.matrix_norm(layer.weight.detach().flatten(1), 2)
        assert float(norm) == pytest.approx(1, abs=0.02)
