"""The curves of a run: metrics.jsonl as one picture, with Pillow alone."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from t2i.errors import CheckpointError
from t2i.plots.roc import COLOURS, SMOOTHING

Curve = list[tuple[float, float]]  # (step, value), in order of steps
WIDTH, HEIGHT = 460, 210  # pixels of a panel's axes
LEFT, TOP, RIGHT, BOTTOM = 62, 44, 18, 34  # around them
WINDOW = 15  # neighbours that the strong line is a mean of, of hundreds of points


# A panel: its title, and the metrics it shows under the names it shows them by.
PANELS: Sequence[tuple[str, str, Mapping[str, str]]] = (
    ("gan", "losses", {"d_loss": "discriminator", "g_loss": "generator", "alignment": "alignment", "recovery": "recovery"}),
    ("gan", "scores of the discriminator", {"matching": "matching", "mismatched": "mismatched", "fake": "fake"}),
    ("gan", "images a second", {"images_per_second": "images/s"}),
    ("gan", "skipped updates", {"skipped": "skipped"}),
    ("text", "text encoder", {"loss": "loss", "top1": "top-1"}),
    ("style", "style encoder", {"loss": "loss", "cosine": "cosine"}),
    ("eval", "FID", {"fid_768": "FID-768", "fid": "FID"}),
    ("eval", "R-precision", {"r_precision": "R-precision"}),
)  # fmt: skip


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """Read the lines of a run's metrics.jsonl; a line that a kill cut short is left out.

    Raises:
        CheckpointError: there is no such file, or nothing in it.
    """
    path = folder / "metrics.jsonl"
    records = []
    try:
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                record = json.loads(line)
            except ValueError:
                continue
            if isinstance(record, dict) and "phase" in record and isinstance(record.get("step"), int):
                records.append(record)
    except OSError as error:
        raise CheckpointError(f"{folder} has no metrics.jsonl to draw curves of; t2i-train writes one") from error
    if not records:
        raise CheckpointError(f"{path} holds no metrics yet")
    return records


def curves_of(records: Sequence[Mapping[str, Any]], phase: str, name: str) -> Curve:
    """Pick one metric out, by step; what a resumed run made again counts once, the later line."""
    points = {}
    for record in records:
        value = record.get(name)
        if record["phase"] == phase and isinstance(value, (int, float)) and math.isfinite(value):
            points[float(record["step"])] = float(value)
    return sorted(points.items())


def smoothed(curve: Curve, window: int = WINDOW) -> Curve:
    """Average each point with its neighbours, `window` of them together and fewer at the ends."""
    half = min(window, max(1, len(curve) // 4)) // 2
    values = [value for _, value in curve]
    out = []
    for place, (step, _) in enumerate(curve):
        near = min(half, place, len(curve) - 1 - place)  # the same number on both sides: no shift at the ends
        part = values[place - near : place + near + 1]
        out.append((step, sum(part) / len(part)))
    return out


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Choose round numbers from `low` to `high`: steps of 1, 2 or 5 times a power of ten, at most `count` + 1 of them."""
    if not high > low:
        return [low]
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [round(number * step, 12) for number in range(first, math.floor(high / step + 1e-9) + 1)]


def curves_picture(records: Sequence[Mapping[str, Any]], title: str) -> Image.Image:
    """Draw a panel for everything that was measured, two beside each other."""
    panels = []
    for phase, name, metrics in PANELS:
        curves = {shown: curve for key, shown in metrics.items() if (curve := curves_of(records, phase, key))}
        if curves:
            panels.append((name, curves))
    across, down = LEFT + WIDTH + RIGHT, TOP + HEIGHT + BOTTOM
    rows = (len(panels) + 1) // 2
    scale = SMOOTHING
    sheet = Image.new("RGB", (min(2, len(panels)) * across * scale, (30 + rows * down) * scale), "white")
    draw = ImageDraw.Draw(sheet)
    draw.text(
        (LEFT * scale, 18 * scale), title, fill="black", font=ImageFont.load_default(size=16 * scale), anchor="lm"
    )
    for number, (name, curves) in enumerate(panels):
        row, column = divmod(number, 2)
        _panel(draw, column * across + LEFT, 30 + row * down + TOP, name, curves)
    return sheet.resize((sheet.width // scale, sheet.height // scale), Image.Resampling.LANCZOS)


def _panel(draw: ImageDraw.ImageDraw, left: int, top: int, title: str, curves: Mapping[str, Curve]) -> None:
    """Draw one panel with its axes' corner at (left, top), in pixels of the finished picture."""
    scale, font = SMOOTHING, ImageFont.load_default(size=11 * SMOOTHING)
    steps = [step for curve in curves.values() for step, _ in curve]
    values = [value for curve in curves.values() for _, value in curve]
    first, last, low, high = min(steps), max(steps), min(0.0, *values), max(values)
    if first == last:  # measured once: from the start of the run to there
        first, last = 0, max(last, 1)
    high = high if high > low else low + 1

    def place(step: float, value: float) -> tuple[float, float]:
        x, y = (step - first) / (last - first), (value - low) / (high - low)
        return (left + x * WIDTH) * scale, (top + (1 - y) * HEIGHT) * scale

    for tick in ticks(low, high):
        draw.line([place(first, tick), place(last, tick)], fill="#e5e7e9", width=scale)
        draw.text(
            (place(first, tick)[0] - 6 * scale, place(first, tick)[1]),
            f"{tick:g}",
            fill="black",
            font=font,
            anchor="rm",
        )
    for tick in ticks(first, last):
        draw.line([place(tick, low), place(tick, high)], fill="#f0f1f2", width=scale)
        draw.text(
            (place(tick, low)[0], place(tick, low)[1] + 6 * scale), f"{tick:g}", fill="black", font=font, anchor="mt"
        )
    draw.text(
        (left * scale, (top - 30) * scale),
        title,
        fill="black",
        font=ImageFont.load_default(size=13 * scale),
        anchor="lm",
    )
    for number, (name, curve) in enumerate(curves.items()):
        colour = COLOURS[number % len(COLOURS)]
        if len(curve) == 1:
            x, y = place(*curve[0])
            draw.ellipse([x - 3 * scale, y - 3 * scale, x + 3 * scale, y + 3 * scale], fill=colour)
        else:
            draw.line([place(*point) for point in curve], fill=_pale(colour), width=scale, joint="curve")
            draw.line([place(*point) for point in smoothed(curve)], fill=colour, width=2 * scale, joint="curve")
        x, y = (left + number * 112) * scale, (top - 12) * scale
        draw.line([(x, y), (x + 16 * scale, y)], fill=colour, width=3 * scale)
        draw.text((x + 21 * scale, y), name, fill="black", font=font, anchor="lm")


def _pale(colour: str) -> tuple[int, int, int]:
    """Mix a colour with three parts of white."""
    red, green, blue = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
    return (red + 3 * 255) // 4, (green + 3 * 255) // 4, (blue + 3 * 255) // 4
