"""A data set that breaks under a run: the run is saved before it ends."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from t2i.errors import DataError


@contextmanager
def rescued(step: int, save: Callable[[], object]) -> Iterator[None]:
    """Read a batch inside; where the data set has changed or is gone, write a checkpoint first, and say so.

    Args:
        step: Steps done.
        save: Writes the checkpoint.

    Raises:
        DataError: as it came, with what to do.
    """
    try:
        yield
    except DataError as error:
        save()
        raise DataError(
            f"{error}; stopped after step {step}, with a checkpoint: put the data set back, and the same command goes on"
        ) from error
