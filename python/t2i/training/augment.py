"""Augmentation before a discriminator: differentiable, the same distribution for real and generated images.

The draws are made apart from their use, so that a step draws outside of what is compiled or captured, and so that real and
generated images can share or not share them.

Source: DiffAugment (Zhao et al. 2020): colour and translation; the translation reflects at the border instead of filling it
with zeros, because a frozen ImageNet network answers to the edge of a black bar.
"""

from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from t2i.images import averaged


@dataclass(frozen=True)
class Augmentation:
    """How strong each transform is; 0 turns one off.

    Args:
        brightness: Largest shift of all pixels; images span -1..1.
        saturation: Largest relative change of the distance to grey.
        contrast: Largest relative change of the distance to the image's mean.
        translation: Largest shift, as a part of the side.
        cutout: Side of the square that is made grey, as a part of the side.
    """

    brightness: float = 0.16
    saturation: float = 0.4
    contrast: float = 0.2
    translation: float = 0.125
    cutout: float = 0.0

    @property
    def columns(self) -> int:
        """How many numbers an image needs: brightness, saturation, contrast, two shifts, and the place of the cutout."""
        return 7 if self.cutout else 5

    def lerp(self, other: "Augmentation", share: float) -> "Augmentation":
        """Go a share 0..1 of the way to another strength."""
        ours, theirs = asdict(self), asdict(other)
        return Augmentation(**{name: value + share * (theirs[name] - value) for name, value in ours.items()})

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw what `augment` needs for `count` images: (count, columns) uniform in -1..1, on the generator's device."""
        return torch.rand(count, self.columns, generator=generator, device=generator.device) * 2 - 1


NONE = Augmentation(0.0, 0.0, 0.0, 0.0)
DIFFAUGMENT = Augmentation(0.5, 1.0, 0.5, 0.125, 0.5)  # as published


def _reflected(index: Tensor, side: int) -> Tensor:
    """Map places beyond 0..side - 1 back by reflection at the border pixels, which are not repeated."""
    index = index.abs()
    return torch.where(index > side - 1, 2 * (side - 1) - index, index)


def _cut(images: Tensor, length: int, centre: Tensor) -> Tensor:
    """Make a square of `length` pixels grey, centred anywhere in the image: centre (B, 2) in -1..1."""
    side = images.shape[-1]
    places = torch.arange(side, device=images.device)
    middle = ((centre + 1) / 2 * side).long().clamp(max=side - 1)  # (B, 2)
    inside = (places - middle[:, :, None]).abs() * 2 < length  # (B, 2, S)
    kept = ~(inside[:, 0, :, None] & inside[:, 1, None, :])
    return images * kept[:, None]


def augment(images: Tensor, strength: Augmentation, draws: Tensor) -> Tensor:
    """Change brightness, saturation and contrast, and translate; differentiable in the images.

    Args:
        images: (B, 3, S, S) in [-1, 1]; the result may leave that range, as DiffAugment's does.
        strength: Of each transform.
        draws: (B, 5) in -1..1: brightness, saturation, contrast, vertical and horizontal shift; (B, 7) with the centre of
            the cutout.

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
    if strength.cutout:
        x = _cut(x, round(strength.cutout * side), draws[:, 5:])
    reach = int(strength.translation * side)
    if not reach:
        return x.contiguous(memory_format=torch.channels_last)
    shift = (draws[:, 3:5] * (reach + 0.5)).round().long().clamp(-reach, reach)  # every whole shift equally likely
    places = torch.arange(side, device=images.device)
    row = _reflected(shift[:, 0, None] + places, side)  # (B, S)
    column = _reflected(shift[:, 1, None] + places, side)
    sample = torch.arange(len(images), device=images.device)[:, None, None]
    moved = x.permute(0, 2, 3, 1)[sample, row[:, :, None], column[:, None, :]]  # (B, S, S, 3)
    return moved.permute(0, 3, 1, 2)


def reduce_to(images: Tensor, size: int) -> Tensor:
    """Average images (B, 3, S, S) down to `size` pixels a side, which divides S; channels last."""
    return averaged(images, size).contiguous(memory_format=torch.channels_last)
