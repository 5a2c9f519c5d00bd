"""Settings in a TOML file: the same names as the flags, the nested ones in a table.

    preset = "flowers"
    batch = 64

    [text]
    dim = 256

Flags win over the file, the file over the preset. What `to_toml` writes, `read_toml` reads to the same settings.
"""

import ast
import dataclasses
import difflib
import inspect
import json
import textwrap
import tomllib
import types
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from t2i.errors import ConfigError

NONE = "none"  # TOML has no word for it
WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text in quotes"}


def nearest(name: str, known: Iterable[str], before: str = "") -> str:
    """Say "; did you mean X?" for a mistyped name, or nothing where none is near; `before` is written before X."""
    found = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; did you mean {before}{found[0]}?" if found else ""


def documentation(kind: type) -> dict[str, str]:
    """Read what is written below each field of a dataclass and those it extends, as one line each."""
    found: dict[str, str] = {}
    for each in reversed(kind.__mro__[:-1]):
        try:
            body = ast.parse(textwrap.dedent(inspect.getsource(each))).body[0]
        except (OSError, TypeError, SyntaxError):
            continue  # without source, without help
        assert isinstance(body, ast.ClassDef)
        for field, text in zip(body.body, body.body[1:], strict=False):
            if (
                isinstance(field, ast.AnnAssign)
                and isinstance(field.target, ast.Name)
                and isinstance(text, ast.Expr)
                and isinstance(text.value, ast.Constant)
            ):
                found[field.target.id] = " ".join(str(text.value.value).split())
    return found


def to_toml(settings: Any, without: Iterable[str] = ("force",)) -> str:
    """Write a dataclass of settings as TOML, what each means above it."""
    return "\n".join(_lines(settings, set(without))) + "\n"


def _lines(settings: Any, without: set[str]) -> list[str]:
    lines: list[str] = []
    tables: list[str] = []
    explained = documentation(type(settings))
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if dataclasses.is_dataclass(value):
            tables += ["", f"[{field.name}]", *_lines(value, set())]
        elif field.name not in without:
            lines += textwrap.wrap(explained.get(field.name, ""), 98, initial_indent="# ", subsequent_indent="# ")
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
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"--config {path}: {error.strerror}; t2i-train --print-config writes such a file") from error
    except ValueError as error:  # also what is not UTF-8
        raise ConfigError(f"--config {path} is not TOML: {error}") from error
    return _checked(found, kind, str(path), "")


def over(values: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, Any]:
    """Lay values over others; nested ones likewise."""
    merged = dict(base)
    for name, value in values.items():
        merged[name] = over(value, base.get(name, {})) if isinstance(value, Mapping) else value
    return merged


def _checked(found: Mapping[str, Any], kind: type, path: str, prefix: str) -> dict[str, Any]:
    hints = get_type_hints(kind)
    fields = {field.name: hints[field.name] for field in dataclasses.fields(kind)}
    out: dict[str, Any] = {}
    for key, value in found.items():
        name = key.replace("-", "_")
        if name not in fields:
            raise ConfigError(f"{path}: there is no setting {prefix}{key}{nearest(name, fields, prefix)}")
        if dataclasses.is_dataclass(fields[name]):
            if not isinstance(value, dict):
                raise ConfigError(f"{path}: {prefix}{key} must be a table, [{prefix}{key}], got {value!r}")
            out[name] = _checked(value, fields[name], path, f"{name}.")
        else:
            out[name] = _typed(value, fields[name], f"{path}: {prefix}{key}")
    return out


def _typed(value: Any, hint: Any, what: str) -> Any:
    """Return a value of TOML as what a field holds, or raise ConfigError."""
    if get_origin(hint) is Annotated:
        hint = get_args(hint)[0]
    if get_origin(hint) in (Union, types.UnionType):
        (hint,) = (each for each in get_args(hint) if each is not type(None))
        if value == NONE:
            return None
    choices = get_args(hint)
    if get_origin(hint) is Literal:
        if value not in choices:
            raise ConfigError(f"{what} must be one of {', '.join(map(str, choices))}, got {value!r}")
        return value
    if get_origin(hint) is tuple:
        if not isinstance(value, list) or (Ellipsis not in choices and len(value) != len(choices)):
            raise ConfigError(f"{what} must be a list of {len(choices)}, [...], got {value!r}")
        return tuple(_typed(each, choices[0], what) for each in value)
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is not hint:  # a bool is an int to Python, but not to a reader
        raise ConfigError(f"{what} must be {WORDS[hint]}, got {value!r}")
    return value
