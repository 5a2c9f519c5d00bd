"""Model folders from anywhere: checked before they are read, and written for others.

A model folder holds `config.json`, `model.safetensors` and, with a style encoder, `style.json` and `style.safetensors`;
`Pipeline.save_pretrained` adds `README.md` and `data.json`, with nothing in them of the machine the model was trained on.
A folder may come from a stranger:

* a file must be a regular file of the folder: no link out of it (but into the blobs of the Hub's cache), device or pipe;
* at most a megabyte of settings is read, and the networks they describe are built without memory first;
* names, shapes and dtypes of the weights are compared with those networks from the file's header, before any weight is read;
* a folder of another version (`records.FORMAT`) is refused.

Nothing is unpickled: other files of the folder are ignored.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from t2i.config.options import TrainConfig
from t2i.config.records import from_json, to_json
from t2i.errors import CheckpointError
from t2i.files import read_file, read_json, replace_together
from t2i.locks import RunLock
from t2i.weights import module_tensors, non_finite, read_header, serialise

MAX_SETTINGS_BYTES = 1_000_000  # bytes
MAX_SIZE = 4096  # side of an image in pixels
MAX_METRICS_BYTES = 256 << 20  # of metrics.jsonl
KNOWN: dict[str, type] = {  # what a data.json says
    "name": str,
    "images": int,
    "captions": int,
    "classes": int,
    "image_size": int,
    "fingerprint": str,
    "provenance": dict,
    "steps": int,
}
FILES = ("config.json", "model.safetensors", "style.json", "style.safetensors", "README.md")


def plain_file(folder: Path, name: str, most: int | None = None) -> Path:
    """Return the path of a file of a model folder: a regular file, inside the folder, of at most `most` bytes.

    Raises:
        CheckpointError: it is something else, or larger. A missing file is left to the caller.
    """
    path = folder / name
    try:
        real = path.resolve(strict=True) if path.is_symlink() else path
        if real is not path and folder.resolve() not in real.parents and not _in_hub_cache(folder.resolve(), real):
            raise CheckpointError(f"{path} is a link that leads out of the folder; copy the file itself there")
        if path.exists() and not path.is_file():
            raise CheckpointError(f"{path} is not a plain file")
        size = path.stat().st_size if path.exists() else 0
    except (OSError, RuntimeError) as error:  # a link to itself, a name that is too long, no permission
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    if most is not None and size > most:
        raise CheckpointError(f"{path} has {size:,} bytes; at most {most:,} were expected")
    return path


def _in_hub_cache(folder: Path, real: Path) -> bool:
    """Return whether a file is a blob of the Hub's cache: models--NAME/snapshots/REVISION/ links to models--NAME/blobs/."""
    model = folder.parent.parent
    return folder.parent.name == "snapshots" and model.name.startswith("models--") and real.parent == model / "blobs"


def read_settings(folder: Path) -> TrainConfig:
    """Read the settings of a model folder; CheckpointError where they are missing, damaged, or absurd."""
    path = plain_file(folder, "config.json", MAX_SETTINGS_BYTES)
    if not path.exists() and ((folder / "model.safetensors").exists() or any(folder.glob(".*.partial"))):
        raise CheckpointError(
            f"{folder} is not complete: it has no config.json, which comes last when a model is saved; save it, copy it or "
            "download it again"
        )
    try:
        config = from_json(path)
    except RecursionError as error:
        raise CheckpointError(f"{path} cannot be read as the settings of a run: it is nested too deeply") from error
    if config.size > MAX_SIZE:
        raise CheckpointError(f"{path}: images of {config.size} px; at most {MAX_SIZE} were expected")
    return config


def tensor_names(path: Path) -> set[str]:
    """List the tensors of a safetensors file from its header; CheckpointError where it is not one."""
    return set(read_header(path).tensors)


