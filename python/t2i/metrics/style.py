"""Style verification: does the style encoder S separate pairs of the same style from others, and does it invert G?

Pairs of images of the same and of different style are scored by the cosine of S(x1) and S(x2); the area under the ROC curve
says how well S reads the style. The baseline scores the same pairs by the cosine of the embeddings of one caption each:
captions do not name the style, so it should be at chance.

"The same style" means, by kind of pair:

    background   photographs: the same cluster of background colour (border ring, K-means); blossoms: the same of the
                 eight backgrounds, which the pack records
    place        blossoms: the same cluster of position, size and tilt (K-means), in place of the paper's pose
    whole style  blossoms: two flowers of independent classes rendered with the same six style parameters, against two
                 flowers of independent classes and styles

Source: Reed et al. 2016, sections 4.4 and 5.2, Figure 5: K-means with 100 clusters of background colour. Differs: no pose
from key points; the paper gives curves and no numbers.
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
from t2i.blossoms import drawing
from t2i.blossoms.captions import captions_for
from t2i.blossoms.classes import draw_style, held_out_classes
from t2i.data.dataset import PackedDataset, dataset_of_run
from t2i.errors import ConfigError, DataError
from t2i.images import normalise, to_uint8
from t2i.metrics.clusters import border_colour, kmeans
from t2i.metrics.draws import draws
from t2i.metrics.inputs import center_crop, embed_rows
from t2i.metrics.roc import Roc, roc
from t2i.pipeline import Pipeline

Pairs = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]  # first, second (P,) and whether the same
MIN_CLUSTER_IMAGES = 10  # images per cluster, on average
MIN_IMAGES = 3  # two of the same style, and one of another
MAX_TWINS = 2000  # pairs of the whole style: their blossoms are rendered for the measurement


@dataclass(frozen=True)
class StyleResult:
    """The figures with their protocol, and the ROC curves by name."""

    figures: dict[str, Any]
    curves: dict[str, Roc]

    def table(self) -> str:
        """Format the figures as a table."""
        protocol = self.figures["protocol"]
        lines = [f"{'pairs of the same':<22}{'style encoder':>15}{'text baseline':>15}{'pairs':>9}   area under ROC"]
        for kind, row in self.figures["roc_area"].items():
            lines.append(
                f"{kind:<22}{row['style']:>15.3f}{row['text']:>15.3f}{protocol['pairs']:>9}   {row['definition']}"
            )
        for title, key in (("cosine of z and S(G(z, t))", "cosine"), ("border colour after transfer", "border")):
            row = self.figures[key]
            lines.append(
                f"{title}: " + ", ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in row.items())
            )
        lines.append(
            f"{protocol['images']} images and {protocol['captions']} captions of the {protocol['split']} split, "
            f"{protocol['size']} px, seed {protocol['seed']}"
        )
        return "\n".join(lines)


def sample_pairs(labels: NDArray[Any], pairs: int, seed: int) -> Pairs:
    """Sample `pairs` pairs of images, half of the same label, half of different ones; the first image of each uniformly.

    Raises:
        ConfigError: no label occurs twice, or there is only one label.
    """
    if pairs < 2:
        raise ConfigError(f"style pairs must be at least 2, got {pairs}")
    rng = draws(seed)
    groups = {label: np.flatnonzero(labels == label) for label in np.unique(labels)}
    able = np.flatnonzero(np.isin(labels, [label for label, rows in groups.items() if len(rows) > 1]))
    if not len(able) or len(groups) < 2:
        raise ConfigError(
            f"style pairs need two styles, one of them twice; {len(labels)} images have {len(groups)}: take more images, or "
            "more varied ones (--images, --data)"
        )
    first = np.concatenate([rng.choice(able, pairs // 2), rng.integers(len(labels), size=pairs - pairs // 2)])
    same = np.arange(pairs) < pairs // 2
    second = np.empty_like(first)
    for row, image in enumerate(first):
        group = groups[labels[image]]
        while True:
            other = group[rng.integers(len(group))] if same[row] else rng.integers(len(labels))
            if other != image and (labels[other] == labels[image]) == same[row]:
                break
        second[row] = other
    return first, second, same


def twin_blossoms(pairs: int, size: int, crop: int, seed: int) -> tuple[NDArray[np.uint8], list[str], Pairs]:
    """Render pairs of blossoms of independent held-out classes: half of the same style, half of different styles.

    Returns:
        Images uint8 (2 * pairs, crop, crop, 3), a caption of each, and the pairs.
    """
    rng = draws(seed)
    kinds = held_out_classes()
    images = np.empty((2 * pairs, size, size, 3), np.uint8)
    captions = []
    for pair in range(pairs):
        style = draw_style(rng)
        for row in (pair, pairs + pair):
            if row == pairs + pair and pair >= pairs // 2:
                style = draw_style(rng)
            kind = kinds[rng.integers(len(kinds))]
            images[row] = drawing.draw_blossom(kind, style, size, rng)
            captions += captions_for(kind, rng, count=1)
    order = [2 * pair + half for half in (0, 1) for pair in range(pairs)]  # captions were made pair by pair
    rows = np.arange(pairs)
    return center_crop(images, crop), [captions[index] for index in order], (rows, rows + pairs, rows < pairs // 2)


@dataclass(frozen=True)
class _Sample:
    """Real images of a split, one caption of each, and what the model makes of both."""

    split: str
    chosen: NDArray[np.int64]  # (N,) rows of the pack, ascending
    images: NDArray[np.uint8]  # (N, S, S, 3)
    text: Tensor  # (N, T)
    style: Tensor  # (N, Z)


@dataclass(frozen=True)
class _Comparison:
    """Pairs of one kind, and the vectors whose cosine scores them."""

    kind: str
    definition: str
    style: Tensor  # (n, Z)
    text: Tensor  # (n, T)
    pairs: Pairs

    def curves(self) -> dict[str, Roc]:
        """Compute the ROC curve of the style encoder and of the text baseline."""
        one, two, same = self.pairs
        vectors = {"style": self.style, "text": self.text}
        scores = {name: F.cosine_similarity(v[one], v[two]).double().numpy() for name, v in vectors.items()}
        return {name: roc(score, same) for name, score in scores.items()}


def style_of_run(
    run: Path,
    *,
    data: str | None = None,
    images: int = 1500,
    pairs: int = 10_000,
    clusters: int = 100,
    seed: int = 0,
    device: str = "auto",
) -> StyleResult:
    """Evaluate a run's style encoder on images and captions of its test split (the training split where it has none).

    Args:
        run: Run folder with style.safetensors.
        data: Packed data set, if not the one the run was trained on.
        images: Maximum number of images to read.
        pairs: Pairs of each kind, half of them of the same style.
        clusters: Of K-means; fewer where there are under ten images per cluster.
        seed: Of images, pairs, clusters and noise.
        device: Where to compute.

    Raises:
        ConfigError: arguments out of range.
        CheckpointError: no run folder, or one without a style encoder.
    """
    if pairs < 2 or images < 2 or clusters < 2:
        raise ConfigError(f"--pairs, --images and --clusters must be at least 2, got {pairs}, {images}, {clusters}")
    pipe = Pipeline.from_pretrained(run, str(runtime.pick_device(device)))
    _ = pipe.style  # refuse at once where there is none
    pack = dataset_of_run(run, data)
    if pack.image_size < pipe.config.size:
        raise ConfigError(f"{pack.path} has images of {pack.image_size} px; the model needs {pipe.config.size}")
    sample = _sample(pipe, pack, images, seed)
    truth = true_style(pack, sample.chosen)
    groups = min(clusters, max(2, len(sample.chosen) // MIN_CLUSTER_IMAGES))
    if truth is None:
        compared = [_photographs(sample, groups, pairs, seed)]
    else:
        compared = _blossoms(pipe, sample, truth, pack.image_size, groups, pairs, seed)
    found = {each.kind: each.curves() for each in compared}
    noise = runtime.noise((len(sample.text), pipe.config.noise_dim), pipe.device, seed, 0, "style")
    figures = {
        "measure": "style verification",
        "roc_area": {
            each.kind: {name: curve.area for name, curve in found[each.kind].items()} | {"definition": each.definition}
            for each in compared
        },
        "cosine": inversion(pipe, noise, sample.text),
        "border": border_kept(pipe, sample.images, sample.text),
        "protocol": _protocol(sample)
        | {
            "pairs": pairs,
            "size": pipe.config.size,
            "clusters": None if truth is not None else groups,
            "seed": seed,
            "data": pack.fingerprint,
        },
    }
    return StyleResult(figures, {f"{kind}, {name}": roc for kind, rocs in found.items() for name, roc in rocs.items()})


def _sample(pipe: Pipeline, pack: PackedDataset, images: int, seed: int) -> _Sample:
    """Choose real images, at most `images`, and one caption of each, and read both with the model."""
    rng = draws(seed, [0, 0, 0, 1])
    split = "test" if len(pack.split("test")) >= MIN_IMAGES else "train"
    if min(images, len(pack.split(split))) < MIN_IMAGES:
        raise ConfigError(
            f"style verification needs {MIN_IMAGES} images, two of one style; {pack.path} has {len(pack.split('test'))} in its "
            f"test and {len(pack.split('train'))} in its training split, and --images is {images}"
        )
    chosen = np.sort(rng.permutation(pack.split(split))[:images])
    shown = center_crop(pack.read_images(chosen), pipe.config.size)
    offsets = pack.caption_offsets
    captions = rng.integers(offsets[chosen], offsets[chosen + 1])
    return _Sample(split, chosen, shown, embed_rows(pipe, pack, captions), read_all(pipe, shown))


def _protocol(sample: _Sample) -> dict[str, Any]:
    """Describe what was compared, and how."""
    return {
        "images": len(sample.chosen),
        "captions": len(sample.text),
        "split": sample.split,
        "score": "cosine of S(x1), S(x2)",
        "baseline": "cosine of the embeddings of one caption per image",
    }


def _photographs(sample: _Sample, clusters: int, pairs: int, seed: int) -> _Comparison:
    """Pair photographs by clusters of the colour at their border."""
    labels = kmeans(border_colour(sample.images), clusters, seed)
    definition = f"border colour in the same of {clusters} clusters"
    return _Comparison("background", definition, sample.style, sample.text, sample_pairs(labels, pairs, seed))


def _blossoms(
    pipe: Pipeline, sample: _Sample, truth: NDArray[np.float32], size: int, clusters: int, pairs: int, seed: int
) -> list[_Comparison]:
    """Pair blossoms by their true background and place, and new blossoms by all parameters of their style."""
    deviation = truth[:, 1:5].std(0)
    spread = truth[:, 1:5] / np.where(deviation > 0, deviation, 1)
    few = min(clusters, 16)
    count = min(pairs, MAX_TWINS)
    twins, sentences, twin_pairs = twin_blossoms(count, size, pipe.config.size, seed)
    embedded = torch.cat([pipe.embed(sentences[i : i + 256]).cpu() for i in range(0, len(sentences), 256)])
    return [
        _Comparison(
            "background",
            "the same of eight backgrounds",
            sample.style,
            sample.text,
            sample_pairs(truth[:, 0], pairs, seed),
        ),
        _Comparison(
            "place",
            f"position, size and tilt in the same of {few} clusters",
            sample.style,
            sample.text,
            sample_pairs(kmeans(spread, few, seed), pairs, seed),
        ),
        _Comparison(
            "whole style", f"all six numbers the same ({count} pairs)", read_all(pipe, twins), embedded, twin_pairs
        ),
    ]


def true_style(pack: PackedDataset, rows: NDArray[np.int64]) -> NDArray[np.float32] | None:
    """Read the style recorded for blossoms: (n, 6) in the order of STYLE_FIELDS; None for photographs."""
    try:
        style = pack.extra("style")
    except DataError:
        return None
    kept: NDArray[np.float32] = style[rows]
    return kept


def read_all(pipe: Pipeline, images: NDArray[np.uint8], block: int = 256) -> Tensor:
    """Read the style of images uint8 (n, S, S, 3) as photographs: (n, Z) on the CPU."""
    return torch.cat([pipe.read_style(normalise(part)).cpu() for part in torch.from_numpy(images).split(block)])


def inversion(pipe: Pipeline, noise: Tensor, text: Tensor, block: int = 256) -> dict[str, float]:
    """Compare noise (n, Z) with what S reads from the images generated from it and texts (n, T).

    Returns:
        Mean cosine where S reads the generated images, where it reads them as photographs (blurred), and with the noise of
        another image (chance).
    """
    clean, blurry = [], []
    for z, t in zip(noise.split(block), text.split(block), strict=True):
        images = pipe.draw(z, t.to(pipe.device))
        clean.append(F.cosine_similarity(pipe.read_style(images, generated=True), z))
        blurry.append(F.cosine_similarity(pipe.read_style(images), z))
    mismatched = noise.roll(1, 0)
    return {
        "as_generated": float(torch.cat(clean).mean()),
        "as_photograph": float(torch.cat(blurry).mean()),
        "chance": float(F.cosine_similarity(noise, mismatched).mean()),
    }


def border_kept(pipe: Pipeline, images: NDArray[np.uint8], text: Tensor, count: int = 256) -> dict[str, float]:
    """Transfer the styles of images (n, S, S, 3) to texts (n, T) of other images: does the border keep its colour?

    Returns:
        Mean distance, 0..255 per channel, of the border colour of the generated images from that of their style images,
        and from that of other images.
    """
    styles, texts = images[:count], text[:count].roll(1, 0).to(pipe.device)
    generated = pipe.draw(pipe.style_noise(normalise(torch.from_numpy(styles))), texts)
    got, wanted = border_colour(to_uint8(generated)), border_colour(styles)
    return {
        "own_style": float(np.abs(got - wanted).mean()),
        "another_style": float(np.abs(got - np.roll(wanted, len(wanted) // 2, axis=0)).mean()),
    }
