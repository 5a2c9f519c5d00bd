"""Find the columns of images, captions, classes and splits, in the same way for every table, metadata and Parquet file.

Names are compared without case, spaces at their ends, and the difference between `file name`, `file-name` and `file_name`.
"""

import math
import re
from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from t2i.data.blank import is_blank
from t2i.errors import DataError
from t2i.prepare.column_names import CAPTIONS, CLASSES, FILES, FLAGS, OF_ANYTHING, SPLITS, TO_DOWNLOAD, URLS
from t2i.prepare.languages import are_languages, is_kind_of_caption
from t2i.prepare.literals import captions_in_cell
from t2i.prepare.splits import split_of_value

_NUMBERED = re.compile(r"(?P<base>.+?)(?P<mark>[_.]?)(?P<number>\d{1,9})")  # caption_0, caption0, pandas' caption.1
TRUE = frozenset({"1", "1.0", "true", "t", "yes", "y"})
FALSE = frozenset({"0", "0.0", "false", "f", "no", "n"})
NO_CLASS = frozenset({"nan", "<na>", "n/a", "#n/a"})  # cells that pandas and Excel write for an empty one
NO_VALUE = NO_CLASS | {"none", "null"}  # also words, and so names of classes


@dataclass(frozen=True)
class Columns:
    """Names of the columns of a table by their role."""

    image: str
    caption: str
    label: str | None = None
    splits: tuple[str, ...] = ()
    more: tuple[str, ...] = ()  # further columns of captions
    key: str | None = None  # of the captions, where the user named one inside of the objects in the column
    unread: tuple[str, ...] = ()  # columns that may hold captions too, and are not read

    def captions(self, row: Mapping[str, Any]) -> list[Any]:
        """Read the captions of a row from all of its columns; empty cells have none.

        Raises:
            DataError, TypeError: a cell holds neither a string nor a list, nor an object of captions.
        """
        cells = ((name, row.get(name)) for name in (self.caption, *self.more))
        found = [text for name, cell in cells for text in captions_of_cell(cell, name, self.key)]
        return found or self._instead(row)

    def _instead(self, row: Mapping[str, Any]) -> list[Any]:
        """Read the columns that are not read otherwise: an empty `text` does not hide a `caption`."""
        rest = tuple(name for name in self.unread if isinstance(row.get(name), (str, list)))
        while names := caption_columns(rest):
            found = [text for name in names for text in captions_of_cell(row[name], name)]
            if found and all(isinstance(text, str) for text in found):
                return found
            rest = tuple(name for name in rest if name not in names)
        return []


def plain(name: object) -> str:
    """Normalise a column name for comparison."""
    return "_".join(str(name).strip().strip("\ufeff").casefold().replace("-", " ").replace("_", " ").split())


def find_column(names: Iterable[object], known: Sequence[str], wanted: str | None = None) -> str | None:
    """Find a column by the name that the user gave, otherwise by its usual names in order of priority."""
    present: dict[str, str] = {}
    for name in names:
        if isinstance(name, str):
            present.setdefault(plain(name), name)
    candidates = known if wanted is None else (plain(wanted),)
    return next((present[name] for name in candidates if name in present), None)


def find_columns(
    names: Sequence[object], image: str | None = None, caption: str | None = None, images: Sequence[str] = FILES
) -> Columns:
    """Find the columns of a table.

    Args:
        names: All that there are.
        image: The user's name for the column of images (`--image-column`).
        caption: The user's name for the column of captions (`--caption-column`).
        images: The usual names of a column of images.

    Raises:
        DataError: there is none of images or of captions; the message lists what columns there are.
    """
    listed = ", ".join(str(name) if str(name).strip() else "(no name)" for name in names)[:300]
    found = find_column(names, images, image)
    if found is None and image is None:
        marked = [str(name) for name in names if plain(name).endswith(":file")]  # ModelScope's Target:FILE
        found = marked[0] if len(marked) == 1 else None
    if found is None:
        what = "no column of images" if image is None else f"no column {image!r}"
        urls = find_column(names, URLS)
        other = f"; of the URLs in {urls}, {TO_DOWNLOAD}" if urls is not None else ""
        raise DataError(f"{what}; the columns are {listed}: choose one with --image-column{other}")
    rest = tuple(name for name in names if name != found)
    texts, key = caption_columns(rest, caption), None
    if not texts and caption is not None and "." in caption:
        column, _, key = caption.partition(".")
        texts = caption_columns(rest, column)
    if not texts and caption is not None and "," in caption:
        several, key = [caption_columns(rest, part) for part in caption.split(",")], None
        texts = tuple(dict.fromkeys(name for names in several for name in names)) if all(several) else ()
    if not texts:
        what = "no column of captions" if caption is None else f"no column {caption!r}"
        raise DataError(f"{what}; the columns are {listed}: choose one with --caption-column, or several with commas")
    others = [name for name in rest if name not in texts]
    unread = tuple(str(name) for name in others if caption is None and _may_hold_captions(name))
    return Columns(found, texts[0], find_column(others, CLASSES), split_columns(others), texts[1:], key, unread)


