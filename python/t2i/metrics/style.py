"""Style verification: does the style encoder tell pictures of one style from pictures of two, and does it invert G?

Pairs of pictures of the same and of different style are scored by the cosine of S(x1) and S(x2); the ROC curve of that
score and its area say how well the style was read. The baseline scores the same pairs by the cosine of a caption of each:
captions do not name the style, so they should be at chance.

What "the same style" is, by kind of pair:

    background   photographs: the same cluster of background colour (border ring, K-means); blossoms: the same of the
                 eight backgrounds, which the pack keeps as truth
    place        blossoms: the same cluster of position, size and tilt (K-means), the counterpart of the paper's pose
    whole style  blossoms: two flowers of independent classes drawn in one and the same style, all six numbers of it,
                 against two flowers of independent classes and styles

Source: Reed et al. 2016, sections 4.4 and 5.2, Figure 5: K-means with 100 clusters of background colour; there are no
key points here, and no figures in the paper but the curves.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.random import Generator, Philox
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
from t2i.metrics.inputs import embed_rows, middle
from t2i.metrics.roc import Roc, roc
from t2i.pipeline import Pipeline

Pairs = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]  # first, second (P,) and whether the same
MIN_CLUSTER_IMAGES = 10  # pictures a cluster, on average


@dataclass(frozen=True)
class StyleResult:
    """The figures, and how they were come by; the curves by name."""

    figures: dict[str, Any]
    curves: dict[str, Roc]

    def table(self) -> str:
        """Lay the figures out for a person."""
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
            f"{protocol['images']} pictures and {protocol['captions']} captions of the {protocol['split']} split, "
            f"{protocol['size']} px, seed {protocol['seed']}"
        )
        return "\n".join(lines)


def sample_pairs(labels: NDArray[Any], pairs: int, seed: int) -> Pairs:
    """Draw `pairs` pairs of pictures, half of one label, half of two; the first picture uniformly, of those that can.

    Raises:
        ConfigError: no label occurs twice, or all are the same.
    """
    rng = Generator(Philox(key=seed))
    groups = {label: np.flatnonzero(labels == label) for label in np.unique(labels)}
    able = np.flatnonzero(np.isin(labels, [label for label, rows in groups.items() if len(rows) > 1]))
    if not len(able) or len(groups) < 2:
        raise ConfigError(f"style pairs need two styles, one of them twice; {len(labels)} pictures have {len(groups)}")
    first = np.concatenate([rng.choice(able, pairs // 2), rng.integers(len(labels), size=pairs - pairs // 2)])
    same = np.arange(pairs) < pairs // 2
    second = np.empty_like(first)
    for row, picture in enumerate(first):
        group = groups[labels[picture]]
        while True:
            other = group[rng.integers(len(group))] if same[row] else rng.integers(len(labels))
            if other != picture and (labels[other] == labels[picture]) == same[row]:
                break
        second[row] = other
    return first, second, same


def twin_blossoms(pairs: int, size: int, crop: int, seed: int) -> tuple[NDArray[np.uint8], list[str], Pairs]:
    """Draw pairs of blossoms of independent held-out classes: half in one style, half in two.

    Returns:
        Pictures uint8 (2 pairs, crop, crop, 3), a caption of each, and the pairs.
    """
    rng = Generator(Philox(key=seed))
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
    return middle(images, crop), [captions[index] for index in order], (rows, rows + pairs, rows < pairs // 2)


def style_of_run(
    run: Path, *, data: str | None = None, images: int = 1500, pairs: int = 10_000, clusters: int = 100, seed: int = 0,
    device: str = "auto",
) -> StyleResult:  # fmt: skip
    """Measure a run's style encoder on pictures and captions of its test split (the training split where it has none).

    Args:
        run: Run folder with style.safetensors.
        data: Packed data set, if not the one the run was trained on.
        images: Most pictures to read.
        pairs: Pairs of each kind, half of them of the same style.
        clusters: Of K-means; fewer where there are under ten pictures a cluster.
        seed: Of pictures, pairs, clusters and noise.
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
        raise ConfigError(f"{pack.path} has pictures of {pack.image_size} px; the model needs {pipe.config.size}")
    rng = Generator(Philox(key=seed, counter=[0, 0, 0, 1]))
    split = "test" if len(pack.split("test")) > 1 else "train"
    chosen = np.sort(rng.permutation(pack.split(split))[:images])
    shown = middle(pack.read_images(chosen), pipe.config.size)  # (N, S, S, 3)
    offsets = pack.caption_offsets
    captions = rng.integers(offsets[chosen], offsets[chosen + 1])  # one a picture
    text = embed_rows(pipe, pack, captions)
    read = read_all(pipe, shown)
    curves: dict[str, Roc] = {}
    areas: dict[str, dict[str, Any]] = {}

    def judge(kind: str, definition: str, style: Tensor, texts: Tensor, drawn: Pairs) -> None:
        one, two, same = drawn
        curves[f"{kind}, style"], curves[f"{kind}, text"] = (
            roc(F.cosine_similarity(v[one], v[two]).double().numpy(), same) for v in (style, texts)
        )
        areas[kind] = {
            "style": curves[f"{kind}, style"].area,
            "text": curves[f"{kind}, text"].area,
            "definition": definition,
        }

    groups = min(clusters, max(2, len(chosen) // MIN_CLUSTER_IMAGES))
    truth = true_style(pack, chosen)
    if truth is None:
        labels = kmeans(border_colour(shown), groups, seed)
        judge(
            "background",
            f"border colour in the same of {groups} clusters",
            read,
            text,
            sample_pairs(labels, pairs, seed),
        )
    else:
        judge("background", "the same of eight backgrounds", read, text, sample_pairs(truth[:, 0], pairs, seed))
        spread = truth[:, 1:5] / truth[:, 1:5].std(0)
        few = min(groups, 16)
        definition = f"position, size and tilt in the same of {few} clusters"
        judge("place", definition, read, text, sample_pairs(kmeans(spread, few, seed), pairs, seed))
        count = min(pairs, 2000)  # each is drawn
        blossoms, sentences, twins = twin_blossoms(count, pack.image_size, pipe.config.size, seed)
        embedded = torch.cat([pipe.embed(sentences[i : i + 256]).cpu() for i in range(0, len(sentences), 256)])
        judge("whole style", f"all six numbers the same ({count} pairs)", read_all(pipe, blossoms), embedded, twins)
    noise = runtime.noise((len(text), pipe.config.noise_dim), pipe.device, seed, 0, "style")
    figures = {
        "measure": "style verification",
        "roc_area": areas,
        "cosine": inversion(pipe, noise, text),
        "border": border_kept(pipe, shown, text),
        "protocol": {
            "images": len(chosen), "captions": len(captions), "pairs": pairs, "split": split, "size": pipe.config.size,
            "clusters": None if truth is not None else groups, "seed": seed, "data": pack.fingerprint,
            "score": "cosine of S(x1), S(x2)", "baseline": "cosine of the embeddings of one caption a picture",
        },
    }  # fmt: skip
    return StyleResult(figures, curves)


def true_style(pack: PackedDataset, rows: NDArray[np.int64]) -> NDArray[np.float32] | None:
    """Read the style that blossoms keep: (n, 6) in the order of STYLE_FIELDS; None for photographs."""
    try:
        style = pack.extra("style")
    except DataError:
        return None
    kept: NDArray[np.float32] = style[rows]
    return kept


def read_all(pipe: Pipeline, images: NDArray[np.uint8], block: int = 256) -> Tensor:
    """Read the style of pictures uint8 (n, S, S, 3) as photographs: (n, Z) on the CPU."""
    return torch.cat([pipe.read_style(normalise(part)).cpu() for part in torch.from_numpy(images).split(block)])


def inversion(pipe: Pipeline, noise: Tensor, text: Tensor, block: int = 256) -> dict[str, float]:
    """Compare noise (n, Z) with what S reads from the pictures drawn of it and of texts (n, T).

    Returns:
        Mean cosine where S sees the drawn pictures, where it sees them as photographs (blurred), and of noise that has
        nothing to do with the picture.
    """
    clean, blurry = [], []
    for z, t in zip(noise.split(block), text.split(block), strict=True):
        drawn = pipe.draw(z, t.to(pipe.device))
        clean.append(F.cosine_similarity(pipe.read_style(drawn, drawn=True), z))
        blurry.append(F.cosine_similarity(pipe.read_style(drawn), z))
    mismatched = noise.roll(1, 0)
    return {
        "as_drawn": float(torch.cat(clean).mean()),
        "as_photograph": float(torch.cat(blurry).mean()),
        "chance": float(F.cosine_similarity(noise, mismatched).mean()),
    }


def border_kept(pipe: Pipeline, images: NDArray[np.uint8], text: Tensor, count: int = 256) -> dict[str, float]:
    """Transfer the styles of pictures (n, S, S, 3) to texts (n, T) of other pictures: does the border keep its colour?

    Returns:
        Mean distance, 0..255 a channel, of the border's colour in what was drawn from that of its style picture, and from
        that of another one.
    """
    styles, texts = images[:count], text[:count].roll(1, 0).to(pipe.device)
    drawn = pipe.draw(pipe.style_noise(normalise(torch.from_numpy(styles))), texts)
    got, wanted = border_colour(to_uint8(drawn)), border_colour(styles)
    return {
        "own_style": float(np.abs(got - wanted).mean()),
        "another_style": float(np.abs(got - np.roll(wanted, len(wanted) // 2, axis=0)).mean()),
    }
