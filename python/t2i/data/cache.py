"""Tensors that are computed once and cached beside the data set they belong to."""

import contextlib
import hashlib
import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from t2i.errors import CheckpointError
from t2i.files import write_atomically
from t2i.weights import read_tensors, serialise

MAX_FILES = 4  # of a name: each new encoder makes one
LEFT_SECONDS = 3600.0  # another run may be writing a younger file right now


def cached_tensor(
    folder: Path, name: str, metadata: Mapping[str, Any], shape: tuple[int, ...], compute: Callable[[], Tensor]
) -> Tensor:
    """Read a tensor that was computed before, or compute it and cache it beside the pack.

    Args:
        folder: Of the packed data set.
        name: What it is; the file is `<name>-<hash of metadata>.safetensors`.
        metadata: All that the tensor depends on, as JSON: another data set or another network makes another file.
        shape: Expected shape. A file that is damaged, or carries no checksum, is replaced.
        compute: Computes it.

    Returns:
        The tensor, on the CPU. Where the folder cannot be written, a line on stderr says so, and nothing is cached.
    """
    key = hashlib.sha256(json.dumps(dict(metadata), sort_keys=True).encode()).hexdigest()[:16]
    path = folder / f"{name}-{key}.safetensors"
    try:
        found = read_tensors(path, require_checksum=True).get(name) if path.exists() else None
    except CheckpointError:
        found = None  # computed again below
    if found is not None and tuple(found.shape) == shape and torch.isfinite(found).all():
        return found
    computed = compute().cpu().contiguous()
    _clear(folder, f".{name}-*.partial", keep=0, older=LEFT_SECONDS)  # of processes that were killed while they wrote
    try:
        write_atomically(path, serialise({name: computed}))
    except CheckpointError:
        print(f"{folder} cannot be written: its {name.replace('-', ' ')} are not cached", file=sys.stderr)
        return computed
    _clear(folder, f"{name}-*.safetensors", keep=MAX_FILES - 1, but=path)
    return computed


def _clear(folder: Path, pattern: str, *, keep: int, older: float = 0.0, but: Path | None = None) -> None:
    """Delete the files of a pattern: all but the newest `keep`, those of the last `older` seconds, and `but`.

    `but` is the one just written, which is not the newest by its time where the clock was set back. Other processes that
    delete the same files, or may, are no failure.
    """
    found = []
    for file in folder.glob(pattern):
        with contextlib.suppress(OSError):  # gone by now
            if file != but:
                found.append((file.stat().st_mtime, file))
    found.sort()
    for written, file in found[: max(0, len(found) - keep)]:
        if not older or time.time() - written > older:
            with contextlib.suppress(OSError):
                file.unlink()
