"""A CSV or TSV of path and caption, a picture a row or a caption a row."""

import csv
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from t2i.errors import DataError
from t2i.prepare.items import HELD_OUT, Item, Report, checked_captions, inside, numbered_lines

PATHS = ("file_name", "filename", "file", "filepath", "path", "image", "image_path")
CAPTIONS = ("text", "caption", "captions", "texts", "prompt")
CLASSES = ("class", "class_name", "label", "category")


def caption_column(names: Iterable[str]) -> str | None:
    """Find the column of captions by its usual names."""
    present = set(names)
    return next((name for name in CAPTIONS if name in present), None)


def _delimiter(path: Path, first: str) -> str:
    if path.suffix.lower() == ".tsv" or ("\t" in first and "," not in first):
        return "\t"
    return ";" if first.count(";") > first.count(",") else ","


def rows_of_csv(path: Path, report: Report) -> Iterator[tuple[int, dict[str, str]]]:
    """Read a CSV or TSV with named columns: (line, row). Without known names: path, then caption.

    The delimiter is a tab in a .tsv, else whichever of comma, semicolon and tab the first line has. A broken row is
    reported with its line and left out.
    """
    numbered = numbered_lines(path, report)
    number, first = next(numbered, (0, ""))
    if not number:
        return
    at = [number]

    def lines() -> Iterator[str]:
        yield first
        for at[0], line in numbered:
            yield line

    rows = csv.reader(lines(), delimiter=_delimiter(path, first), strict=True)
    names: list[str] | None = None
    while True:
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error as error:  # a field of over 128 kB, a quote that never ends
            report.skip(f"{path}:{at[0]}", f"broken line: {error}")
            continue
        if names is None:
            lowered = [name.strip().lower() for name in row]
            named = bool({*lowered} & {*PATHS}) and caption_column(lowered) is not None
            names = lowered if named else ["file_name", "text"]
            if named:
                continue
        if not any(cell.strip() for cell in row):
            continue
        if len(row) != len(names):
            report.skip(f"{path}:{at[0]}", f"broken line: {len(names)} columns expected, got {len(row)}")
            continue
        yield at[0], dict(zip(names, row, strict=True))


def table(source: Path, report: Report) -> Iterator[Item]:
    """List the pictures of a CSV or TSV, or of every one at the top of a folder; rows of one path are its captions.

    Columns: a path relative to the table (file_name, path, image ...), a caption (text, caption ...), and, if they are
    there, a class (class, label ...) and a split (split: test or validation are held out).
    """
    files = [source]
    if source.is_dir():
        files = sorted(path for path in source.iterdir() if path.suffix.lower() in (".csv", ".tsv"))
        if not files:
            raise DataError(f"{source} has no .csv or .tsv; give the table itself: t2i-prepare csv FILE --out DIR")
    for file in files:
        if source.is_dir() and inside(source, file.name) is None:
            report.skip(file, "a link out of the source folder")
            continue
        yield from _pictures(file, report)


def _pictures(file: Path, report: Report) -> Iterator[Item]:
    found: dict[Path, tuple[list[str], str | None, bool]] = {}
    for number, row in rows_of_csv(file, report):
        where = f"{file}:{number}"
        name = next((row[column] for column in PATHS if row.get(column)), "").strip()
        path = inside(file.parent, name)
        if path is None:
            report.skip(where, f"{name[:200]!r} leads out of the source folder" if name else "no path")
            continue
        try:
            captions = checked_captions(row[caption_column(row) or "text"])
        except (DataError, KeyError, UnicodeEncodeError) as error:
            report.skip(where, str(error))
            continue
        if path in found:
            found[path][0].extend(captions)
        elif not os.path.isfile(path):
            report.skip(where, f"no such picture: {name[:200]}")
        else:
            found[path] = (list(captions), _class(row), row.get("split", "").strip().lower() in HELD_OUT)
    for path, (texts, class_name, test) in found.items():
        yield Item(path, tuple(texts), class_name, test)


def _class(row: Mapping[str, Any]) -> str | None:
    return next((str(row[column]).strip() for column in CLASSES if row.get(column)), None) or None
