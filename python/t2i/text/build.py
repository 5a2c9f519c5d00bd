"""Make the text encoder, or the tokenizer, that settings describe."""

from typing import Any, Literal

from t2i.config.options import JointOptions
from t2i.errors import CheckpointError, ConfigError
from t2i.text.char_cnn_rnn import CharCnnRnn
from t2i.text.minilm import MiniLmEncoder
from t2i.text.ngrams import NgramEncoder
from t2i.text.protocol import TextEncoder, Tokenizer
from t2i.text.tokenizers import AlphabetTokenizer, ByteTokenizer, NgramTokenizer
from t2i.text.wordpieces import WordPieceTokenizer


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


def tokenizer_of(settings: dict[str, Any]) -> Tokenizer:
    """Make the tokenizer that `settings()` described; CheckpointError where there is none like it."""
    kinds: dict[str, Any] = {
        "alphabet": AlphabetTokenizer,
        "bytes": ByteTokenizer,
        "ngrams": NgramTokenizer,
        "wordpieces": WordPieceTokenizer,
    }
    try:
        made: Tokenizer = kinds[settings["tokenizer"]](**{k: v for k, v in settings.items() if k != "tokenizer"})
    except (KeyError, TypeError, ConfigError) as error:
        raise CheckpointError(f"unknown tokenizer settings {settings}: written by another version of t2i?") from error
    return made
