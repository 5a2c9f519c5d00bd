"""R-precision: does a drawn picture pick its own caption out of a hundred?

The judge is the run's own joint embedding: `text.safetensors` holds a text encoder and the image encoder it was learned
against. A picture counts as right when its caption scores above 99 captions of other classes.

Source: Xu et al. 2018 (AttnGAN), with the project's own embedding in place of theirs, and mismatched captions of other
classes only. A judge that also trained the generator flatters it; the figures say when that is so.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.random import Generator, Philox
from numpy.typing import NDArray
from torch import Tensor, nn

from t2i.config.options import TrainConfig
from t2i.data.dataset import PackedDataset
from t2i.errors import CheckpointError, ConfigError
from t2i.images import normalise
from t2i.models.build import image_encoder
from t2i.text.build import text_encoder
from t2i.weights import load_weights, read_tensors

MISMATCHED = 99


@dataclass(frozen=True)
class JointEmbedding:
    """Both sides of a joint embedding, and whether they are compared by cosine (as trained) or by product."""

    text: nn.Module
    image: nn.Module
    by_cosine: bool

    @classmethod
    def of_run(cls, run: Path, config: TrainConfig, device: torch.device) -> "JointEmbedding":
        """Load the joint embedding that a run learned.

        Raises:
            ConfigError: the run has none, or none with an image side that reads pixels of the run's size.
            CheckpointError: the file is damaged or of another shape.
        """
        path = run / "text.safetensors"
        if not path.is_file():
            raise ConfigError(
                f"{run} has no joint embedding of its own (no text.safetensors: --text.encoder was {config.text.encoder!r}); "
                "R-precision needs one with an image side, as --text.encoder joint learns"
            )
        tensors = read_tensors(path)
        convolutions = [t for name, t in tensors.items() if name.startswith("image.trunk.") and t.dim() == 4]
        if not convolutions or "image.head.weight" not in tensors:
            raise ConfigError(
                f"{path} has no image side that reads pixels; R-precision needs a joint embedding with one"
            )
        size, width = 4 * 2 ** len(convolutions), min(len(t) for t in convolutions)
        if size != config.size:
            raise ConfigError(f"{path} reads pictures of {size} px; the model draws {config.size} px")
        options = config.text
        text = text_encoder(options)
        image = image_encoder(replace(options, image_features="joint", image_width=width), size)
        load_weights(path, {"text": text, "image": image})
        return cls(text.eval().to(device), image.eval().to(device), options.objective == "contrastive")

    @torch.no_grad()
    def embed_pictures(self, images: Tensor, block: int = 256) -> Tensor:
        """Embed pictures (n, 3, S, S) in [-1, 1]: (n, T) on the CPU, of length 1 where compared by cosine."""
        device = next(self.image.parameters()).device
        return self._scaled(torch.cat([self.image(part.to(device)).cpu() for part in images.split(block)]))

    @torch.no_grad()
    def embed_captions(self, ids: Tensor, block: int = 512) -> Tensor:
        """Embed captions (n, 201) uint8: (n, T) on the CPU, of length 1 where compared by cosine."""
        device = next(self.text.parameters()).device
        return self._scaled(torch.cat([self.text(part.to(device)).cpu() for part in ids.split(block)]))

    def _scaled(self, embedded: Tensor) -> Tensor:
        if not torch.isfinite(embedded).all():
            raise CheckpointError("the joint embedding gives NaN or infinity: its weights are damaged")
        return F.normalize(embedded, dim=1) if self.by_cosine else embedded


def mismatched_rows(
    classes: NDArray[np.int64], own: NDArray[np.int64], seed: int, count: int = MISMATCHED
) -> NDArray[np.int64]:
    """Draw `count` distinct captions of other classes for each picture.

    Args:
        classes: (M,) class of each caption.
        own: (N,) row of each picture's own caption.
        seed: Of the draw.
        count: Captions a picture.

    Returns:
        (N, count) rows.

    Raises:
        ConfigError: the other classes of some picture have fewer captions than that.
    """
    others = {label: np.flatnonzero(classes != label) for label in np.unique(classes[own])}
    fewest = min(len(rows) for rows in others.values())
    if fewest < count:
        raise ConfigError(f"R-precision needs {count} captions of other classes for each picture; there are {fewest}")
    rng = Generator(Philox(key=seed))
    return np.stack([others[label][rng.choice(len(others[label]), count, replace=False)] for label in classes[own]])


def r_precision(pictures: Tensor, captions: Tensor, own: NDArray[np.int64], others: NDArray[np.int64]) -> float:
    """Measure how often a picture scores its own caption above all others.

    Args:
        pictures: (N, T).
        captions: (M, T).
        own: (N,) row of each picture's caption.
        others: (N, K) rows of mismatched ones.

    Returns:
        Mean over pictures, 0..1; a tie with k others counts 1 / (k + 1), so that an embedding that tells nothing apart is
        at chance.
    """
    right = []
    for first in range(0, len(pictures), 256):  # bounds the gather: 256 x 100 x T
        part = slice(first, first + 256)
        rows = torch.from_numpy(np.concatenate([own[part, None], others[part]], axis=1))
        scores = torch.einsum("nt,nkt->nk", pictures[part], captions[rows])  # (n, 1 + K)
        best = scores[:, :1] >= scores[:, 1:].amax(dim=1, keepdim=True)
        right.append(best[:, 0] / (scores == scores[:, :1]).sum(dim=1))
    return float(torch.cat(right).double().mean())


def captions_of_split(pack: PackedDataset, pictures: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """List the caption rows of pictures (n,), and the class of each; without classes, each picture is its own."""
    counts = np.diff(pack.caption_offsets)[pictures]
    rows = np.concatenate([np.arange(*pack.caption_offsets[[picture, picture + 1]]) for picture in pictures])
    labels = pack.classes[pictures].astype(np.int64)
    return rows, np.repeat(np.where(labels < 0, pictures, labels), counts)


def r_precision_of(
    joint: JointEmbedding, pack: PackedDataset, split: NDArray[np.int64], captions: NDArray[np.int64], seed: int,
    pictures: dict[str, Tensor],
) -> dict[str, float]:  # fmt: skip
    """Measure sets of pictures that belong to the same captions.

    Args:
        joint: The judge.
        pack: Where captions come from.
        split: Pictures of the split, whose captions are the mismatched ones.
        captions: (N,) the caption row of each picture.
        seed: Of the mismatched captions, which all sets share.
        pictures: Sets by name, each (N, 3, S, S) in [-1, 1].
    """
    rows, classes = captions_of_split(pack, split)
    own = np.searchsorted(rows, captions)
    others = mismatched_rows(classes, own, seed)
    embedded = joint.embed_captions(torch.from_numpy(pack.read_captions(rows)))
    return {name: r_precision(joint.embed_pictures(images), embedded, own, others) for name, images in pictures.items()}


def as_networks_read(images: NDArray[np.uint8]) -> Tensor:
    """Turn pictures uint8 (n, S, S, 3) into (n, 3, S, S) in [-1, 1]."""
    return normalise(torch.from_numpy(np.ascontiguousarray(images)))
