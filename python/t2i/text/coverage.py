"""Warnings about captions that a text encoder cannot read whole, or that cannot be mismatched."""

import sys

from t2i.data.dataset import PackedDataset
from t2i.data.sampler import Sampler


def warn_of_coverage(data: PackedDataset) -> None:
    """Say on stderr how many captions the char-CNN-RNN does not read whole, if any."""
    truncated, unknown = data.native.count_losses()
    if truncated or unknown:
        print(
            f"warning: of {data.captions:,} captions the char-cnn-rnn encoder cuts {truncated:,} at 201 characters, and "
            f"{unknown:,} have characters outside its alphabet, which it cannot tell from one another",
            file=sys.stderr,
        )


def warn_of_ambiguity(sampler: Sampler) -> None:
    """Say on stderr which share of the captions has no mismatched image, if any."""
    if sampler.ambiguous_captions:
        print(
            f"warning: {sampler.ambiguous_captions:.1%} of the captions are captions of every image of the other classes "
            "too: what is trained as a mismatched pair of theirs does match",
            file=sys.stderr,
        )
