"""Model folders from anywhere: looked at before they are read, and written for others.

A model folder is `config.json`, `model.safetensors` and, where a style encoder belongs to it, `style.json` and
`style.safetensors`; what `Pipeline.save_pretrained` writes has a `README.md` too, and nothing in it of the machine it was
trained on. A folder may come from a stranger:

* a file must be a plain file of the folder, no link out of it (but into the blobs of the Hub's cache), device or pipe;
* settings are read up to a megabyte, and describe networks that are built without memory first;
* the weights' names, shapes and kinds are compared with those networks from the file's header, before anything is read.

There is no pickle on this road: other files of the folder are not looked at.
"""

import dataclasses
import json
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from t2i.config.options import TrainConfig
from t2i.config.records import from_json, to_json
from t2i.errors import CheckpointError, ConfigError
from t2i.files import write_atomically
from t2i.weights import save_weights

MAX_SETTINGS_BYTES = 1_000_000  # bytes
MAX_HEADER_BYTES = 10_000_000  # bytes
MAX_SIZE = 4096  # side of a picture in pixels
MAX_NUMBERS = 4_000_000_000  # weights of all networks together; the paper's have 24 million
FILES = ("config.json", "model.safetensors", "style.json", "style.safetensors", "README.md")
Network = TypeVar("Network", bound=nn.Module)
KINDS = {"F64", "F32", "F16", "BF16"}


def plain_file(folder: Path, name: str, most: int | None = None) -> Path:
    """Find a file of a model folder: a plain one, inside the folder, of at most `most` bytes.

    Raises:
        CheckpointError: it is something else, or larger; a file that is missing is left to whoever reads it.
    """
    path = folder / name
    try:
        real = path.resolve(strict=True) if path.is_symlink() else path
        if real is not path and folder.resolve() not in real.parents and not _in_hub_cache(folder.resolve(), real):
            raise CheckpointError(f"{path} is a link that leads out of the folder; copy the file itself there")
        if path.exists() and not path.is_file():
            raise CheckpointError(f"{path} is not a plain file")
        size = path.stat().st_size if path.exists() else 0
    except (OSError, RuntimeError) as error:  # a link to itself, a name that is too long, no right to look
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    if most is not None and size > most:
        raise CheckpointError(f"{path} has {size:,} bytes; at most {most:,} were expected")
    return path


def _in_hub_cache(folder: Path, real: Path) -> bool:
    """Say whether a file is a blob of the Hub's cache: models--NAME/snapshots/REVISION/ links to models--NAME/blobs/."""
    model = folder.parent.parent
    return folder.parent.name == "snapshots" and model.name.startswith("models--") and real.parent == model / "blobs"


def read_settings(folder: Path) -> TrainConfig:
    """Read the settings of a model folder; CheckpointError where they are missing, damaged, or absurd."""
    path = plain_file(folder, "config.json", MAX_SETTINGS_BYTES)
    try:
        config = from_json(path)
    except RecursionError as error:
        raise CheckpointError(f"{path} cannot be read as the settings of a run: it is nested too deeply") from error
    if config.size > MAX_SIZE:
        raise CheckpointError(f"{path}: pictures of {config.size} px; at most {MAX_SIZE} were expected")
    return config


def checked_network(path: Path, prefix: str, make: Callable[[], Network]) -> Network:
    """Build a network whose weights are those of a file: compared first, and only then given memory.

    Args:
        path: The safetensors file; its numbers are not read here.
        prefix: What its names begin with.
        make: Builds the network.

    Raises:
        CheckpointError: the settings describe no network, or one of another shape than the file.
    """
    try:
        with torch.device("meta"):  # shapes without the memory
            expected = make().state_dict()
        numbers = sum(tensor.numel() for tensor in expected.values())
    except (ConfigError, RuntimeError, TypeError, ValueError, OverflowError, AttributeError) as error:
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise CheckpointError(f"{path.parent}: its settings describe no network that can be built: {reason}") from error
    if numbers > MAX_NUMBERS:
        raise CheckpointError(f"{path.parent}: its settings describe a network of {numbers:,} weights")
    found = _header(path)
    for name, tensor in expected.items():
        key = f"{prefix}.{name}"
        if key not in found:
            raise CheckpointError(f"{path} has no tensor {key!r}: it was not made by these settings")
        kind, shape = found[key]
        if shape != tuple(tensor.shape):
            raise CheckpointError(
                f"{path}: {key} must be {tuple(tensor.shape)}, got {shape}: it was made with other sizes"
            )
        if (kind in KINDS) != tensor.is_floating_point():
            raise CheckpointError(f"{path}: {key} must be {tensor.dtype}, got {kind}")
    left = sorted(key for key in found if key.startswith(f"{prefix}.") and key[len(prefix) + 1 :] not in expected)
    if left:
        raise CheckpointError(f"{path} has a tensor {left[0]!r} that these settings know nothing of")
    return make()


