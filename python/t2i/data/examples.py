"""Captions to try first: some of a data set's own, which a model of it can read."""

import textwrap
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from t2i.errors import ConfigError, DataError

if TYPE_CHECKING:  # a command that only helps need not import numpy
    from t2i.data.dataset import PackedDataset

MOST_CHARACTERS = 80  # of an example
IMAGES = 100  # whose first captions are looked at


def examples(captions: Sequence[str], most: int) -> list[str]:
    """Choose at most `most` distinct captions that say something: the first short ones, then how long ones begin."""
    telling = [caption for caption in captions if _says_something(caption)]
    short_first = sorted(telling, key=lambda caption: len(caption) > MOST_CHARACTERS)
    return list(dict.fromkeys(textwrap.shorten(each, MOST_CHARACTERS, placeholder="") for each in short_first))[:most]


def first_captions(data: "PackedDataset") -> list[str]:
    """Read the first caption of each of the first images of the training split."""
    return data.caption_texts(data.caption_offsets[data.split("train")[:IMAGES]])


def examples_of_run(run: Path | None, most: int) -> list[str]:
    """Choose captions of the data that a run was trained on; none where these are gone or have changed."""
    if run is None:
        return []
    from t2i.data.dataset import dataset_of_run

    try:
        return examples(first_captions(dataset_of_run(run)), most)
    except (ConfigError, DataError):
        return []


def _says_something(caption: str) -> bool:
    """Return whether a caption has a letter, number or emoji, stands on one line, and is no flag."""
    kinds = {unicodedata.category(character) for character in caption}
    return (
        bool(kinds & {"So", "Lu", "Ll", "Lt", "Lm", "Lo", "Nd", "Nl", "No"}) and "Cc" not in kinds and caption[0] != "-"
    )
