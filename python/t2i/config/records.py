"""What a run was made from, on disk, and how that differs from the settings of now.

* `to_json`, `from_json`: config.json of a run folder. `text_options`, `text_size`: text.json of a text encoder.
* `model_settings`, `text_settings`: the settings that make another model, to be recorded and compared.
* `differences`: what differs between two records, as lines of a message; `listed` joins them.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from t2i.config.fields import UnknownSetting, build, checked
from t2i.config.options import JointOptions, StyleConfig, TextConfig, TrainConfig
from t2i.errors import CheckpointError, ConfigError
from t2i.files import read_json

T = TypeVar("T")
# Differences that say most, in the order that a message names them; it names SHOWN of all.
FIRST = ("data set", "data", "preset", "network", "size", "seed", "batch", "text.encoder", "text.kind", "init")
SHOWN = 5
UNREADABLE = (ConfigError, OSError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError)

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
        fields: dict[str, Any] = read_json(path)
        found = fields.pop("format", 1)
        if found != FORMAT:
            raise _OtherFormat(path, found)
        return _settings(fields | {"text": fields["text"]}, TrainConfig, path)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path.parent} is not a run folder: it has no {path.name}") from error
    except UNREADABLE as error:
        raise _unreadable(path, "a run", error) from error


def _settings(found: Mapping[str, Any], kind: type[T], path: Path) -> T:
    """Make a dataclass of recorded settings; ConfigError where one is unknown or of another type."""
    return build(kind, checked(found, kind, path.name))


def _unreadable(path: Path, of: str, error: Exception) -> CheckpointError:
    """Return why a record cannot be read; where a setting is unknown, another version wrote it."""
    if isinstance(error, _OtherFormat):
        return error
    why = str(error)
    if isinstance(error, UnknownSetting):
        why = f"this version of t2i has no setting {error.name}; train again, or use the version that made it"
    return CheckpointError(f"{path} cannot be read as the settings of {of}: {why}")


def _text_record(folder: Path) -> dict[str, Any] | None:
    """Read the settings in a folder's text.json; None where there is none."""
    path = folder / "text.json"
    if not path.exists():
        return None
    settings: dict[str, Any] = read_json(path)["settings"]
    return settings


def text_options(folder: Path) -> JointOptions:
    """Read the settings that a text encoder was trained with: text.json, or the config.json of a GAN's run.

    Raises:
        CheckpointError: neither is there, or it is damaged or of another version.
    """
    path = folder / "text.json"
    try:
        record = _text_record(folder)
        if record is not None:
            return _settings(record["text"], JointOptions, path)
    except UNREADABLE as error:
        raise _unreadable(path, "a text encoder", error) from error
    return JointOptions(**_joint(from_json(folder / "config.json")))


def text_size(folder: Path) -> int:
    """Read the size of the images that the image encoder of a run's joint embedding takes, in pixels.

    Raises:
        CheckpointError: the run's settings are missing or damaged.
    """
    try:
        record = _text_record(folder)
        if record is not None:
            return int(record["size"])
    except UNREADABLE as error:
        raise _unreadable(folder / "text.json", "a text encoder", error) from error
    return from_json(folder / "config.json").size


def runtime_only(kind: type) -> set[str]:
    """Name the settings that do not make another model: places, devices, how long and how often."""
    return {field.name for field in dataclasses.fields(kind) if field.metadata.get("runtime_only")}


RUNTIME_ONLY = runtime_only(TrainConfig)


def model_settings(config: TrainConfig | TextConfig | StyleConfig) -> dict[str, Any]:
    """List the settings that make another model, those of the text encoder as text.NAME."""
    left_out = runtime_only(type(config))
    kept = {name: value for name, value in dataclasses.asdict(config).items() if name not in left_out}
    return kept | {f"text.{name}": value for name, value in kept.pop("text", {}).items()}


def text_settings(config: TrainConfig | TextConfig) -> dict[str, Any]:
    """List the settings that make another text encoder, the same for a GAN's run and for `t2i-train text`."""
    return {name: getattr(config, name) for name in ("size", "flip", "seed", "precision")} | {"text": _joint(config)}


def _joint(config: TrainConfig | TextConfig) -> dict[str, Any]:
    return {field.name: getattr(config.text, field.name) for field in dataclasses.fields(JointOptions)}


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


def listed(changed: Sequence[str]) -> str:
    """Join differences for a message: those that say most first, and how many are not named where there are many.

    Another preset changes some twenty settings; a line that lists them all hides the one that was meant.
    """

    def place(difference: str) -> int:
        name = difference.partition(": ")[0].removeprefix("settings.")
        return FIRST.index(name) if name in FIRST else len(FIRST)

    ordered = sorted(changed, key=place)
    left = len(ordered) - SHOWN
    if left > 1:  # to say "and 1 more" takes as much room as the difference
        ordered[SHOWN:] = [f"and {left} more"]
    return "; ".join(ordered)


def _short(value: object) -> str:
    text = str(value)
    return text[:12] if len(text) == 64 else text
