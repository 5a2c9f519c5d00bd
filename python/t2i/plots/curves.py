"""The curves of a run: metrics.jsonl as one image."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from t2i.errors import CheckpointError
from t2i.files import read_file
from t2i.plots.canvas import COLOURS, new_figure, to_image

Curve = list[tuple[float, float]]  # (step, value), in order of steps
WIDTH, HEIGHT = 540, 290  # pixels of a panel
MAX_VALUE = 1e30  # of a metric: larger ones are no measurement
MAX_METRICS_BYTES = 256 << 20
WINDOW = 15  # points that the smoothed line averages over, of hundreds of points


# A panel: the phase of the records, its title, and its metrics with their labels.
PANELS: Sequence[tuple[str, str, Mapping[str, str]]] = (
    (
        "gan",
        "losses",
        {
            "d_loss": "discriminator",
            "g_loss": "generator",
            "feature_loss": "discriminator, features",
            "feature_g_loss": "generator, features",
            "alignment": "alignment",
            "recovery": "recovery",
        },
    ),
    ("gan", "scores of the discriminator", {"matching": "matching", "mismatched": "mismatched", "fake": "fake"}),
    ("gan", "images a second", {"images_per_second": "images/s"}),
    ("gan", "skipped updates", {"skipped": "skipped"}),
    ("text", "text encoder", {"loss": "loss", "top1": "top-1"}),
    ("style", "style encoder", {"loss": "loss", "cosine": "cosine"}),
    (
        "evaluation",
        "KID x 1000 while training",
        {"kid": "features", "kid_real": "real", "kid_pixels": "pixels", "kid_pixels_real": "real, pixels"},
    ),
    ("evaluation", "R-precision while training", {"r_precision": "generated", "r_precision_real": "real"}),
    (
        "evaluation",
        "one caption, and copies",
        {"diversity": "diversity", "diversity_real": "real", "copies": "copies", "copies_real": "real, copies"},
    ),
    ("eval", "FID", {"fid_768": "FID-768", "fid": "FID"}),
    ("eval", "KID", {"kid_768": "KID-768", "kid_pixels": "pixels", "kid": "KID"}),
    ("eval", "fidelity and diversity", {"precision": "precision", "recall": "recall", "coverage": "coverage"}),
    ("eval", "R-precision", {"r_precision": "R-precision"}),
    ("eval", "copies", {"copies": "copies"}),
)


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """Read the lines of a run's metrics.jsonl; a line cut short by a kill is left out.

    Raises:
        CheckpointError: there is no such file, or nothing in it.
    """
    path = folder / "metrics.jsonl"
    records = []
    try:
        for line in read_file(path, MAX_METRICS_BYTES).decode("utf-8", "replace").splitlines():
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(record, dict) and isinstance(record.get("phase"), str) and _is_step(record.get("step")):
                records.append(record)
    except OSError as error:
        raise CheckpointError(f"{folder} has no metrics.jsonl to plot; t2i-train writes one") from error
    if not records:
        raise CheckpointError(f"{path} holds no metrics yet")
    return records


def _is_step(value: object) -> bool:
    return isinstance(value, int) and 0 <= value < MAX_VALUE


def curves_of(records: Sequence[Mapping[str, Any]], phase: str, name: str) -> Curve:
    """Select one metric, by step; where a resumed run repeated a step, the later line counts."""
    points = {}
    for record in records:
        value = record.get(name)
        if record["phase"] == phase and isinstance(value, (int, float)) and abs(value) < MAX_VALUE:
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


def curves_figure(records: Sequence[Mapping[str, Any]], title: str) -> Any:
    """Plot a panel for everything that was measured, two beside each other: a matplotlib figure."""
    panels = []
    for phase, name, metrics in PANELS:
        curves = {shown: curve for key, shown in metrics.items() if (curve := curves_of(records, phase, key))}
        if curves:
            panels.append((name, curves))
    rows, columns = max(1, (len(panels) + 1) // 2), max(1, min(2, len(panels)))
    figure = new_figure(columns * WIDTH, rows * HEIGHT + 30, "the plot of curves")
    figure.suptitle(title)
    for number, (name, curves) in enumerate(panels):
        _panel(figure.add_subplot(rows, columns, number + 1), name, curves)
    return figure


def curves_picture(records: Sequence[Mapping[str, Any]], title: str) -> Image.Image:
    """Render `curves_figure` as an image."""
    return to_image(curves_figure(records, title))


def _panel(axes: Any, title: str, curves: Mapping[str, Curve]) -> None:
    """Plot curves by name: each value pale, the running mean strong; a single value as a point."""
    axes.set_title(title, fontsize="medium")
    axes.grid(color="#e5e7e9")
    for number, (name, curve) in enumerate(curves.items()):
        colour = COLOURS[number % len(COLOURS)]
        if len(curve) == 1:
            axes.plot(*curve[0], marker="o", color=colour, label=name)
        else:
            axes.plot(*zip(*curve, strict=True), color=colour, alpha=0.25, linewidth=1)
            axes.plot(*zip(*smoothed(curve), strict=True), color=colour, linewidth=2, label=name)
    if all(value >= 0 for curve in curves.values() for _, value in curve):
        axes.set_ylim(bottom=0)
    axes.legend(loc="best", fontsize="small")
