"""Blossoms: the embedded default data set, flowers drawn by the program, so that training works offline.

* A *class* is a combination of petal colour, centre colour, petal count and petal shape: what the captions name.
* The *style* is background, position, scale and rotation: what the captions never name. Both are kept as ground truth.
* Some classes are held out of training, among them every class of two (petal colour, centre colour) pairs, so that a
  caption of a held-out class asks for something that no training picture showed.

Everything is a pure function of its arguments: how picture i is drawn depends on its class and (seed, i) alone.

Source: none; this data set is ours. It stands where the paper has CUB and Oxford-102 (class-disjoint split, ten
captions an image) and adds the ground truth of style, which photographs lack.
"""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final

import numpy as np
from numpy.random import Generator, Philox
from numpy.typing import NDArray

from t2i.errors import ConfigError

VERSION: Final = "v1"  # changes whenever the same seed draws something else, so that caches notice
Colour = tuple[int, int, int]
Float = NDArray[np.floating[Any]]  # float32 throughout

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

# Top and bottom of the picture. Less saturated than the petals, so that the petals always win.
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
PETAL_CONTRAST = 120.0  # least distance in RGB (0..255) between petals and the background's middle
SCALE_RANGE = (0.30, 0.44)  # flower radius as a part of the picture
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


def _generator(seed: int, purpose: Purpose, row: int = 0) -> Generator:
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
        x: centre of the flower from the left, as a part of the picture.
        y: centre of the flower from the top, as a part of the picture.
        scale: radius of the flower, as a part of the picture.
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


@dataclass(frozen=True)
class Blossoms:
    """A drawn data set (or one block of it); row i of every array is one picture."""

    images: NDArray[np.uint8]  # (N, S, S, 3)
    captions: list[list[str]]  # N lists of ten
    classes: NDArray[np.int32]  # (N,) index into class_names
    class_names: list[str]  # every class, whether or not this block has a picture of it
    splits: NDArray[np.uint8]  # (N,) 0 train, 1 test: by class
    attributes: NDArray[np.int32]  # (N, 4) petal colour, centre colour, count, shape
    style: NDArray[np.float32]  # (N, 6) in the order of STYLE_FIELDS


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
    rng = _generator(seed, Purpose.HELD_OUT)
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


def _length(x: Float, y: Float) -> Float:
    """Length of (x, y); np.hypot guards against overflow that cannot happen here, at four times the cost."""
    return np.sqrt(x * x + y * y)


def _window(axis: Float, low: float, high: float) -> slice:
    """Slice the part of the axis (0..1 over the picture) between two places; empty where it lies outside."""
    return slice(max(int(low * len(axis)), 0), max(int(high * len(axis)) + 1, 0))


def _capsule(u: Float, v: Float, start: float, end: float, start_radius: float, end_radius: float) -> Float:
    """Signed distance to the convex hull of two circles on the axis v = 0 (negative inside)."""
    along, across, length = u - start, np.abs(v), end - start
    slope = (start_radius - end_radius) / length
    cosine = math.sqrt(1.0 - slope * slope)
    side = along * cosine - across * slope  # where along the slanted side the nearest point lies
    straight = across * cosine + along * slope - start_radius
    first = _length(along, across) - start_radius
    last = _length(along - length, across) - end_radius
    return np.where(side < 0, first, np.where(side > length * cosine, last, straight))


def _lens(u: Float, v: Float, start: float, end: float, half_width: float) -> Float:
    """Signed distance to a lens with sharp ends at u = start and u = end (negative inside)."""
    half = 0.5 * (end - start)
    along, across = np.abs(u - 0.5 * (start + end)), np.abs(v)
    offset = (half * half - half_width * half_width) / (2.0 * half_width)
    arc = _length(along, across + offset) - (offset + half_width)
    tip = _length(along - half, across)
    return np.where(offset * (along - half) > half * across, tip, arc)


def _petal_half_width(count: int, shape: str) -> float:
    """Half the width of a petal of length 1: round ones just overlap, narrow ones leave gaps."""
    sine = math.sin(math.pi / count)
    if shape == "round":
        return 1.05 * sine / (1.0 + sine)
    if shape == "pointed":
        return {4: 0.33, 5: 0.30, 6: 0.265, 8: 0.215}[count]
    return {4: 0.165, 5: 0.155, 6: 0.140, 8: 0.115}[count]


