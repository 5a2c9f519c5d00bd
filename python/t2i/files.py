"""Files written whole or not at all, folders that survive a power cut, locks, and the cache folder."""

import os
import sys
from pathlib import Path

from t2i.errors import CheckpointError


def write_atomically(path: Path, data: bytes) -> None:
    """Replace `path` by `data`: a reader sees the old file or the new one, also after a power cut."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise CheckpointError(
            f"cannot write {path}: {error.strerror}; free some space or choose another --out"
        ) from error


def sync_folder(path: Path) -> None:
    """Flush a folder's entries to the disk."""
    if sys.platform == "win32":
        return  # has no flush of a folder
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(path: Path) -> None:
    """Make a folder that outlives a power cut: its name is flushed in the folder above it."""
    if not path.is_dir():
        make_folder(path.parent)
        path.mkdir(exist_ok=True)
        sync_folder(path.parent)


def cache_folder() -> Path:
    """Name the user's folder for what can be made again: $XDG_CACHE_HOME/t2i or ~/.cache/t2i."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "t2i"
