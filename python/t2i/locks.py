"""Locks that end with the process that holds them: on an open file, and on a run folder."""

import contextlib
import os
import re
import sys
from pathlib import Path
from typing import IO

from t2i.errors import CheckpointError

# What `write_atomically` leaves of a run's files where a process was killed while it wrote.
LEFT = re.compile(r"\.([\w-]+\.(json|jsonl|safetensors|png|md))\.\d+\.partial")
BEHIND = 1 << 30  # byte that stands for the file on Windows, where a locked byte cannot be read by others


if sys.platform == "win32":
    import msvcrt

    def lock(file: IO[str], shared: bool = False) -> None:
        """Lock a file for this process alone; BlockingIOError where another holds it."""
        if shared:
            return  # parts of one preparation: Windows has no lock that several may hold
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

    def lock(file: IO[str] | int, shared: bool = False) -> None:
        """Lock a file for this process alone, or for all who share it; BlockingIOError where another holds it."""
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)


class InUse(CheckpointError):
    """Another process holds the folder."""


class RunLock:
    """One folder, one process: the second is refused; the lock of a dead process is gone with it.

    Both the folder and a file in it are locked: the file alone can be deleted (rm, git clean, rsync --delete), and the next
    process would lock another one.

    Args:
        folder: Made where it does not exist.
        user: Who uses such a folder, for messages.
        shared: Let others in that ask for it shared as well.
        keep: Leave the lock file there at the end.

    Raises:
        CheckpointError: another process holds the folder, or it cannot be written.
    """

    def __init__(self, folder: Path, user: str = "run", *, shared: bool = False, keep: bool = True) -> None:
        self.folder, self.user, self.shared, self.keep = folder, user, shared, keep
        self._folder: int | None = None
        for _ in range(10):
            self._open()
            if self._is_in_place():
                break
            self._close()  # removed by somebody between opening and locking
        else:
            raise CheckpointError(f"{folder} changes while it is locked; choose another --out")
        self._sign()
        HELD.append(self)
        for place in (folder, folder / "samples"):
            for name in os.listdir(place) if place.is_dir() else ():
                if LEFT.fullmatch(name) and (place / name).is_file():
                    (place / name).unlink(missing_ok=True)

    def _open(self) -> None:
        folder = self.folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if sys.platform != "win32":
                self._folder = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
                self._lock_folder(self._folder)
            self._file = open(folder / ".lock", "a+")  # noqa: SIM115 (held as long as the run)
        except BlockingIOError as error:
            raise self._in_use() from error
        except OSError as error:
            self._close()
            raise CheckpointError(
                f"cannot use {folder} as a {self.user} folder: {error.strerror}; choose another --out"
            ) from error
        try:
            lock(self._file, self.shared)
        except BlockingIOError as error:
            raise self._in_use() from error
        except OSError as error:
            self._close()
            raise CheckpointError(
                f"cannot lock {folder}: {error.strerror}; choose an --out on a disk that has locks"
            ) from error

    def _lock_folder(self, descriptor: int) -> None:
        try:
            lock(descriptor, self.shared)  # type: ignore[arg-type, unused-ignore]
        except BlockingIOError:
            raise
        except OSError:  # a network disk that locks no folders: the file has to do
            pass

    def _in_use(self) -> CheckpointError:
        holder = self._read()
        self._close()
        return InUse(f"{self.folder} is in use by another {self.user}{holder}; wait for it or choose another --out")

    def _is_in_place(self) -> bool:
        """Say whether folder and file are still the ones that were locked."""
        try:
            there = os.path.samestat(os.fstat(self._file.fileno()), os.stat(self.folder / ".lock"))
            if self._folder is not None:
                there &= os.path.samestat(os.fstat(self._folder), os.stat(self.folder))
        except FileNotFoundError:
            return False
        return there

    def check(self) -> None:
        """Look whether the folder is still the one that was locked; a lock file that was deleted is made again.

        Raises:
            CheckpointError: the folder was moved or deleted, or another process has locked what is there now.
        """
        try:
            if self._is_in_place():
                return
            if self._folder is not None and os.path.samestat(os.fstat(self._folder), os.stat(self.folder)):
                again = open(self.folder / ".lock", "a+")  # noqa: SIM115
                try:
                    lock(again, self.shared)
                except OSError:
                    again.close()
                    raise
                self._file.close()
                self._file = again
                self._sign()
                return
        except OSError:
            pass
        raise CheckpointError(
            f"{self.folder} is no longer the folder that this {self.user} was started in: it was moved, deleted or taken "
            "over; nothing was written into it"
        )

    def _read(self) -> str:
        """Say who holds the lock, as far as they wrote it down."""
        try:
            number = (self.folder / ".lock").read_text()[:20].strip()
        except (OSError, ValueError):
            return ""
        return f" (process {number})" if number.isdigit() else ""

    def _sign(self) -> None:
        """Write down who holds the lock, for the message alone: a full disk does not matter."""
        with contextlib.suppress(OSError):
            self._file.truncate(0)
            self._file.write(f"{os.getpid()}\n")
            self._file.flush()

    def _close(self) -> None:
        with contextlib.suppress(OSError, AttributeError):  # what _sign could not write; never opened
            self._file.close()
        if self._folder is not None:
            os.close(self._folder)
            self._folder = None

    def __enter__(self) -> "RunLock":
        return self

    def __exit__(self, *exception: object) -> None:
        HELD.remove(self)
        if not self.keep:
            with contextlib.suppress(OSError):  # held by others, too: the last one removes it
                lock(self._file)
                if self._is_in_place():
                    (self.folder / ".lock").unlink()
        self._close()


HELD: list[RunLock] = []  # by this process


def check_held(path: Path) -> None:
    """Look whether the locked folder that `path` lies in, if any, is still the one that was locked.

    Raises:
        CheckpointError: it was moved or deleted, or another process has taken it over.
    """
    for held in HELD:
        if path == held.folder or held.folder in path.parents:
            held.check()