def _petal_distance(u: Float, v: Float, shape: str, half_width: float, length: float) -> Float:
    """Signed distance to a petal from the flower's middle to u = length."""
    if shape == "round":
        return _capsule(u, v, 0.12, length - half_width, 0.12, half_width)
    if shape == "pointed":
        return _lens(u, v, -0.02, length * 1.08, half_width)  # a tip has little area: a longer petal looks as large
    return _capsule(u, v, 0.10, length - half_width, 0.08, half_width)


def _ramp(values: Float) -> Float:
    """Clamp to 0..1; twice as fast as np.clip on arrays as small as these."""
    return np.minimum(np.maximum(values, np.float32(0.0)), np.float32(1.0))


def _paint(canvas: Float, alpha: Float, colour: Float, tone: Float | float = 1.0, shadow: Float | float = 1.0) -> None:
    """Darken the canvas (3, H, W) by shadow (H, W), then lay colour (3,) times tone (H, W) over it where alpha says."""
    canvas *= shadow * (1.0 - alpha)
    canvas += colour[:, None, None] * (alpha * tone)


def _contrasting(background: Float, petal: Float) -> Float:
    """Darken or lighten the background (3,) away from petals that it would swallow; return the new colour."""
    goal = np.float32(255.0 if petal.mean() < background.mean() else 0.0)
    for step in np.arange(0.0, 0.7, 0.02, dtype=np.float32):
        moved: Float = background + step * (goal - background)
        if np.linalg.norm(moved - petal) >= PETAL_CONTRAST:
            break
    return moved


def _background(style: BlossomStyle, petal: Float, axis: Float, rng: Generator | None) -> Float:
    """Paint gradient, soft lights, stem and leaves: (3, G, G)."""
    top, bottom = (np.asarray(end, np.float32) for end in list(BACKGROUNDS.values())[style.background])
    middle = 0.5 * (top + bottom) + style.warmth * np.array((12.0, 2.0, -12.0), np.float32)
    middle, spread = _contrasting(middle, petal), top - bottom
    canvas: Float = np.empty((3, len(axis), len(axis)), np.float32)
    canvas[:] = (middle[:, None] + spread[:, None] * (0.5 - axis))[:, :, None]
    if rng is not None:
        for x, y, strength in rng.uniform((0.0, 0.0, -0.10), (1.0, 1.0, 0.12), (3, 3)).astype(np.float32):
            light = np.exp(-18.0 * (axis - y) ** 2)[:, None] * np.exp(-18.0 * (axis - x) ** 2)
            canvas *= 1.0 + strength * light
    # Leaves must not vanish: lighter than a dark background, darker than a light one.
    green = np.array((92, 150, 70) if middle.mean() < 90 else (50, 98, 44), np.float32)
    pixels = len(axis)
    lean = np.float32(-math.tan(style.rotation))  # the stem carries on where the flower's axis points
    lower = _window(axis, style.y, 1.0)
    below = axis[lower, None] - np.float32(style.y)
    stem_distance = np.abs(axis - (np.float32(style.x) + lean * below)) - 0.020
    _paint(canvas[:, lower], _ramp(0.5 - stem_distance * pixels), green)
    node = np.float32(1.42 * style.scale)
    for side, length, rise in ((1.0, 0.92, 0.62), (-1.0, 0.80, 0.80)):
        lower = _window(axis, style.y + 0.7 * style.scale, 1.0)
        reach = sorted((float(style.x + lean * node), float(style.x + lean * node + side * 1.1 * style.scale)))
        columns = _window(axis, reach[0] - 0.1, reach[1] + 0.1)
        canvas_below, below = canvas[:, lower, columns], axis[lower, None] - np.float32(style.y)
        across, down = axis[columns] - (np.float32(style.x) + lean * node), below - node
        u = (across * side * math.cos(rise) - down * math.sin(rise)) / np.float32(style.scale)
        v = (across * side * math.sin(rise) + down * math.cos(rise)) / np.float32(style.scale)
        inside = _ramp(0.5 - _lens(u, v, 0.0, length, 0.20) * style.scale * pixels)
        vein = _ramp(0.5 - (np.abs(v) - 0.02) * style.scale * pixels)
        _paint(canvas_below, inside, green * (1.12 if side > 0 else 0.96), 1.0 - 0.2 * vein)
    return canvas


