"""The classes of the embedded data set and the random style of an image: colours, counts, shapes, backgrounds."""

import itertools
import math
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from numpy.random import Generator, Philox

from t2i.errors import ConfigError

VERSION: Final = "v1"  # changes whenever the same seed gives other data, so that caches notice
Colour = tuple[int, int, int]
PETAL_COLOURS: Final[dict[str, Colour]] = {
    "red": (216, 26, 34),
    "orange": (248, 132, 16),
    "yellow": (252, 220, 30),
    "white": (246, 246, 242),
    "pink": (250, 146, 190),
    "purple": (132, 46, 178),
    "blue": (36, 84, 222),
    "turquoise": (36, 204, 194),
}
CENTRE_COLOURS: Final[dict[str, Colour]] = {
    "yellow": (250, 208, 36),
    "white": (250, 249, 244),
    "brown": (128, 74, 32),
    "black": (22, 20, 24),
    "green": (74, 158, 46),
    "red": (206, 24, 36),
}
PETAL_COUNTS: Final[tuple[int, ...]] = (4, 5, 6, 8)
PETAL_SHAPES: Final[tuple[str, ...]] = ("round", "pointed", "narrow")


# Top and bottom of the image. Less saturated than the petals, so that the petals always win.
BACKGROUNDS: Final[dict[str, tuple[Colour, Colour]]] = {
    "leaf green": ((136, 172, 98), (88, 130, 62)),
    "dark green": ((36, 72, 46), (18, 42, 28)),
    "sky": ((150, 176, 198), (194, 208, 214)),
    "sand": ((222, 202, 162), (192, 164, 120)),
    "night": ((26, 30, 62), (12, 12, 30)),
    "pale grey": ((220, 220, 218), (184, 184, 186)),
    "lilac": ((194, 178, 212), (158, 140, 184)),
    "soil": ((106, 78, 56), (70, 50, 36)),
}
SCALE_RANGE = (0.30, 0.44)  # flower radius as a fraction of the image
STYLE_FIELDS: Final[tuple[str, ...]] = ("background", "x", "y", "scale", "rotation", "warmth")


# Whole (petal, centre) pairs that training never sees together. Each of these colours has one role only: a pair like red and
# yellow, which are petals and centres both, is far harder to tell from its mirror image, and people ask for it first.
HELD_OUT_PAIRS: Final = (("blue", "brown"), ("pink", "green"))


class Purpose(IntEnum):
    """The last word of the generator's counter: one stream of draws for each purpose and row."""

    HELD_OUT = 0
    ORDER = 1
    STYLE = 2
    DRAWING = 3
    CAPTIONS = 4
    EVALUATION = 5


def class_generator(seed: int, purpose: Purpose, row: int = 0) -> Generator:
    """Open the stream of (seed, purpose, row); streams never meet, because each owns 2^128 values of the counter."""
    if not 0 <= seed < 2**64:
        raise ConfigError(f"seed must be in 0..2^64 - 1, got {seed}")
    return Generator(Philox(key=seed, counter=[0, 0, row, int(purpose)]))


@dataclass(frozen=True)
class BlossomClass:
    """One kind of flower: what a caption can name."""

    petal: str
    centre: str
    count: int
    shape: str

    @property
    def name(self) -> str:
        """Such as `red-yellow-5-round`: petal colour, centre colour, count, shape."""
        return f"{self.petal}-{self.centre}-{self.count}-{self.shape}"

    @property
    def attributes(self) -> tuple[int, int, int, int]:
        """Index into PETAL_COLOURS, CENTRE_COLOURS, PETAL_COUNTS and PETAL_SHAPES."""
        return (
            list(PETAL_COLOURS).index(self.petal),
            list(CENTRE_COLOURS).index(self.centre),
            PETAL_COUNTS.index(self.count),
            PETAL_SHAPES.index(self.shape),
        )


