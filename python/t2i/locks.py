"""One run folder, one process: a lock of the operating system, which ends with the process that holds it."""

import contextlib
import os
from pathlib import Path

from filelock import FileLock, Timeout

from t2i.errors import CheckpointError


class RunLock:
    """Hold a run folder: a context. A second process is refused; the lock of a dead process is gone with it.

    The lock is on `.lock`; `.holder` has the process number of whoever holds it, for the message alone, because a locked
    file cannot be read everywhere.

    Args:
        folder: Made where it does not exist.

    Raises:
        CheckpointError: another process holds the folder, or it cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self._holder = folder / ".holder"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            open(folder / ".lock", "ab").close()
        except OSError as error:
            raise CheckpointError(
                f"cannot use {folder} as a run folder: {error.strerror}; choose another --out"
            ) from error
        # No marker file in place of a lock, as filelock would fall back to: it outlives a process that is killed.
        self._lock = FileLock(folder / ".lock", timeout=0, fallback_to_soft=False, preserve_lock_file=True)
        try:
            self._lock.acquire()
        except Timeout as error:
            raise CheckpointError(
                f"{folder} is in use by another run{self._read_holder()}; wait for it or choose another --out"
            ) from error
        except OSError as error:
            raise CheckpointError(
                f"cannot lock {folder}: {error.strerror}; choose an --out on a disk that has locks"
            ) from error
        with contextlib.suppress(OSError):  # a full disk
            self._holder.write_text(f"{os.getpid()}\n", encoding="ascii")
        for left in (*folder.glob(".*.partial"), *folder.glob("samples/.*.partial")):  # of a process that was killed
            left.unlink(missing_ok=True)

    def _read_holder(self) -> str:
        """Name who holds the lock, as far as they wrote it down."""
        try:
            number = self._holder.read_text(encoding="ascii").strip()
        except (OSError, ValueError):
            return ""
        return f" (process {number})" if number.isdigit() else ""

    def __enter__(self) -> "RunLock":
        return self

    def __exit__(self, *exception: object) -> None:
        with contextlib.suppress(OSError):
            self._holder.unlink(missing_ok=True)
        self._lock.release()
