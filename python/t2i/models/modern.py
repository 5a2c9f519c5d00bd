"""Generator of the modern preset: noise and text in every block.

* The text and the noise condition every normalisation layer, so that a sentence can change shape as well as colour.
* Every block adds a 1x1 skip to two convolutions, and the coarse levels add their own part of the image.

Source: conditional batch normalisation as in Miyato and Koyama 2018 and in BigGAN (Brock et al. 2019); text in every block as
in DF-GAN (Tao et al. 2022); image skips as in StyleGAN2 (Karras et al. 2020).
"""

import itertools
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from t2i.config.sizes import check_size
from t2i.ops.convolution import upsampled_convolution

LEAK = 0.2  # slope of every LeakyReLU
MULTIPLIERS = (1, 2, 4, 6, 10)  # channels from the image inwards, in widths; 10 for every level below 8 px


def block_channels(size: int, width: int) -> list[int]:
    """List the channels from 4 px to `size`: 64, 24 -> [240, 144, 96, 48, 24].

    Raises:
        ConfigError: `size` is not a power of two of at least 16.
    """
    check_size(size, "image size")
    levels = int(math.log2(size)) - 1
    return [width * MULTIPLIERS[min(level, len(MULTIPLIERS) - 1)] for level in reversed(range(levels))]


class ConditionalNorm(nn.Module):
    """Batch normalisation whose scale and shift are linear in a condition, and LeakyReLU.

    Args:
        channels: C.
        condition_dim: D, length of the condition.
    """

    def __init__(self, channels: int, condition_dim: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.affine = nn.Linear(condition_dim, 2 * channels)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Normalise x (B, C, H, W) under a condition (B, D)."""
        scale, shift = self.affine(condition)[:, :, None, None].chunk(2, dim=1)
        return F.leaky_relu(torch.addcmul(shift, self.norm(x), 1 + scale), LEAK)


class UpBlock(nn.Module):
    """Double the side: two 3x3 convolutions, one before and one after, plus a 1x1 skip.

    Args:
        before: Channels of the input.
        after: Channels of the output.
        condition_dim: D.
    """

    def __init__(self, before: int, after: int, condition_dim: int) -> None:
        super().__init__()
        self.norm1 = ConditionalNorm(before, condition_dim)
        self.convolution1 = nn.Conv2d(before, after, 3, padding=1)
        self.norm2 = ConditionalNorm(after, condition_dim)
        self.convolution2 = nn.Conv2d(after, after, 3, padding=1)
        self.skip = nn.Conv2d(before, after, 1)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Turn x (B, before, S, S) into (B, after, 2 S, 2 S)."""
        # By repetition. From smooth maps the generator made edges by driving tanh to its ends: white and red blots.
        # Behind the norm, which gives the same on a quarter of the places: repeated ones do not change its statistics.
        y = self.norm2(self.convolution1(self.norm1(x, condition)), condition)
        out = upsampled_convolution(y, self.convolution2.weight, self.convolution2.bias)
        return out + F.interpolate(self.skip(x), scale_factor=2.0)


class ModernGenerator(nn.Module):
    """Generate images from noise and a text embedding, with both in every block.

    Args:
        size: Side of the image in pixels, a power of two of at least 16.
        width: Channels at full resolution.
        noise_dim: Z, length of the noise vector.
        text_dim: T, length of the text embedding.
        projection_dim: P, length of the compressed text.

    Raises:
        ConfigError: `size` is not a power of two.

    Example:
        >>> ModernGenerator(size=32, width=8)(torch.randn(2, 32), torch.randn(2, 128)).shape
        torch.Size([2, 3, 32, 32])
    """

    text_mean: Tensor
    text_scale: Tensor

    def __init__(
        self, size: int = 64, width: int = 24, noise_dim: int = 32, text_dim: int = 128, projection_dim: int = 128
    ) -> None:
        super().__init__()
        channels = block_channels(size, width)
        self.size, self.noise_dim, self.text_dim = size, noise_dim, text_dim
        self.register_buffer("text_mean", torch.zeros(text_dim))
        self.register_buffer("text_scale", torch.ones(text_dim))
        self.text = nn.Linear(text_dim, projection_dim)
        joined = noise_dim + projection_dim
        self.mixed = nn.Linear(joined, projection_dim)
        condition_dim = joined + projection_dim
        self.project = nn.Linear(joined, channels[0] * 16)
        self.up = nn.ModuleList(UpBlock(before, after, condition_dim) for before, after in itertools.pairwise(channels))
        self.to_rgb = nn.ModuleList(nn.Conv2d(channel, 3, 1) for channel in channels[-3:-1])
        self.norm = ConditionalNorm(channels[-1], condition_dim)
        self.to_rgb_last = nn.Conv2d(channels[-1], 3, 3, padding=1)
        self._initialise()

    @torch.no_grad()
    def _initialise(self) -> None:
        """Draw the starting weights from torch's generator.

        Kaiming for convolutions, so that skips and branches keep their size; N(0, 0.02) for scales and shifts, which start
        near 1 and 0, and for what makes the image, which starts grey.
        """
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, a=LEAK)
                assert module.bias is not None
                nn.init.zeros_(module.bias)
            elif isinstance(module, ConditionalNorm):
                nn.init.normal_(module.affine.weight, 0.0, 0.02)
                nn.init.zeros_(module.affine.bias)
        for layer in (self.to_rgb_last, *self.to_rgb):
            nn.init.normal_(layer.weight, 0.0, 0.02)

    @torch.no_grad()
    def fit_text(self, embeddings: Tensor) -> None:
        """Take mean and deviation of each number of the text from the training captions' embeddings (M, T)."""
        self.text_mean.copy_(embeddings.mean(dim=0))
        self.text_scale.copy_(1 / embeddings.std(dim=0).clamp_min(1e-6))

    def standardise(self, text: Tensor) -> Tensor:
        """Bring text embeddings (B, T) to mean 0 and deviation 1, as this network and its discriminators read them."""
        return (text - self.text_mean) * self.text_scale

    def condition(self, joined: Tensor) -> Tensor:
        """Make what every block reads, (B, Z + 2 P), from noise beside text (B, Z + P)."""
        return torch.cat([joined, F.leaky_relu(self.mixed(joined), LEAK)], dim=1)

    def forward(self, noise: Tensor, text: Tensor) -> Tensor:
        """Generate one image a row.

        Args:
            noise: (B, Z), normally N(0, I).
            text: (B, T) text embeddings.

        Returns:
            (B, 3, size, size) in [-1, 1].
        """
        text = F.leaky_relu(self.text(self.standardise(text)), LEAK)  # (B, P)
        joined = torch.cat([noise.to(text.dtype), text], dim=1)
        condition = self.condition(joined)
        x = self.project(joined).unflatten(1, (-1, 4, 4)).contiguous(memory_format=torch.channels_last)
        image: Tensor | None = None
        for level, up in enumerate(self.up):
            x = up(x, condition)
            coarse = level - (len(self.up) - 3)
            if 0 <= coarse < len(self.to_rgb):
                part = F.interpolate(self.to_rgb[coarse](x), (self.size, self.size), mode="bilinear")
                image = part if image is None else image + part
        last = self.to_rgb_last(self.norm(x, condition))
        return torch.tanh(last if image is None else last + image)
