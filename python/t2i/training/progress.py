"""The progress bar and the metrics file of a training loop, and the signals that stop it."""

import json
import signal
import time
from pathlib import Path
from types import FrameType

from tqdm import tqdm

from t2i import console
from t2i.errors import CheckpointError
from t2i.files import read_file, write_atomically
from t2i.locks import check_held


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


def _forget(path: Path, name: str, start: int) -> None:
    """Drop the lines of steps that will be repeated, after a crash, and the half line of a process that was killed."""
    if not path.exists():
        return
    lines, valid = read_file(path).splitlines(keepends=True), []
    for line in lines:
        try:
            record = json.loads(line)
            again = record["phase"] == name and record["step"] > start
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
            _forget(path, name, start)
        self.bar = tqdm(
            total=steps,
            initial=start,
            desc=name,
            unit="step",
            dynamic_ncols=True,
            mininterval=0.5,
            smoothing=0.05,
            disable=not writes,
            file=console.errors(),
        )
        self._since = (start, time.perf_counter())

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
        self._since = (step, now)
        record = {"phase": self.name, "step": step, **{k: round(v, 6) for k, v in values.items()}}
        try:
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(json.dumps({**record, "images_per_second": round(speed, 1)}) + "\n")
        except OSError as error:
            check_held(self.path)  # its folder may be gone
            raise CheckpointError(
                f"cannot write {self.path}: {error.strerror}; free some space, then the same command goes on"
            ) from error
        shown = {key: f"{value:.2f}" for key, value in list(values.items())[:3]}
        self.bar.set_postfix({**shown, "img/s": f"{speed:.0f}"}, refresh=False)

    def close(self) -> None:
        """Leave the bar as it is."""
        self.bar.close()