def model_hash(folder: Path) -> str:
    """Return the SHA-256 of a model's weights, which ties a style encoder to the generator that it inverts."""
    with open(folder / "model.safetensors", "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def portable(config: TrainConfig) -> TrainConfig:
    """Remove from settings what belongs to this machine: folders and the device."""
    encoder = config.text.encoder
    teacher = Path(config.text.teacher).name
    text = dataclasses.replace(config.text, encoder=Path(encoder).name or encoder, teacher=teacher)
    return dataclasses.replace(
        config, data=None, out=None, device="auto", threads=0, force=False, report_to="", text=text
    )


class StyleParts(NamedTuple):
    """A style encoder, to be written beside the model that it inverts."""

    encoder: nn.Module
    width: int
    blur: float


def write_model(
    folder: Path,
    networks: Mapping[str, nn.Module],
    config: TrainConfig,
    data: Mapping[str, Any],
    card: str,
    style: StyleParts | None = None,
) -> None:
    """Write a model folder: settings, weights, what the data was, the model card and the style encoder.

    A model that is there is replaced: by all of the new one or, where the disk does not take it, by nothing. A process that
    is killed at the moment of the change leaves a folder without config.json, which `read_settings` refuses.

    Raises:
        CheckpointError: it cannot be written, something else than a saved model would be overwritten, or a weight is NaN or
            infinity.
    """
    weights = _weights(networks)
    files: dict[str, bytes | None] = {
        "model.safetensors": weights,
        "data.json": _record(data),
        "README.md": card.encode("utf-8", "replace"),
        "style.json": None,  # of a model that was here before
        "style.safetensors": None,
        "config.json": to_json(portable(config)).encode(),
    }
    if style is not None:
        settings = {"width": style.width, "blur": style.blur}
        files["style.json"] = _record({"settings": settings, "model_sha256": hashlib.sha256(weights).hexdigest()})
        files["style.safetensors"] = _weights({"style": style.encoder})
    _check_replaced(folder)
    with RunLock(folder, "model", keep=False):
        replace_together(folder, files, key="config.json")


def _weights(networks: Mapping[str, nn.Module]) -> bytes:
    tensors = module_tensors(networks)
    wrong = non_finite(tensors)
    if wrong is not None:
        raise CheckpointError(f"{wrong} holds NaN or infinity: such a model is not saved, since none could be loaded")
    return serialise(tensors)


def _record(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode("utf-8", "replace")


def _check_replaced(folder: Path) -> None:
    """Raise CheckpointError where saving would overwrite what `write_model` did not write."""
    if (folder / "checkpoints").is_dir():
        raise CheckpointError(
            f"{folder} is a run with checkpoints, whose model would be replaced: save to another folder"
        )
    for name, ours in (("config.json", b'"generator_width"'), ("README.md", b"library_name:")):
        path = folder / name
        try:
            known = not path.is_file() or ours in read_file(path, MAX_SETTINGS_BYTES)
        except CheckpointError:
            known = False
        if not known:
            raise CheckpointError(f"{path} is not a saved model's and would be overwritten: move it, or save elsewhere")


def data_metadata(folder: Path | None) -> dict[str, Any]:
    """Describe what a model was trained on, from its folder and the pack if it is still there; no paths of this machine.

    Returns:
        Those known of name, images, captions, classes, image_size, fingerprint, provenance and steps (of training).
    """
    if folder is None:
        return {}
    record = _read_object(folder / "data.json")
    metadata = _sound(record, *KNOWN)
    if isinstance(record.get("path"), str):
        manifest = _read_object(Path(record["path"]) / "pack.json")
        if manifest:
            metadata |= _sound(manifest, "name", "captions", "image_size", "provenance")
            classes = manifest.get("classes")
            metadata["classes"] = len(classes) if isinstance(classes, list) else 0
    steps = _steps(folder / "metrics.jsonl")
    return metadata if steps is None else metadata | {"steps": steps}


def _sound(record: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """Take the named values that are of the kind that t2i writes; a stranger's record may hold anything."""
    found: dict[str, Any] = {}
    for name in names:
        value = record.get(name)
        if isinstance(value, KNOWN[name]) and not isinstance(value, bool):
            if isinstance(value, dict):
                value = {
                    key[:100]: each for key, each in list(value.items())[:50] if isinstance(each, (str, int, float))
                }
            found[name] = value[:1000] if isinstance(value, str) else value
    return found


def _steps(path: Path) -> int | None:
    """Find the last step of the GAN in metrics.jsonl."""
    try:
        lines = read_file(path, MAX_METRICS_BYTES).decode().splitlines()
        return next(
            (int(record["step"]) for record in map(json.loads, reversed(lines)) if record["phase"] == "gan"), None
        )
    except (OSError, ValueError, LookupError, TypeError, ArithmeticError, RecursionError):
        return None


def _read_object(path: Path) -> dict[str, Any]:
    """Read a JSON object; an empty one where there is none."""
    try:
        content = read_json(path)
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
