"""What a text encoder does not see of a data set's captions."""

import numpy as np

from t2i._native import CAPTION_LENGTH
from t2i.data.dataset import PackedDataset
from t2i.data.sampler import Sampler
from t2i.text.protocol import TextEncoder
from t2i.text.tokenizers import AlphabetTokenizer


def coverage_warning(data: PackedDataset, encoder: TextEncoder) -> str | None:
    """Return how many captions an encoder does not read whole; None if it reads all."""
    if isinstance(encoder.tokenizer, AlphabetTokenizer):
        truncated, unknown = data.native.count_losses("alphabet", CAPTION_LENGTH)
        if not truncated and not unknown:
            return None
        return (
            f"warning: of {data.captions:,} captions the char-cnn-rnn encoder cuts {truncated:,} at {CAPTION_LENGTH} "
            f"characters, and {unknown:,} have characters outside its alphabet, which it cannot distinguish"
        )
    unseen = encoder.tokenizer.unseen(data.caption_texts(np.arange(data.captions)))
    if not unseen:
        return None
    return f"warning: of {data.captions:,} captions the {encoder.kind} encoder does not read {unseen:,} whole"


def ambiguity_warning(sampler: Sampler) -> str | None:
    """Return which share of the captions has no mismatched image; None if all have."""
    if not sampler.ambiguous_captions:
        return None
    return (
        f"warning: {sampler.ambiguous_captions:.1%} of the captions are captions of every image of the other classes too: "
        "their mismatched pairs do match"
    )