def draw_blossom(
    blossom: BlossomClass, style: BlossomStyle, size: int, rng: Generator | None = None
) -> NDArray[np.uint8]:
    """Draw one flower: (size, size, 3) uint8, RGB.

    Edges are smoothed by exact signed distances; below 76 pixels the picture is drawn at twice the size and averaged.

    Args:
        blossom: what is drawn.
        style: how it stands in the picture.
        size: pixels a side, at least 8.
        rng: source of small irregularities (shade, length and angle of each petal, lights behind); None draws none.
    """
    if size < 8:
        raise ConfigError(f"picture size must be at least 8 pixels, got {size}")
    factor = 2 if size < 76 else 1
    grid = size * factor
    axis = ((np.arange(grid) + 0.5) / grid).astype(np.float32)
    scale = np.float32(style.scale)
    pixels = scale * grid  # a distance of 1 (the flower's radius) in pixels of the grid
    petal = np.asarray(PETAL_COLOURS[blossom.petal], np.float32)
    centre = np.asarray(CENTRE_COLOURS[blossom.centre], np.float32)
    lengths, angles = np.ones(blossom.count), np.zeros(blossom.count)
    shades, radius = np.ones(blossom.count, np.float32), 0.33
    if rng is not None:
        petal = petal * np.float32(rng.uniform(0.93, 1.04)) + rng.uniform(-7, 7, 3).astype(np.float32)
        centre = centre * np.float32(rng.uniform(0.92, 1.06)) + rng.uniform(-5, 5, 3).astype(np.float32)
        lengths, angles = rng.uniform(0.94, 1.02, blossom.count), rng.uniform(-0.05, 0.05, blossom.count)
        shades, radius = rng.uniform(0.95, 1.03, blossom.count).astype(np.float32), float(rng.uniform(0.30, 0.36))
    canvas = _background(style, petal, axis, rng)
    half_width = _petal_half_width(blossom.count, blossom.shape)
    for index in range(blossom.count):
        angle = style.rotation + angles[index] + 2.0 * math.pi * index / blossom.count
        cosine, sine = math.sin(angle), -math.cos(angle)  # the first petal points up, the others follow clockwise
        reach = (half_width + 0.16) * style.scale
        tip_x, tip_y = style.x + 1.08 * cosine * style.scale, style.y + 1.08 * sine * style.scale
        columns = _window(axis, min(style.x, tip_x) - reach, max(style.x, tip_x) + reach)
        rows = _window(axis, min(style.y, tip_y) - reach, max(style.y, tip_y) + reach)
        across = (axis[columns] - np.float32(style.x))[None, :] / scale
        down = (axis[rows] - np.float32(style.y))[:, None] / scale
        u, v = across * cosine + down * sine, down * cosine - across * sine
        distance = _petal_distance(u, v, blossom.shape, half_width, float(lengths[index]))
        shade = shades[index] * (0.78 + 0.28 * _ramp(u) - (0.10 / half_width) * v)
        line = 0.75 * _ramp(1.0 - np.abs(distance + 0.025) / 0.045)
        vein = 0.30 * _ramp(1.0 - np.abs(v) / 0.035) * _ramp(2.4 - 3.0 * u)
        tone = shade + np.maximum(line, vein) * (0.55 - shade)
        shadow = 1.0 - 0.38 * _ramp(1.0 - distance / 0.14) ** 2  # on what lies below
        _paint(canvas[:, rows, columns], _ramp(0.5 - distance * pixels), petal, tone, shadow)
    _paint_centre(canvas, style, axis, centre, radius)
    cells = [canvas[:, y::factor, x::factor] for y in range(factor) for x in range(factor)]
    small = np.add.reduce(cells) / np.float32(factor * factor)
    return np.ascontiguousarray(np.clip(small + 0.5, 0, 255).astype(np.uint8).transpose(1, 2, 0))


def _paint_centre(canvas: Float, style: BlossomStyle, axis: Float, centre: Float, radius: float) -> None:
    """Paint the disc in the flower's middle over the petals: grain, light from the upper left, a darker rim."""
    scale, reach = np.float32(style.scale), (radius + 0.14) * style.scale
    columns = _window(axis, style.x - reach, style.x + reach)
    rows = _window(axis, style.y - reach, style.y + reach)
    across = (axis[columns] - np.float32(style.x))[None, :] / scale
    down = (axis[rows] - np.float32(style.y))[:, None] / scale
    distance = _length(across, down) - np.float32(radius)
    grain = np.sin(across * 34.0 + 9.0 * style.rotation) * np.sin(down * 34.0 + 5.0 * style.warmth)
    light = 1.0 + 0.09 * grain - 0.22 * (across + down)
    light += 0.65 * _ramp(1.0 - np.abs(distance + 0.02) / 0.05) * (0.5 - light)
    shadow = 1.0 - 0.45 * _ramp(1.0 - distance / 0.12) ** 2
    part, alpha = canvas[:, rows, columns], _ramp(0.5 - distance * scale * len(axis))
    _paint(part, alpha, centre, light, shadow)
    part += 16.0 * alpha * _ramp(1.0 - _length(across + 0.10, down + 0.10) / 0.2)  # lets a black centre look round


