"""Blossoms: the embedded default data set, flowers rendered procedurally, so that training works offline.

* A *class* is a combination of petal colour, centre colour, petal count and petal shape: what the captions name.
* The *style* is background, position, scale and rotation: what the captions never name. Both are kept as ground truth.
* Some classes are held out of training, among them every class of two (petal colour, centre colour) pairs, so that a
  caption of a held-out class asks for something that no training image showed.

Everything is a pure function of its arguments: how image i is rendered depends on its class and (seed, i) alone.

Source: none; this data set is ours. It stands where the paper has CUB and Oxford-102 (class-disjoint split, ten
captions an image) and adds the ground truth of style, which photographs lack.
"""

import math
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from t2i.blossoms.classes import BACKGROUNDS, CENTRE_COLOURS, PETAL_COLOURS, BlossomClass, BlossomStyle
from t2i.errors import ConfigError

Float = NDArray[np.floating[Any]]  # float32 throughout
PETAL_CONTRAST = 120.0  # least distance in RGB (0..255) between petals and the background's middle


def _length(x: Float, y: Float) -> Float:
    """Length of (x, y); np.hypot guards against overflow that cannot happen here, at four times the cost."""
    return np.sqrt(x * x + y * y)


def _window(axis: Float, low: float, high: float) -> slice:
    """Slice the part of the axis (0..1 over the image) between two places; empty where it lies outside."""
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

    Edges are smoothed by exact signed distances; below 76 pixels the image is rendered at twice the size and averaged.

    Args:
        blossom: what is rendered.
        style: how it stands in the image.
        size: pixels a side, at least 8.
        rng: source of small irregularities (shade, length and angle of each petal, lights behind); None draws none.
    """
    if size < 8:
        raise ConfigError(f"image size must be at least 8 pixels, got {size}")
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
