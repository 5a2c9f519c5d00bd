"""One folder, one process: locks of the operating system, which end with the process that holds them."""

import contextlib
import os
import re
import sys
from pathlib import Path

from filelock import FileLock, Timeout

from t2i.errors import CheckpointError
from t2i.files import read_file

# What `write_atomically` leaves of a run's files where a process was killed while it wrote.
LEFT = re.compile(r"\.[\w-]+\.(json|jsonl|safetensors|png|md)\.[0-9a-f]{12}\.partial")


class InUse(CheckpointError):
    """Another process holds the folder."""


class RunLock:
    """Hold a folder: a context. A second process is refused; the lock of a dead process is gone with it.

    Locked are the folder itself and `.lock` in it. The file alone can be deleted (rm, git clean, rsync --delete), and the
    next process would lock another one; the folder alone cannot be locked everywhere (Windows, some network disks).
    `.holder` has the process number of whoever holds them, for the message alone, because a locked file cannot be read
    everywhere.

    Args:
        folder: Made where it does not exist.
        user: Who uses such a folder, for messages.
        shared: Let others in that ask for it shared as well (where folders can be locked).
        keep: Leave the lock file there at the end.

    Raises:
        InUse: another process holds the folder.
        CheckpointError: it cannot be written, or not be locked.
    """

    def __init__(self, folder: Path, user: str = "run", *, shared: bool = False, keep: bool = True) -> None:
        self.folder, self.user, self.shared, self.keep = folder, user, shared, keep
        self._folder: int | None = None
        self._lock: FileLock | None = None
        for _ in range(10):
            self._acquire()
            if self._is_in_place():
                break
            self._release()  # moved or deleted by somebody between opening and locking
        else:
            raise CheckpointError(f"{folder} changes while it is locked; choose another --out")
        with contextlib.suppress(OSError):  # a full disk
            descriptor = _open_own(folder / ".holder", os.O_TRUNC)
            try:
                os.write(descriptor, f"{os.getpid()}\n".encode())
            finally:
                os.close(descriptor)
        HELD.append(self)
        for place in (folder, folder / "samples"):
            for name in os.listdir(place) if place.is_dir() else ():
                if LEFT.fullmatch(name) and (place / name).is_file():
                    (place / name).unlink(missing_ok=True)

    def _acquire(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if sys.platform != "win32":
                self._folder = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
                _lock_folder(self._folder, self.shared)
            if not self.shared:
                os.close(_open_own(self.folder / ".lock"))
        except BlockingIOError as error:
            raise self._refusal() from error
        except OSError as error:
            self._release()
            raise CheckpointError(
                f"cannot use {self.folder} as a {self.user} folder: {error.strerror}; choose another --out"
            ) from error
        try:
            if not self.shared:
                self._acquire_file()
        except Timeout as error:
            raise self._refusal() from error
        except OSError as error:
            self._release()
            raise CheckpointError(
                f"cannot lock {self.folder}: {error.strerror}; choose an --out on a disk that has locks"
            ) from error

    def _acquire_file(self) -> None:
        # No marker file in place of a lock, as filelock would fall back to: it outlives a process that is killed.
        path = self.folder / ".lock"
        held = FileLock(path, timeout=0, fallback_to_soft=False, preserve_lock_file=True)
        held.acquire()
        self._lock, self._file = held, os.stat(path)

    def _refusal(self) -> InUse:
        holder = self._read_holder()
        self._release()
        return InUse(f"{self.folder} is in use by another {self.user}{holder}; wait for it or choose another --out")

    def _read_holder(self) -> str:
        """Name who holds the lock, as far as they wrote it down."""
        try:
            number = read_file(self.folder / ".holder", 20).decode("ascii").strip()
        except (OSError, ValueError, CheckpointError):
            return ""
        return f" (process {number})" if number.isdigit() else ""

    def _is_in_place(self) -> bool:
        """Return whether folder and file are still the ones that were locked."""
        try:
            there = self._lock is None or os.path.samestat(self._file, os.stat(self.folder / ".lock"))
            return there and self._is_folder_in_place()
        except FileNotFoundError:
            return False

    def _is_folder_in_place(self) -> bool:
        return self._folder is None or os.path.samestat(os.fstat(self._folder), os.stat(self.folder))

    def check(self) -> None:
        """Look whether the folder is still the one that was locked; a lock file that was deleted is made again.

        Raises:
            CheckpointError: the folder was moved or deleted, or another process has locked what is there now.
        """
        try:
            if self._is_in_place():
                return
            if self._folder is not None and self._is_folder_in_place():
                before = self._lock
                os.close(_open_own(self.folder / ".lock"))
                self._acquire_file()
                if before is not None:
                    before.release()
                return
        except (OSError, Timeout):
            pass
        raise CheckpointError(
            f"{self.folder} is no longer the folder that this {self.user} was started in: it was moved, deleted or taken "
            "over; nothing was written into it"
        )

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.release()
            self._lock = None
        if self._folder is not None:
            os.close(self._folder)
            self._folder = None

    def __enter__(self) -> "RunLock":
        return self

    def __exit__(self, *exception: object) -> None:
        HELD.remove(self)
        with contextlib.suppress(OSError):
            if self._is_folder_in_place():
                (self.folder / ".holder").unlink(missing_ok=True)
                if not self.keep and self._lock is not None:
                    (self.folder / ".lock").unlink()
        self._release()


def _open_own(path: Path, flags: int = 0) -> int:
    """Open a file of ours to write, made where it is not there.

    A folder may come from a stranger: a link in the file's place is not followed, and a pipe is not waited for.
    """
    kinds = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    return os.open(path, os.O_WRONLY | os.O_CREAT | flags | kinds, 0o666)


def _lock_folder(descriptor: int, shared: bool) -> None:
    """Lock an open folder; BlockingIOError where another process holds it."""
    import fcntl

    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:  # a network disk that locks no folders: the file has to do
        pass


HELD: list[RunLock] = []  # by this process


def check_held(path: Path) -> None:
    """Look whether the locked folder that `path` lies in, if any, is still the one that was locked.

    Raises:
        CheckpointError: it was moved or deleted, or another process has taken it over.
    """
    for held in HELD:
        if path == held.folder or held.folder in path.parents:
            held.check()
