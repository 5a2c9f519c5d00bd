"""The random generator of a measure: a function of its seed alone."""

from collections.abc import Sequence

from numpy.random import Generator, Philox

from t2i.errors import ConfigError
from t2i.noise import require_integer

SEEDS = 2**64  # seeds that there are, from 0


def draws(seed: int, counter: Sequence[int] | None = None) -> Generator:
    """Make a generator.

    Args:
        seed: 0..2^64 - 1.
        counter: Tells several generators of one seed apart.

    Raises:
        ConfigError: the seed is no whole number, or outside its range.
    """
    seed = require_integer("seed", seed)
    if not 0 <= seed < SEEDS:
        raise ConfigError(f"seed must be in 0..2^64 - 1, got {seed}")
    return Generator(Philox(key=seed, counter=counter))
