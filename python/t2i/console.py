"""Output that nobody may be able to take: what is shown of a run is no reason to end it.

A terminal is closed, `| head` leaves, the disk under `2> log` fills up: from then on what is written is dropped.
"""

import contextlib
import sys
from typing import Any, TextIO, cast


class Tolerant:
    """A text stream whose failures to write are ignored; everything else is the stream's.

    Args:
        stream: The stream; None, as a process without a console has, takes everything.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        """Write, or drop the text."""
        with contextlib.suppress(OSError, ValueError):  # ValueError: the stream is closed
            if self.stream is not None:
                self.stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush, or do not."""
        with contextlib.suppress(OSError, ValueError):
            if self.stream is not None:
                self.stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


_errors = Tolerant(None)


def errors() -> TextIO:
    """Take the present stderr, tolerantly: where bars and warnings go. One object a stream, by which tqdm clears its bars."""
    global _errors
    if isinstance(sys.stderr, Tolerant):
        return cast(TextIO, sys.stderr)
    if _errors.stream is not sys.stderr:
        _errors = Tolerant(sys.stderr)
    return cast(TextIO, _errors)


def refresh_seconds() -> float:
    """Return the seconds between refreshes of a progress bar: half a second on a terminal, 30 in a log file."""
    return 0.5 if errors().isatty() else 30.0


def say(line: str) -> None:
    """Print a line on stderr, where that is possible."""
    print(line, file=errors(), flush=True)


def tolerate() -> None:
    """Let no write to stdout or stderr fail from now on in this process."""
    for name in ("stdout", "stderr"):
        if not isinstance(getattr(sys, name), Tolerant):
            setattr(sys, name, Tolerant(getattr(sys, name)))
