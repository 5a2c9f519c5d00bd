"""A folder with a model in it that somebody else made: looked at before anything in it is opened or allocated.

* A link that leads out of the folder is refused; the Hub's cache, whose files are links into `blobs/` beside it, is not.
* A file of settings is small, and the networks that it describes must be those of the weight file: their shapes are
  compared, without a number allocated, before either is made.
* Weights are safetensors; there is no road to a pickle.
"""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from t2i.errors import CheckpointError, ConfigError

LARGEST_SETTINGS = 1 << 20  # bytes
LARGEST_HEADER = 100 << 20  # bytes, the library's limit too
Network = TypeVar("Network", bound=nn.Module)


def check_model_folder(folder: Path) -> None:
    """Refuse files of a model's folder that are no plain files in it, or far too large for what they are.

    Raises:
        CheckpointError: the file is named, with what is wrong with it.
    """
    for path in (*folder.glob("*.json"), *folder.glob("*.safetensors")):
        try:
            real = path.resolve(strict=True)
        except (OSError, RuntimeError) as error:  # a link to nothing, or to itself
            raise CheckpointError(f"{path} is a link that leads nowhere") from error
        if not (real.is_relative_to(folder.resolve()) or _in_hub_cache(folder.resolve(), real)):
            raise CheckpointError(f"{path} is a link out of its folder; copy the file it leads to in its place")
        if not real.is_file():
            raise CheckpointError(f"{path} must be a file")
        if path.suffix == ".json" and real.stat().st_size > LARGEST_SETTINGS:
            raise CheckpointError(f"{path} has {real.stat().st_size} bytes; settings have at most {LARGEST_SETTINGS}")


def _in_hub_cache(folder: Path, real: Path) -> bool:
    """Say whether a file is a blob of the Hub's cache: models--NAME/snapshots/REVISION/ links to models--NAME/blobs/."""
    model = folder.parent.parent
    return folder.parent.name == "snapshots" and model.name.startswith("models--") and real.parent == model / "blobs"


def fitting(path: Path, prefix: str, make: Callable[[], Network]) -> Network:
    """Make a network, after looking whether a weight file holds one of exactly these shapes under a prefix.

    Args:
        path: A safetensors file of `t2i.checkpoint.save_weights`.
        prefix: The network's name in it.
        make: Makes the network, with random weights.

    Raises:
        CheckpointError: the file is no safetensors file, or holds a network of other sizes.
    """
    found = read_shapes(path)
    try:
        with torch.device("meta"):  # shapes without numbers
            described = make().state_dict()
    except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError, MemoryError, ConfigError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{path.parent} describes a network that cannot be made: {reason}") from error
    for name, tensor in described.items():
        key = f"{prefix}.{name}"
        if key not in found:
            raise CheckpointError(f"{path} has no tensor {key!r}: it was not made by these settings")
        if found[key] != tuple(tensor.shape):
            raise CheckpointError(
                f"{path}: {key} must be {tuple(tensor.shape)}, got {found[key]}: it was made with other sizes"
            )
    return make()


def read_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Read names and shapes of a safetensors file from its header alone; CheckpointError where it is none."""
    try:
        length = path.stat().st_size
        with open(path, "rb") as file:
            size = int.from_bytes(file.read(8), "little")
            if not 0 < size <= min(LARGEST_HEADER, length - 8):
                raise ValueError(f"a header of {size} bytes in a file of {length}")
            header: dict[str, Any] = json.loads(file.read(size))
        shapes = {name: tuple(entry["shape"]) for name, entry in header.items() if name != "__metadata__"}
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        if not all(isinstance(side, int) and side >= 0 for shape in shapes.values() for side in shape):
            raise ValueError("a shape that is none")
        if max(ends, default=0) != length - 8 - size or sum(map(math.prod, shapes.values())) > length:
            raise ValueError("tensors that do not fit its length")
        return shapes
    except FileNotFoundError as error:
        raise CheckpointError(f"no such weight file: {path}") from error
    except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path} is not a readable safetensors file: {error}") from error
