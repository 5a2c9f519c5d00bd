"""The tokenizers of the text encoders, by name.

* `AlphabetTokenizer`: the paper's 70 characters, 201 of them.
* `ByteTokenizer`: UTF-8, any language; id 1 + byte.
* `NgramTokenizer`: hashed words, pairs of words and character n-grams, any language and length (`rust/ngrams.rs`).
* `wordpieces.py` has the one of MiniLM.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from t2i import _native
from t2i.text import tokenizer as alphabet

_HALVES = re.compile("[\ud800-\udfff]")  # of characters, as a terminal passes bytes that are no text
BYTE_VALUES = 256  # ids 1 to 256; UTF-8 has no byte above 0xF4, so that an id fits a byte


def padded(values: NDArray[Any], offsets: NDArray[Any]) -> NDArray[Any]:
    """Lay ragged rows out as (B, L), L that of the longest but at least 1, zeros behind."""
    lengths = np.diff(offsets)
    out = np.zeros((len(lengths), max(1, int(lengths.max(initial=0)))), values.dtype)
    out[np.arange(out.shape[1]) < lengths[:, None]] = values
    return out


def ragged(rows: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Take rows (B, L) apart as values and offsets, their padding included: ids of fixed length keep their places."""
    return rows.reshape(-1), np.arange(len(rows) + 1, dtype=np.int64) * rows.shape[1]


def quoted(parts: Iterable[str], most: int = 5) -> str:
    """List distinct parts of a caption for a message: "'a', 'b' and 3 more"."""
    distinct = list(dict.fromkeys(parts))
    shown = ", ".join(repr(part if len(part) <= 40 else part[:40] + "...") for part in distinct[:most])
    return shown + (f" and {len(distinct) - most} more" if len(distinct) > most else "")


def plain_list(captions: Sequence[str]) -> list[str]:
    """Check that captions are several, and replace halves of characters."""
    if isinstance(captions, (str, bytes)):
        raise TypeError("a tokenizer takes a list of captions, got a single one")
    return [_HALVES.sub("\N{REPLACEMENT CHARACTER}", caption) for caption in captions]


@dataclass(frozen=True)
class AlphabetTokenizer:
    """The paper's alphabet: (B, 201) uint8."""

    def __call__(self, captions: Sequence[str]) -> NDArray[Any]:
        """Tokenize."""
        return alphabet.encode(captions)

    def ragged(self, captions: Sequence[str]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Tokenize; every caption has 201 values."""
        return ragged(self(captions))

    def unseen(self, captions: Sequence[str]) -> int:
        """Count captions that are longer, or have characters outside the alphabet."""
        unknown = (self(captions) == _native.UNKNOWN).any(axis=1)
        return sum(
            bool(cut) or len(caption) > alphabet.CAPTION_LENGTH for cut, caption in zip(unknown, captions, strict=True)
        )

    def unread(self, caption: str) -> str:
        """Name characters outside the alphabet, all of which have one token, and what is cut."""
        length = alphabet.CAPTION_LENGTH
        letters = dict.fromkeys(caption[:length])
        unknown = quoted(letter for letter in letters if (self([letter]) == _native.UNKNOWN).any())
        cut = f"what comes after {length} characters" if len(caption) > length else ""
        return " and ".join(filter(None, [unknown, cut]))

    def settings(self) -> dict[str, Any]:
        """Describe it."""
        return {"tokenizer": "alphabet"}


@dataclass(frozen=True)
class ByteTokenizer:
    """UTF-8 bytes: (B, length) uint8, 1 + byte, cut between characters."""

    length: int = alphabet.CAPTION_LENGTH

    def __call__(self, captions: Sequence[str]) -> NDArray[Any]:
        """Tokenize."""
        return alphabet.encode(captions, "bytes", self.length)

    def ragged(self, captions: Sequence[str]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Tokenize; every caption has `length` values."""
        return ragged(self(captions))

    def unseen(self, captions: Sequence[str]) -> int:
        """Count captions of more bytes."""
        return sum(len(caption.encode()) > self.length for caption in plain_list(captions))

    def unread(self, caption: str) -> str:
        """Describe what is cut."""
        return f"what comes after {self.length} bytes" if self.unseen([caption]) else ""

    def settings(self) -> dict[str, Any]:
        """Describe it."""
        return {"tokenizer": "bytes", **asdict(self)}


@dataclass(frozen=True)
class NgramTokenizer:
    """Hashed n-grams: tokens 1..words are words and pairs of words, words + 1..words + characters pieces of words.

    Args:
        words: Buckets of words and pairs.
        characters: Buckets of pieces; 0 leaves them out.
    """

    words: int = 1 << 16
    characters: int = 1 << 15

    def ragged(self, captions: Sequence[str]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Tokenize: values int32, each token of a caption once."""
        several = plain_list(captions)
        offsets = np.empty(len(several) + 1, np.int64)
        guess = sum(map(len, several)) * 5 + 5 * len(several)  # enough unless NFKC makes a character several
        while True:
            values = np.empty(guess, np.int32)  # untouched memory costs nothing
            total = _native.ngrams(several, values, offsets, self.words, self.characters)
            if total <= guess:
                return values[:total].copy(), offsets
            guess = total

    def __call__(self, captions: Sequence[str]) -> NDArray[Any]:
        """Tokenize: (B, L) int32, L the most tokens of a caption."""
        return padded(*self.ragged(captions))

    def unseen(self, captions: Sequence[str]) -> int:
        """Count captions without a token: those of punctuation alone."""
        return int((np.diff(self.ragged(captions)[1]) == 0).sum())

    def unread(self, caption: str) -> str:
        """Name a caption of punctuation alone."""
        return quoted([caption]) if self.unseen([caption]) else ""

    def settings(self) -> dict[str, Any]:
        """Describe it."""
        return {"tokenizer": "ngrams", **asdict(self)}
