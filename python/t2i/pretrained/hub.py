"""Download and publish models through `huggingface_hub`, imported only when a name refers to the Hub."""

import re
from pathlib import Path
from typing import Any

from t2i.errors import CheckpointError, ConfigError
from t2i.extras import require
from t2i.files import cache_folder
from t2i.pretrained.folder import FILES

NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
OURS = ("runs", "data")  # first folders of t2i's own: runs/blossoms is never a name on the Hub


def is_name(name: str) -> bool:
    """Return whether a string can be the name of a model on the Hub: owner/name, and not a folder of t2i's own."""
    return NAME.fullmatch(name) is not None and ".." not in name and name.split("/")[0] not in OURS


def download(name: str, revision: str | None = None, token: str | None = None) -> Path:
    """Download the files of a model, and no others, into the user's cache; what is there is not downloaded again.

    Each commit has a folder of its own: a branch that moves on, or a download that breaks off, never mixes two models. Where
    the Hub cannot be reached, the commit that the branch was last seen at is taken, if all of it is there.

    Args:
        name: owner/name.
        revision: Branch, tag or commit; the main branch where it is None.
        token: For private models; without it, the one that huggingface_hub keeps.

    Returns:
        A folder of files, or of links into the blobs of the cache.

    Raises:
        ConfigError: the extra is not installed.
        CheckpointError: no such model, or the Hub cannot be reached.
    """
    hub = require("huggingface_hub", f"{name} is not a folder here; loading it from the Hugging Face Hub", "hub")
    try:
        found: str = hub.snapshot_download(
            name, revision=revision, token=token, allow_patterns=[*FILES, "data.json"], cache_dir=cache_folder() / "hub"
        )
    except Exception as error:  # huggingface_hub, its transport and the disk raise a dozen classes
        raise CheckpointError(
            f"{name} is not a folder here, and cannot be downloaded from the Hugging Face Hub: {_line(error)}"
        ) from error
    return Path(found)


def upload(folder: Path, name: str, *, private: bool, token: str | None, message: str) -> str:
    """Publish a model folder as owner/name, created where it does not exist; returns its address.

    Raises:
        ConfigError: the extra is not installed, or the name is not owner/name.
        CheckpointError: the Hub refuses, or cannot be reached.
    """
    if not is_name(name):
        raise ConfigError(f"a model on the Hub is named owner/name, got {name!r}")
    hub = require("huggingface_hub", "push_to_hub", "hub")
    try:
        api: Any = hub.HfApi(token=token)
        address = api.create_repo(name, private=private, exist_ok=True)
        ours = [*FILES, "data.json"]
        stale = [each for each in ours if not (folder / each).exists()]  # a style encoder of the model that was there
        api.upload_folder(
            repo_id=name, folder_path=folder, allow_patterns=ours, delete_patterns=stale, commit_message=message
        )
    except Exception as error:
        raise CheckpointError(f"{name} cannot be published on the Hugging Face Hub: {_line(error)}") from error
    return str(address)


def _line(error: Exception) -> str:
    """Return the first line of an error."""
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)[:300]
