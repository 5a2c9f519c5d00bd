"""What a training depends on, compared with what its folder was made from before anything is written.

* `check_resume`: config.json and data.json, as the last command left them.
* `check_replaces`: weights without a checkpoint to go on from, which training would replace.
* `gan_metadata`: what every checkpoint of a GAN was made from; `Checkpoints.restore` compares it, so that a folder whose
  config.json was lost or copied from elsewhere is not resumed with other data either.
* `check_record`: text.json and style.json, which say the same of an encoder; `resolve_precision` reads them.
"""

import contextlib
import dataclasses
import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch

from t2i import runtime
from t2i.config.options import StyleConfig, TextConfig, TrainConfig
from t2i.config.records import differences, from_json, listed, model_settings
from t2i.data.dataset import PackedDataset
from t2i.errors import CheckpointError, ConfigError
from t2i.files import read_json
from t2i.text.pretrained import encoder_file
from t2i.training.checkpoint import check_newest, has_checkpoint

Encoder = TypeVar("Encoder", TextConfig, StyleConfig)


def recorded_settings(folder: Path) -> TrainConfig | None:
    """Read the settings that a run folder began with; None where it has none that can be read."""
    try:
        return from_json(folder / "config.json")
    except CheckpointError:
        return None


def check_resume(config: TrainConfig, folder: Path, data: PackedDataset) -> None:
    """Refuse to resume in a run folder that was made with other settings or other data, showing what differs."""
    path = folder / "config.json"
    check_replaces(folder / "model.safetensors", "a model", folder, config.force)
    if config.force:
        return
    if not path.exists():  # lost: the checkpoints know too, and nothing has been written yet that would hide them
        check_newest(folder, {"data": data.fingerprint, "settings": model_settings(config)})
        return
    before = from_json(path)
    changed = differences(model_settings(before), model_settings(config))
    record = folder / "data.json"
    if record.exists():
        changed += differences({"data set": _fingerprint(record)}, {"data set": data.fingerprint})
    if changed:
        resume = f"take --preset {before.preset} to resume it, " if before.preset != config.preset else ""
        raise ConfigError(
            f"{folder} holds a run with other settings ({listed(changed)}); {resume}choose another --out or add --force"
        )


def check_replaces(weights: Path, what: str, run: Path, force: bool) -> None:
    """Refuse to begin at the first step where finished weights lie: they would be replaced by those of an untrained network.

    No kill leaves weights without a checkpoint, which is written before them. Their folder was saved by `save_pretrained` or
    copied without its checkpoints, or these were deleted.

    Args:
        weights: What training would replace.
        what: Names it in the message.
        run: Its checkpoints are in `checkpoints`.
        force: Replace it.

    Raises:
        ConfigError: they would be replaced, and `force` is not set.
    """
    if force or not weights.exists() or has_checkpoint(run):
        return
    if any((run / "checkpoints").glob("diverged-step-*")):  # none was good: the same command begins again
        return
    raise ConfigError(
        f"{weights.parent} holds {what} but no checkpoint of it: training would start again and replace it; choose another "
        "--out, or add --force to replace it"
    )


def _fingerprint(record: Path) -> str:
    try:
        return str(read_json(record)["fingerprint"])
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise CheckpointError(f"{record} does not say what the run was trained on; add --force to go on") from error


def gan_metadata(config: TrainConfig, data: PackedDataset, folder: Path) -> dict[str, Any]:
    """List all that the state of a GAN's run depends on: data, settings and the text encoder's file."""
    metadata: dict[str, Any] = {"data": data.fingerprint, "settings": model_settings(config)}
    if config.text.encoder != "end-to-end":
        joint = config.text.encoder == "joint"
        path = folder / "text.safetensors" if joint else encoder_file(config.text.encoder)
        with open(path, "rb") as file:
            metadata["text_sha256"] = hashlib.file_digest(file, "sha256").hexdigest()
    return metadata


def resolve_precision(config: Encoder, path: Path, device: torch.device) -> Encoder:
    """Decide the precision of an encoder's training where the settings leave it open: as its record says, else by timing.

    Two timings on one machine may differ, and a training that is resumed in another precision ends with other weights.

    Args:
        config: The settings.
        path: text.json or style.json, where the training has begun. One that says "auto" (older versions) stays so.
        device: Where the training computes.
    """
    if config.precision != "auto":
        return config
    precision: Any = None
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError, RecursionError):  # `check_record` says so
        precision = read_json(path)["settings"]["precision"]
    if precision not in ("auto", "float32", "bfloat16"):  # nothing has begun
        fast = runtime.pick_precision("auto", device) is torch.bfloat16
        precision = "bfloat16" if fast else "float32"
    return dataclasses.replace(config, precision=precision)


def check_record(path: Path, metadata: Mapping[str, Any], force: bool) -> None:
    """Compare with the record of an encoder that a folder has, if any.

    Args:
        path: text.json or style.json; checkpoints and weights of the encoder lie beside it, under the same name.
        metadata: What the encoder depends on now.
        force: Remove an encoder that was made from something else.

    Raises:
        ConfigError: it was made from something else, and `force` is not set; the message shows the difference.
    """
    if not path.exists():
        return
    try:
        before = read_json(path)
        changed = differences(before, json.loads(json.dumps(metadata)))
        missing = {*metadata, *metadata["settings"]} - {*before, *before["settings"]}
        changed += [f"{path.name} does not say: {', '.join(sorted(missing))}"] if missing else []
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        changed = [f"{path.name} is damaged"]
    if changed and not force:
        raise ConfigError(
            f"{path.parent} has a {path.stem} encoder made from something else ({listed(changed)}); choose another "
            "--out, or add --force to train it again"
        )
    if changed:
        shutil.rmtree(path.with_suffix(""), ignore_errors=True)
        path.with_suffix(".safetensors").unlink(missing_ok=True)
