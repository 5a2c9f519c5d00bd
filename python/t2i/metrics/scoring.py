"""Sample generated and real images of a run for evaluation."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor

from t2i import runtime
from t2i.data.cache import cached_tensor
from t2i.data.dataset import PackedDataset
from t2i.errors import ConfigError
from t2i.files import free_memory
from t2i.images import to_uint8
from t2i.metrics.diversity import SHARED
from t2i.metrics.draws import draws
from t2i.metrics.inception import FEATURES, FeatureNetwork, features_of
from t2i.metrics.inputs import center_crop, embed_rows
from t2i.metrics.neighbours import NEIGHBOURS
from t2i.pipeline import Pipeline

MIN_IMAGES = NEIGHBOURS + 1  # each needs so many neighbours; KID needs 4
GROUPS, NOISES = 50, 4  # captions, and images of each, for diversity


@dataclass(frozen=True)
class ImageSample:
    """Generated images, their captions, and the real images that they are compared with."""

    generated: NDArray[np.uint8]  # (N, S, S, 3)
    captions: NDArray[np.int64]  # (N,) rows of the pack
    several: NDArray[np.uint8]  # (G, n, S, S, 3): n images of each of the first G captions, with noise as in `by_noise`
    chosen: NDArray[np.int64]  # (M,) rows of the real images, ascending
    real: NDArray[np.uint8]  # (M, S, S, 3)
    own: NDArray[np.int64]  # (N,) row of `real` that each caption belongs to
    other: NDArray[np.int64]  # (K,) rows of further real images, for real against real; may be empty
    other_from: str  # where those are from


def sample_images(
    pipe: Pipeline,
    pack: PackedDataset,
    split: str,
    count: int,
    seed: int,
    embed: Callable[[Tensor], Tensor] | None = None,
) -> ImageSample:
    """Choose captions and real images of a split, and generate an image of each caption.

    Args:
        pipe: The model.
        pack: The data set.
        split: "train", "test" or "all".
        count: Images to generate, and real ones at most.
        seed: Of images, captions and noise.
        embed: Embeds caption rows (n,) on the model's device: (n, T); without it, the model's text encoder does.

    Raises:
        ConfigError: no such split, too few images in it, images smaller than the model's, or more than fit into the memory.
    """
    if split not in ("train", "test", "all"):
        raise ConfigError(f"--split must be train, test or all, got {split!r}")
    if pack.image_size < pipe.config.size:
        raise ConfigError(f"{pack.path} has images of {pack.image_size} px; the model generates {pipe.config.size}")
    rows = pack.split(split)
    if len(rows) < MIN_IMAGES:
        enough = split != "all" and pack.images >= MIN_IMAGES
        raise ConfigError(
            f"the {split} split of {pack.path} has {len(rows)} images, at least {MIN_IMAGES} are needed; "
            + ("try --split all" if enough else "pack more images")
        )
    _check_memory(count, pipe.config.size, pipe.config.noise_dim)
    rng = draws(seed)
    order = rng.permutation(rows)
    chosen = np.sort(order[:count])
    wanted = np.resize(order, count)  # (N,) repeats from the start where there are fewer
    captions = rng.integers(pack.caption_offsets[wanted], pack.caption_offsets[wanted + 1])
    text = embed(torch.from_numpy(captions).to(pipe.device)) if embed else embed_rows(pipe, pack, captions)  # (N, T)
    noise = runtime.noise((count, pipe.config.noise_dim), pipe.device, seed, 0, "evaluate images")
    groups = min(GROUPS, count)
    blocks = runtime.noise(
        (-(-groups // SHARED), NOISES, pipe.config.noise_dim), pipe.device, seed, 0, "evaluate diversity"
    )
    shared = blocks.repeat_interleave(SHARED, dim=0)[:groups].flatten(0, 1)  # (groups * NOISES, Z)
    several = generate(pipe, shared, text[:groups].repeat_interleave(NOISES, dim=0))
    other, other_from = _further_images(pack, split, chosen, rng)
    return ImageSample(
        generated=generate(pipe, noise, text),
        captions=captions,
        several=several.reshape(groups, NOISES, *several.shape[1:]),
        chosen=chosen,
        real=center_crop(pack.read_images(chosen), pipe.config.size),
        own=np.searchsorted(chosen, wanted),
        other=other,
        other_from=other_from,
    )


def _check_memory(count: int, size: int, noise_dim: int) -> None:
    """Refuse more images than the memory holds, before any is generated."""
    needed = count * (2 * 3 * size**2 + 2 * 4 * noise_dim)  # uint8 in parts and joined; noise
    free = free_memory()
    if free is not None and needed > free:
        raise ConfigError(
            f"--count {count:,}: so many images of {size} px need {needed / 1e9:,.1f} GB of memory, and {free / 1e9:,.1f} GB "
            "are free; choose fewer"
        )


def _further_images(
    pack: PackedDataset, split: str, chosen: NDArray[np.int64], rng: Generator
) -> tuple[NDArray[np.int64], str]:
    """Choose as many further real images: of the same split if it has enough, else of all; none if there are too few."""
    rest, source = np.setdiff1d(pack.split(split), chosen), f"the {split} split"
    if len(rest) < len(chosen):
        rest, source = np.setdiff1d(np.arange(pack.images), chosen), "all splits"
    if len(rest) < MIN_IMAGES:
        return np.empty(0, np.int64), "nowhere: the data set has no further images"
    return np.sort(rng.permutation(rest)[: len(chosen)]), source


def generate(pipe: Pipeline, noise: Tensor, text: Tensor, block: int = 128) -> NDArray[np.uint8]:
    """Generate an image of each row of noise (n, Z) and text (n, T), in batches: uint8 (n, S, S, 3)."""
    parts = zip(noise.split(block), text.split(block), strict=True)
    return np.concatenate([to_uint8(pipe.draw(z, t.to(pipe.device))) for z, t in parts])


def real_features(
    network: FeatureNetwork,
    pack: PackedDataset,
    rows: NDArray[np.int64],
    size: int,
    batch: int,
    metadata: dict[str, Any],
) -> Tensor:
    """Compute the features of real images, cached beside the pack.

    Args:
        network: The feature network.
        pack: Where the images are from.
        rows: (M,) which images.
        size: They are center-cropped to this size.
        batch: Images at once.
        metadata: The network, as JSON.

    Returns:
        (M, 768) float32.
    """
    chosen = hashlib.sha256(np.ascontiguousarray(rows, np.int64).tobytes()).hexdigest()
    key = {"data": pack.fingerprint, "rows": chosen, "size": size, **metadata}

    def compute() -> Tensor:
        return features_of(network, center_crop(pack.read_images(rows), size), batch, "real")

    return cached_tensor(pack.path, "evaluation-features", key, (len(rows), FEATURES), compute)


def manifest(pack: PackedDataset) -> dict[str, Any]:
    """Read pack.json."""
    content: dict[str, Any] = json.loads((pack.path / "pack.json").read_text(encoding="utf-8"))
    return content


def hash_file(path: Path) -> str:
    """Return the first 16 hexadecimal digits of a file's SHA-256."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
