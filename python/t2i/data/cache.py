"""Tensors that are computed once and cached beside the data set they belong to."""

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
    try:
        for left in folder.glob(f".{name}-*.partial"):  # of a process that was killed while it wrote
            if time.time() - left.stat().st_mtime > 3600:  # another run may be writing right now
                left.unlink(missing_ok=True)
        write_atomically(path, serialise({name: computed}))
        files = sorted(folder.glob(f"{name}-*.safetensors"), key=lambda file: file.stat().st_mtime_ns)
        for old in files[:-MAX_FILES]:
            old.unlink(missing_ok=True)
    except (CheckpointError, OSError):
        print(f"{folder} cannot be written: its {name.replace('-', ' ')} are not cached", file=sys.stderr)
    return computed
