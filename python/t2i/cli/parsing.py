"""Flags to dataclasses of settings by argparse: one line of help a field, one line for a mistake."""

import argparse
import dataclasses
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NoReturn, TypeVar, get_type_hints

from t2i.config.fields import GROUPS, NONE, WORDS, Takes, build, nearest, over
from t2i.errors import ConfigError
from t2i.extras import require

T = TypeVar("T")
U = TypeVar("U")
MAX_CHOICES = 50  # characters: more do not fit a line of --help
METAVARS: dict[type, str] = {int: "N", float: "X"}
COMPLETION = "--print-completion"


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are ConfigErrors."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message} ({self.prog} --help lists the flags)")


class _Paragraphs(argparse.HelpFormatter):
    """Help whose description keeps its paragraphs."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n\n".join(super(_Paragraphs, self)._fill_text(part, width, indent) for part in text.split("\n\n"))


@dataclasses.dataclass(frozen=True)
class _Argument:
    """A field as an argument of the command line."""

    field: dataclasses.Field[Any]
    takes: Takes
    dest: str  # text.dim: the name with those of the settings around it
    flag: str  # --text.dim; empty for a positional argument
    default: Any
    paired: bool  # a switch has its opposite too, --no-flip, as a preset or a file may have set it

    @property
    def metavar(self) -> str:
        choices = f"{{{','.join(self.takes.choices)}}}"
        if self.takes.choices and len(choices) <= MAX_CHOICES:
            return choices
        named: str = self.field.metadata.get("metavar", "")
        return named or METAVARS.get(self.takes.kind, self.field.name.upper())

    @property
    def usage(self) -> str:
        words = self.name if self.takes.count is None else f"{self.name} ..."
        return words if self.default is dataclasses.MISSING else f"[{words}]"

    @property
    def group(self) -> str:
        return str(self.field.metadata["group"])

    @property
    def name(self) -> str:
        return self.flag or self.field.name.upper()

    @property
    def help(self) -> str:
        shown: object = self.default
        if isinstance(shown, tuple):
            shown = " ".join(map(str, shown))
        if isinstance(shown, bool):
            shown = str(shown).lower() if self.paired else ""
        told = shown not in (None, "", dataclasses.MISSING)
        explained: str = self.field.metadata["help"]
        return explained.replace("%", "%%") + (f" (default: {shown})" if told else "")


def parse(kind: type[T], arguments: Sequence[str], prog: str, *, defaults: Mapping[str, Any] | None = None) -> T:
    """Read a command's flags.

    Args:
        kind: The dataclass of its settings, whose fields are `option`s.
        arguments: The words after the command.
        prog: Its name, for messages.
        defaults: Values by field that replace the dataclass's defaults; of a nested one, a mapping again.

    Raises:
        ConfigError: an unknown flag (the nearest is named), a value that does not fit or a missing one, in one line.
    """
    known = list(_arguments(kind, defaults or {}))
    return build(kind, over(_read(kind, known, arguments, prog), defaults or {}))


def parse_with(
    kind: type[T], also: type[U], arguments: Sequence[str], prog: str, *, defaults: Mapping[str, Any] | None = None
) -> tuple[T, U]:
    """Read a command's flags and those of `also`, a dataclass of flags that are no settings; see `parse`."""
    extra = list(_arguments(also, {}))
    values = _read(kind, [*_arguments(kind, defaults or {}, paired=True), *extra], arguments, prog)
    wanted = build(also, {each.dest: values.pop(each.dest) for each in extra if each.dest in values})
    return build(kind, over(values, defaults or {})), wanted


def peek(arguments: Sequence[str], *flags: str) -> list[str | None]:
    """Find the values of flags that the defaults of others depend on, before all are read."""
    parser = _Parser(add_help=False, allow_abbrev=False)
    for flag in flags:
        parser.add_argument(flag, dest=flag, nargs="?")
    found = vars(parser.parse_known_args(_with_dashes(arguments))[0])
    return [found[flag] for flag in flags]


def _with_dashes(arguments: Sequence[str]) -> list[str]:
    """Write --log_every as --log-every; a sentence is left alone."""
    out = []
    for argument in arguments:
        name, equals, value = argument.partition("=")
        flag = name.startswith("--") and " " not in name
        out.append(f"{name.replace('_', '-')}{equals}{value}" if flag else argument)
    return out