COUNT_WORDS: Final[dict[int, str]] = {4: "four", 5: "five", 6: "six", 8: "eight"}
SHAPE_WORDS: Final[dict[str, tuple[str, ...]]] = {
    "round": ("round", "rounded", "broad"),
    "pointed": ("pointed", "sharp", "star-like"),
    "narrow": ("narrow", "thin", "slender"),
}
# {a petal} is the petal colour with its article; {middle} is "yellow centre", "yellow heart", ...
FULL_WORDINGS: Final[tuple[str, ...]] = (
    "a flower with {count} {shape} {petal} petals and {a middle}",
    "this flower has {count} {shape} {petal} petals and {a middle}",
    "{count} {shape} {petal} petals around {a middle}",
    "a {petal} flower with {count} {shape} petals and {a middle}",
    "the petals of this flower are {petal} and {shape}, there are {count} of them, and the {place} is {centre}",
    "{a middle} surrounded by {count} {shape} {petal} petals",
    "this {petal} flower has {count} petals that are {shape}, and its {place} is {centre}",
    "a blossom of {count} {shape} petals in {bright}{petal}, with {a middle}",
    "the flower shown has {a middle} and {count} {shape} petals, which are {bright}{petal}",
    "{count} petals, {shape} and {petal}, with {a middle}",
    "a bloom whose {count} {shape} petals are {petal} and whose {place} is {centre}",
    "this is a flower with {a middle}, its {count} {petal} petals are {shape}",
    "{petal} in {colour} with {count} {shape} petals, this flower has {a middle}",
    "the {place} of this flower is {centre}, and its {count} {shape} petals are {petal}",
    "a pretty flower that has {count} {petal} petals of a {shape} shape and {a middle}",
    "a single flower: {count} {shape} {petal} petals, {centre} {place}",
)
SHORT_WORDINGS: Final[tuple[str, ...]] = (
    "a flower with {count} {petal} petals and {a middle}",
    "this flower has {shape} {petal} petals and {a middle}",
    "a {petal} flower with {a middle} and {count} petals",
    "{shape} {petal} petals around {a middle}",
    "this flower is {petal} with {a middle}, and its petals are {shape}",
    "{count} {bright}{petal} petals and {a middle}",
)


def _article(words: str) -> str:
    return f"an {words}" if words[0] in "aeiou" else f"a {words}"


def _caption(blossom: BlossomClass, wording: str, rng: Generator) -> str:
    """Fill one wording; spelling (centre, colour) is British or American throughout a caption."""
    british = bool(rng.integers(2))
    centre_word = "centre" if british else "center"
    places = (centre_word, centre_word, "middle", "heart", "disc" if british else "disk")
    place = places[rng.integers(len(places))]
    words = SHAPE_WORDS[blossom.shape]
    shape = words[rng.integers(len(words))]
    bright = ("", "", "bright ", "bright " if blossom.petal == "white" else "vivid ")[rng.integers(4)]
    filled = wording
    for slot, value in (
        ("a {petal}", _article(blossom.petal)),
        ("a {shape}", _article(shape)),
        ("{a middle}", _article(f"{blossom.centre} {place}")),
        ("{count}", COUNT_WORDS[blossom.count] if rng.random() < 0.7 else str(blossom.count)),
        ("{shape}", shape),
        ("{bright}", bright),
        ("{petal}", blossom.petal),
        ("{place}", place),
        ("{centre}", blossom.centre),
        ("{colour}", "colour" if british else "color"),
    ):
        filled = filled.replace(slot, value)
    return filled


