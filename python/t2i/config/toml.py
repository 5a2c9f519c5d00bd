"""Settings in a TOML file: the same names as the flags, the nested ones in a table.

    preset = "flowers"
    batch = 64

    [text]
    dim = 256

Flags win over the file, the file over the preset. What `to_toml` writes, `read_toml` reads to the same settings.
"""

import codecs
import dataclasses
import json
import textwrap
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from t2i.config.fields import NONE, arranged, checked
from t2i.errors import ConfigError
from t2i.files import MAX_RECORD_BYTES, read_file


def to_toml(settings: Any, without: Iterable[str] = ("force",)) -> str:
    """Write a dataclass of settings as TOML, the help of each above it."""
    return "\n".join(_lines(settings, set(without))) + "\n"


def _lines(settings: Any, without: set[str]) -> list[str]:
    lines: list[str] = []
    tables: list[str] = []
    for field in arranged(settings):
        value = getattr(settings, field.name)
        if dataclasses.is_dataclass(value):
            tables += ["", f"[{field.name}]", *_lines(value, set())]
        elif field.name not in without:
            lines += textwrap.wrap(field.metadata["help"], 98, initial_indent="# ", subsequent_indent="# ")
            lines.append(f"{field.name} = {_written(value)}")
    return lines + tables


def _written(value: Any) -> str:
    if isinstance(value, (tuple, list)):
        return f"[{', '.join(map(_written, value))}]"
    if isinstance(value, float):
        return repr(value)
    return json.dumps(NONE if value is None else value)


def read_toml(path: Path, kind: type) -> dict[str, Any]:
    """Read settings of a dataclass from a TOML file.

    Args:
        path: The file.
        kind: The dataclass; its fields may be written with - or _.

    Returns:
        Values by field, checked against the types; a nested dataclass is a dictionary of the same kind.

    Raises:
        ConfigError: not readable, no TOML, an unknown setting (the nearest known one is named) or one of another type.
    """
    try:
        found = tomllib.loads(_decoded(read_file(path, MAX_RECORD_BYTES, ConfigError)))
    except OSError as error:
        raise ConfigError(f"--config {path}: {error.strerror}; t2i-train --print-config writes such a file") from error
    except (ValueError, RecursionError) as error:  # also what is not UTF-8
        why = "it is nested too deeply" if isinstance(error, RecursionError) else error
        raise ConfigError(f"--config {path} is not TOML: {why}") from error
    return checked(found, kind, str(path))


def _decoded(data: bytes) -> str:
    """Decode UTF-8, also with the mark that Notepad begins it with, or what PowerShell's > writes: marked UTF-16."""
    return data.decode("utf-16" if data[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig")
