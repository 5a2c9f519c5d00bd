"""ROC curves as an image."""

from collections.abc import Mapping
from typing import Any

from PIL import Image

from t2i.metrics.roc import Roc
from t2i.plots.canvas import COLOURS, new_figure, to_image


def roc_figure(curves: Mapping[str, Roc], side: int = 512) -> Any:
    """Plot curves by name, the areas in the legend, the diagonal of chance dotted: a matplotlib figure of `side` pixels."""
    figure = new_figure(side, side, "the plot of ROC curves")
    axes = figure.add_subplot(aspect="equal", xlim=(0, 1), ylim=(0, 1))
    axes.set_xlabel("false positive rate")
    axes.set_ylabel("true positive rate")
    axes.grid(color="#e5e7e9")
    axes.plot([0, 1], [0, 1], linestyle=":", color="#909497")
    for number, (name, curve) in enumerate(curves.items()):
        axes.plot(
            curve.false_positive,
            curve.true_positive,
            color=COLOURS[number % len(COLOURS)],
            linewidth=2,
            label=f"{name}: area {curve.area:.3f}",
            clip_on=False,
        )
    if curves:
        axes.legend(loc="lower right", fontsize="small")
    return figure


def roc_picture(curves: Mapping[str, Roc], side: int = 512) -> Image.Image:
    """Render `roc_figure` as an image."""
    return to_image(roc_figure(curves, side))