def names(path: Path) -> set[str]:
    """List the tensors of a safetensors file from its header; CheckpointError where it is none."""
    return set(_header(path))


def _header(path: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Read kinds and shapes from a safetensors file's header; whether the rest is sound, its library says on reading."""
    if not path.is_file():
        raise CheckpointError(f"no such weight file: {path}")
    try:
        with open(path, "rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > min(MAX_HEADER_BYTES, path.stat().st_size):
                raise ValueError(f"a header of {length:,} bytes")
            content = json.loads(file.read(length))
        return {
            name: (str(entry["dtype"]), tuple(int(side) for side in entry["shape"]))
            for name, entry in content.items()
            if name != "__metadata__"
        }
    except (
        OSError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        ArithmeticError,
        RecursionError,
        struct.error,
    ) as error:
        raise CheckpointError(f"{path} is not a readable safetensors file: {error}") from error


def portable(config: TrainConfig) -> TrainConfig:
    """Take out of settings what belongs to the machine: folders and the device."""
    encoder = config.text.encoder
    teacher = Path(config.text.teacher).name
    text = dataclasses.replace(config.text, encoder=Path(encoder).name or encoder, teacher=teacher)
    return dataclasses.replace(
        config, data=None, out=None, device="auto", threads=0, force=False, report_to="", text=text
    )


def write_model(
    folder: Path, networks: Mapping[str, nn.Module], config: TrainConfig, data: Mapping[str, Any], card: str
) -> None:
    """Write a model folder: settings, weights, what the data was, and the model card.

    Raises:
        CheckpointError: it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CheckpointError(f"cannot make {folder}: {error.strerror}; choose another folder") from error
    for stale in ("style.json", "style.safetensors"):  # of a model that was here before
        (folder / stale).unlink(missing_ok=True)
    save_weights(folder / "model.safetensors", networks)
    write_atomically(folder / "config.json", to_json(portable(config)).encode())
    write_atomically(folder / "data.json", (json.dumps(data, indent=2, ensure_ascii=False) + "\n").encode())
    write_atomically(folder / "README.md", card.encode())


def write_style(folder: Path, encoder: nn.Module, width: int, blur: float, model_sha256: str) -> None:
    """Write a style encoder beside the model that it inverts."""
    save_weights(folder / "style.safetensors", {"style": encoder})
    facts = {"settings": {"width": width, "blur": blur}, "model_sha256": model_sha256}
    write_atomically(folder / "style.json", (json.dumps(facts, indent=2) + "\n").encode())


def data_facts(folder: Path | None) -> dict[str, Any]:
    """Say what a model was trained on, as far as its folder and the pack still tell: no paths of this machine.

    Returns:
        Some of name, images, captions, classes, image_size, fingerprint, provenance; and steps, how long.
    """
    if folder is None:
        return {}
    record = _read_facts(folder / "data.json")
    known = ("name", "images", "captions", "classes", "image_size", "fingerprint", "provenance", "steps")
    facts = {key: record[key] for key in known if key in record}
    if isinstance(record.get("path"), str):
        manifest = _read_facts(Path(record["path"]) / "pack.json")
        if manifest:
            facts |= {key: manifest[key] for key in ("name", "captions", "image_size", "provenance") if key in manifest}
            facts["classes"] = len(manifest.get("classes") or ())
    steps = _steps(folder / "metrics.jsonl")
    return facts if steps is None else {**facts, "steps": steps}


def _steps(path: Path) -> int | None:
    """Find the last step of the GAN in metrics.jsonl."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        return next(
            (int(record["step"]) for record in map(json.loads, reversed(lines)) if record["phase"] == "gan"), None
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _read_facts(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