@lru_cache(maxsize=1000)
def caption_columns(names: Sequence[object], wanted: str | None = None) -> tuple[str, ...]:
    """List the columns of captions in the order of their numbers: `caption`, `caption_2`, `caption.1`.

    Beside the column that the user named there are only those that repeat its name, which pandas writes as `name.1`.
    """
    found = find_column(names, CAPTIONS, wanted)
    if found is None and wanted is not None:
        return ()
    bases = CAPTIONS if found is None else (plain(found),)
    numbers: dict[str, int] = {}
    for name in names:
        base, mark, number = _parts(name)
        if plain(name) in bases:
            numbers[str(name)] = -1
        elif base in bases and (wanted is None or mark == "."):
            numbers[str(name)] = number
    return tuple(sorted(numbers, key=lambda name: numbers[name]))


def _may_hold_captions(name: object) -> bool:
    return _parts(name)[0] in CAPTIONS or is_kind_of_caption(plain(name), CAPTIONS)


def _parts(name: object) -> tuple[str, str, int]:
    """Split the name of a column into its base, the mark before its number, and the number; -1 where it has none."""
    known = plain(name)
    match = _NUMBERED.fullmatch(known)
    return (match["base"], match["mark"], int(match["number"])) if match else (known, "", -1)


def unread_note(names: Iterable[str]) -> list[str]:
    """Return the note on columns that may hold captions and are not read; none where there is no such column."""
    listed = ", ".join(sorted(set(names)))[:300]
    what = "--caption-column takes one of them instead, or several with commas"
    return [f"not read for captions beside others: {listed}; {what}"] if listed else []


def distinct(names: Sequence[str]) -> list[str]:
    """Number names that are repeated, as pandas does: `caption`, `caption.1`, `caption.2`.

    >>> distinct(["image", "text", "text", "text.1"])
    ['image', 'text', 'text.2', 'text.1']
    """
    taken, counts = set(names), dict.fromkeys(names, 0)
    first, found = set[str](), []
    for name in names:
        new = name
        if name in first and name.strip():
            while new in taken:
                counts[name] += 1
                new = f"{name}.{counts[name]}"
            taken.add(new)
        first.add(name)
        found.append(new)
    return found


def filled(row: Mapping[Any, Any]) -> tuple[Any, ...]:
    """List the keys of a row whose cells are not empty."""
    return tuple(
        name
        for name, value in row.items()
        if value != [] and not is_empty(value, NO_CLASS if plain(name) in CLASSES else NO_VALUE)
    )


def is_empty(value: object, words: Container[str] = NO_VALUE) -> bool:
    """Return whether a cell is empty, or is what programs write for an empty one: `nan`, `None`, `null`, `N/A`."""
    if isinstance(value, str):
        word = value.strip()
        return is_blank(word) or (len(word) < 10 and word.casefold() in words)
    return value is None or (isinstance(value, float) and math.isnan(value))


def split_columns(names: Sequence[object]) -> tuple[str, ...]:
    """Find all columns of splits: those that name one, in order of priority, then those of true and false."""
    found = (find_column(names, (known,)) for known in (*SPLITS, *FLAGS))
    return tuple(name for name in found if name is not None)


def split_of_cell(column: str, value: object) -> tuple[bool | None, str]:
    """Read the split in a cell.

    Returns:
        True for held out, False for training, None where the cell does not say; and a value that says nothing known.
        In a column such as `set` a value counts only where it is nothing but a split's name.
    """
    text = str(value).strip()
    word = text.casefold()
    if is_empty(value):
        return None, ""
    held_out_if = FLAGS.get(plain(column))
    if held_out_if is None:
        split = split_of_value(text, alone=plain(column) not in ("split", "data_split", "dataset_split"))
    else:
        split = held_out_if if word in TRUE else not held_out_if if word in FALSE else None
    return split, "" if split is not None else text[:40]


