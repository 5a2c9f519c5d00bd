"""Models on the Hugging Face Hub: fetched and published through `huggingface_hub`, and only when a name asks for it."""

import re
from pathlib import Path
from typing import Any

from t2i.errors import CheckpointError, ConfigError
from t2i.extras import require
from t2i.pretrained.folder import FILES

NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
OURS = ("runs", "data")  # first folders of t2i's own: runs/blossoms is never a name on the Hub


def is_name(name: str) -> bool:
    """Say whether a word can be a model's name on the Hub: owner/name, and no folder of t2i's own."""
    return NAME.fullmatch(name) is not None and ".." not in name and name.split("/")[0] not in OURS


def download(name: str, revision: str | None = None, token: str | None = None) -> Path:
    """Fetch the files of a model, and no others, into the user's cache; what is there already is not fetched again.

    Args:
        name: owner/name.
        revision: Branch, tag or commit; the main branch where it is None.
        token: For private models; without it, the one that huggingface_hub keeps.

    Returns:
        A folder of plain files.

    Raises:
        ConfigError: the extra is not installed.
        CheckpointError: no such model, or no way to the Hub.
    """
    from t2i.prepare import cache_folder  # only here: a picture's reader is no cost of drawing

    hub = require("huggingface_hub", f"{name} is no folder here; as a name on the Hugging Face Hub it", "hub")
    version = re.sub(r"[^\w.-]", "-", revision or "main")
    place = cache_folder() / "hub" / f"{name.replace('/', '--')}@{version}"
    try:
        found: str = hub.snapshot_download(
            name, revision=revision, token=token, allow_patterns=[*FILES, "data.json"], local_dir=place
        )
    except Exception as error:  # of huggingface_hub, its transport, or the disk: a dozen classes
        raise CheckpointError(
            f"{name} is no folder here, and cannot be had from the Hugging Face Hub: {_line(error)}"
        ) from error
    return Path(found)


def upload(folder: Path, name: str, *, private: bool, token: str | None, message: str) -> str:
    """Publish a model folder as owner/name, made where it does not exist; returns its address.

    Raises:
        ConfigError: the extra is not installed, or it is no such name.
        CheckpointError: the Hub refuses, or there is no way to it.
    """
    if not is_name(name):
        raise ConfigError(f"a model on the Hub is named owner/name, got {name!r}")
    hub = require("huggingface_hub", "push_to_hub", "hub")
    try:
        api: Any = hub.HfApi(token=token)
        address = api.create_repo(name, private=private, exist_ok=True)
        api.upload_folder(
            repo_id=name, folder_path=folder, allow_patterns=[*FILES, "data.json"], commit_message=message
        )
    except Exception as error:
        raise CheckpointError(f"{name} cannot be published on the Hugging Face Hub: {_line(error)}") from error
    return str(address)


def _line(error: Exception) -> str:
    """Cut an error to its first line."""
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)[:300]
