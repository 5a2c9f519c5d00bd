"""A discriminator on frozen ImageNet features: small learned heads that read a frozen trunk at several depths.

* The trunk is EfficientNet-lite0: on a CPU in the precision of the rest (`frozen_trunk`), on a GPU in float32.
* Each head scores every place of its map, for realism and for fit to the text (a projection), with spectral norm.
* `taps` and `heads` are apart, because a generated image runs through the trunk once: the discriminator reads the taps
  detached, and the generator's gradient goes back through the same pass.

Source: Projected GAN (Sauer et al. 2021) for frozen features at several depths; projection discriminator (Miyato and Koyama
2018); matching-aware pairs at each tap (Reed et al. 2016).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from t2i.errors import ConfigError
from t2i.models.efficientnet import EfficientNetLite0
from t2i.models.frozen_trunk import frozen_taps

LEAK = 0.2
BLOCKS = (0, 2, 4, 10, 15)  # blocks of the trunk that are read: 16, 24, 40, 112 and 320 channels, stride 2 to 32
REDUCTIONS = (4, 2, 1, 1, 1)  # stride of each one's head
HEAD_WIDTH = 64


class FrozenTaps(nn.Module):
    """Read a frozen trunk at several depths, each channel standardised.

    Args:
        trunk: Frozen here: its weights need no gradient, and stay out of the state.
        blocks: Which blocks are read, ascending; those behind the last one are not run.
        size: Side in pixels that smaller images are enlarged to; 0 leaves them as they are.

    Source: Projected GAN (Sauer et al. 2021) for the enlargement. Statistics are of real images (`fit`), so that every head
    starts from inputs of mean 0 and deviation 1.
    """

    def __init__(self, trunk: EfficientNetLite0, blocks: tuple[int, ...] = BLOCKS, size: int = 0) -> None:
        super().__init__()
        if not blocks or list(blocks) != sorted(set(blocks)) or blocks[-1] >= len(trunk.blocks):
            raise ConfigError(f"taps must be ascending blocks below {len(trunk.blocks)}, got {blocks}")
        self._trunk = [trunk.eval().requires_grad_(False)]  # in a list: not a submodule, so not in the state
        self.blocks, self.size = blocks, size
        self.channels = [self._width(trunk, block) for block in blocks]
        for index, width in enumerate(self.channels):
            self.register_buffer(f"mean{index}", torch.zeros(width))
            self.register_buffer(f"scale{index}", torch.ones(width))

    @classmethod
    def of_images(cls, trunk: EfficientNetLite0, size: int, enlarged: int) -> "FrozenTaps":
        """Read images of `size` pixels, enlarged to `enlarged` where that is more: then without the shallowest tap.

        Not beyond twice their size: at four times, images of 32 px had less variety (docs/method.md). The first tap of an
        enlarged image shows what pixels show, and its head costs 7% of a step of `modern`.
        """
        side = min(enlarged, 2 * size)
        return cls(trunk, BLOCKS[1:] if side > size else BLOCKS, side)

    @staticmethod
    def _width(trunk: EfficientNetLite0, block: int) -> int:
        width = trunk.blocks[block].project.convolution.out_channels  # type: ignore[union-attr]
        assert isinstance(width, int)
        return width

    def raw(self, images: Tensor) -> list[Tensor]:
        """Read images (B, 3, S, S) in [-1, 1]: the taps, not standardised, float32."""
        trunk, device = self._trunk[0], images.device.type
        if images.shape[-1] < self.size:
            images = F.interpolate(images, (self.size, self.size), mode="bilinear")
        if device == "cpu" and images.dtype is torch.float32 and not torch.compiler.is_compiling():
            mixed = torch.is_autocast_enabled(device)
            return frozen_taps(trunk, images, self.blocks, torch.get_autocast_dtype(device) if mixed else torch.float32)
        with torch.autocast(images.device.type, enabled=False):
            x = trunk.stem(images.float() * (127.5 / 128) + 0.5 / 128)
            found = []
            for index, block in enumerate(trunk.blocks[: self.blocks[-1] + 1]):
                x = block(x)
                if index in self.blocks:
                    found.append(x)
        return found

    def forward(self, images: Tensor) -> list[Tensor]:
        """Read images (B, 3, S, S) in [-1, 1]: standardised taps (B, C, S', S'), float32, shallow ones first."""
        return [
            (tap - getattr(self, f"mean{index}")[:, None, None]) * getattr(self, f"scale{index}")[:, None, None]
            for index, tap in enumerate(self.raw(images))
        ]

    @torch.no_grad()
    def fit(self, images: Tensor) -> None:
        """Take mean and deviation of each channel from real images (N, 3, S, S)."""
        for index, tap in enumerate(self.raw(images)):
            getattr(self, f"mean{index}").copy_(tap.mean(dim=(0, 2, 3)))
            getattr(self, f"scale{index}").copy_(1 / tap.std(dim=(0, 2, 3)).clamp_min(1e-3))


class TapHead(nn.Module):
    """Score every place of one tap, for realism and for fit to a text.

    The score is w . h + h . (V text) / sqrt(width), with h a map of two convolutions.

    Args:
        channels: C of the tap.
        text_dim: T.
        reduction: Stride of the whole head: 4, 2 (large maps) or 1.
        width: Channels inside.
    """

    def __init__(self, channels: int, text_dim: int, reduction: int = 1, width: int = HEAD_WIDTH) -> None:
        super().__init__()
        if reduction == 4:
            first = nn.Conv2d(channels, width, 4, stride=2, padding=1)
        else:
            first = nn.Conv2d(channels, width if reduction == 2 else 2 * width, 1)
        second = nn.Conv2d(first.out_channels, width, 3, stride=1 if reduction == 1 else 2, padding=1)
        self.first, self.second = spectral_norm(first), spectral_norm(second)
        self.realism = spectral_norm(nn.Conv2d(width, 1, 1))
        self.text = nn.Linear(text_dim, width, bias=False)
        nn.init.normal_(self.text.weight, 0.0, 0.25)
        self.width = width

    def features(self, tap: Tensor) -> Tensor:
        """Reduce a tap (B, C, S, S): (B, width, S', S')."""
        x = F.leaky_relu(self.first(tap), LEAK)
        return F.leaky_relu(self.second(x), LEAK)

    def score(self, features: Tensor, text: Tensor) -> Tensor:
        """Score features (B, width, S', S') against K text embeddings each, (B, K, T): logits (B, K, S', S') float32."""
        weight, bias = self.realism.weight, self.realism.bias
        assert isinstance(weight, Tensor)
        assert isinstance(bias, Tensor)
        query = self.text(text) / self.width**0.5 + weight.flatten()  # (B, K, width)
        scores: Tensor = torch.einsum("bchw,bkc->bkhw", features, query.to(features.dtype)) + bias
        return scores.float()


class FeatureDiscriminator(nn.Module):
    """One head a tap.

    Args:
        channels: C of each tap, shallow ones first, as `FrozenTaps.channels` says: those of the last of `BLOCKS`.
        text_dim: T.
        width: Channels inside each head.
    """

    def __init__(self, channels: list[int], text_dim: int, width: int = HEAD_WIDTH) -> None:
        super().__init__()
        first = len(BLOCKS) - len(channels)
        assert first >= 0, f"{len(channels)} taps, there are {len(BLOCKS)}"
        # Named by the place of their block, so that --init finds them where the shallowest one is left out.
        self.heads = nn.ModuleDict(
            {
                str(place): TapHead(channel, text_dim, REDUCTIONS[place], width)
                for place, channel in enumerate(channels, first)
            }
        )

    def features(self, taps: list[Tensor]) -> list[Tensor]:
        """Reduce the taps; what does not depend on the text and serves matching and mismatched pairs alike."""
        return [head.features(tap) for head, tap in zip(self.heads.values(), taps, strict=True)]  # type: ignore[operator]

    def score(self, features: list[Tensor], text: Tensor) -> list[Tensor]:
        """Score reduced taps against K text embeddings each, (B, K, T): a map of logits (B, K, S', S') a tap."""
        return [head.score(x, text) for head, x in zip(self.heads.values(), features, strict=True)]  # type: ignore[operator]
