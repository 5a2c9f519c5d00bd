"""Packages that only some commands need: loaded when they are, with one clear line where they are missing."""

import importlib
from typing import Any

from t2i.errors import ConfigError


def require(module: str, what: str, extra: str) -> Any:
    """Import a package of an extra.

    Args:
        module: Its name, as in an import.
        what: Who needs it, for the message.
        extra: The extra of t2i that brings it.

    Raises:
        ConfigError: it is not installed, or does not load.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ConfigError(f"{what} needs {module}: pip install 't2i[{extra}]' ({error})") from error
