"""Fields of settings: default, help, group and bounds in one line, read by --help, the TOML file and the checks.

    batch: int = option(64, "Images per step.", group="data", at_least=1)

* `option`, `required`: what a dataclass of settings is made of; nested settings are `field(default_factory=...)`.
* `check_bounds`: refuse values outside their bounds. `checked`, `build`: from a file's values to a dataclass.
"""

import dataclasses
import difflib
import math
import types
from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from t2i.errors import ConfigError

T = TypeVar("T")
Group = Literal["", "run", "data", "device", "network", "losses", "optimiser", "text"]
GROUPS: tuple[str, ...] = get_args(Group)  # the order of --help and of the TOML file
NONE = "none"  # the word for None, in flags and in TOML
WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text in quotes"}


class UnknownSetting(ConfigError):
    """A file names a setting that there is not."""

    def __init__(self, path: str, name: str, suggestion: str) -> None:
        super().__init__(f"{path}: there is no setting {name}{suggestion}")
        self.name = name


@dataclasses.dataclass(frozen=True)
class Bounds:
    """Bounds of a number, each of them left out by None."""

    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    below: float | None = None

    def allow(self, value: float) -> bool:
        """Whether a number lies within; NaN never does where there is a bound."""
        return (
            (self.at_least is None or value >= self.at_least)
            and (self.above is None or value > self.above)
            and (self.at_most is None or value <= self.at_most)
            and (self.below is None or value < self.below)
        )

    def __str__(self) -> str:
        low = self.at_least if self.above is None else self.above
        high = self.at_most if self.below is None else self.below
        if high is None:
            return f"must be {'at least' if self.above is None else 'above'} {low}"
        if low is None:
            return f"must be {'at most' if self.below is None else 'below'} {high}"
        excluded = [str(bound) for bound in (self.above, self.below) if bound is not None]
        return f"must lie in {low}..{high}" + (f" ({' and '.join(excluded)} excluded)" if excluded else "")


def option(
    default: T,
    help: str,
    *,
    group: Group = "",
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
    rare: bool = False,
    runtime_only: bool = False,
    positional: bool = False,
    metavar: str = "",
) -> T:
    """Describe a setting.

    Args:
        default: Its value unless a preset, a file or a flag says otherwise.
        help: One or two sentences for --help, the TOML file and the documentation.
        group: Where --help lists it.
        at_least: Bound of a number, or of each number of a tuple; likewise `above`, `at_most` and `below`.
        above: See `at_least`.
        at_most: See `at_least`.
        below: See `at_least`.
        rare: List it last in its group.
        runtime_only: It may change when a run resumes: places, devices, how long and how often, not which model.
        positional: An argument without a flag.
        metavar: What --help calls its value; without it, N, X or the name.
    """
    metadata = {
        "help": help,
        "group": group,
        "bounds": Bounds(at_least, above, at_most, below),
        "rare": rare,
        "runtime_only": runtime_only,
        "positional": positional,
        "metavar": metavar,
    }
    return dataclasses.field(default=default, metadata=metadata)


def required(help: str, *, group: Group = "", runtime_only: bool = False, positional: bool = False) -> Any:
    """Describe a setting that has no default; it stands before those that have one."""
    metadata = {"help": help, "group": group, "runtime_only": runtime_only, "positional": positional}
    return dataclasses.field(metadata=metadata)


def arranged(kind: Any) -> list[dataclasses.Field[Any]]:
    """List the fields of a dataclass as a reader sees them: by group, rarely used ones last, nested settings at the end."""

    def place(field: dataclasses.Field[Any]) -> tuple[int, bool]:
        group = field.metadata.get("group")
        return (len(GROUPS) if group is None else GROUPS.index(group), field.metadata.get("rare", False))

    return sorted(dataclasses.fields(kind), key=place)


def check_bounds(settings: Any, prefix: str = "--") -> None:
    """Raise ConfigError for the first setting outside its bounds, or not finite, named as a flag that begins with `prefix`."""
    for field in dataclasses.fields(settings):
        value, bounds = getattr(settings, field.name), field.metadata.get("bounds")
        for each in value if isinstance(value, tuple) else (value,):
            if bounds and isinstance(each, (int, float)) and not bounds.allow(each):
                all_of_them = " each" if isinstance(value, tuple) else ""
                raise ConfigError(f"{prefix}{field.name.replace('_', '-')} {bounds}{all_of_them}, got {value}")
            if isinstance(each, float) and not math.isfinite(each):
                raise ConfigError(f"{prefix}{field.name.replace('_', '-')} must be a finite number, got {value}")