def captions_for(blossom: BlossomClass, rng: Generator, count: int = 10) -> list[str]:
    """Word a class `count` times, differently; one in five leaves out count or shape, none leaves out a colour.

    >>> captions_for(BlossomClass("red", "yellow", 5, "round"), np.random.default_rng(0), count=1)
    ['...']
    """
    short = count // 5
    full = _wordings(FULL_WORDINGS, count - short, rng)
    wordings = [*full, *_wordings(SHORT_WORDINGS, short, rng)]
    return [_caption(blossom, wordings[index], rng) for index in rng.permutation(count)]


def _wordings(choices: tuple[str, ...], count: int, rng: Generator) -> list[str]:
    """Draw wordings without repeating one before all were used."""
    rounds = -(-count // len(choices))
    order = [int(index) for _ in range(rounds) for index in rng.permutation(len(choices))]
    return [choices[index] for index in order[:count]]


def held_out_captions(
    count: int, seed: int, split_seed: int = 0, *, seen: bool = False
) -> list[tuple[str, tuple[int, int, int, int]]]:
    """Word held-out classes anew for evaluation, evenly over the classes; every caption names all four attributes.

    Args:
        count: how many captions.
        seed: of the wordings and the order of classes.
        split_seed: of `held_out_classes`; the same as the training set's, or seen classes slip in.
        seen: word the classes of training instead, to compare with.

    Returns:
        Caption and attributes (petal colour, centre colour, count, shape) of each.
    """
    held = held_out_classes(split_seed)
    if seen:
        held = tuple(kind for kind in blossom_classes() if kind not in held)
    rng = _generator(seed, Purpose.EVALUATION)
    order = [held[index] for _ in range(-(-count // len(held))) for index in rng.permutation(len(held))]
    wordings = _wordings(FULL_WORDINGS, count, rng)
    return [(_caption(kind, wording, rng), kind.attributes) for kind, wording in zip(order, wordings, strict=False)]


def blossom_blocks(images: int, size: int, seed: int, *, split_seed: int = 0, block: int = 512) -> Iterator[Blossoms]:
    """Draw a data set block by block, so that memory and progress do not depend on its size.

    Classes are balanced to within one picture; the blocks together equal `make_blossoms` for any block length.
    """
    if images < 1:
        raise ConfigError(f"a data set needs at least one picture, got {images}")
    kinds = blossom_classes()
    held = set(held_out_classes(split_seed))
    rng = _generator(seed, Purpose.ORDER)
    rounds = [rng.permutation(len(kinds)) for _ in range(-(-images // len(kinds)))]
    classes = np.concatenate(rounds)[:images].astype(np.int32)
    for start in range(0, images, block):
        rows = range(start, min(start + block, images))
        chosen = [kinds[classes[row]] for row in rows]
        styles = [draw_style(_generator(seed, Purpose.STYLE, row)) for row in rows]
        pictures = np.empty((len(rows), size, size, 3), np.uint8)
        for picture, kind, style, row in zip(pictures, chosen, styles, rows, strict=True):
            picture[:] = draw_blossom(kind, style, size, _generator(seed, Purpose.DRAWING, row))
        yield Blossoms(
            images=pictures,
            captions=[
                captions_for(kind, _generator(seed, Purpose.CAPTIONS, row))
                for kind, row in zip(chosen, rows, strict=True)
            ],
            classes=classes[start : rows.stop],
            class_names=[kind.name for kind in kinds],
            splits=np.array([kind in held for kind in chosen], np.uint8),
            attributes=np.array([kind.attributes for kind in chosen], np.int32),
            style=np.array([style.row() for style in styles], np.float32),
        )


def make_blossoms(images: int, size: int, seed: int, *, split_seed: int = 0) -> Blossoms:
    """Draw a whole data set in memory.

    Args:
        images: how many pictures; 540 classes share them evenly.
        size: pixels a side; the training crop is taken from it (38 for a crop of 32, 76 for 64).
        seed: of order, styles, irregularities and wordings.
        split_seed: of the held-out classes. Apart from `seed`, so that runs with several seeds are tested on one split.
    """
    blocks = list(blossom_blocks(images, size, seed, split_seed=split_seed))
    return Blossoms(
        images=np.concatenate([block.images for block in blocks]),
        captions=[captions for block in blocks for captions in block.captions],
        classes=np.concatenate([block.classes for block in blocks]),
        class_names=blocks[0].class_names,
        splits=np.concatenate([block.splits for block in blocks]),
        attributes=np.concatenate([block.attributes for block in blocks]),
        style=np.concatenate([block.style for block in blocks]),
    )
