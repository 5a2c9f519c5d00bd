"""Swap test on blossoms: two colours exchanged in the sentence are exchanged in the image.

"red petals and a yellow centre" and "yellow petals and a red centre" are the same bag of words. Both are generated from the
same noise, and the probe of `attributes.py` reads both images: an encoder that loses the order of words cannot pass.

Source: none; after the word-order probes of Thrush et al. 2022 (Winoground).
"""

from typing import Any

import numpy as np
import torch

from t2i import runtime
from t2i.blossoms.captions import captions_for
from t2i.blossoms.classes import (
    CENTRE_COLOURS,
    PETAL_COLOURS,
    BlossomClass,
    Purpose,
    blossom_classes,
    class_generator,
)
from t2i.errors import ConfigError
from t2i.metrics.captions import load_probe
from t2i.pipeline import Pipeline

BLOCK = 256  # images generated at once


def swapped_pairs(count: int, seed: int) -> list[tuple[str, str, BlossomClass]]:
    """Word classes whose two colours can change places, and the same with the colours exchanged.

    Args:
        count: Pairs; evenly over the classes, which are in the training set for the most part.
        seed: Of wordings and of the order of classes.

    Returns:
        A caption, the same wording with the two colours exchanged, and the class of the first.
    """
    both = set(PETAL_COLOURS) & set(CENTRE_COLOURS)
    classes = [kind for kind in blossom_classes() if {kind.petal, kind.centre} <= both]
    order = class_generator(seed, Purpose.EVALUATION).permutation(len(classes))
    pairs = []
    for row in range(count):
        kind = classes[order[row % len(classes)]]
        other = BlossomClass(kind.centre, kind.petal, kind.count, kind.shape)
        worded = [
            captions_for(each, class_generator(seed, Purpose.EVALUATION, row + 1), 1)[0] for each in (kind, other)
        ]
        pairs.append((*worded, kind))
    return pairs


def swap_test(pipe: Pipeline, *, pairs: int = 200, seed: int = 0) -> dict[str, Any]:
    """Draw both captions of each pair from one noise, and read the colours.

    Args:
        pipe: A model trained on blossoms, with its text encoder.
        pairs: How many.
        seed: Of wordings and noise.

    Returns:
        `petals` and `centres`: pairs in which that part has the named colour in both images; `both`: in which both have; and
        the protocol. Chance is 1/64, 1/36 and 1/2304.

    Raises:
        ConfigError: fewer than one pair, or a model without a text encoder.
    """
    if pairs < 1:
        raise ConfigError(f"the swap test needs at least 1 pair, got {pairs}")
    probe, _ = load_probe(pipe.device)
    first, second, kinds = zip(*swapped_pairs(pairs, seed), strict=True)
    noise = runtime.noise((pairs, pipe.config.noise_dim), pipe.device, seed, 0, "swap")
    colours = np.array([kind.attributes[:2] for kind in kinds])  # (n, 2)
    exchanged = np.array([BlossomClass(kind.centre, kind.petal, 4, "round").attributes[:2] for kind in kinds])
    right = np.ones((pairs, 2), bool)
    for captions, wanted in ((first, colours), (second, exchanged)):
        blocks = range(0, pairs, BLOCK)
        generated = [pipe.draw(noise[at : at + BLOCK], pipe.embed(captions[at : at + BLOCK])) for at in blocks]
        right &= probe.read(torch.cat(generated))[:, :2].numpy() == wanted
    return {
        "petals": float(right[:, 0].mean()),
        "centres": float(right[:, 1].mean()),
        "both": float(right.all(axis=1).mean()),
        "protocol": {"pairs": pairs, "seed": seed, "colours": sorted(set(PETAL_COLOURS) & set(CENTRE_COLOURS))},
    }
