"""Draw images for evaluation and compare their features."""

import hashlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import Generator, Philox
from numpy.typing import NDArray
from safetensors.torch import save
from torch import Tensor

from t2i import runtime
from t2i.data.dataset import PackedDataset
from t2i.errors import CheckpointError, ConfigError
from t2i.files import write_atomically
from t2i.images import to_uint8
from t2i.metrics import retrieval
from t2i.metrics.fid import Gaussian, frechet_distance, kernel_distance
from t2i.metrics.inception import FEATURES, FeatureNetwork, features_of
from t2i.metrics.inputs import embed_rows, middle
from t2i.pipeline import Pipeline
from t2i.weights import read_tensors

MIN_IMAGES = 4  # pictures: KID halves them, and a half needs two
GROUPS, NOISES = 50, 4  # captions, and pictures of each, for diversity


@dataclass(frozen=True)
class Pictures:
    """What was drawn, the captions it was drawn of, and the real pictures it is compared with."""

    drawn: NDArray[np.uint8]  # (N, S, S, 3)
    captions: NDArray[np.int64]  # (N,) rows of the pack
    several: NDArray[np.uint8]  # (G, n, S, S, 3): n pictures each of the first G captions; picture i shares its noise
    chosen: NDArray[np.int64]  # (M,) pictures of the split, ascending
    real: NDArray[np.uint8]  # (M, S, S, 3)
    own: NDArray[np.int64]  # (N,) row of `real` that each caption belongs to


def draw(pipe: Pipeline, pack: PackedDataset, split: str, count: int, seed: int) -> Pictures:
    """Choose captions and real pictures of a split, and draw the captions.

    Raises:
        ConfigError: no such split, too few pictures in it, or pictures smaller than the model's.
    """
    if split not in ("train", "test", "all"):
        raise ConfigError(f"--split must be train, test or all, got {split!r}")
    if pack.image_size < pipe.config.size:
        raise ConfigError(f"{pack.path} has pictures of {pack.image_size} px; the model draws {pipe.config.size}")
    rows = pack.split(split)
    if len(rows) < MIN_IMAGES:
        raise ConfigError(
            f"the {split} split of {pack.path} has {len(rows)} pictures, needed are {MIN_IMAGES}; try --split all"
        )
    rng = Generator(Philox(key=seed))
    order = rng.permutation(rows)
    chosen = np.sort(order[:count])
    wanted = np.resize(order, count)  # (N,) begins anew where there are fewer
    captions = rng.integers(pack.caption_offsets[wanted], pack.caption_offsets[wanted + 1])
    text = embed_rows(pipe, pack, captions)  # (N, T)
    noise = runtime.noise((count, pipe.config.noise_dim), pipe.device, seed, 0, "evaluate images")
    groups = min(GROUPS, count)
    shared = runtime.noise((NOISES, pipe.config.noise_dim), pipe.device, seed, 0, "evaluate diversity")
    several = draw_rows(pipe, shared.repeat(groups, 1), text[:groups].repeat_interleave(NOISES, dim=0))
    return Pictures(
        drawn=draw_rows(pipe, noise, text),
        captions=captions,
        several=several.reshape(groups, NOISES, *several.shape[1:]),
        chosen=chosen,
        real=middle(pack.read_images(chosen), pipe.config.size),
        own=np.searchsorted(chosen, wanted),
    )


def draw_rows(pipe: Pipeline, noise: Tensor, text: Tensor, block: int = 128) -> NDArray[np.uint8]:
    """Draw caption rows once each, in batches."""
    parts = zip(noise.split(block), text.split(block), strict=True)
    return np.concatenate([to_uint8(pipe.draw(z, t.to(pipe.device))) for z, t in parts])


def distances(drawn: Tensor, real: Tensor, protocol: dict[str, Any]) -> dict[str, Any]:
    """Compute FID and KID of generated features against real ones."""
    kid = kernel_distance(drawn, real, seed=protocol["seed"])
    subsets = {"subsets": kid.subsets, "subset_size": kid.subset_size, "kernel": "(x . y / 768 + 1)^3, unbiased"}
    return {
        "fid_768": {"value": frechet_distance(Gaussian.of(drawn), Gaussian.of(real)), "protocol": protocol},
        "kid_768": {"value": kid.mean, "spread": kid.spread, "protocol": {**protocol, **subsets}},
    }


def retrieval_precision(
    pipe: Pipeline, run: Path, pack: PackedDataset, pictures: Pictures, split: str, seed: int, protocol: dict[str, Any]
) -> dict[str, Any]:
    """Compute R-precision by the run's own joint embedding, or say why it cannot be."""
    joint = retrieval.JointEmbedding.of_run(run, pipe.config, pipe.device)
    sets = {"drawn": pictures.drawn, "real": pictures.real[pictures.own]}
    tensors = {name: retrieval.as_networks_read(images) for name, images in sets.items()}
    found = retrieval.r_precision_of(joint, pack, pack.split(split), pictures.captions, seed, tensors)
    score = f"the caption against {retrieval.MISMATCHED} of other classes"
    return {
        "value": found["drawn"], "real": found["real"], "chance": 1 / (1 + retrieval.MISMATCHED),
        "protocol": {
            **protocol, "score": score, "mismatched": retrieval.MISMATCHED, "features": "joint embedding of the run",
            "compared_by": "cosine" if joint.by_cosine else "product", "alignment_weight": pipe.config.alignment_weight,
        },
    }  # fmt: skip


def cached_features(
    network: FeatureNetwork, pack: PackedDataset, real: NDArray[np.uint8], key: dict[str, Any], batch: int
) -> Tensor:
    """Read the features of real pictures (M, S, S, 3) from beside the pack, or compute them and leave them there.

    Args:
        network: Computes them.
        pack: Where the pictures come from.
        real: The pictures.
        key: All that they depend on beside the pack's fingerprint.
        batch: Pictures at once.

    Returns:
        (M, 768) float32.
    """
    name = hashlib.sha256(json.dumps({"data": pack.fingerprint, **key}, sort_keys=True).encode()).hexdigest()
    path = pack.path / f"features-{name[:16]}.safetensors"
    try:
        kept = read_tensors(path).get("features") if path.exists() else None
    except CheckpointError:
        kept = None  # damaged: made anew
    if kept is not None and kept.shape == (len(real), FEATURES):
        return kept
    computed = features_of(network, real, batch, "real")
    try:
        write_atomically(path, save({"features": computed}))
    except CheckpointError:
        print(f"{pack.path} cannot be written: the features of its pictures are not kept", file=sys.stderr)
    return computed


def manifest(pack: PackedDataset) -> dict[str, Any]:
    """Read pack.json."""
    manifest: dict[str, Any] = json.loads((pack.path / "pack.json").read_text(encoding="utf-8"))
    return manifest


def hash_file(path: Path) -> str:
    """Hash a file: the first 16 hexadecimal digits of its SHA-256."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
