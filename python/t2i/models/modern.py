"""Generator of the modern preset: text in every block, layout from the noise.

* The text and the noise condition every normalisation layer, so that a sentence can change shape as well as colour.
* The 4 x 4 start is a function of position: a grid of coordinates, moved, scaled and turned by the noise and the text, so
  that the subject can stand elsewhere without every layer learning so.
* Feature maps at full resolution are narrow and carry no normalisation: they hold half of the activations of the whole
  network, and their cost is memory traffic.

Source: conditional batch normalisation as in Miyato and Koyama 2018 and in BigGAN (Brock et al. 2019); text in every block as
in DF-GAN (Tao et al. 2022); learned Fourier features as in StyleGAN3 (Karras et al. 2021); image skips as in StyleGAN2.
"""

import itertools
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from t2i.config.sizes import check_size

LEAK = 0.2  # slope of every LeakyReLU
MULTIPLIERS = (1, 2, 4, 6, 10)  # channels from the image inwards, in widths; 10 for every level below 8 px
FREQUENCIES = 32  # waves of the position features


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


class Position(nn.Module):
    """Waves over the plane, moved, scaled and turned by a condition: the layout's coordinates.

    Wave k at place p is sin(2 pi (f_k . (M p + t)) + phase_k), with M (2 x 2) and t (2) linear in the condition and close to
    the identity and 0 at the start; p spans -0.5..0.5.

    Args:
        condition_dim: D.
        side: Places a side.
        frequencies: Waves; f_k ~ N(0, 1) and phases ~ U(0, 2 pi), fixed.
    """

    grid: Tensor
    waves: Tensor
    phases: Tensor

    def __init__(self, condition_dim: int, side: int, frequencies: int = FREQUENCIES) -> None:
        super().__init__()
        self.side = side
        self.transform = nn.Linear(condition_dim, 6)
        axis = (torch.arange(side) + 0.5) / side - 0.5
        y, x = torch.meshgrid(axis, axis, indexing="ij")
        self.register_buffer("grid", torch.stack([x, y], dim=-1).view(-1, 2))
        self.register_buffer("waves", torch.randn(frequencies, 2))
        self.register_buffer("phases", 2 * math.pi * torch.rand(frequencies))

    def forward(self, condition: Tensor) -> Tensor:
        """Compute the waves under a condition (B, D): (B, frequencies, side, side) float32."""
        with torch.autocast(condition.device.type, enabled=False):  # an angle needs more than bfloat16's 8 bits
            change = self.transform(condition.to(self.waves.dtype))  # (B, 6)
            matrix = change[:, :4].view(-1, 2, 2) + torch.eye(2, device=change.device, dtype=change.dtype)
            places = self.grid @ matrix.transpose(1, 2) + change[:, None, 4:]  # (B, side^2, 2)
            angles = 2 * math.pi * (places @ self.waves.T) + self.phases  # (B, side^2, frequencies)
            return torch.sin(angles).transpose(1, 2).reshape(len(condition), -1, self.side, self.side)


class UpBlock(nn.Module):
    """Double the side: two 3x3 convolutions, one before and one after, plus a 1x1 skip.

    Args:
        before: Channels of the input.
        after: Channels of the output.
        condition_dim: D.
        normalise: Conditional normalisation before the second convolution too; without it, LeakyReLU alone.
    """

    def __init__(self, before: int, after: int, condition_dim: int, normalise: bool = True) -> None:
        super().__init__()
        self.norm1 = ConditionalNorm(before, condition_dim)
        self.convolution1 = nn.Conv2d(before, after, 3, padding=1)
        self.norm2 = ConditionalNorm(after, condition_dim) if normalise else None
        self.convolution2 = nn.Conv2d(after, after, 3, padding=1)
        self.skip = nn.Conv2d(before, after, 1)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Turn x (B, before, S, S) into (B, after, 2 S, 2 S)."""
        y = F.interpolate(self.convolution1(self.norm1(x, condition)), scale_factor=2.0)
        y = F.leaky_relu(y, LEAK) if self.norm2 is None else self.norm2(y, condition)
        out: Tensor = self.convolution2(y) + F.interpolate(self.skip(x), scale_factor=2.0)
        return out


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

    def __init__(
        self, size: int = 64, width: int = 24, noise_dim: int = 32, text_dim: int = 128, projection_dim: int = 128
    ) -> None:
        super().__init__()
        channels = block_channels(size, width)
        self.size, self.noise_dim, self.text_dim = size, noise_dim, text_dim
        self.text = nn.Linear(text_dim, projection_dim)
        joined = noise_dim + projection_dim
        self.mixed = nn.Linear(joined, projection_dim)
        condition_dim = joined + projection_dim
        self.project = nn.Linear(joined, channels[0] * 16)
        self.position = Position(condition_dim, 8)
        self.position_in = nn.Conv2d(FREQUENCIES, channels[1], 1)
        self.up = nn.ModuleList(
            UpBlock(before, after, condition_dim, normalise=level < len(channels) - 2)
            for level, (before, after) in enumerate(itertools.pairwise(channels))
        )
        self.to_rgb = nn.ModuleList(nn.Conv2d(channel, 3, 1) for channel in channels[-3:-1])
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
        nn.init.normal_(self.position.transform.weight, 0.0, 0.02)
        nn.init.zeros_(self.position.transform.bias)

    def forward(self, noise: Tensor, text: Tensor) -> Tensor:
        """Generate one image a row.

        Args:
            noise: (B, Z), normally N(0, I).
            text: (B, T) text embeddings.

        Returns:
            (B, 3, size, size) in [-1, 1].
        """
        text = F.leaky_relu(self.text(text), LEAK)  # (B, P)
        joined = torch.cat([noise.to(text.dtype), text], dim=1)
        condition = torch.cat([joined, F.leaky_relu(self.mixed(joined), LEAK)], dim=1)  # (B, Z + 2 P)
        x = self.project(joined).view(len(noise), -1, 4, 4).contiguous(memory_format=torch.channels_last)
        image: Tensor | None = None
        for level, up in enumerate(self.up):
            x = up(x, condition)
            if level == 0:
                waves = self.position(condition).contiguous(memory_format=torch.channels_last)
                x = x + self.position_in(waves.to(x.dtype))
            coarse = level - (len(self.up) - 3)
            if 0 <= coarse < len(self.to_rgb):
                part = F.interpolate(self.to_rgb[coarse](x), (self.size, self.size), mode="bilinear")
                image = part if image is None else image + part
        last = self.to_rgb_last(F.leaky_relu(x, LEAK))
        return torch.tanh(last if image is None else last + image)
