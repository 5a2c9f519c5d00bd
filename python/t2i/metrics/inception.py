"""The feature network of FID: TensorFlow's `inception-2015-12-05` up to `mixed_7`, in plain PyTorch.

A feature file (`--features FILE`, safetensors) holds 70 convolutions, `<layer>.weight` (OIHW) and `<layer>.bias`, batch
normalisation folded in. Averaging the last map, 768 x 17 x 17, gives 768 features: the "768" protocol of the pytorch-fid
project. What is measured with them is called FID-768 and does not compare with the usual FID of 2,048 features.

Source: Szegedy et al. 2016, *Rethinking the Inception Architecture*; TensorFlow's image model of 2015-12-05.
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from t2i.errors import CheckpointError
from t2i.weights import read_tensors

SIDE = 299  # pixels that the network reads
FEATURES = 768
Layer = tuple[str, int, tuple[int, int]]  # name, channels out, kernel (height, width)
Branch = tuple[Layer | str, ...]  # a string is a pool: "average" 3x3 stride 1, "max" 3x3 stride 2


def _chain(prefix: str, *sizes: tuple[int, tuple[int, int]]) -> tuple[Layer, ...]:
    """Name the layers of a branch as TensorFlow does: prefix, prefix_1, prefix_2, ..."""
    return tuple((f"{prefix}_{i}" if i else prefix, *size) for i, size in enumerate(sizes))


def _first_kind(name: str, pooled: int) -> tuple[Branch, ...]:
    """Lay out a block of the 35 x 35 maps; `pooled` channels come from its pool."""
    return (
        _chain(f"{name}_conv", (64, (1, 1))),
        _chain(f"{name}_tower_conv", (48, (1, 1)), (64, (5, 5))),
        _chain(f"{name}_tower_1_conv", (64, (1, 1)), (96, (3, 3)), (96, (3, 3))),
        ("average", *_chain(f"{name}_tower_2_conv", (pooled, (1, 1)))),
    )


def _second_kind(name: str, inner: int) -> tuple[Branch, ...]:
    """Lay out a block of the 17 x 17 maps, whose 7x7 convolutions are split into 1x7 and 7x1."""
    wide, tall = (1, 7), (7, 1)
    long = _chain(f"{name}_tower_1_conv", (inner, (1, 1)), (inner, tall), (inner, wide), (inner, tall), (192, wide))
    return (
        _chain(f"{name}_conv", (192, (1, 1))),
        _chain(f"{name}_tower_conv", (inner, (1, 1)), (inner, wide), (192, tall)),
        long,
        ("average", *_chain(f"{name}_tower_2_conv", (192, (1, 1)))),
    )


STEM: Branch = (
    *_chain("conv", (32, (3, 3)), (32, (3, 3)), (64, (3, 3))),
    "max",
    ("conv_3", 80, (1, 1)),
    ("conv_4", 192, (3, 3)),
    "max",
)
BLOCKS: tuple[tuple[Branch, ...], ...] = (
    (STEM,),
    _first_kind("mixed", 32),
    _first_kind("mixed_1", 64),
    _first_kind("mixed_2", 64),
    (
        _chain("mixed_3_conv", (384, (3, 3))),
        _chain("mixed_3_tower_conv", (64, (1, 1)), (96, (3, 3)), (96, (3, 3))),
        ("max",),
    ),
    _second_kind("mixed_4", 128),
    _second_kind("mixed_5", 160),
    _second_kind("mixed_6", 160),
    _second_kind("mixed_7", 192),
)
STRIDE_2 = {"conv", "mixed_3_conv", "mixed_3_tower_conv_2"}
UNPADDED = STRIDE_2 | {"conv_1", "conv_4"}


def resize_as_tensorflow(images: Tensor, side: int = SIDE) -> Tensor:
    """Resize as TensorFlow 1 does, bilinearly and without half-pixel centres: pixel i reads the source at i * size / side.

    Args:
        images: (B, H, W, 3) uint8.
        side: of the result.

    Returns:
        (B, 3, side, side) float32, 0..255.
    """
    x = images.permute(0, 3, 1, 2).float()
    for axis in (3, 2):  # columns first, as TensorFlow
        size = x.shape[axis]
        position = torch.arange(side, dtype=torch.float32, device=x.device) * (size / side)
        lower = position.floor().long().clamp_max(size - 1)
        weight = (position - lower).view(-1, *[1] * (3 - axis))
        x = torch.lerp(x.index_select(axis, lower), x.index_select(axis, (lower + 1).clamp_max(size - 1)), weight)
    return x


class FeatureNetwork(nn.Module):
    """Turn images into 768 features: 70 convolutions, each followed by ReLU, and the mean over the last map."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleDict()
        channels = 3
        for block in BLOCKS:
            total = 0
            for branch in block:
                width = channels
                for part in branch:
                    if not isinstance(part, str):
                        name, after, (height, across) = part
                        padding = (0, 0) if name in UNPADDED else (height // 2, across // 2)
                        stride = 2 if name in STRIDE_2 else 1
                        self.layers[name] = nn.Conv2d(width, after, (height, across), stride, padding)
                        width = after
                total += width
            channels = total

    @classmethod
    def load(cls, path: str | Path) -> "FeatureNetwork":
        """Read a feature file.

        Raises:
            CheckpointError: missing or damaged, a layer is missing (the message names the first), or of another shape.
        """
        path = Path(path)
        network, tensors = cls(), read_tensors(path)
        expected = network.layers.state_dict()
        missing = [name for name in expected if name not in tensors]
        if missing:
            layer, kind = missing[0].rsplit(".", 1)
            raise CheckpointError(
                f"{path} is not the feature network: layer {layer!r} has no {kind} ({len(missing)} of {len(expected)} "
                "tensors are missing); it must be inception-2015-12-05, from conv to mixed_7"
            )
        for name, tensor in expected.items():
            if tensors[name].shape != tensor.shape:
                raise CheckpointError(f"{path}: {name} must be {tuple(tensor.shape)}, got {tuple(tensors[name].shape)}")
        network.layers.load_state_dict({name: tensors[name].float() for name in expected})
        for weight in network.layers.parameters():
            if weight.dim() == 4:
                weight.data = weight.data.contiguous(memory_format=torch.channels_last)
        return network.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        """Read images (B, H, W, 3) uint8 of any size: (B, 768) float32."""
        x = (resize_as_tensorflow(images) - 128) / 128
        x = x.contiguous(memory_format=torch.channels_last)
        for block in BLOCKS:
            x = torch.cat([self._run(x, branch) for branch in block], dim=1)
        return x.mean(dim=(2, 3))  # (B, 768, 17, 17) before

    def _run(self, x: Tensor, branch: Branch) -> Tensor:
        for part in branch:
            if part == "average":
                x = F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
            elif part == "max":
                x = F.max_pool2d(x, 3, 2)
            else:
                x = F.relu(self.layers[part[0]](x))
        return x


@torch.no_grad()
def features_of(network: FeatureNetwork, images: NDArray[np.uint8], batch: int = 32, title: str = "features") -> Tensor:
    """Compute features of images, on the network's device, with a progress bar on a terminal.

    Args:
        network: From `FeatureNetwork.load`.
        images: (N, S, S, 3).
        batch: Images at once; 299 x 299 x 32 maps take 11 MB per image.
        title: Shown beside the bar.

    Returns:
        (N, 768) float32 on the CPU.
    """
    from tqdm import tqdm

    device = next(network.parameters()).device
    parts = []
    with (
        torch.backends.cudnn.flags(enabled=True, allow_tf32=False),  # TF32 would round the features to 10 bits
        tqdm(total=len(images), desc=title, unit="image", dynamic_ncols=True, disable=None) as bar,
    ):
        for part in torch.from_numpy(np.ascontiguousarray(images)).split(max(1, min(batch, len(images)))):
            parts.append(network(part.to(device)).cpu())
            bar.update(len(part))
    return torch.cat(parts) if parts else torch.empty(0, FEATURES)
