"""Image files that a user names, as network inputs."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from t2i import _native
from t2i.config.sizes import MAX_PIXELS
from t2i.errors import ConfigError, DataError
from t2i.files import check_file, is_file
from t2i.images import normalise
from t2i.prepare.images import load_images
from t2i.prepare.items import Item


def read_style_images(
    pictures: Sequence[Image.Image | str | Path | bytes], size: int, most_pixels: int = MAX_PIXELS
) -> Tensor:
    """Read images, scale them to (n, 3, size, size) in [-1, 1], the longer side cut off.

    A file may be given by its path or by its bytes. Files of more than `most_pixels` are refused before they are decoded.

    Raises:
        ConfigError: none given, or something else than an image.
        DataError: a file is missing or is no image; the message names it.
    """
    if not pictures:
        raise ConfigError("style transfer needs at least one image")
    out = np.zeros((len(pictures), size, size, 3), np.uint8)
    for row, picture in enumerate(pictures):
        if isinstance(picture, Image.Image):
            _native.resize(np.ascontiguousarray(picture.convert("RGB")), out[row], "crop")
            continue
        if isinstance(picture, bytes):
            item = Item(Path("the style image"), (), read=partial(_cut, picture))
        elif isinstance(picture, (str, Path)):
            item = Item(Path(picture), ())
            if not is_file(item.path, DataError):
                raise DataError(f"no such image: {item.path}")
            check_file(item.path, error=DataError)
        else:
            raise ConfigError(f"a style image must be a path or an image of Pillow, got {type(picture).__name__}")
        loaded, reasons = load_images([item], size, "crop", most_pixels)
        if reasons[0] is not None:
            raise DataError(f"{item.path} is not an image that can be read ({reasons[0]})")
        out[row] = loaded[0]
    return normalise(torch.from_numpy(out))


def _cut(content: bytes, most: int) -> bytes:
    return content[:most]
