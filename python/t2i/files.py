"""Files written whole or not at all, files of strangers, folders that survive a power cut, and the cache folder.

Whatever a user names may come from a stranger: `read_file` and `read_json` read plain files alone, of a bounded length.
"""

import contextlib
import errno
import json
import os
import secrets
import stat
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from t2i.errors import CheckpointError, T2IError

MAX_RECORD_BYTES = 16 << 20  # of JSON and TOML: ours have some kilobytes
MAX_SPARSE_BYTES = 64 << 20  # a larger file must not be mostly holes, which cost nothing to make and fill the memory


def check_file(path: Path, most: int | None = None, error: type[T2IError] = CheckpointError) -> os.stat_result:
    """Look at a file before it is opened: a plain one, of at most `most` bytes, not mostly holes, no larger than the memory.

    Raises:
        FileNotFoundError: there is none.
        error: it is something else, or cannot be looked at.
    """
    try:
        found = os.stat(path)
        if not stat.S_ISREG(found.st_mode):
            raise error(f"{path} is not a plain file")
        if most is not None and found.st_size > most:
            raise error(f"{path} has {found.st_size:,} bytes; at most {most:,} were expected")
        if found.st_size > MAX_SPARSE_BYTES:
            _check_large(path, found, error)
    except (FileNotFoundError, NotADirectoryError) as cause:
        raise FileNotFoundError(*cause.args[:2], str(path)) from None
    except (OSError, ValueError) as cause:  # ValueError: a name with a zero byte
        if isinstance(cause, T2IError):
            raise
        raise error(f"{path} cannot be read: {getattr(cause, 'strerror', None) or cause}") from cause
    return found


def _check_large(path: Path, found: os.stat_result, error: type[T2IError]) -> None:
    held = getattr(found, "st_blocks", found.st_size // 512) * 512
    if held < found.st_size // 4 and hasattr(os, "SEEK_HOLE"):
        # A file system that compresses holds less than the length, too, but tells of no holes.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            if os.lseek(descriptor, 0, os.SEEK_HOLE) < found.st_size:
                raise error(f"{path} has {found.st_size:,} bytes, of which only {held:,} are there: it is mostly holes")
        finally:
            os.close(descriptor)
    free = free_memory()
    if free is not None and found.st_size > free:
        raise error(f"{path} has {found.st_size:,} bytes; {free:,} bytes of memory are free")


def free_memory() -> int | None:
    """Tell how many bytes of memory are free; None where the system does not say."""
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, ValueError, StopIteration):
        return None


def read_file(path: Path, most: int | None = None, error: type[T2IError] = CheckpointError) -> bytes:
    """Read a plain file whole; pipes, devices, files of holes and files of more than `most` bytes are refused unread.

    Raises:
        FileNotFoundError: there is none.
        error: it is something else, larger, or cannot be read.
    """
    check_file(path, most, error)
    try:
        # Not blocking: what was a plain file a moment ago may be a pipe by now.
        with open(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise error(f"{path} is not a plain file")
            data = file.read() if most is None else file.read(most + 1)
    except (OSError, MemoryError) as cause:
        if isinstance(cause, FileNotFoundError):
            raise
        raise error(f"{path} cannot be read: {getattr(cause, 'strerror', None) or 'not enough memory'}") from cause
    if most is not None and len(data) > most:
        raise error(f"{path} has more than {most:,} bytes")
    return data


def read_json(path: Path, error: type[T2IError] = CheckpointError, most: int = MAX_RECORD_BYTES) -> Any:
    """Read a JSON file of a bounded length.

    Raises:
        FileNotFoundError: there is none.
        error: it is no plain file of JSON, or nested too deeply.
    """
    data = read_file(path, most, error)
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as cause:
        why = "it is nested too deeply" if isinstance(cause, RecursionError) else cause
        raise error(f"{path} is not JSON: {why}") from cause


def write_atomically(path: Path, data: bytes, error: type[T2IError] = CheckpointError) -> None:
    """Replace `path` by `data`: a reader sees the old file or the new one, also after a power cut.

    Args:
        path: Its folder exists.
        data: All of the new content.
        error: What is raised where the disk does not take it.
    """
    temporary = _beside(path)
    try:
        _write_synced(temporary, data)
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError as cause:
        with contextlib.suppress(OSError):  # a name too long to write is too long to remove
            temporary.unlink(missing_ok=True)
        raise error(f"cannot write {path}: {cause.strerror}; free some space or choose another --out") from cause


def _beside(path: Path) -> Path:
    # Not the process's number: two machines that write into one folder may share it.
    return path.with_name(f".{path.name}.{secrets.token_hex(6)}.partial")


def _write_synced(path: Path, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def replace_together(folder: Path, files: Mapping[str, bytes | None], key: str) -> None:
    """Replace files of a folder that belong together: old and new ones are never there side by side.

    All are written under other names first: where that fails, nothing has changed. Then `key` is removed, the others take
    their places, and `key` comes last: a process that is killed between leaves a folder without it.

    Args:
        folder: It exists, and nobody else writes into it.
        files: Content by name; None removes a file.
        key: The name without which the folder is not complete.

    Raises:
        CheckpointError: the disk does not take them, or a folder has such a name.
    """
    staged = {name: _beside(folder / name) for name, data in files.items() if data is not None}
    try:
        taken = next((name for name in files if (folder / name).is_dir()), None)
        if taken is not None:
            raise IsADirectoryError(errno.EISDIR, f"{taken} is a folder")
        for name, place in staged.items():
            _write_synced(place, files[name] or b"")
        (folder / key).unlink(missing_ok=True)
        sync_folder(folder)
        for name in [*(name for name in files if name != key), key]:
            if name in staged:
                if name == key:
                    sync_folder(folder)
                staged[name].replace(folder / name)
            else:
                (folder / name).unlink(missing_ok=True)
        sync_folder(folder)
    except OSError as cause:
        for place in staged.values():
            with contextlib.suppress(OSError):
                place.unlink(missing_ok=True)
        raise CheckpointError(f"cannot write {folder}: {cause.strerror}; free some space or choose another") from cause


def sync_folder(path: Path) -> None:
    """Flush a folder's entries to the disk."""
    if sys.platform == "win32":
        return  # has no flush of a folder
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(path: Path, error: type[T2IError] = CheckpointError) -> None:
    """Make a folder that outlives a power cut: its name is flushed in the folder above it.

    Args:
        path: May exist.
        error: What is raised where that cannot be done.
    """
    try:
        _make_folder(path)
    except OSError as cause:
        raise error(f"cannot write into {path}: {cause.strerror}; choose another --out") from cause


def _make_folder(path: Path) -> None:
    if not path.is_dir():
        _make_folder(path.parent)
        path.mkdir(exist_ok=True)
        sync_folder(path.parent)


def cache_folder() -> Path:
    """Name the user's folder for what can be made again: $XDG_CACHE_HOME/t2i or ~/.cache/t2i."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "t2i"
