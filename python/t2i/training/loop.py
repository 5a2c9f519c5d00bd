"""What every training loop shares: where it begins, and what is due between two steps.

    loop = Loop("gan", folder, checkpoints, guard, ...)     # resumes
    with loop:
        for step in loop.steps_left():
            with loop.reading(step):
                batch = loader.batch(step)
            values = loop.record(step, update(batch))       # counts the step; metrics.jsonl where that is due
            if loop.due(config.sample_every):
                ...
            loop.save_if_due(model)                         # a checkpoint; raises Stopped where a signal has come

Nothing here waits for the device but `record`, where logging is due (on a CPU there is nothing to wait for).
"""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from t2i import console
from t2i.config.options import TrainConfig
from t2i.distributed import ALONE, Ranks
from t2i.errors import DataError, Diverged, Stopped
from t2i.locks import check_held
from t2i.training.checkpoint import Checkpoints
from t2i.training.guard import NonFiniteGuard
from t2i.training.progress import Progress, StopSignal

PHASES = {"gan": "", "text": " of the text encoder", "style": " of the style encoder"}  # as messages name them


class Periods(Protocol):
    """The settings of a loop, which those of every training hold."""

    @property
    def log_every(self) -> int:
        """Steps between lines of metrics.jsonl."""

    @property
    def checkpoint_every(self) -> int:
        """Steps between checkpoints."""

    @property
    def force(self) -> bool:
        """Resume from a checkpoint that other settings have made."""


def step_counts(config: TrainConfig, images: int) -> tuple[int, int]:
    """Count the steps of a GAN's training, and those of an epoch of so many images."""
    epoch_steps = max(1, images // config.batch)
    return config.steps or config.epochs * epoch_steps, epoch_steps


class Loop:
    """The steps of a training that are left to do: a context around the loop over them.

    Args:
        phase: "gan", "text" or "style": the phase in metrics.jsonl.
        folder: The run folder, which metrics.jsonl is written to.
        checkpoints: What is saved and restored.
        guard: Counts the updates that were skipped.
        config: How often to log and to save.
        steps: Steps in all.
        batch: Images a step, for the speed.
        metadata: What the training depends on, kept in every checkpoint: one of other metadata is refused, unless
            `config.force`.
        ranks: The processes that train together.
        rate_flag: The flag that lowers the learning rate, for messages.

    Attributes:
        start: Steps that a checkpoint had done.
        stop: Whether a signal has asked for an end.

    Raises:
        ConfigError: the checkpoint was made from something else; the message shows the difference.
    """

    def __init__(
        self,
        phase: str,
        folder: Path,
        checkpoints: Checkpoints,
        guard: NonFiniteGuard,
        config: Periods,
        *,
        steps: int,
        batch: int,
        metadata: Mapping[str, Any],
        ranks: Ranks = ALONE,
        rate_flag: str = "--learning-rate",
    ) -> None:
        self.phase, self.folder, self.checkpoints, self.guard, self.config = phase, folder, checkpoints, guard, config
        self.steps, self.batch, self.metadata, self.ranks, self.rate_flag = steps, batch, metadata, ranks, rate_flag
        with ranks.main_process_first():
            self.start, damaged = checkpoints.restore(metadata, config.force)
        for line in damaged:
            ranks.write(console.say, line)
        self.done = self.start
        self.stop = StopSignal()

    def __enter__(self) -> "Loop":
        self.stop.__enter__()
        path = self.folder / "metrics.jsonl"
        self.progress = Progress(path, self.phase, self.start, self.steps, self.batch, self.ranks.is_main)
        return self

    def __exit__(self, *exception: object) -> None:
        self.progress.close()
        self.stop.__exit__(*exception)

    def steps_left(self) -> range:
        """List the steps that are left, from 0."""
        return range(self.start, self.steps)

    @contextmanager
    def reading(self, step: int) -> Iterator[None]:
        """Read a batch inside; where the data set has changed or is gone, write a checkpoint first.

        Raises:
            DataError: as it came, with what to do.
        """
        try:
            yield
        except DataError as error:
            self.ranks.write(self.checkpoints.save, step, self.metadata, self._good_until())
            raise DataError(
                f"{error}; stopped after step {step}, with a checkpoint: put the data set back, and the same command "
                "goes on"
            ) from error

    def _good_until(self) -> int | None:
        """Return the last step before those that have been skipped of late; None where none was."""
        first = self.guard.first_skipped()
        return self.start + first - 1 if first else None

    def due(self, every: int) -> bool:
        """Return whether what happens every so many steps, and after the last one, happens now."""
        return self.done % every == 0 or self.done == self.steps

    def record(self, step: int, measured: Mapping[str, Tensor]) -> dict[str, float]:
        """Count a step, and write its metrics where that is due.

        Args:
            step: From 0.
            measured: Scalars () on the device.

        Returns:
            The finite ones, averaged over processes, where logging is due; else nothing.

        Raises:
            Diverged: too many updates in a row were not finite.
        """
        self.done = step + 1
        self.progress.advance()
        self.ranks.write(check_held, self.folder)
        log = self.due(self.config.log_every)
        if not log and self.guard.device.type != "cpu":
            return {}  # reading the counters would wait for every step
        if log:  # meet on the host first: a read from a GPU would wait for an exchange with a process that has ended
            self.ranks.any(False)
        try:
            skipped = self.guard.check(self.done, lambda: self.checkpoints.newest(self._good_until()), self.rate_flag)
        except Diverged:  # the same command goes on from the last good one
            self.ranks.write(self.checkpoints.drop_after, self._good_until() or 0)
            raise
        if not log:
            return {}
        values = {name: float(value) for name, value in self.ranks.mean(measured).items()}
        values = {name: value for name, value in values.items() if math.isfinite(value)}
        self.progress.log(self.done, values | ({"skipped": skipped} if skipped else {}))
        return values

    def save_if_due(self, save_model: Callable[[], object] | None = None) -> None:
        """Write a checkpoint, and the model, where that is due.

        Raises:
            Stopped: a signal came before the last step; the checkpoint is written.
            Diverged: a number of the state is not finite; nothing is written.
        """
        stopping = self.ranks.any(self.stop.asked)
        if stopping or self.due(self.config.checkpoint_every):
            self.ranks.write(self.checkpoints.save, self.done, self.metadata, self._good_until())
            if save_model is not None:
                self.ranks.write(save_model)
        if stopping and self.done < self.steps:
            where = f"step {self.done} of {self.steps}{PHASES[self.phase]}"
            raise Stopped(f"stopped after {where}; run the same command to resume")
