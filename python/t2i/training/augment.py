"""Augmentation before a discriminator: differentiable, the same distribution for real and generated images.

The draws are made apart from their use, so that a step draws outside of what is compiled or captured, and so that real and
generated images can share or not share them.

Source: DiffAugment (Zhao et al. 2020): colour and translation; the translation reflects at the border instead of filling it
with zeros, because a frozen ImageNet network answers to the edge of a black bar.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Augmentation:
    """How strong each transform is; 0 turns one off.

    Args:
        brightness: Largest shift of all pixels; images span -1..1.
        saturation: Largest relative change of the distance to grey.
        contrast: Largest relative change of the distance to the image's mean.
        translation: Largest shift, as a part of the side.
    """

    brightness: float = 0.16
    saturation: float = 0.4
    contrast: float = 0.2
    translation: float = 0.125

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw what `augment` needs for `count` images: (count, 5) uniform in -1..1, on the generator's device."""
        return torch.rand(count, 5, generator=generator, device=generator.device) * 2 - 1


def _reflected(index: Tensor, side: int) -> Tensor:
    """Map places beyond 0..side - 1 back by reflection at the border pixels, which are not repeated."""
    index = index.abs()
    return torch.where(index > side - 1, 2 * (side - 1) - index, index)


def augment(images: Tensor, strength: Augmentation, draws: Tensor) -> Tensor:
    """Change brightness, saturation and contrast, and translate; differentiable in the images.

    Args:
        images: (B, 3, S, S) in [-1, 1]; the result may leave that range, as DiffAugment's does.
        strength: Of each transform.
        draws: (B, 5) in -1..1: brightness, saturation, contrast, vertical and horizontal shift.

    Returns:
        (B, 3, S, S), channels last.
    """
    brightness, saturation, contrast = draws[:, :3, None, None, None].unbind(dim=1)  # (B, 1, 1, 1) each
    x = images + strength.brightness * brightness
    grey = x.mean(dim=1, keepdim=True)
    x = torch.lerp(grey, x, 1 + strength.saturation * saturation)
    mean = x.mean(dim=(1, 2, 3), keepdim=True)
    x = torch.lerp(mean, x, 1 + strength.contrast * contrast)
    side = images.shape[-1]
    reach = int(strength.translation * side)
    if not reach:
        return x.contiguous(memory_format=torch.channels_last)
    shift = (draws[:, 3:] * (reach + 0.5)).round().long().clamp(-reach, reach)  # every whole shift equally likely
    places = torch.arange(side, device=images.device)
    row = _reflected(shift[:, 0, None] + places, side)  # (B, S)
    column = _reflected(shift[:, 1, None] + places, side)
    sample = torch.arange(len(images), device=images.device)[:, None, None]
    moved = x.permute(0, 2, 3, 1)[sample, row[:, :, None], column[:, None, :]]  # (B, S, S, 3)
    return moved.permute(0, 3, 1, 2)
