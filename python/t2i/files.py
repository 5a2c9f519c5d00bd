"""Files written whole or not at all, folders that survive a power cut, and the cache folder."""

import os
import secrets
import sys
from pathlib import Path

from t2i.errors import CheckpointError, T2IError


def write_atomically(path: Path, data: bytes, error: type[T2IError] = CheckpointError) -> None:
    """Replace `path` by `data`: a reader sees the old file or the new one, also after a power cut.

    Args:
        path: Its folder exists.
        data: All of the new content.
        error: What is raised where the disk does not take it.
    """
    # Not the process's number: two machines that write into one folder may share it.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.partial")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError as cause:
        temporary.unlink(missing_ok=True)
        raise error(f"cannot write {path}: {cause.strerror}; free some space or choose another --out") from cause


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