def _arguments(
    kind: Any, defaults: Mapping[str, Any], *, paired: bool = False, prefix: str = "", flags: str = "--"
) -> Iterator[_Argument]:
    """List a dataclass's fields and those of nested ones, whose flags begin with what their class says."""
    hints = get_type_hints(kind)
    for field in dataclasses.fields(kind):
        hint, own = hints[field.name], defaults.get(field.name)
        if dataclasses.is_dataclass(hint):
            deeper = {"prefix": f"{prefix}{field.name}.", "flags": getattr(hint, "flags", flags)}
            yield from _arguments(hint, own or {}, paired=paired, **deeper)
            continue
        flag = "" if field.metadata.get("positional") else f"{flags}{field.name.replace('_', '-')}"
        default = defaults.get(field.name, field.default)
        yield _Argument(field, Takes.of(hint), f"{prefix}{field.name}", flag, default, paired)


def _read(kind: type, known: Sequence[_Argument], arguments: Sequence[str], prog: str) -> dict[str, Any]:
    """Parse the words of a command: the values that it gives, nested as the fields are."""
    parser = _parser(kind, known, prog)
    if any(word.partition("=")[0] == COMPLETION for word in arguments):
        require("shtab", COMPLETION, "completion").add_argument_to(parser, COMPLETION)
    try:
        found, unknown = parser.parse_known_intermixed_args(_with_dashes(arguments))
    except argparse.ArgumentError as error:
        name = (error.argument_name or "").split("/")[0]
        parser.error(f"{name} {error.message.replace('expected', 'needs', 1)}")
    for word in sorted(unknown, key=lambda word: not word.startswith("--")):  # the flag before its value
        name = word.partition("=")[0]
        flags = [each.flag for each in known if each.flag] + ["--help", COMPLETION]
        flag = f"there is no flag {name}{nearest(name, flags)}"
        parser.error(flag if word.startswith("--") else f"unrecognised argument {word!r}")
    return _nested(found, known, parser)


def _nested(found: argparse.Namespace, known: Sequence[_Argument], parser: _Parser) -> dict[str, Any]:
    """Nest the values that were given as the fields are; a required one that is missing is an error."""
    values: dict[str, Any] = {}
    for each in known:
        value = getattr(found, each.dest, dataclasses.MISSING)
        if value is dataclasses.MISSING or (not each.flag and value in (None, [])):
            if each.default is dataclasses.MISSING:
                parser.error(f"{each.name} is missing")
            continue
        *outer, name = each.dest.split(".")
        place = values
        for part in outer:
            place = place.setdefault(part, {})
        place[name] = tuple(value) if isinstance(value, list) else value
    return values


def _parser(kind: type, known: Sequence[_Argument], prog: str) -> _Parser:
    """Describe a command: its arguments in groups, the docstring of `kind` above them."""
    parser = _Parser(
        prog=prog,
        usage=" ".join([prog, *(each.usage for each in known if not each.flag), "[flags]"]),
        description=inspect.cleandoc(kind.__doc__ or ""),
        formatter_class=_Paragraphs,
        allow_abbrev=False,
        exit_on_error=False,
    )
    for group in GROUPS:
        place = parser.add_argument_group(group) if group else parser
        members = [each for each in known if each.group == group]
        for each in sorted(members, key=lambda each: bool(each.field.metadata.get("rare"))):
            _add(place, each)
    return parser


def _add(place: Any, each: _Argument) -> None:
    """Add an argument to a parser. What is not given is left out of the result, so that defaults are filled in once."""
    if not each.flag:
        nargs = "?" if each.takes.count is None else "*"
        place.add_argument(each.dest, metavar=each.name, nargs=nargs, type=_reader(each.takes), help=each.help)
    elif each.takes.kind is bool:
        pair = argparse.BooleanOptionalAction if each.paired else "store_true"
        place.add_argument(each.flag, dest=each.dest, action=pair, default=argparse.SUPPRESS, help=each.help)
    else:
        many: dict[str, Any] = {} if each.takes.count is None else {"nargs": each.takes.count or "+"}
        if each.takes.count == 0:
            many["action"] = "extend"
        place.add_argument(
            each.flag,
            dest=each.dest,
            metavar=each.metavar,
            type=_reader(each.takes),
            default=argparse.SUPPRESS,
            help=each.help,
            **many,
        )


def _reader(takes: Takes) -> Callable[[str], Any]:
    """Make the function that reads one word."""

    def read(word: str) -> Any:
        if takes.optional and word.lower() == NONE:
            return None
        if takes.choices and word not in takes.choices:
            raise argparse.ArgumentTypeError(f"must be one of {', '.join(takes.choices)}, got {word!r}")
        try:
            return takes.kind(word)
        except ValueError:
            raise argparse.ArgumentTypeError(f"must be {WORDS[takes.kind]}, got {word!r}") from None

    return read
