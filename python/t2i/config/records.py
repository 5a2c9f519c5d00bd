"""What a run was made from, on disk, and how that differs from the settings of now.

* `to_json`, `from_json`: config.json of a run folder. `text_options`, `text_size`: text.json of a text encoder.
* `model_settings`, `text_settings`: the settings that make another model, to be recorded and compared.
* `differences`, `describe`: what differs between two records, and that as a message.
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from t2i.config.fields import UnknownSetting, build, checked
from t2i.config.options import JointOptions, StyleConfig, TextConfig, TrainConfig
from t2i.errors import CheckpointError, ConfigError

T = TypeVar("T")
UNREADABLE = (ConfigError, OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError)
NOT_RECORDED = "not recorded"


def to_json(config: TrainConfig) -> str:
    """Write settings as JSON, one field a line."""
    return json.dumps(dataclasses.asdict(config), indent=2) + "\n"


def from_json(path: Path) -> TrainConfig:
    """Read a run folder's config.json; CheckpointError where it is missing, damaged or of another version."""
    try:
        return _settings(json.loads(path.read_text(encoding="utf-8")), TrainConfig, path)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path.parent} is not a run folder: it has no {path.name}") from error
    except UNREADABLE as error:
        raise _unreadable(path, "a run", error) from error


def _settings(found: Mapping[str, Any], kind: type[T], path: Path) -> T:
    """Make a dataclass of recorded settings; ConfigError where one is unknown or of another type."""
    return build(kind, checked(found, kind, path.name))


def _unreadable(path: Path, of: str, error: Exception) -> CheckpointError:
    """Say why a record cannot be read; where a setting is unknown, another version wrote it."""
    why = str(error)
    if isinstance(error, UnknownSetting):
        why = f"this version of t2i has no setting {error.name}; train again, or use the version that made it"
    return CheckpointError(f"{path} cannot be read as the settings of {of}: {why}")


def _text_record(folder: Path) -> dict[str, Any] | None:
    """Read the settings in a folder's text.json; None where there is none."""
    path = folder / "text.json"
    if not path.exists():
        return None
    settings: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["settings"]
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


def differences(before: Mapping[str, Any], after: Mapping[str, Any], prefix: str = "") -> dict[str, tuple[Any, Any]]:
    """Compare two nested records, of settings, fingerprints and checksums.

    Args:
        before: As it was written.
        after: As it would be written now. What only `before` has is not compared.
        prefix: What the names begin with.

    Returns:
        Name to (before, after) of each value that differs; a value that `before` lacks was not recorded.

    Example:
        >>> describe(differences({"text": {"dim": 256}}, {"text": {"dim": 128}, "seed": 0}))
        'text.dim: 256 -> 128; seed: not recorded -> 0'
    """
    changed: dict[str, tuple[Any, Any]] = {}
    for name, new in after.items():
        old = before.get(name, NOT_RECORDED)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            changed |= differences(old, new, f"{prefix}{name}.")
        elif _plain(old) != _plain(new):
            changed[f"{prefix}{name}"] = (old, new)
    return changed


def describe(changed: Mapping[str, tuple[Any, Any]]) -> str:
    """Say what differs: "name: before -> after; ...", fingerprints cut to what tells them apart."""
    return "; ".join(f"{name}: {_short(old)} -> {_short(new)}" for name, (old, new) in changed.items())


def _plain(value: Any) -> Any:
    """Write tuples as JSON returns them."""
    return [_plain(each) for each in value] if isinstance(value, (list, tuple)) else value


def _short(value: Any) -> str:
    text = str(value)
    return text[:12] if len(text) == 64 else text
