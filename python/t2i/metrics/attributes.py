"""Caption accuracy on blossoms: a small network that reads petal colour, centre colour, count and shape from an image.

The probe is trained on real blossoms only, cropped and flipped like the GAN's training images, with a little blur, noise and
change of brightness, because generated images have them. It then reads which attributes a generated flower shows.

Source: none; in the paper, people rate the images. The attributes of `t2i.blossoms` make it measurable.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from t2i import runtime
from t2i.blossoms.classes import CENTRE_COLOURS, PETAL_COLOURS, PETAL_COUNTS, PETAL_SHAPES
from t2i.errors import ConfigError
from t2i.weights import load_weights, save_weights

ATTRIBUTES: dict[str, int] = {  # name and number of values, in the order of the columns of `attributes`
    "petal_colour": len(PETAL_COLOURS),
    "centre_colour": len(CENTRE_COLOURS),
    "count": len(PETAL_COUNTS),
    "shape": len(PETAL_SHAPES),
}
SIDE = 32  # pixels; larger images are reduced to it first


class AttributeProbe(nn.Module):
    """Read the four attributes of a flower; `probe(images)` gives the logits of each."""

    def __init__(self) -> None:
        """Initialise from torch's global generator."""
        super().__init__()
        layers: list[nn.Module] = []
        for before, after, stride in ((3, 24, 1), (24, 64, 2), (64, 96, 2), (96, 128, 1), (128, 128, 2)):
            layers += [nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        self.trunk = nn.Sequential(*layers, nn.Flatten(), nn.Linear(128 * 4 * 4, 256), nn.ReLU())
        self.heads = nn.ModuleList(nn.Linear(256, values) for values in ATTRIBUTES.values())

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return one tensor of logits (B, values) for each of ATTRIBUTES; images (B, 3, H, W) float in [-1, 1]."""
        if images.ndim != 4 or images.shape[1] != 3:
            raise ConfigError(f"images must be (B, 3, H, W), got {tuple(images.shape)}")
        if images.shape[2:] != (SIDE, SIDE):
            images = F.interpolate(images, (SIDE, SIDE), mode="bilinear", align_corners=False, antialias=True)
        features = self.trunk(images.contiguous(memory_format=torch.channels_last))  # (B, 256)
        return [head(features) for head in self.heads]

    @torch.no_grad()
    def read(self, images: Tensor) -> Tensor:
        """Return the most likely value of each attribute: int64 (B, 4)."""
        self.eval()
        device = next(self.parameters()).device
        parts = [
            torch.stack([logits.argmax(1) for logits in self(part.to(device))], 1) for part in torch.split(images, 512)
        ]
        return torch.cat(parts).cpu()

    def save(self, path: Path) -> None:
        """Write the weights as safetensors."""
        save_weights(path, {"probe": self})

    @classmethod
    def load(cls, path: Path) -> "AttributeProbe":
        """Read a file of `save`. CheckpointError where it is missing, damaged or of another shape."""
        probe = cls()
        load_weights(path, {"probe": probe})
        return probe.eval()


def _check(images: NDArray[np.uint8], attributes: NDArray[np.int32], crop: int | None) -> int:
    """Check shapes and dtypes; return the side of the crop."""
    if images.ndim != 4 or images.shape[3] != 3 or images.dtype != np.uint8 or not len(images):
        raise ConfigError(f"images must be uint8 (N, S, S, 3) with N of at least 1, got {images.dtype} {images.shape}")
    if attributes.shape != (len(images), len(ATTRIBUTES)):
        raise ConfigError(f"attributes must be ({len(images)}, {len(ATTRIBUTES)}), got {attributes.shape}")
    side = min(images.shape[1:3])
    if crop is not None and not 1 <= crop <= side:
        raise ConfigError(f"crop must be in 1..{side}, the side of the images, got {crop}")
    return side if crop is None else crop


def _augment(images: Tensor, crop: int, rng: torch.Generator) -> Tensor:
    """Crop, flip, blur, change brightness and add noise; (B, S, S, 3) uint8 -> (B, 3, crop, crop) float in [-1, 1]."""
    batch, device = len(images), images.device

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(batch, 1, 1, 1, generator=rng, device=device)

    row = torch.arange(batch, device=device)[:, None, None]
    span = torch.arange(crop, device=device)
    y = torch.randint(images.shape[1] - crop + 1, (batch, 1, 1), generator=rng, device=device) + span[:, None]
    x = torch.randint(images.shape[2] - crop + 1, (batch, 1, 1), generator=rng, device=device) + span
    views = images[row, y, x].permute(0, 3, 1, 2).float() / 127.5 - 1.0
    views = torch.where(uniform(0.0, 1.0) < 0.5, views.flip(3), views)
    blurred = F.avg_pool2d(F.pad(views, (1, 1, 1, 1), mode="replicate"), 3, 1)
    views = torch.lerp(views, blurred, uniform(-0.4, 0.8).clamp(min=0.0))
    views = views * uniform(0.9, 1.1) + uniform(-0.06, 0.06)
    noise = torch.randn(views.shape, generator=rng, device=device)
    return (views + uniform(0.0, 0.08) * noise).clamp(-1.0, 1.0)


def train_probe(
    images: NDArray[np.uint8],
    attributes: NDArray[np.int32],
    *,
    crop: int | None = None,
    seed: int = 0,
    steps: int = 500,
    batch: int = 128,
    device: torch.device | None = None,
    progress: Callable[[int], None] | None = None,
) -> AttributeProbe:
    """Train a probe on real blossoms.

    Train it on every class, the held-out ones too: it measures, and must not extrapolate. Trained without them its accuracy
    on centres of held-out classes was 96% instead of 100%: it misread the yellow centre of red petals, a pair it had never
    seen, in four images of five. Measure it on images of another seed.

    Args:
        images: uint8 (N, S, S, 3), as the pack keeps them.
        attributes: int32 (N, 4): petal colour, centre colour, count, shape.
        crop: side of the training crop, as the GAN's; None takes whole images.
        seed: of weights, order and augmentation.
        steps: updates.
        batch: images per update.
        device: where to train; None is the CPU.
        progress: called after each step with its number, from 1.

    Returns:
        The probe, on `device`, in evaluation mode.
    """
    side = _check(images, attributes, crop)
    device = torch.device("cpu") if device is None else device
    precision = runtime.pick_precision("auto", device)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        probe = AttributeProbe()
    probe.to(device).train().to(memory_format=torch.channels_last)
    stored = torch.from_numpy(np.ascontiguousarray(images)).to(device)
    truth = torch.from_numpy(attributes.astype(np.int64)).to(device)
    rng = runtime.generator(device, seed, 0, "probe")
    optimizer = torch.optim.AdamW(probe.parameters(), lr=2e-3, weight_decay=1e-2, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps, pct_start=0.2)
    for step in range(1, steps + 1):
        rows = torch.randint(len(stored), (batch,), generator=rng, device=device)
        views = _augment(stored[rows], side, rng)
        with runtime.autocast(device, precision):
            logits = probe(views)
        loss = torch.stack([F.cross_entropy(part.float(), truth[rows, i]) for i, part in enumerate(logits)]).sum()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        if progress is not None:
            progress(step)
    return probe.eval()


def caption_accuracy(probe: AttributeProbe, images: Tensor, attributes: NDArray[np.int32]) -> dict[str, float]:
    """Measure how often images show the attributes that their captions name.

    Args:
        probe: a trained probe.
        images: (B, 3, H, W) float in [-1, 1], as the generator gives them.
        attributes: (B, 4) the attributes that each caption names.

    Returns:
        A fraction 0..1 for each of ATTRIBUTES, and "all": the four of them right at once.
    """
    expected = torch.as_tensor(np.asarray(attributes), dtype=torch.int64)
    if expected.shape != (len(images), len(ATTRIBUTES)) or not len(images):
        wanted = f"({len(images)}, {len(ATTRIBUTES)}) with at least one row"
        raise ConfigError(f"attributes must be {wanted}, got {tuple(expected.shape)}")
    right = probe.read(images.float()) == expected  # (B, 4)
    fractions = right.double().mean(0).tolist()
    return {**dict(zip(ATTRIBUTES, fractions, strict=True)), "all": float(right.all(1).double().mean())}


def probe_accuracy(
    probe: AttributeProbe, images: NDArray[np.uint8], attributes: NDArray[np.int32], *, crop: int | None = None
) -> dict[str, float]:
    """Measure the probe itself on real blossoms, center-cropped to `crop` pixels; as `caption_accuracy` otherwise.

    Args:
        probe: a trained probe.
        images: uint8 (N, S, S, 3).
        attributes: int32 (N, 4), the truth.
        crop: side of the centre crop; None takes whole images, in which the flower is smaller than in training.
    """
    side = _check(images, attributes, crop)
    top, left = (images.shape[1] - side) // 2, (images.shape[2] - side) // 2
    cut = np.ascontiguousarray(images[:, top : top + side, left : left + side].transpose(0, 3, 1, 2))
    return caption_accuracy(probe, torch.from_numpy(cut).float() / 127.5 - 1.0, attributes)
