"""Make the text encoder that settings describe."""

from typing import Literal

from t2i.config.options import JointOptions
from t2i.errors import ConfigError
from t2i.text.char_cnn_rnn import CharCnnRnn
from t2i.text.minilm import MiniLmEncoder
from t2i.text.ngrams import NgramEncoder
from t2i.text.protocol import TextEncoder


def text_encoder(options: JointOptions) -> TextEncoder:
    """Make the text encoder that the options describe, with random weights.

    Raises:
        ConfigError: no such kind.
    """
    if options.kind == "ngrams":
        return NgramEncoder(*options.buckets, text_dim=options.dim, dropout=options.dropout)
    if options.kind == "minilm":
        return MiniLmEncoder(options.dim, options.dropout)
    if options.kind not in ("char-cnn-rnn", "char-cnn-rnn-bytes"):
        raise ConfigError(f"no text encoder {options.kind!r}")
    alphabet: Literal["paper", "bytes"] = "bytes" if options.kind.endswith("bytes") else "paper"
    return CharCnnRnn(options.variant, options.width, options.dim, options.channels, alphabet)
