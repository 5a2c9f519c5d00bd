"""Parse tables of text: cells separated by commas, semicolons, tabs or bars, with or without a header."""

import csv
import io
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Literal

from t2i.errors import DataError
from t2i.prepare.column_names import CAPTIONS as CAPTION_NAMES
from t2i.prepare.column_names import FILES as FILE_NAMES
from t2i.prepare.columns import Columns, distinct, find_column, find_columns
from t2i.prepare.encoded import NO_NAME, holds_image
from t2i.prepare.kinds import looks_like_image
from t2i.prepare.named_lines import FORMS, image_of_token, named_line, split_named_lines

MAX_ROW_LINES = 1000  # that one quoted cell may run over; more is a quote left open


@dataclass(frozen=True)
class Fault:
    """A row that cannot be used: its line, and why."""

    line: int
    reason: str


@dataclass(frozen=True)
class Row:
    """A row: its first line, its cells by column name, and the roles of the columns."""

    line: int
    cells: dict[str, str]
    columns: Columns


def find_delimiter(first: str, tabs: bool) -> str:
    """Detect the delimiter from the first line; always a tab in a .tsv."""
    if tabs:
        return "\t"
    for delimiter in "\t|;,":
        cells = [cell.strip(' "\r\n') for cell in first.split(delimiter)]
        if len(cells) > 1 and (find_column(cells, FILE_NAMES) or find_column(cells, CAPTION_NAMES)):
            return delimiter
    for delimiter in "\t|;,":
        cells = [cell.strip(' "\r\n') for cell in first.split(delimiter)]
        if len(cells) > 1 and any(_image_name(cell) for cell in cells):
            return delimiter
    return max(",;\t|", key=first.count)


class _Lines:
    """Lines that can be put back, so that parsing continues after a quote that was never closed."""

    def __init__(self, lines: Iterable[tuple[int, str]]) -> None:
        self._coming = iter(lines)
        self._back: list[tuple[int, str]] = []
        self.taken: list[tuple[int, str]] = []  # by the row that is being read
        self.too_many = False

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        if len(self.taken) >= MAX_ROW_LINES:
            self.too_many = True
            raise StopIteration
        line = self._back.pop() if self._back else next(self._coming)
        self.taken.append(line)
        return line[1]

    def begin(self) -> None:
        """Begin a row."""
        self.taken, self.too_many = [], False

    def put_back(self) -> None:
        """Return all lines of the row but its first."""
        self._back += reversed(self.taken[1:])


def split_rows(lines: Iterable[tuple[int, str]], delimiter: str) -> Iterator[tuple[int, list[str]] | Fault]:
    """Split lines into rows of cells, of which some are quoted.

    A quote that is left open would swallow the following rows: such a row is a Fault, and the following rows are parsed.
    """
    source = _Lines(lines)
    width = 0
    while True:
        source.begin()
        reader = csv.reader(source, delimiter=delimiter, strict=True, skipinitialspace=True)
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            number = source.taken[0][0]
            if len(source.taken) == 1:
                inner = "a carriage return in a cell without quotes" if "new-line" in str(error) else error
                yield Fault(number, f"broken line: {inner}")
                continue
            yield _left_open(source)
            continue
        if len(source.taken) > 1 and _swallowed(source.taken, delimiter, width or len(row)):
            yield _left_open(source)
            continue
        if any(cell.strip() for cell in row):
            width = width or len(row)
            yield source.taken[0][0], row


def _left_open(source: _Lines) -> Fault:
    first, last = source.taken[0][0], source.taken[-1][0]
    source.put_back()
    end = "at least line" if source.too_many else "line"
    return Fault(first, f"broken line: a quote is left open, which runs on to {end} {last}; only this row is left out")


def _swallowed(taken: list[tuple[int, str]], delimiter: str, width: int) -> bool:
    """Return whether a line inside a quoted cell is a row itself: as many cells, one of them an image name."""
    for _, line in taken[1:]:
        cells = [cell.strip(' "\r\n') for cell in line.split(delimiter)]
        if len(cells) >= width and any(looks_like_image(cell) for cell in cells):
            return True
    return False


def split_loose_rows(lines: Iterable[tuple[int, str]], delimiter: str, needed: bool) -> Iterator[tuple[int, list[str]]]:
    """Split lines into rows of cells where a quote may be part of the text, as in the tables of Flickr8k and Flickr30k.

    A row is taken for quoted only if all of it is as programs quote: such a cell begins and ends with a quote and has every
    quote in it doubled, and no line within it is a row itself.

    Args:
        lines: Lines with their numbers.
        delimiter: Between cells.
        needed: A row counts as quoted only if it is quoted where it has to be and nowhere else, or its header is, all over.
    """
    source = _Lines(lines)
    width = 0
    while True:
        source.begin()
        first = next(source, None)
        if first is None:
            return
        row = _quoted_row(first, source, delimiter, width) if '"' in first else None
        if row is not None and needed:
            text = "".join(line for _, line in source.taken).rstrip("\r\n")
            needed = width > 0 or text != _written(row, delimiter, csv.QUOTE_ALL)
            if needed and text != _written(row, delimiter, csv.QUOTE_MINIMAL):
                row = None
        if row is None:
            source.put_back()
            row = first.rstrip("\r\n").split(delimiter)
        if any(cell.strip() for cell in row):
            width = width or len(row)
            yield source.taken[0][0], row


