"""The generator's noise: of a seed, interpolated on the sphere, truncated."""

import math
import operator

import torch
from torch import Tensor

from t2i import runtime
from t2i.errors import ConfigError

BLOCK = 16  # numbers that torch draws together on a CPU; what is no multiple of it has its last 16 drawn anew


def require_integer(name: str, value: object, least: int | None = None) -> int:
    """Return a whole number, of numpy or torch as well; ConfigError for anything else, or one below `least`."""
    try:
        number = None if isinstance(value, bool) else operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        number = None
    if number is None:
        raise ConfigError(f"{name} must be a whole number, got {value!r}")
    if least is not None and number < least:
        raise ConfigError(f"{name} must be at least {least}, got {number}")
    return number


def noise_of(seed: int, count: int, length: int, device: torch.device, draw: int = 0) -> Tensor:
    """Draw N(0, I) for generated images: row i depends on (seed, i, draw) alone, not on `count` nor on the device.

    Args:
        seed: Chooses the noise.
        count: Rows.
        length: Z.
        device: Where it is needed; it is drawn on the CPU.
        draw: Tells several draws of one seed apart.

    Returns:
        (count, Z).

    Raises:
        ConfigError: the seed is no whole number.
    """
    seed = require_integer("seed", seed)
    together = BLOCK // math.gcd(BLOCK, length)  # rows that end with a block
    rows = -(-count // together) * together
    return runtime.noise((rows, length), torch.device("cpu"), seed, draw, "generate")[:count].to(device)


def truncated(noise: Tensor, most: float) -> Tensor:
    """Turn N(0, 1) noise into noise of the normal distribution cut off at `most` on both sides, of the same shape.

    Each number keeps its quantile, so that a picture changes smoothly with `most`, and not at all as it grows.

    Raises:
        ConfigError: `most` is no number above 0.

    Source: Brock et al. 2019, *Large Scale GAN Training*, section 3.1, who draw again what is too large: the same
    distribution. Not in the paper of this package.
    """
    try:
        bound = math.nan if isinstance(most, (str, bytes)) else float(most)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        bound = math.nan
    if not bound > 0:
        raise ConfigError(f"truncation must be above 0 (0.5 is strong, 2 is weak), got {str(most)[:40]}")
    inside = torch.special.ndtr(torch.tensor(bound, dtype=torch.float64))
    # The lower half of the distribution has all the precision: the upper half is its mirror.
    wide = noise.cpu().double()  # Apple's GPUs have no float64
    quantile = (1 - inside) + (2 * inside - 1) * torch.special.ndtr(-wide.abs())
    cut: Tensor = torch.special.ndtri(quantile).clamp(-bound, 0).abs() * wide.sign()
    return cut.to(noise)


def slerp(first: Tensor, second: Tensor, weight: Tensor) -> Tensor:
    """Go from one noise vector to another on the arc between them, along which noise keeps its length.

    Where the lengths differ, the length changes linearly; where the directions agree, or one is zero, the way is
    straight.

    Args:
        first: (n, Z), at weight 0.
        second: (n, Z), at weight 1.
        weight: (w,).

    Returns:
        (n, w, Z).

    Source: White 2016, *Sampling Generative Networks*; a straight line passes through noise shorter than any sampled.
    """
    lengths = first.norm(dim=-1, keepdim=True), second.norm(dim=-1, keepdim=True)  # (n, 1) each
    one, two = (v / length.clamp_min(1e-12) for v, length in zip((first, second), lengths, strict=True))
    angle = (one * two).sum(-1, keepdim=True).clamp(-1, 1).acos()[:, None]  # (n, 1, 1)
    w = weight[None, :, None]
    sine = angle.sin()
    arc = (torch.sin((1 - w) * angle) * one[:, None] + torch.sin(w * angle) * two[:, None]) / sine.clamp_min(1e-12)
    length = (1 - w) * lengths[0][:, None] + w * lengths[1][:, None]
    straight = (1 - w) * first[:, None] + w * second[:, None]
    bent = (sine > 1e-3) & (lengths[0] * lengths[1] > 0)[:, None]
    return torch.where(bent, arc * length, straight)
