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


_last = Tolerant(None)


def errors() -> TextIO:
    """Take the present stderr, tolerantly: where bars and warnings go.

    It is the same object for the same stream, or a bar would not make way for a warning.
    """
    global _last
    if isinstance(sys.stderr, Tolerant):
        return cast(TextIO, sys.stderr)
    if _last.stream is not sys.stderr:
        _last = Tolerant(sys.stderr)
    return cast(TextIO, _last)


def say(line: str) -> None:
    """Print a line on stderr, where that is possible."""
    print(line, file=errors(), flush=True)


def tolerate() -> None:
    """Let no write to stdout or stderr fail from now on in this process."""
    for name in ("stdout", "stderr"):
        if not isinstance(getattr(sys, name), Tolerant):
            setattr(sys, name, Tolerant(getattr(sys, name)))
