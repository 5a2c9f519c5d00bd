"""Captions as characters: the paper's alphabet, at the speed of the native module.

* 70 slots, `ALPHABET[i]` has id i + 1, 0 is padding and the end of a caption; `-` stands at two slots and gets the later.
* Captions are lower-cased and cut at 201 characters; a character outside the alphabet is id 71, whose one-hot column is
  all zeros (the released program has no id for it, only the empty column).
"""

import re
from collections.abc import Sequence
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from t2i import _native
from t2i._native import ALPHABET, ALPHABET_SIZE, CAPTION_LENGTH
from t2i.data.dataset import Tokenizer

__all__ = ["ALPHABET", "ALPHABET_SIZE", "CAPTION_LENGTH", "decode", "encode", "one_hot"]
_HALVES = re.compile("[\ud800-\udfff]")


def encode(
    captions: Sequence[str], tokenizer: Tokenizer = "alphabet", length: int = CAPTION_LENGTH
) -> NDArray[np.uint8]:
    """Turn captions into ids.

    Args:
        captions: B strings (a single string is refused: it would be read as B characters).
        tokenizer: "alphabet", the paper's characters; "bytes", 1 + each byte of UTF-8, as many whole characters as fit.
        length: L, ids per caption; 201 for "alphabet".

    Returns:
        (B, L) uint8 ids, 0 after the end.

    Raises:
        TypeError: `captions` is a string, or holds something else than strings.
        ConfigError: a length that the tokenizer does not have.

    Example:
        >>> encode(["abc"])[0, :4].tolist()
        [1, 2, 3, 0]
        >>> encode(["花"], "bytes", 5).tolist()
        [[233, 139, 178, 0, 0]]
    """
    if isinstance(captions, (str, bytes)):
        raise TypeError("encode takes a list of captions, got a single one: write encode([caption])")
    out = np.zeros((len(captions), length), np.uint8)
    try:
        _native.encode(captions, out, tokenizer)
    except ValueError:  # half characters, as a terminal passes bytes that are no text: unknown ones
        _native.encode([_HALVES.sub("\N{REPLACEMENT CHARACTER}", caption) for caption in captions], out, tokenizer)
    return out


def decode(ids: NDArray[np.uint8]) -> list[str]:
    """Turn (B, 201) uint8 character ids back into captions; an unknown character comes back as U+FFFD.

    The paper's alphabet has no capitals and no other scripts; `PackedDataset.caption_texts` returns captions as written.

    Example:
        >>> decode(encode(["A red flower"]))
        ['a red flower']
    """
    return _native.decode(ids)


@overload
def one_hot(ids: NDArray[np.uint8], dtype: type[np.float32] = ...) -> NDArray[np.float32]: ...


@overload
def one_hot(ids: NDArray[np.uint8], dtype: type[np.uint8]) -> NDArray[np.uint8]: ...


def one_hot(ids: NDArray[np.uint8], dtype: type[Any] = np.float32) -> NDArray[Any]:
    """Spread (B, 201) uint8 ids to (B, 70, 201) of `dtype` (float32, uint8): channels first, zeros for padding, unknown.

    Raises:
        ValueError: another dtype, ids of another shape or above 71; the message says which.

    Example:
        >>> one_hot(encode(["ab"]))[0, :3, :2].tolist()
        [[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]
    """
    out = np.empty((len(ids), ALPHABET_SIZE, CAPTION_LENGTH), dtype)
    _native.one_hot(ids, out)
    return out