@dataclasses.dataclass(frozen=True)
class Takes:
    """What a field takes, read from its type."""

    kind: type  # of each value: int, float, bool or str
    choices: tuple[str, ...] = ()  # of a Literal
    count: int | None = None  # of a tuple: how many values, 0 for any number; None for a single value
    optional: bool = False  # None too

    @staticmethod
    def of(hint: Any) -> "Takes":
        """Read a type: int, float, bool, str, a Literal of words, a tuple of one of these, or one of these and None."""
        arguments = get_args(hint)
        if get_origin(hint) in (Union, types.UnionType):
            (inner,) = (each for each in arguments if each is not type(None))
            return dataclasses.replace(Takes.of(inner), optional=True)
        if get_origin(hint) is tuple:
            return dataclasses.replace(Takes.of(arguments[0]), count=0 if Ellipsis in arguments else len(arguments))
        if get_origin(hint) is Literal:
            return Takes(str, choices=arguments)
        return Takes(hint)


def nearest(name: str, known: Iterable[str], before: str = "") -> str:
    """Say "; did you mean X?" for a mistyped name, or nothing where none is near; `before` is written before X."""
    found = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; did you mean {before}{found[0]}?" if found else ""


def checked(found: Mapping[str, Any], kind: type, path: str, prefix: str = "") -> dict[str, Any]:
    """Check values read from a file against the fields of a dataclass.

    Args:
        found: Values by name (with - or _); a mapping again for nested settings.
        kind: The dataclass.
        path: The file, for messages.
        prefix: What nested settings are named after, for messages.

    Returns:
        Values by field, of the fields' types.

    Raises:
        UnknownSetting: a name that no field has; the nearest is named.
        ConfigError: a value of another type, or a name that is there twice.
    """
    hints = get_type_hints(kind)
    fields = {field.name: hints[field.name] for field in dataclasses.fields(kind)}
    out: dict[str, Any] = {}
    for key, value in found.items():
        name = key.replace("-", "_")
        if name not in fields:
            raise UnknownSetting(path, f"{prefix}{key}", nearest(name, fields, prefix))
        if name in out:
            raise ConfigError(f"{path}: {prefix}{name} is there twice, written with - and with _")
        if dataclasses.is_dataclass(fields[name]):
            if not isinstance(value, dict):
                raise ConfigError(f"{path}: {prefix}{key} must be a table, [{prefix}{key}], got {value!r}")
            out[name] = checked(value, fields[name], path, f"{name}.")
        else:
            out[name] = _typed(value, Takes.of(fields[name]), f"{path}: {prefix}{key}")
    return out


def _typed(value: Any, takes: Takes, what: str) -> Any:
    """Return a value of TOML or JSON as what a field holds, or raise ConfigError."""
    if takes.optional and (value is None or value == NONE):
        return None
    if takes.count is not None:
        if not isinstance(value, list) or (takes.count and len(value) != takes.count):
            many = f"a list of {takes.count}" if takes.count else "a list"
            raise ConfigError(f"{what} must be {many}, [...], got {value!r}")
        return tuple(_typed(each, dataclasses.replace(takes, count=None), what) for each in value)
    if takes.choices:
        if value not in takes.choices:
            raise ConfigError(f"{what} must be one of {', '.join(takes.choices)}, got {value!r}")
        return value
    if takes.kind is float and type(value) is int:
        return float(value)
    if type(value) is not takes.kind:  # a bool is an int to Python, but not to a reader
        raise ConfigError(f"{what} must be {WORDS[takes.kind]}, got {value!r}")
    return value


def build(kind: type[T], values: Mapping[str, Any]) -> T:
    """Make a dataclass of values by field, those of nested settings being mappings again."""
    hints = get_type_hints(kind)
    return kind(
        **{
            name: build(hints[name], value) if dataclasses.is_dataclass(hints[name]) else value
            for name, value in values.items()
        }
    )


def over(values: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, Any]:
    """Lay values over others; nested ones likewise."""
    merged = dict(base)
    for name, value in values.items():
        merged[name] = over(value, base.get(name, {})) if isinstance(value, Mapping) else value
    return merged
