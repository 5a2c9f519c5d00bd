"""Matplotlib figures without pyplot: no window, no global state, safe from any thread."""

from typing import Any

from PIL import Image

from t2i.extras import require

COLOURS = ("#c0392b", "#2471a3", "#1e8449", "#b7950b", "#7d3c98", "#616a6b")
DPI = 100


def require_matplotlib(what: str) -> Any:
    """Import matplotlib.figure and the Agg canvas; ConfigError, naming `what` and the extra, where they are missing."""
    require("matplotlib.backends.backend_agg", what, "plot")
    return require("matplotlib.figure", what, "plot")


def new_figure(width: int, height: int, what: str) -> Any:
    """Create an empty figure of `width` x `height` pixels; `what` needs it, for the message where matplotlib is missing."""
    module = require_matplotlib(what)
    return module.Figure(figsize=(width / DPI, height / DPI), dpi=DPI, layout="constrained", facecolor="white")


def to_image(figure: Any) -> Image.Image:
    """Render a figure as an RGB image."""
    canvas = require("matplotlib.backends.backend_agg", "a plot", "plot").FigureCanvasAgg(figure)
    canvas.draw()
    return Image.frombytes("RGBA", canvas.get_width_height(), bytes(canvas.buffer_rgba())).convert("RGB")
