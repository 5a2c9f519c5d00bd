"""Settings on disk: what a run was made from, and how that differs from the settings of now."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from t2i.config.options import JointOptions, TextOptions, TrainConfig
from t2i.errors import CheckpointError, ConfigError

# Version of model and run folders, in config.json. 1 (no field at all) named the layers seed, grow, shrink and picture, which
# are project, up, down and to_rgb since 2, and the weight of GAN-INT interpolation_loss.
FORMAT = 2


class _OtherFormat(CheckpointError):
    """A folder of another version, and what to do with it."""

    def __init__(self, path: Path, found: object) -> None:
        if found == 1:
            why = "it was written by an older t2i, whose layers and settings had other names: train the model again"
        else:
            why = "it was written by a newer t2i: update t2i"
        super().__init__(f"{path} has folder format {str(found)[:40]}, this t2i reads {FORMAT}: {why}")


def to_json(config: TrainConfig) -> str:
    """Write settings as JSON, one field a line, with the version of the folder."""
    return json.dumps({"format": FORMAT} | dataclasses.asdict(config), indent=2) + "\n"


def from_json(path: Path) -> TrainConfig:
    """Read a run folder's config.json; CheckpointError where it is missing, damaged or of another version."""
    try:
        fields: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        found = fields.pop("format", 1)
        if found != FORMAT:
            raise _OtherFormat(path, found)
        text = TextOptions(**with_tuples(fields.pop("text")))
        return TrainConfig(**fields, text=text)
    except _OtherFormat:
        raise
    except FileNotFoundError as error:
        raise CheckpointError(f"{path.parent} is not a run folder: it has no {path.name}") from error
    except (ConfigError, OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read as the settings of a run: {error}") from error


def with_tuples(text: dict[str, Any]) -> dict[str, Any]:
    """Restore the tuples that JSON stores as lists."""
    return {**text, "channels": tuple(text["channels"])}


def text_options(path: Path) -> JointOptions:
    """Read the settings that a text encoder was trained with: text.json, or the config.json of a GAN's run.

    Raises:
        CheckpointError: neither is there, or it is damaged or of another version.
    """
    record = path / "text.json"
    if not record.exists():
        kept = dataclasses.asdict(from_json(path / "config.json").text)
        return JointOptions(**{name: value for name, value in kept.items() if name != "encoder"})
    try:
        return JointOptions(**with_tuples(json.loads(record.read_text(encoding="utf-8"))["settings"]["text"]))
    except (ConfigError, OSError, ValueError, TypeError, KeyError) as error:
        raise CheckpointError(f"{record} cannot be read as the settings of a text encoder: {error}") from error


def text_size(path: Path) -> int:
    """Read the side of the pictures that the image side of a run's joint embedding reads, in pixels.

    Raises:
        CheckpointError: the run's settings are missing or damaged.
    """
    record = path / "text.json"
    if not record.exists():
        return from_json(path / "config.json").size
    try:
        return int(json.loads(record.read_text(encoding="utf-8"))["settings"]["size"])
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise CheckpointError(f"{record} cannot be read as the settings of a text encoder: {error}") from error


RUNTIME_ONLY = {
    "out", "steps", "epochs", "log_every", "sample_every", "checkpoint_every", "device", "threads", "force", "data",
    "report_to", "compile", "cuda_graph", "kernels", "loader", "deterministic",
}  # fmt: skip


def model_settings(config: TrainConfig) -> dict[str, Any]:
    """List the settings that make another model: all but those about places, devices and how long."""
    kept = {name: value for name, value in dataclasses.asdict(config).items() if name not in RUNTIME_ONLY}
    return kept | {f"text.{name}": value for name, value in kept.pop("text").items()}


def differences(before: Mapping[str, Any], after: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Name what differs in two nested records, as "name: before -> after".

    What one of them lacks is not compared: another version did not write it. Digests are cut to twelve digits.
    """
    changed = []
    for key in (key for key in before if key in after):
        old, new = before[key], after[key]
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            changed += differences(old, new, f"{prefix}{key}.")
        elif old != new:
            changed.append(f"{prefix}{key}: {_short(old)} -> {_short(new)}")
    return changed


def _short(value: object) -> str:
    text = str(value)
    return text[:12] if len(text) == 64 else text
