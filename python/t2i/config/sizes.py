"""Sizes of images that several packages share."""

from t2i.errors import ConfigError

MIN_SIZE = 16  # pixels: the smallest image the networks take
MAX_PIXELS = 100_000_000  # an image with more is refused before it is decoded


def check_size(size: int, what: str) -> None:
    """Raise ConfigError unless `size` is a side that the networks take; `what` names it in the message."""
    if size < MIN_SIZE or size & (size - 1):
        raise ConfigError(f"{what} must be a power of two of at least {MIN_SIZE} (32, 64, 128 ...), got {size}")


def stored_size(size: int) -> int:
    """Side of the packed images for training at `size`: the paper crops 64 from 76, other sizes keep that ratio."""
    return size * 76 // 64
