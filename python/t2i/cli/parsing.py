"""Flags to settings, by tyro: one line of help a field, one line for a mistake.

A command's dataclass is read through one made of it, which carries what tyro does not: defaults of a preset or a file, help
whose lines are not broken where the source breaks them, and flags that are not settings (`--config`, `--dry-run`).
"""

import contextlib
import dataclasses
import inspect
import io
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import tyro

from t2i.config.toml import documentation, nearest
from t2i.errors import ConfigError

MAX_CHOICES = 50  # characters: more do not fit a line of usage
COMPLETION = ("--tyro-print-completion", "--tyro-write-completion")


def value_of(arguments: Sequence[str], flag: str) -> str | None:
    """Find the value of a flag that others depend on, before all are read."""
    for position, argument in enumerate(arguments):
        if argument == flag and position + 1 < len(arguments):
            return arguments[position + 1]
        if argument.startswith(f"{flag}="):
            return argument.partition("=")[2]
    return None


def read(
    kind: type,
    arguments: Sequence[str],
    prog: str,
    *,
    defaults: Mapping[str, Any] | None = None,
    also: type | None = None,
    prefixes: bool = True,
) -> tuple[Any, Any]:
    """Read a command's flags.

    Args:
        kind: The dataclass of its settings; the fields are flags, what is written below them is the help.
        arguments: The words after the command.
        prog: Its name, for messages.
        defaults: Values by field that take the place of the dataclass's own; of a nested one, a mapping again.
        also: A dataclass of flags that are no settings; they come first.
        prefixes: Flags of nested settings begin with the field's name and a dot.

    Returns:
        The settings, and the flags of `also` (None without).

    Raises:
        ConfigError: a flag that there is not (the nearest is named), or a value that does not fit, in one line.
    """
    _check_names(kind, also, arguments, prog, prefixes)
    fields = [*(_fields(also, {}) if also else []), *_fields(kind, defaults or {})]
    made = dataclasses.make_dataclass(kind.__name__, fields, kw_only=True, frozen=True)
    made.__doc__ = inspect.cleandoc(kind.__doc__ or "")
    config = () if prefixes else (tyro.conf.OmitArgPrefixes,)
    with _one_line(prog):
        parsed: Any = tyro.cli(made, args=list(arguments), prog=prog, config=config)
    return _converted(parsed, kind), _converted(parsed, also) if also else None


def _fields(kind: type, defaults: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Describe a dataclass's fields for another: name, type with help, default."""
    hints, explained = get_type_hints(kind, include_extras=True), documentation(kind)
    out = []
    for field in dataclasses.fields(kind):
        hint = hints[field.name]
        if dataclasses.is_dataclass(hint):
            assert isinstance(hint, type)
            nested = _fields(hint, defaults.get(field.name, {}))
            inner: Any = dataclasses.make_dataclass(hint.__name__, nested, kw_only=True, frozen=True)
            inner.__doc__ = hint.__doc__
            out.append((field.name, inner, dataclasses.field(default_factory=inner)))
            continue
        default = defaults.get(field.name, field.default)
        members = [each for each in get_args(hint) if each is not type(None)]
        optional = get_origin(hint) is not None and type(None) in get_args(hint) and len(members) == 1
        metavar = members[0].__name__.upper() if optional and isinstance(members[0], type) else None
        bare = get_args(hint)[0] if get_origin(hint) is Annotated else hint
        if get_origin(bare) is Literal and len("".join(map(str, get_args(bare)))) > MAX_CHOICES:
            metavar = field.name.upper()  # its help says what there is
        described = tyro.conf.arg(help=explained.get(field.name, ""), metavar=metavar)
        again = dataclasses.field() if default is dataclasses.MISSING else dataclasses.field(default=default)
        out.append((field.name, Annotated[hint, described], again))
    return out


def _converted(parsed: Any, kind: type) -> Any:
    """Turn what tyro made into the dataclass it stands for; that checks the values."""
    hints = get_type_hints(kind)
    values = {field.name: getattr(parsed, field.name) for field in dataclasses.fields(kind)}
    for name, value in values.items():
        if dataclasses.is_dataclass(hints[name]):
            values[name] = _converted(value, hints[name])
    return kind(**values)


def _names(kind: type, prefix: str, prefixes: bool) -> Iterator[str]:
    hints = get_type_hints(kind, include_extras=True)
    for field in dataclasses.fields(kind):
        hint, name = hints[field.name], field.name.replace("_", "-")
        if dataclasses.is_dataclass(hint):
            yield from _names(hint, f"{prefix}{name}." if prefixes else prefix, prefixes)  # type: ignore[arg-type]
        elif "Positional" not in map(repr, get_args(hint)[1:]):
            yield f"--{prefix}{name}"
            if hint is bool:
                yield f"--{prefix}no-{name}"


def _check_names(kind: type, also: type | None, arguments: Sequence[str], prog: str, prefixes: bool) -> None:
    known = {*_names(kind, "", prefixes), *(_names(also, "", prefixes) if also else ()), "--help", *COMPLETION}
    for argument in arguments:
        name = argument.partition("=")[0].replace("_", "-")
        if name.startswith("--") and " " not in name and len(name) > 2 and name not in known:
            raise ConfigError(f"there is no flag {name}{nearest(name, known)} ({prog} --help lists them)")


@contextlib.contextmanager
def _one_line(prog: str) -> Iterator[None]:
    """Turn tyro's box of lines about a mistake into a ConfigError of one."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            yield
    except SystemExit as stop:
        if stop.code != 2:
            raise
        raise ConfigError(f"{_plain(said.getvalue())} ({prog} --help lists the flags)") from None
    finally:
        if said.getvalue() and sys.exc_info()[0] is None:
            print(said.getvalue(), end="", file=sys.stderr)


def _plain(box: str) -> str:
    """Read the first paragraph of a box of lines: it begins below the title, and ends with a rule."""
    lines = [line.strip("│ ") for line in re.sub(r"\x1b\[[0-9;]*m", "", box).splitlines()]
    rules = [place for place, line in enumerate(lines) if (line and set(line) <= set("─-╭╮╰╯")) or line.startswith("╭")]
    inside = lines[rules[0] + 1 : rules[1]] if len(rules) > 1 else lines
    text = " ".join(" ".join(inside).split())
    text = re.sub(r"^Error parsing (\S+): invalid literal for int\(\) .*: ", r"\1 must be a whole number, got ", text)
    text = re.sub(r"^Error parsing (\S+): could not convert string to float: ", r"\1 must be a number, got ", text)
    text = re.sub(
        r"^invalid choice ('.*') for argument '(.*)'\. Expected one of \((.*)\)\.$",
        r"\2 must be one of \3, got \1",
        text,
    )
    text = re.sub(r"^Missing value for argument '(.*)'\. Expected (\d+) values?\.$", r"\1 needs \2 value(s)", text)
    text = re.sub(r"^Missing from .*?: (\S+) .*\(required\)$", r"\1 is missing", text)
    text = re.sub(r"^Unrecognized options: (.*)$", r"nothing is known of \1", text)
    return text
