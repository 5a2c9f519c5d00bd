"""What the demo generates: a grid of images from the values of the page's controls."""

from typing import Any

import numpy as np
import torch
from PIL import Image

from t2i.config.presets import EXAMPLE
from t2i.data.blank import is_blank
from t2i.data.examples import examples_of_run
from t2i.errors import ConfigError
from t2i.images import to_uint8
from t2i.noise import noise_of, slerp, truncated
from t2i.pipeline import Pipeline
from t2i.plots import grids
from t2i.prepare.style_images import read_style_images

MAX_IMAGES = 16  # per grid
MAX_CAPTION_CHARACTERS = 1000  # of a sentence; the encoder reads 201
MAX_STYLE_PIXELS = 25_000_000  # of a style image
EXAMPLES = (  # where a model's data set is not here
    EXAMPLE,
    "a flower with six blue petals and a white centre",
    "a purple flower with a yellow disc",
)


class DemoModel:
    """Generate a grid of images from the values of the page's controls.

    Args:
        pipe: The trained model, with its text encoder.
        side: Pixels at which an image is shown.
    """

    def __init__(self, pipe: Pipeline, side: int = 160) -> None:
        self.pipe, self.side = pipe, side
        self.examples = examples_of_run(pipe.folder, len(EXAMPLES)) or list(EXAMPLES)
        self.has_style = pipe.has_style and pipe.style is not None  # loaded now, so that errors show at the start

    @torch.no_grad()
    def draw(
        self,
        sentence: Any,
        other: Any = "",
        between: Any = 0.0,
        noise: Any = 0.0,
        style: Any = None,
        count: Any = 8,
        seed: Any = 0,
        truncation: Any = None,
    ) -> Image.Image:
        """Generate a grid. The arguments come from the network and are validated here.

        Args:
            sentence: What to generate.
            other: A second sentence, or nothing.
            between: 0 is the first sentence, 1 the second.
            noise: 0 is the noise of the seed, or of the style image; 1 is other noise; between, `slerp`.
            style: The bytes of an image file that gives background and position, or None.
            count: Images, 1 to 16.
            seed: Chooses the noise.
            truncation: Largest magnitude of a number of noise (`truncated`), 0.01 to 10; None leaves the noise as it is.

        Raises:
            ConfigError: a value of another type or out of its range.
            DataError: the style image cannot be read.
        """
        rows = int(_number(count, "the number of images", 1, MAX_IMAGES, whole=True))
        key = int(_number(seed, "the seed", 0, 2**53, whole=True))
        text_weight = _number(between, "the position between the sentences", 0, 1)
        noise_weight = _number(noise, "the noise", 0, 1)
        most = None if truncation is None else _number(truncation, "the truncation", 0.01, 10)
        ends = [_sentence(sentence)]
        if other not in ("", None) and not is_blank(_sentence(other, optional=True)):
            ends.append(other[:MAX_CAPTION_CHARACTERS])
        elif text_weight:
            raise ConfigError("write a second sentence, or move the slider back to the first one")
        weights = [[1 - text_weight, text_weight]] if len(ends) == 2 else [[1.0]]
        shape = (rows, self.pipe.config.noise_dim)
        first, second = (noise_of(key, *shape, self.pipe.device, draw) for draw in (0, 1))
        if most is not None:
            first, second = truncated(first, most), truncated(second, most)
        if style is not None:  # the slider leads from the style's noise to the seed's
            first, second = self.pipe.style_noise(self._style(style)).expand(shape), first
        z = slerp(first, second, torch.tensor([noise_weight], device=self.pipe.device))[:, 0]
        images = to_uint8(self.pipe.draw(z, self.pipe.mix(ends, weights).expand(rows, -1)))
        columns = min(rows, 4)
        full = -(-rows // columns) * columns
        padded = np.full((full, *images.shape[1:]), 255, np.uint8)
        padded[:rows] = images
        cells = padded.reshape(-1, columns, *images.shape[1:])
        return grids.grid(cells, [""] * len(cells), side=self.side, text_width=0)

    def unread(self, *sentences: Any) -> str:
        """Say what the model does not know of sentences that `draw` has taken; empty where it reads all."""
        shown = [sentence[:MAX_CAPTION_CHARACTERS] for sentence in sentences if sentence]
        return "; ".join(warning.removeprefix("warning: ") for warning in self.pipe.unread(shown))

    def _style(self, content: Any) -> torch.Tensor:
        if not self.has_style:
            raise ConfigError("this model has no style encoder; train one: t2i-train style --model RUN")
        if not isinstance(content, bytes):
            raise ConfigError("the style must be the content of an image file")
        return read_style_images([content], self.pipe.config.size, most_pixels=MAX_STYLE_PIXELS)


def _number(value: Any, name: str, least: float, most: float, whole: bool = False) -> float:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not least <= value <= most:
        got = str(value)[:40] if number else "none" if value is None else type(value).__name__
        raise ConfigError(f"{name} must lie in {least}..{most}, got {got}")
    if whole and value != int(value):
        raise ConfigError(f"{name} must be a whole number, got {value}")
    return float(value)


def _sentence(value: Any, optional: bool = False) -> str:
    if not isinstance(value, str) or (is_blank(value) and not optional):
        raise ConfigError(f"write a sentence: what should be in the image? For example: {EXAMPLES[0]}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ConfigError("the sentence holds half a character (a lone surrogate)") from error
    return value[:MAX_CAPTION_CHARACTERS]
