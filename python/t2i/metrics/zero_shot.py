"""Zero-shot recognition and retrieval: how good a text encoder is on classes whose images and captions it never saw.

The embeddings of all captions of a class are averaged. Top-1: each image takes the class whose mean scores highest.
AP@k: each class's mean is a query; the part of its k best images that are of the class, averaged over classes.

Source: Reed et al. CVPR 2016, section 5. A joint embedding that was learned by cosine is compared by cosine.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from t2i import runtime
from t2i.config.options import JointOptions
from t2i.config.records import text_options, text_size
from t2i.data.dataset import PackedDataset, dataset_of_run
from t2i.errors import ConfigError
from t2i.files import is_file
from t2i.images import normalise
from t2i.metrics.inputs import center_crop
from t2i.models.build import image_encoder
from t2i.models.image_features import frozen_features
from t2i.text.inputs import CaptionInputs
from t2i.text.means import group_means
from t2i.text.pretrained import load_text
from t2i.text.protocol import TextEncoder
from t2i.weights import load_weights

DEPTHS = (1, 5, 10, 50)  # k of AP@k; the paper reports 50


@dataclass(frozen=True)
class ZeroShotResult:
    """The figures with their protocol."""

    figures: dict[str, Any]

    def table(self) -> str:
        """Format the figures as a table."""
        protocol = self.figures["protocol"]
        chance = f"chance {1 / protocol['classes']:.1%}"
        by_class = f"{self.figures['top1_by_class']:.1%} averaged over classes; {chance}"
        lines = [f"top-1     {self.figures['top1']:.1%} of images ({by_class})"]
        lines += [f"{'AP@' + depth:<9} {value:.1%}" for depth, value in self.figures["average_precision"].items()]
        lines += [f"not measured: {name}: {why}" for name, why in self.figures["not_measured"].items()]
        lines.append(
            f"{protocol['images']} images, {protocol['captions']} captions of {protocol['classes']} classes of the "
            f"{protocol['split']} split; image features {protocol['image_features']} at {protocol['image_size']} px, "
            f"compared by {protocol['compared_by']}"
        )
        return "\n".join(lines)


def class_means(captions: Tensor, labels: NDArray[np.int64], by_cosine: bool) -> tuple[NDArray[np.int64], Tensor]:
    """Average the caption embeddings of each class.

    Args:
        captions: (M, T).
        labels: (M,) class of each.
        by_cosine: Captions count by direction alone.

    Returns:
        The classes (C,), ascending, and their means (C, T), of length 1 where compared by cosine.
    """
    classes, index = np.unique(labels, return_inverse=True)
    rows = F.normalize(captions, dim=1) if by_cosine else captions
    means = group_means(rows, torch.from_numpy(index), torch.from_numpy(np.bincount(index)))
    return classes, F.normalize(means, dim=1) if by_cosine else means


def top1(scores: Tensor, classes: NDArray[np.int64], labels: NDArray[np.int64]) -> tuple[float, float]:
    """Measure how often an image's best class is its own: over all images, and averaged over classes.

    Args:
        scores: (N, C) of images against class means.
        classes: (C,) the class of each column.
        labels: (N,) the class of each image.

    Raises:
        ConfigError: no images, or scores that are not finite.
    """
    _check(scores, labels)
    right = classes[scores.argmax(dim=1).numpy()] == labels
    return float(right.mean()), float(np.mean([right[labels == each].mean() for each in np.unique(labels)]))


def average_precision(scores: Tensor, classes: NDArray[np.int64], labels: NDArray[np.int64], depth: int) -> float:
    """Measure AP@depth: the part of each class's `depth` best images that are its own, averaged over classes.

    Args:
        scores: (N, C) of images against class means.
        classes: (C,) the class of each column.
        labels: (N,) the class of each image.
        depth: k.

    Raises:
        ConfigError: there are fewer images than that, the depth is below 1, or the scores are not finite.
    """
    _check(scores, labels)
    if depth < 1:
        raise ConfigError(f"AP@k needs a k of at least 1, got {depth}")
    if len(scores) < depth:
        raise ConfigError(
            f"AP@{depth} needs at least {depth} images of the split, there are {len(scores)}; "
            "use a larger set, or --split all"
        )
    best = scores.argsort(dim=0, descending=True, stable=True)[:depth].numpy()  # (k, C)
    return float((labels[best] == classes[None, :]).mean())


def _check(scores: Tensor, labels: NDArray[np.int64]) -> None:
    """Refuse scores (N, C) that rank nothing: ConfigError."""
    if scores.dim() != 2 or not scores.numel() or len(scores) != len(labels):
        raise ConfigError(
            f"scores must be (N, C) with a label for each row, got {tuple(scores.shape)} and {len(labels)}"
        )
    if not torch.isfinite(scores).all():
        raise ConfigError("scores must be finite, got NaN or infinity: the weights of the embedding are damaged")


@torch.no_grad()
def _embed_images(
    path: Path, options: JointOptions, data: PackedDataset, rows: NDArray[np.int64], size: int, device: torch.device
) -> Tensor:
    """Embed images (n,) of a pack with the image side of a joint embedding: (n, T) on the CPU."""
    parts = []
    network = image_encoder(options, size)
    load_weights(path, {"image": network})
    network = network.eval()
    if options.image_features == "joint":
        pixels = network.to(device)
        for part in np.array_split(rows, -(-len(rows) // 256)):
            images = np.ascontiguousarray(center_crop(data.read_images(part), size))
            parts.append(pixels(normalise(torch.from_numpy(images).to(device))).cpu())
    else:
        precision = runtime.pick_precision("auto", device)
        found = frozen_features(data, rows, options.image_features, device, precision, size=options.feature_size)
        parts.append(network(found[:, 0]))
    return torch.cat(parts)


@torch.no_grad()
def _embed_captions(
    encoder: TextEncoder, data: PackedDataset, rows: NDArray[np.int64], device: torch.device
) -> tuple[Tensor, NDArray[np.int64]]:
    """Embed all captions of images (n,): (M, T) on the CPU, and how many each image has (n,)."""
    counts = np.diff(data.caption_offsets)[rows]
    captions = data.caption_rows(rows)
    inputs = CaptionInputs(encoder, data, device)
    parts = np.array_split(captions, -(-len(captions) // 512))
    return torch.cat([encoder(inputs(part)).cpu() for part in parts]), counts


def _precisions(scores: Tensor, classes: NDArray[np.int64], labels: NDArray[np.int64], where: str) -> dict[str, Any]:
    """Measure AP at the depths that the images are enough for, and say why the others are left out."""
    count = len(scores)
    return {
        "average_precision": {str(k): average_precision(scores, classes, labels, k) for k in DEPTHS if k <= count},
        "not_measured": {f"AP@{k}": f"it needs {k} images, and {where} has {count}" for k in DEPTHS if k > count},
    }


@torch.no_grad()
def zero_shot_of_run(
    run: Path, *, data: str | None = None, split: str = "test", device: str = "auto"
) -> ZeroShotResult:
    """Measure the joint embedding of a run.

    Args:
        run: Folder of `t2i-train text`, or of a GAN whose encoder was learned jointly.
        data: Packed data set; None is the run's own.
        split: "test" (classes held out), "train" or "all".
        device: Where the networks run.

    Raises:
        ConfigError: the run has no joint embedding, or the split has fewer than two classes.
        CheckpointError: a file is missing or damaged.
        DataError: `data` is no packed data set.
    """
    path = run / "text.safetensors"
    if not is_file(path, ConfigError):
        raise ConfigError(f"{run} has no joint embedding (no text.safetensors); t2i-train text makes one")
    options, on = text_options(run), runtime.pick_device(device)
    pack = dataset_of_run(run, data)
    rows = pack.split(split)
    labels = pack.classes[rows].astype(np.int64)
    if len(np.unique(labels)) < 2 or labels.min() < 0:
        raise ConfigError(
            f"zero-shot evaluation needs images of at least two classes; the {split} split of {pack.path} has "
            f"{len(np.unique(labels[labels >= 0]))}; take another --split, or data with classes (docs/data.md)"
        )
    size = text_size(run)
    if options.image_features == "joint" and size > pack.image_size:
        raise ConfigError(f"{path} reads images of {size} px; those of {pack.path} have {pack.image_size} px")
    encoder = load_text(path, options).to(on)
    embedded, counts = _embed_captions(encoder, pack, rows, on)
    by_cosine = options.objective != "sje"
    classes, means = class_means(embedded, np.repeat(labels, counts), by_cosine)
    seen = _embed_images(path, options, pack, rows, size, on)
    scores = (F.normalize(seen, dim=1) if by_cosine else seen) @ means.T  # (N, C)
    over_pictures, over_classes = top1(scores, classes, labels)
    return ZeroShotResult(
        {
            "top1": over_pictures,
            "top1_by_class": over_classes,
            **_precisions(scores, classes, labels, f"the {split} split of {pack.path}"),
            "protocol": {
                "split": split,
                "images": len(rows),
                "captions": len(embedded),
                "classes": len(classes),
                "image_features": options.image_features,
                "image_size": size if options.image_features == "joint" else options.feature_size,
                "compared_by": "cosine" if by_cosine else "product",
                "encoder": encoder.kind,
                "text_dim": options.dim,
                "data": pack.fingerprint,
            },
        }
    )
