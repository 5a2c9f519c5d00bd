"""What a run must agree with to go on in its folder, compared before anything is written.

* `check_resume`: config.json and data.json, as the last command left them.
* `facts_of`: what every checkpoint was made from; `Checkpoints.restore` compares it, so that a folder whose config.json was
  lost or copied from elsewhere does not go on with other data either.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from t2i.config.options import TrainConfig
from t2i.config.records import describe, differences, from_json, model_settings
from t2i.data.dataset import PackedDataset
from t2i.errors import CheckpointError, ConfigError
from t2i.text.pretrained import encoder_file
from t2i.training.checkpoint import check_newest


def check_resume(config: TrainConfig, folder: Path, data: PackedDataset) -> None:
    """Refuse to go on in a run folder that was made with other settings or other data, showing what differs."""
    path = folder / "config.json"
    if config.force:
        return
    if not path.exists():  # lost: the checkpoints know too, and nothing has been written yet that would hide them
        check_newest(folder, {"data": data.fingerprint, "settings": model_settings(config)})
        return
    changed = differences(model_settings(from_json(path)), model_settings(config))
    record = folder / "data.json"
    if record.exists():
        changed |= differences({"data set": _fingerprint(record)}, {"data set": data.fingerprint})
    if changed:
        raise ConfigError(
            f"{folder} holds a run with other settings ({describe(changed)}); choose another --out or add --force"
        )


def _fingerprint(record: Path) -> str:
    try:
        return str(json.loads(record.read_text(encoding="utf-8"))["fingerprint"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{record} does not say what the run was trained on; add --force to go on") from error


def facts_of(config: TrainConfig, data: PackedDataset, folder: Path) -> dict[str, Any]:
    """Say all that the state of a GAN's run was made from: data, settings and the text encoder's file."""
    facts: dict[str, Any] = {"data": data.fingerprint, "settings": model_settings(config)}
    if config.text.encoder != "end-to-end":
        joint = config.text.encoder == "joint"
        path = folder / "text.safetensors" if joint else encoder_file(config.text.encoder)
        with open(path, "rb") as file:
            facts["text_sha256"] = hashlib.file_digest(file, "sha256").hexdigest()
    return facts