def _quoted_row(first: str, rest: _Lines, delimiter: str, width: int) -> list[str] | None:
    """Parse a row with quoted cells; None where its quotes are text."""
    try:
        row = next(csv.reader(chain([first], rest), delimiter=delimiter, strict=True))
    except csv.Error:
        return None
    cells = [line.count(delimiter) + 1 for _, line in rest.taken]
    if len(cells) > 1 and (not width or max(cells[1:-1], default=0) >= width or min(cells[0], cells[-1]) >= width):
        return None  # it swallowed rows: a line in the middle is one, or both ends are
    return row if width in (0, len(row)) else None


def _written(row: list[str], delimiter: str, quoting: Literal[0, 1]) -> str:
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, quoting=quoting, lineterminator="\n").writerow(row)
    return text.getvalue().rstrip("\r\n")


def read_rows(
    lines: Iterator[tuple[int, str]], *, tabs: bool, image: str | None = None, caption: str | None = None
) -> Iterator[Row | Fault]:
    """Read a table of image names and captions.

    Args:
        lines: Its lines with their numbers.
        tabs: It is a .tsv: tabs, and quotes only where they have to be.
        image: The user's name of the column of images.
        caption: The user's name of the column of captions.

    Raises:
        DataError: its header has no column of images or captions, and it has no row that would do without a header.
    """
    number, first = next(lines, (0, ""))
    delimiter = None
    if match := re.fullmatch(r"sep=(.)\s*", first):  # Excel's own way to name it
        delimiter = match[1]
        number, first = next(lines, (0, ""))
    if not number:
        return
    whole = chain([(number, first)], lines)
    if delimiter is None and image is None and caption is None and _is_named_line(first, tabs):
        yield from _named_rows(whole)
        return
    delimiter = delimiter or find_delimiter(first, tabs)
    rows = split_rows(whole, delimiter) if delimiter in ",;" else split_loose_rows(whole, delimiter, needed=tabs)
    names: list[str] = []
    columns: Columns | None = None
    header = True
    for row in rows:
        if isinstance(row, Fault):
            yield row
            continue
        number, cells = row[0], [cell.strip() if delimiter == "|" else cell for cell in row[1]]
        if columns is None:
            if any(map(holds_image, cells)):
                raise DataError(f"it holds {NO_NAME}")
            names = [cell.strip() for cell in cells]
            if image is None and caption is None and _no_header(names):
                names, header = _usual_names(cells), False
            names = distinct(names)
            columns = _find_columns(names, image, caption)
            if header:
                continue
        if len(cells) != len(names):
            yield Fault(number, f"broken line: {len(names)} columns expected, got {len(cells)}")
            continue
        found = dict(zip(names, cells, strict=True))
        found[columns.image] = image_of_token(found[columns.image].strip(), not header) or found[columns.image]
        yield Row(number, found, columns)


def _find_columns(names: list[str], image: str | None, caption: str | None) -> Columns:
    try:
        return find_columns(names, image, caption)
    except DataError as error:
        if image is None and caption is None and any(map(looks_like_image, " ".join(names).split())):
            raise DataError(f"{error}; without a header that names them a line is {FORMS}") from error
        raise


def _is_named_line(first: str, tabs: bool) -> bool:
    """Return whether a file has no cells: its first line is `a.jpg: a kite` or `a.jpg#0 a kite`, which no delimiter splits."""
    if tabs or named_line(first) is None:
        return False
    cells = [cell.strip(' "\r\n') for delimiter in "\t|;," for cell in first.split(delimiter) if cell != first]
    return not any(_image_name(cell) for cell in cells)


def _named_rows(lines: Iterable[tuple[int, str]]) -> Iterator[Row | Fault]:
    columns = Columns("file_name", "text")
    for number, found in split_named_lines(lines):
        if found is None:
            yield Fault(number, "broken line: the name of an image and its caption expected, as in the first line")
        else:
            yield Row(number, {"file_name": found[0], "text": found[1]}, columns)


def _no_header(cells: list[str]) -> bool:
    """Return whether the table has no header: the first row has an image name and no known column name."""
    named = any(_image_name(cell) for cell in cells)
    return named and find_column(cells, FILE_NAMES) is None and find_column(cells, CAPTION_NAMES) is None


def _image_name(cell: str) -> bool:
    return looks_like_image(cell) or image_of_token(cell) is not None


def _usual_names(cells: list[str]) -> list[str]:
    """Name the two columns of a table without a header; the one with an image name is the file."""
    if len(cells) != 2:
        raise DataError(
            f"it has {len(cells)} columns and no header that names them, such as file_name,text; without one a line is {FORMS}"
        )
    return (
        ["file_name", "text"]
        if _image_name(cells[0].strip()) or not _image_name(cells[1].strip())
        else ["text", "file_name"]
    )
