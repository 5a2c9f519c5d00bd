"""Find the columns of images, captions, classes and splits, in the same way for every table, metadata and Parquet file.

Names are compared without case, spaces at their ends, and the difference between `file name`, `file-name` and `file_name`.
"""

import ast
import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from t2i.errors import DataError
from t2i.prepare.splits import split_of_value

FILES = (
    "file_name",
    "filename",
    "file",
    "filepath",
    "file_path",
    "path",
    "image",
    "image_path",
    "image_name",
    "imagename",
    "image_file",
    "image_file_name",
    "image_filename",
    "img",
    "img_path",
    "img_name",
    "picture",
    "photo",
    "image_id",
)
IMAGES = ("image", "img", "picture", "jpg", "jpeg", "png", "webp")  # of images inside of a table
CAPTIONS = (
    "text",
    "caption",
    "captions",
    "texts",
    "prompt",
    "prompts",
    "description",
    "descriptions",
    "sentence",
    "sentences",
    "comment",
    "raw",
    "alt_text",
    "image_caption",
    "txt",
)
NUMBERED = re.compile(rf"(?:{'|'.join(CAPTIONS)})_?(\d+)")  # caption_0 ... caption_4, one caption of five in each
CLASSES = ("class", "class_name", "label", "category")
SPLITS = ("split", "data_split", "dataset_split", "set", "subset", "partition", "phase")
# Columns of true and false, and whether true is held out.
FLAGS = {"is_train": False, "is_training": False, "is_test": True, "is_val": True, "is_validation": True}
TRUE = frozenset({"1", "1.0", "true", "t", "yes", "y"})
FALSE = frozenset({"0", "0.0", "false", "f", "no", "n"})
NO_VALUE = frozenset(
    {"nan", "none", "null", "<na>", "n/a", "#n/a"}
)  # cells that pandas and Excel write for an empty one


@dataclass(frozen=True)
class Columns:
    """Names of the columns of a table by their role."""

    image: str
    caption: str
    label: str | None = None
    splits: tuple[str, ...] = ()
    more: tuple[str, ...] = ()  # further columns of captions

    def captions(self, row: Mapping[str, Any]) -> object:
        """Read the captions of a row: what its column holds, or a list from all of its columns."""
        if not self.more:
            return captions_in_cell(row[self.caption])
        cells = (row.get(name) for name in (self.caption, *self.more))
        return [cell for cell in cells if cell is not None]


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
    if found is None:
        what = "no column of images" if image is None else f"no column {image!r}"
        raise DataError(f"{what}; the columns are {listed}: choose one with --image-column")
    text, more = find_column([name for name in names if name != found], CAPTIONS, caption), list[str]()
    numbered = _numbered(names) if text is None and caption is None else []
    if numbered:
        text, more = numbered[0], numbered[1:]
    if text is None:
        what = "no column of captions" if caption is None else f"no column {caption!r}"
        raise DataError(f"{what}; the columns are {listed}: choose one with --caption-column")
    others = [name for name in names if name not in (found, text, *more)]
    return Columns(found, text, find_column(others, CLASSES), split_columns(others), tuple(more))


def _numbered(names: Iterable[object]) -> list[str]:
    """List columns of captions that differ by a number, in its order."""
    found = [
        (int(match[1]), name) for name in names if isinstance(name, str) and (match := NUMBERED.fullmatch(plain(name)))
    ]
    return [name for _, name in sorted(found)]


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
    if value is None or not word or word in NO_VALUE:
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
        self._unknown: dict[str, Counter[str]] = {}

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
                return split
        return True if True in flags else False if False in flags else None

    def notes(self) -> list[str]:
        """Say in a line for each column what was not known."""
        lines = []
        for column, values in self._unknown.items():
            shown = ", ".join(map(repr, list(values)[:5])) + (f" and {len(values) - 5} more" if len(values) > 5 else "")
            what = "neither true nor false" if plain(column) in FLAGS else "no known name"
            lines.append(
                f"{values.total()} rows have the {column.strip()} {shown}, which is {what}: read as training, unless the "
                "name of the table or of a folder says otherwise"
            )
        return lines


def class_of(row: Mapping[str, Any], column: str | None, names: Sequence[str] = ()) -> str | None:
    """Read the class of a row: a string, or an index into `names`; None for an empty cell."""
    value = named(row.get(column), names) if column is not None else None
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, (list, dict)):
        raise TypeError(f"{column} must be a string or a number")
    return " ".join(str(value).split())[:1000] or None


def named(value: object, names: Sequence[str]) -> object:
    """Return the name of a numbered class or split; anything else unchanged."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(names):
        return names[value]
    return value


_STRING = r"""(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")"""
_STRINGS = re.compile(rf"\[\s*{_STRING}(?:\s*,\s*{_STRING})*\s*,?\s*\]", re.DOTALL)


def captions_in_cell(cell: object) -> object:
    """Parse a cell that is a list of strings, `["a", "b"]` or `['a', 'b']`; return anything else unchanged."""
    if not isinstance(cell, str) or not _STRINGS.fullmatch(cell.strip()):
        return cell
    for parse in (json.loads, ast.literal_eval):
        try:
            values = parse(cell.strip())
        except (ValueError, SyntaxError):
            continue
        if isinstance(values, list) and values and all(isinstance(value, str) for value in values):
            return values
    return cell
