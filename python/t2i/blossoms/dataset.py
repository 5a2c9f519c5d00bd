"""The embedded data set as arrays, block by block."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from t2i.blossoms.captions import captions_for
from t2i.blossoms.classes import Purpose, blossom_classes, class_generator, draw_style, held_out_classes
from t2i.blossoms.drawing import draw_blossom
from t2i.blossoms.languages import CaptionLanguage
from t2i.errors import ConfigError


@dataclass(frozen=True)
class Blossoms:
    """A synthetic data set, or one block of it; row i of every array is one image."""

    images: NDArray[np.uint8]  # (N, S, S, 3)
    captions: list[list[str]]  # N lists of ten
    classes: NDArray[np.int32]  # (N,) index into class_names
    class_names: list[str]  # every class, whether or not this block has an image of it
    splits: NDArray[np.uint8]  # (N,) 0 train, 1 test: by class
    attributes: NDArray[np.int32]  # (N, 4) petal colour, centre colour, count, shape
    style: NDArray[np.float32]  # (N, 6) in the order of STYLE_FIELDS


def blossom_blocks(
    images: int, size: int, seed: int, *, split_seed: int = 0, block: int = 512, language: CaptionLanguage = "en"
) -> Iterator[Blossoms]:
    """Draw a data set block by block, so that memory and progress do not depend on its size.

    Classes are balanced to within one image; the blocks together equal `make_blossoms` for any block length.
    """
    if images < 1:
        raise ConfigError(f"a data set needs at least one image, got {images}")
    kinds = blossom_classes()
    held = set(held_out_classes(split_seed))
    rng = class_generator(seed, Purpose.ORDER)
    rounds = [rng.permutation(len(kinds)) for _ in range(-(-images // len(kinds)))]
    classes = np.concatenate(rounds)[:images].astype(np.int32)
    for start in range(0, images, block):
        rows = range(start, min(start + block, images))
        chosen = [kinds[classes[row]] for row in rows]
        styles = [draw_style(class_generator(seed, Purpose.STYLE, row)) for row in rows]
        rendered = np.empty((len(rows), size, size, 3), np.uint8)
        for image, kind, style, row in zip(rendered, chosen, styles, rows, strict=True):
            image[:] = draw_blossom(kind, style, size, class_generator(seed, Purpose.DRAWING, row))
        yield Blossoms(
            images=rendered,
            captions=[
                captions_for(kind, class_generator(seed, Purpose.CAPTIONS, row), language=language)
                for kind, row in zip(chosen, rows, strict=True)
            ],
            classes=classes[start : rows.stop],
            class_names=[kind.name for kind in kinds],
            splits=np.array([kind in held for kind in chosen], np.uint8),
            attributes=np.array([kind.attributes for kind in chosen], np.int32),
            style=np.array([style.row() for style in styles], np.float32),
        )


def make_blossoms(
    images: int, size: int, seed: int, *, split_seed: int = 0, language: CaptionLanguage = "en"
) -> Blossoms:
    """Draw a whole data set in memory.

    Args:
        images: number of images; 540 classes share them evenly.
        size: pixels a side; the training crop is taken from it (38 for a crop of 32, 76 for 64).
        seed: of order, styles, irregularities and wordings.
        split_seed: of the held-out classes. Apart from `seed`, so that runs with several seeds are tested on one split.
        language: of the captions; "all" mixes the five languages.
    """
    blocks = list(blossom_blocks(images, size, seed, split_seed=split_seed, language=language))
    return Blossoms(
        images=np.concatenate([block.images for block in blocks]),
        captions=[captions for block in blocks for captions in block.captions],
        classes=np.concatenate([block.classes for block in blocks]),
        class_names=blocks[0].class_names,
        splits=np.concatenate([block.splits for block in blocks]),
        attributes=np.concatenate([block.attributes for block in blocks]),
        style=np.concatenate([block.style for block in blocks]),
    )
