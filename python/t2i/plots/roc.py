"""ROC curves as an image."""

from collections.abc import Mapping

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from t2i.metrics.roc import Roc

COLOURS = ("#c0392b", "#2471a3", "#1e8449", "#b7950b", "#7d3c98", "#616a6b")
SMOOTHING = 3  # the picture is drawn this many times larger and reduced: Pillow's lines have hard edges


def roc_picture(curves: Mapping[str, Roc], side: int = 420) -> Image.Image:
    """Draw curves by name, the areas in the legend, the diagonal of chance dotted."""
    scale, margin = SMOOTHING, 46
    sheet = Image.new("RGB", ((side + 2 * margin) * scale, (side + 2 * margin) * scale), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=13 * scale)

    def place(x: float, y: float) -> tuple[float, float]:
        return (margin + x * side) * scale, (margin + (1 - y) * side) * scale

    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        draw.line([place(tick, 0), place(tick, 1)], fill="#e5e7e9", width=scale)
        draw.line([place(0, tick), place(1, tick)], fill="#e5e7e9", width=scale)
        across, up = place(tick, 0), place(0, tick)
        draw.text((across[0], across[1] + 6 * scale), f"{tick:g}", fill="black", font=font, anchor="mt")
        draw.text((up[0] - 6 * scale, up[1]), f"{tick:g}", fill="black", font=font, anchor="rm")
    for dot in np.arange(0, 1, 0.02):
        draw.line([place(dot, dot), place(dot + 0.01, dot + 0.01)], fill="#909497", width=scale)
    for number, (name, curve) in enumerate(curves.items()):
        colour = COLOURS[number % len(COLOURS)]
        points = [place(x, y) for x, y in zip(curve.false_positive, curve.true_positive, strict=True)]
        draw.line(points, fill=colour, width=2 * scale, joint="curve")
        left, top = place(0.40, 0.06 + 0.055 * (len(curves) - 1 - number))
        draw.line([(left, top), (left + 22 * scale, top)], fill=colour, width=3 * scale)
        legend = f"{name}: area {curve.area:.3f}"
        draw.text((left + 28 * scale, top), legend, fill="black", font=font, anchor="lm")
    middle = place(0.5, 0)
    label = "different pairs accepted"
    draw.text((middle[0], middle[1] + 26 * scale), label, fill="black", font=font, anchor="mt")
    title = place(0, 1)
    draw.text((title[0], title[1] - 12 * scale), "same pairs accepted", fill="black", font=font, anchor="lb")
    return sheet.resize((side + 2 * margin, side + 2 * margin), Image.Resampling.LANCZOS)