class SplitCells:
    """Reads the splits of rows, and counts the values that say nothing known."""

    def __init__(self) -> None:
        self.what = "rows"  # that have them
        self._unknown: dict[str, Counter[str]] = {}
        self._known: set[str] = set()  # columns of which some value names a split

    def read(self, row: Mapping[str, Any], columns: Sequence[str]) -> bool | None:
        """Read the split of a row: of the first column that names one, otherwise held out where any flag says so."""
        flags: list[bool | None] = []
        for column in columns:
            split, unknown = split_of_cell(column, row.get(column))
            if unknown:
                self._unknown.setdefault(column, Counter())[unknown] += 1
            if plain(column) in FLAGS:
                flags.append(split)
            elif split is not None:
                self._known.add(plain(column))
                return split
        return True if True in flags else False if False in flags else None

    def notes(self) -> list[str]:
        """Say in a line for each column what was not known; of a `set` only where another of its values names a split."""
        lines = []
        for column, values in self._unknown.items():
            if plain(column) in OF_ANYTHING and plain(column) not in self._known:
                continue
            shown = ", ".join(map(repr, list(values)[:5])) + (f" and {len(values) - 5} more" if len(values) > 5 else "")
            what = "neither true nor false" if plain(column) in FLAGS else "no known name"
            lines.append(
                f"{values.total()} {self.what} have the {column.strip()} {shown}, which is {what}: read as training, "
                "unless the name of the file or of a folder says otherwise"
            )
        return lines


def class_of(row: Mapping[str, Any], column: str | None, names: Sequence[str] = ()) -> str | None:
    """Read the class of a row: a string, or an index into `names`; None for an empty cell. `none` is a class."""
    cell = row.get(column) if column is not None else None
    value = named(cell, names)
    if is_empty(value, NO_CLASS if value is cell else ()):
        return None
    if isinstance(value, (list, dict)):
        raise TypeError(f"{column} must be a string or a number")
    return " ".join(str(value).split())[:1000] or None


def named(value: object, names: Sequence[str]) -> object:
    """Return the name of a numbered class or split; anything else unchanged."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(names):
        return names[value]
    return value


def captions_of_cell(cell: object, column: str = "text", key: str | None = None) -> list[Any]:
    """Read the captions of a cell: a string, a list of strings, an object of strings, a list of such objects, or its text.

    Of an object, what counts are the user's keys, otherwise those that `caption_keys` knows.

    Args:
        cell: Its content.
        column: The name of its column.
        key: The user's key.

    Returns:
        The captions without empty ones; what is no string is returned for the caller to refuse.

    Raises:
        DataError: an object has other keys; the message lists them.
        TypeError: an object holds no text.
    """
    cell = captions_in_cell(cell)
    found: list[Any] = []
    for part in cell if isinstance(cell, (list, tuple)) else [cell]:
        if isinstance(part, dict):
            for value in _captions_of_object(part, column, key):
                found += value if isinstance(value, (list, tuple)) else [value]
        elif key is not None and not is_empty(part):
            raise DataError(f"no {key!r} in {column}, which holds no object")
        else:
            found.append(part)
    return [text for text in found if not is_empty(text)]


def _captions_of_object(part: dict[str, Any], column: str, key: str | None) -> list[Any]:
    keys, there = tuple(part), filled(part)
    listed = ", ".join(map(str, keys))[:300]
    if key is not None:
        whole = find_column(keys, (), key)
        wanted = [key] if whole is not None else [each.strip().removeprefix(f"{column}.") for each in key.split(",")]
        names = [find_column(keys, (), each) for each in wanted]
        if None in names:
            raise DataError(f"no {wanted[names.index(None)]!r} in {column}, which holds an object of {listed}")
        return [part[name] for name in names if name is not None]
    found = caption_keys(part)
    if found or not there:
        return [part[name] for name in found]
    texts = [str(name)[:100] for name in there if isinstance(part[name], (str, list))]
    if not texts:
        raise TypeError(f"{column} must be a string or a list of strings, and holds an object of {listed}")
    several = f", or several, as in {column}.{','.join(texts[:2])}" if len(texts) > 1 else ""
    raise DataError(
        f"{column} holds an object of {listed}, none of which is known to be a caption: "
        f"choose one, as in --caption-column {column}.{texts[0]}{several}"
    )


def caption_keys(part: Mapping[str, Any]) -> tuple[str, ...]:
    """List the keys of an object that hold captions; none where that is not known.

    Known are numbers, `{"0": "a kite", "1": "a toy"}`, languages, `{"en": "a kite", "zh": "风筝"}`, the usual name of a column
    of captions, and kinds of captions: `caption_cn`, `short_caption`.
    """
    keys, there = tuple(part), filled(part)
    if keys and all(str(name).isascii() and str(name).isdigit() for name in keys):
        return tuple(sorted(keys, key=lambda name: (len(str(name)), str(name))))
    names = caption_columns(there) or caption_columns(keys)
    if not names and are_languages(keys, CAPTIONS):
        return keys
    kinds = [
        name
        for name in there
        if name not in names
        and plain(name) not in CAPTIONS
        and isinstance(part[name], (str, list))
        and is_kind_of_caption(plain(name), CAPTIONS)
    ]
    return (*names, *kinds)
