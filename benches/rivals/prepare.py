"""The usual preparation: Pillow decodes and resizes, a process a core."""

import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image


def _load(job: tuple[str, int]) -> bytes:
    path, size = job
    with Image.open(path) as picture:
        return picture.convert("RGB").resize((size, size), Image.Resampling.BICUBIC).tobytes()


def prepare(files: Sequence[Path], size: int = 76) -> np.ndarray:
    """Decode and resize all: uint8 (N, size, size, 3)."""
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        parts = list(pool.map(_load, [(str(file), size) for file in files], chunksize=16))
    return np.frombuffer(b"".join(parts), np.uint8).reshape(len(files), size, size, 3)
