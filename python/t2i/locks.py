"""Locks that end with the process that holds them: on an open file, and on a run folder."""

import contextlib
import os
import sys
from pathlib import Path
from typing import IO

from t2i.errors import CheckpointError

BEHIND = 1 << 30  # byte that stands for the file on Windows, where a locked byte cannot be read by others


if sys.platform == "win32":
    import msvcrt

    def lock(file: IO[str]) -> None:
        """Lock a file for this process alone; BlockingIOError where another holds it."""
        place = file.tell()
        file.seek(BEHIND)
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except PermissionError as error:
            raise BlockingIOError(error.errno, "held by another process") from error
        finally:
            file.seek(place)

else:
    import fcntl

    def lock(file: IO[str]) -> None:
        """Lock a file for this process alone; BlockingIOError where another holds it."""
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


class RunLock:
    """One run folder, one process: the second is refused; the lock of a dead process is gone with it.

    Raises:
        CheckpointError: another process holds the folder, or it cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = open(folder / ".lock", "a+")  # noqa: SIM115 (held as long as the run)
        except OSError as error:
            raise CheckpointError(
                f"cannot use {folder} as a run folder: {error.strerror}; choose another --out"
            ) from error
        try:
            lock(self._file)
        except BlockingIOError as error:
            holder = self._read()
            self._file.close()
            raise CheckpointError(
                f"{folder} is in use by another run{holder}; wait for it or choose another --out"
            ) from error
        except OSError as error:
            self._file.close()
            raise CheckpointError(
                f"cannot lock {folder}: {error.strerror}; choose an --out on a disk that has locks"
            ) from error
        self._sign()
        for left in (
            *folder.glob(".*.partial"),
            *folder.glob("samples/.*.partial"),
        ):  # of a process killed while it wrote
            left.unlink(missing_ok=True)

    def _read(self) -> str:
        """Say who holds the lock, as far as they wrote it down."""
        try:
            self._file.seek(0)
            number = self._file.read(20).strip()
        except (OSError, ValueError):
            return ""
        return f" (process {number})" if number.isdigit() else ""

    def _sign(self) -> None:
        """Write down who holds the lock, for the message alone: a full disk does not matter."""
        with contextlib.suppress(OSError):
            self._file.truncate(0)
            self._file.write(f"{os.getpid()}\n")
            self._file.flush()

    def __enter__(self) -> "RunLock":
        return self

    def __exit__(self, *exception: object) -> None:
        with contextlib.suppress(OSError):  # what _sign could not write
            self._file.close()
