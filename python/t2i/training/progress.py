"""The progress bar and the metrics file of a training loop, and the signals that stop it."""

import contextlib
import json
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from types import FrameType

from tqdm import tqdm

from t2i import console
from t2i.errors import CheckpointError
from t2i.files import read_file, write_atomically
from t2i.locks import check_held
from t2i.pretrained.folder import plain_file

REPEATED = {"gan": ("evaluation",)}  # phases whose lines a resumed phase writes again


class StopSignal:
    """Turn the signals that ask a process to end into a flag that a loop reads.

    * SIGINT and SIGTERM: the second one ends the process at once.
    * SIGHUP (the terminal was closed), SIGXCPU and SIGUSR1 (a cluster's time limit): they come several times, so more of
      them change nothing. One that was ignored at the start, as under nohup, stays ignored.

    A context around loops alone: between them everything is on the disk, and a signal ends the process as usual.
    """

    URGENT = (signal.SIGINT, signal.SIGTERM)
    NUMBERS = (*URGENT, *(getattr(signal, name) for name in ("SIGHUP", "SIGUSR1", "SIGXCPU") if hasattr(signal, name)))

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[int, object] = {}

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        if number in self.URGENT:
            for either in self.URGENT:
                signal.signal(either, signal.SIG_DFL)

    def __enter__(self) -> "StopSignal":
        try:
            for number in self.NUMBERS:
                if number in self.URGENT or signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._handle)
        except ValueError:
            pass  # not in the main thread: whoever runs us there handles signals
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]


def read_phase(path: Path, phase: str) -> list[dict[str, float]]:
    """Read the numbers of a phase's lines of metrics.jsonl, in order of steps; of a step written twice, the later line."""
    found: dict[float, dict[str, float]] = {}
    for line in read_file(path).splitlines() if path.exists() else ():
        with contextlib.suppress(ValueError, TypeError, KeyError, AttributeError, RecursionError):
            record = json.loads(line)
            if record.pop("phase") == phase:
                found[record["step"]] = record
    return [found[step] for step in sorted(found)]


def _forget(path: Path, name: str, start: int) -> None:
    """Drop the lines of steps that will be repeated, after a crash, and the half line of a process that was killed."""
    if not path.exists():
        return
    lines, valid = read_file(path).splitlines(keepends=True), []
    for line in lines:
        try:
            record = json.loads(line)
            again = record["phase"] in (name, *REPEATED.get(name, ())) and record["step"] > start
        except (ValueError, LookupError, TypeError, RecursionError):
            continue
        if not again and line.endswith(b"\n"):
            valid.append(line)
    if len(valid) < len(lines):
        write_atomically(path, b"".join(valid))


class Progress:
    """A progress bar with images a second, and metrics.jsonl beside it.

    Args:
        path: The JSONL file; appended to.
        name: Shown before the bar.
        start: Steps already done.
        steps: Steps in all.
        batch: Images a step.
        writes: False in a process that leaves bar and file to another.
    """

    def __init__(self, path: Path, name: str, start: int, steps: int, batch: int, writes: bool = True) -> None:
        self.path, self.name, self.batch, self.writes = path, name, batch, writes
        if writes:
            plain_file(path.parent, path.name)  # a folder may come from a stranger: no link out of it, and no pipe
            _forget(path, name, start)
        interval = console.refresh_seconds()
        self.bar = tqdm(
            total=steps,
            initial=start,
            desc=name,
            unit="step",
            dynamic_ncols=True,
            mininterval=interval,
            maxinterval=max(10.0, interval),
            smoothing=0.05,
            disable=not writes,
            file=console.errors(),
        )
        self._since = (start, time.perf_counter())
        self.speed = 0.0  # images a second, of the last line

    def advance(self) -> None:
        """Count one step."""
        self.bar.update()

    def log(self, step: int, values: dict[str, float]) -> None:
        """Write one line of metrics and show the first three."""
        if not self.writes:
            return
        before, then = self._since
        now = time.perf_counter()
        speed = (step - before) * self.batch / max(now - then, 1e-9)
        self._since, self.speed = (step, now), speed
        self.append(self.name, step, {**values, "images_per_second": round(speed, 1)})
        shown = {key: f"{value:.2f}" for key, value in list(values.items())[:3]}
        self.bar.set_postfix({**shown, "img/s": f"{speed:.0f}"}, refresh=False)

    def append(self, phase: str, step: int, values: Mapping[str, float]) -> None:
        """Write one line of metrics.jsonl."""
        record = {"phase": phase, "step": step, **{name: round(value, 6) for name, value in values.items()}}
        try:
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
        except OSError as error:
            check_held(self.path)  # its folder may be gone
            raise CheckpointError(
                f"cannot write {self.path}: {error.strerror}; free some space and run the same command to resume"
            ) from error

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        tqdm.write(line, file=console.errors())

    def close(self) -> None:
        """Leave the bar as it is."""
        self.bar.close()
