"""R-precision: does a generated image retrieve its own caption out of a hundred?

The scorer is a joint embedding: `text.safetensors` holds a text encoder and the image encoder trained with it. An image counts
as right when its caption scores above 99 captions of other classes. The scorer should be independent, trained without the
generator (`--scorer RUN`, a run of `t2i-train text` with another seed); the run's own embedding trained the generator and
flatters it. A scorer that is at chance on real images says nothing, and no figure is reported.

Source: Xu et al. 2018 (AttnGAN). Differs: another embedding, and mismatched captions of other classes only.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from t2i.config.options import JointOptions
from t2i.config.records import text_options
from t2i.data.dataset import PackedDataset
from t2i.errors import CheckpointError, ConfigError, ScorerError
from t2i.files import is_file
from t2i.images import normalise
from t2i.metrics.draws import draws
from t2i.metrics.scoring import ImageSample
from t2i.models.encoders import ImageEncoder
from t2i.pipeline import Pipeline
from t2i.text.inputs import CaptionInputs
from t2i.text.pretrained import load_text
from t2i.text.protocol import TextEncoder

MISMATCHED = 99
DEVIATIONS = 3  # standard errors above chance, of an R-precision that is more than chance


@dataclass(frozen=True)
class JointEmbedding:
    """Both sides of a joint embedding, and whether they are compared by cosine (as trained) or by product."""

    text: TextEncoder
    image: nn.Module
    by_cosine: bool

    @classmethod
    def load(cls, run: Path, options: JointOptions, size: int, device: torch.device) -> "JointEmbedding":
        """Load the joint embedding of a run.

        Args:
            run: Run folder.
            options: The settings of its text encoder.
            size: Side of the images to embed, in pixels.
            device: Where to put it.

        Raises:
            ConfigError: the run has none, or none with an image side that reads pixels, or one that reads larger images.
            CheckpointError: the file is damaged or of another shape.
        """
        path = run / "text.safetensors"
        if not is_file(path, ConfigError):
            raise ConfigError(
                f"{run} has no joint embedding (no text.safetensors); R-precision needs one with an image side: "
                "t2i-train text makes one, for --scorer"
            )
        image, text = ImageEncoder.load(path, options.dim, size), load_text(path, options)
        return cls(text.to(device), image.to(device), options.objective != "sje")

    @torch.no_grad()
    def embed_images(self, images: Tensor, block: int = 256) -> Tensor:
        """Embed images (n, 3, S, S) in [-1, 1]: (n, T) on the CPU, of length 1 where compared by cosine."""
        device = next(self.image.parameters()).device
        return self._scaled(torch.cat([self.image(part.to(device)).cpu() for part in images.split(block)]))

    @torch.no_grad()
    def embed_captions(self, ids: Tensor, block: int = 512) -> Tensor:
        """Embed captions, tokenized (n, L): (n, T) on the CPU, of length 1 where compared by cosine."""
        device = next(self.text.parameters()).device
        return self._scaled(torch.cat([self.text(part.to(device)).cpu() for part in ids.split(block)]))

    def _scaled(self, embedded: Tensor) -> Tensor:
        if not torch.isfinite(embedded).all():
            raise CheckpointError("the joint embedding gives NaN or infinity: its weights are damaged")
        return F.normalize(embedded, dim=1) if self.by_cosine else embedded


def mismatched_rows(
    classes: NDArray[np.int64], own: NDArray[np.int64], seed: int, count: int = MISMATCHED
) -> NDArray[np.int64]:
    """Sample `count` distinct captions of other classes for each image.

    Args:
        classes: (M,) class of each caption.
        own: (N,) row of each image's own caption.
        seed: Of the sample.
        count: Captions per image.

    Returns:
        (N, count) rows.

    Raises:
        ConfigError: the other classes of some image have fewer captions than that.
    """
    order = np.argsort(classes, kind="stable")
    labels, starts = np.unique(classes[order], return_index=True)
    members = dict(zip(labels.tolist(), np.split(order, starts[1:]), strict=True))  # rows of each class, ascending
    wanted = classes[own].tolist()
    fewest = len(classes) - max((len(members[label]) for label in wanted), default=len(classes))
    if fewest < count:
        raise ConfigError(f"R-precision needs {count} captions of other classes for each image; there are {fewest}")
    rng = draws(seed)
    rows = np.empty((len(own), count), np.int64)
    for image, label in enumerate(wanted):
        mine = members[label]
        # The i-th row that is not of the class, without a list of them for each class: hundreds of thousands each.
        chosen = rng.choice(len(classes) - len(mine), count, replace=False)
        rows[image] = chosen + np.searchsorted(mine - np.arange(len(mine)), chosen, side="right")
    return rows


def r_precision(images: Tensor, captions: Tensor, own: NDArray[np.int64], others: NDArray[np.int64]) -> float:
    """Compute how often an image scores its own caption above all others.

    Args:
        images: (N, T) embeddings.
        captions: (M, T) embeddings.
        own: (N,) row of each image's caption.
        others: (N, K) rows of mismatched ones.

    Returns:
        Mean over images, 0..1; a tie with k others counts 1 / (k + 1), so that a constant embedding is at chance.

    Raises:
        ConfigError: no images, no mismatched captions, or embeddings that are not finite.
    """
    if not len(images) or not others.shape[1]:
        raise ConfigError(f"R-precision needs images and captions of others, got {len(images)} and {others.shape[1]}")
    if not (torch.isfinite(images).all() and torch.isfinite(captions).all()):
        raise ConfigError("R-precision needs finite embeddings, got NaN or infinity")
    right = []
    for first in range(0, len(images), 256):  # bounds the gather: 256 x 100 x T
        part = slice(first, first + 256)
        rows = torch.from_numpy(np.concatenate([own[part, None], others[part]], axis=1))
        scores = torch.einsum("nt,nkt->nk", images[part], captions[rows])  # (n, 1 + K)
        best = scores[:, :1] >= scores[:, 1:].amax(dim=1, keepdim=True)
        right.append(best[:, 0] / (scores == scores[:, :1]).sum(dim=1))
    return float(torch.cat(right).double().mean())


def captions_of_split(pack: PackedDataset, images: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """List the caption rows of images (n,), and the class of each; without classes, each image is its own class."""
    counts = np.diff(pack.caption_offsets)[images]
    return pack.caption_rows(images), np.repeat(pack.groups()[images], counts)


def ranked_captions(
    scorer: JointEmbedding, pack: PackedDataset, split: NDArray[np.int64], captions: NDArray[np.int64], seed: int
) -> tuple[Tensor, NDArray[np.int64], NDArray[np.int64]]:
    """Embed a split's captions, and choose those that each image's own is told from.

    Args:
        scorer: Embeds captions.
        pack: Where they come from.
        split: Images of the split.
        captions: (N,) the caption row of each image.
        seed: Of the mismatched captions.

    Returns:
        What `r_precision` takes behind the images: embeddings (M, T), the row of each own caption (N,), those of others (N, K).

    Raises:
        ConfigError: the other classes of some image have too few captions.
    """
    rows, classes = captions_of_split(pack, split)
    own = np.searchsorted(rows, captions)
    others = mismatched_rows(classes, own, seed)
    return scorer.embed_captions(CaptionInputs(scorer.text, pack, torch.device("cpu"))(rows)), own, others


def r_precision_of(
    scorer: JointEmbedding,
    pack: PackedDataset,
    split: NDArray[np.int64],
    captions: NDArray[np.int64],
    seed: int,
    images: dict[str, Tensor],
) -> dict[str, float]:
    """Compute the R-precision of sets of images that belong to the same captions.

    Args:
        scorer: Embeds images and captions.
        pack: Where captions come from.
        split: Images of the split, whose captions are the mismatched ones.
        captions: (N,) the caption row of each image.
        seed: Of the mismatched captions, which all sets share.
        images: Sets by name, each (N, 3, S, S) in [-1, 1].
    """
    ranked = ranked_captions(scorer, pack, split, captions, seed)
    return {name: r_precision(scorer.embed_images(each), *ranked) for name, each in images.items()}


def network_input(images: NDArray[np.uint8]) -> Tensor:
    """Convert images uint8 (n, S, S, 3) to (n, 3, S, S) in [-1, 1]."""
    return normalise(torch.from_numpy(np.ascontiguousarray(images)))


def retrieval_precision(
    pipe: Pipeline, run: Path, pack: PackedDataset, sample: ImageSample, split: str, protocol: dict[str, Any]
) -> dict[str, Any]:
    """Compute the R-precision of a sample, and that of its real images.

    Args:
        pipe: The model.
        run: Run folder of the scorer.
        pack: Where captions come from.
        sample: Generated and real images.
        split: The split they are of.
        protocol: Kept with the figure; its seed chooses the mismatched captions.

    Raises:
        ConfigError: the run has no joint embedding for these images, or the split has too few captions.
        ScorerError: the scorer is at chance on real images.
    """
    scorer = JointEmbedding.load(run, text_options(run), pipe.config.size, pipe.device)
    sets = {"generated": network_input(sample.generated), "real": network_input(sample.real[sample.own])}
    found = r_precision_of(scorer, pack, pack.split(split), sample.captions, protocol["seed"], sets)
    check_scorer(found["real"], len(sample.captions))
    return {
        "value": found["generated"],
        "real": found["real"],
        "chance": chance(),
        "protocol": protocol
        | {
            "score": f"the caption against {MISMATCHED} of other classes",
            "mismatched": MISMATCHED,
            "scorer": "joint embedding of the run" if run == pipe.folder else "joint embedding of another run",
            "compared_by": "cosine" if scorer.by_cosine else "product",
            "independent": independent(scorer, pipe),
        },
    }


def chance() -> float:
    """Return the R-precision of a scorer that guesses."""
    return 1 / (1 + MISMATCHED)


def above_chance(images: int) -> float:
    """Return the R-precision that is DEVIATIONS standard errors above chance on so many images."""
    return chance() + DEVIATIONS * math.sqrt(chance() * (1 - chance()) / images)


def check_scorer(real: float, images: int) -> None:
    """Refuse a scorer that real images do not distinguish from chance.

    Args:
        real: Its R-precision on real images.
        images: How many they were.

    Raises:
        ScorerError: it is not DEVIATIONS standard errors above chance.
    """
    bar = above_chance(images)
    if not real >= bar:
        raise ScorerError(
            f"the scorer fails on real images: {real:.1%} of {images}, chance is {chance():.1%}, at least {bar:.1%} is needed"
        )


def independent(scorer: JointEmbedding, pipe: Pipeline) -> bool:
    """Return whether the generator was trained without this scorer: its text encoder has other weights."""
    if pipe.encoder is None:
        return True
    own, theirs = pipe.encoder.state_dict(), scorer.text.state_dict()
    return own.keys() != theirs.keys() or any(
        own[name].shape != theirs[name].shape or not torch.equal(own[name], theirs[name]) for name in own
    )