@dataclass(frozen=True)
class BlossomStyle:
    """What a caption never names: background, place, size and tilt of one flower.

    Args:
        background: index into BACKGROUNDS.
        x: centre of the flower from the left, as a fraction of the image.
        y: centre of the flower from the top, as a fraction of the image.
        scale: radius of the flower, as a fraction of the image.
        rotation: radians, clockwise. Within half an eighth of a turn, so that no count of petals makes it ambiguous.
        warmth: -1 (cooler) to 1 (warmer): a shift of the background's hue.
    """

    background: int
    x: float
    y: float
    scale: float
    rotation: float
    warmth: float

    def row(self) -> tuple[float, ...]:
        """Return the six numbers in the order of STYLE_FIELDS, as the pack keeps them."""
        return (float(self.background), self.x, self.y, self.scale, self.rotation, self.warmth)


def blossom_classes() -> tuple[BlossomClass, ...]:
    """List every class: all combinations but those whose centre has the petals' colour (540).

    >>> len(blossom_classes()), blossom_classes()[0].name
    (540, 'red-yellow-4-round')
    """
    combinations = itertools.product(PETAL_COLOURS, CENTRE_COLOURS, PETAL_COUNTS, PETAL_SHAPES)
    return tuple(BlossomClass(*values) for values in combinations if values[0] != values[1])


def held_out_classes(seed: int = 0) -> tuple[BlossomClass, ...]:
    """Choose the classes that training never sees: 108 of 540, a fifth.

    The whole (petal colour, centre colour) pairs of HELD_OUT_PAIRS, so that also the composition of colours is zero-shot; and
    two (count, shape) cells of nearly every other pair, spread evenly over the cells. Every single value stays frequent in
    training. `seed` chooses the cells.
    """
    rng = class_generator(seed, Purpose.HELD_OUT)
    classes = blossom_classes()
    pairs = list(dict.fromkeys((blossom.petal, blossom.centre) for blossom in classes))
    cells = list(itertools.product(PETAL_COUNTS, PETAL_SHAPES))
    held = {(*pair, *cell) for pair in HELD_OUT_PAIRS for cell in cells}
    rest = [pair for pair in pairs if pair not in HELD_OUT_PAIRS]
    extra = len(classes) // 5 - len(held)
    used = dict.fromkeys(cells, 0)
    for turn in range(extra):
        if turn % len(rest) == 0:
            order = rng.permutation(len(rest))
        pair = rest[order[turn % len(rest)]]
        free = [cell for cell in cells if (*pair, *cell) not in held]
        least = min(used[cell] for cell in free)
        choices = [cell for cell in free if used[cell] == least]
        cell = choices[rng.integers(len(choices))]
        used[cell] += 1
        held.add((*pair, *cell))
    return tuple(kind for kind in classes if (kind.petal, kind.centre, kind.count, kind.shape) in held)


def unseen_pairs(seed: int = 0) -> frozenset[tuple[int, int]]:
    """List the (petal colour, centre colour) pairs, as indices, that no training class has: every one is zero-shot."""
    held = held_out_classes(seed)
    trained = {blossom.attributes[:2] for blossom in blossom_classes() if blossom not in held}
    return frozenset(blossom.attributes[:2] for blossom in held) - trained


def draw_style(rng: Generator) -> BlossomStyle:
    """Draw a style, independent of the class; a larger flower stays nearer the middle, so that a crop keeps it."""
    background = int(rng.integers(len(BACKGROUNDS)))
    scale = float(rng.uniform(*SCALE_RANGE))
    reach = 0.14 - 0.8 * (scale - SCALE_RANGE[0])
    x, y = (float(0.5 + value) for value in rng.uniform(-reach, reach, 2))
    rotation = float(rng.uniform(-math.pi / 8, math.pi / 8))
    return BlossomStyle(background, x, y, scale, rotation, float(rng.uniform(-1.0, 1.0)))
