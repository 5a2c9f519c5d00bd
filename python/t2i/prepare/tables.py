"""Parse tables of text: cells separated by commas, semicolons, tabs or bars, with or without a header."""

import csv
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from t2i.errors import DataError
from t2i.prepare.columns import CAPTIONS as CAPTION_NAMES
from t2i.prepare.columns import FILES as FILE_NAMES
from t2i.prepare.columns import Columns, find_column, find_columns
from t2i.prepare.kinds import looks_like_image

MAX_ROW_LINES = 1000  # that one quoted cell may run over; more is a quote left open
_TOKEN = re.compile(r"(?P<name>.+\.\w{2,5})#\d+$")  # Flickr8k: 1000268201_693b08cb0e.jpg#0


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

    def put_back(self) -> None:
        """Return all lines of the row but its first."""
        self._back += reversed(self.taken[1:])


def split_rows(
    lines: Iterable[tuple[int, str]], delimiter: str, quoting: bool
) -> Iterator[tuple[int, list[str]] | Fault]:
    """Split lines into rows of cells.

    A quote that is left open would swallow the following rows: such a row is a Fault, and the following rows are parsed.
    """
    source = _Lines(lines)
    width = 0
    while True:
        source.taken, source.too_many = [], False
        if quoting:
            reader = csv.reader(source, delimiter=delimiter, strict=True, skipinitialspace=True)
        else:
            reader = csv.reader(source, delimiter=delimiter, quoting=csv.QUOTE_NONE)
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


def read_rows(
    lines: Iterator[tuple[int, str]], *, tabs: bool, image: str | None = None, caption: str | None = None
) -> Iterator[Row | Fault]:
    """Read a table of image names and captions.

    Args:
        lines: Its lines with their numbers.
        tabs: It is a .tsv: tabs, and no quoting.
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
    delimiter = delimiter or find_delimiter(first, tabs)
    rows = split_rows(_chain((number, first), lines), delimiter, delimiter in ",;")
    names: list[str] = []
    columns: Columns | None = None
    for row in rows:
        if isinstance(row, Fault):
            yield row
            continue
        number, cells = row[0], [cell.strip() if delimiter == "|" else cell for cell in row[1]]
        if columns is None:
            names, header = [cell.strip() for cell in cells], True
            if image is None and caption is None and _no_header(names):
                names, header = _usual_names(cells), False
            columns = find_columns(names, image, caption)
            if header:
                continue
        if len(cells) != len(names):
            yield Fault(number, f"broken line: {len(names)} columns expected, got {len(cells)}")
            continue
        found = dict(zip(names, cells, strict=True))
        if match := _TOKEN.match(found[columns.image].strip()):
            found[columns.image] = match["name"]
        yield Row(number, found, columns)


def _chain(first: tuple[int, str], rest: Iterator[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    yield first
    yield from rest


def _no_header(cells: list[str]) -> bool:
    """Return whether the table has no header: the first row has an image name and no known column name."""
    named = any(_image_name(cell) for cell in cells)
    return named and find_column(cells, FILE_NAMES) is None and find_column(cells, CAPTION_NAMES) is None


def _image_name(cell: str) -> bool:
    return looks_like_image(cell) or _TOKEN.match(cell) is not None


def _usual_names(cells: list[str]) -> list[str]:
    """Name the two columns of a table without a header; the one with an image name is the file."""
    if len(cells) != 2:
        raise DataError(f"it has {len(cells)} columns and no header that names them, such as file_name,text")
    return (
        ["file_name", "text"]
        if _image_name(cells[0].strip()) or not _image_name(cells[1].strip())
        else ["text", "file_name"]
    )
