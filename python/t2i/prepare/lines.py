"""Read text files line by line: UTF-8, or UTF-16 with a byte order mark. Other encodings are reported, never guessed."""

import codecs
from collections.abc import Callable, Iterator
from typing import BinaryIO

from t2i.errors import DataError

MAX_LINE_BYTES = 2_000_000  # bytes: of a line of metadata, of a whole caption file
MAX_WHOLE_BYTES = 64 << 20  # of a file whose lines cannot be found without decoding all of it
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def decode(data: bytes) -> str:
    """Decode UTF-8, with or without a byte order mark, or UTF-16 with one.

    Raises:
        DataError: it is neither.
    """
    encoding = "utf-16" if data.startswith(_UTF16) else "utf-8-sig"
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise DataError(f"it is not UTF-8 text (byte {data[error.start]:#04x}); save it as UTF-8") from error


def split_lines(text: str) -> list[str]:
    r"""Split at \n, \r and \r\n only; `str.splitlines` also splits at form feeds and Unicode separators."""
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def numbered_lines(file: BinaryIO, skip: Callable[[int, str], None]) -> Iterator[tuple[int, str]]:
    """Read a text file line by line, counted from 1, each with its ending.

    A line that cannot be decoded or has over 2 MB is passed to `skip` with its number and the reason.

    Raises:
        DataError: the whole file cannot be read.
    """
    first = file.readline(MAX_LINE_BYTES + 1)
    if first.startswith(_UTF16) or (b"\r" in first.rstrip(b"\r\n") and not first.endswith(b"\n")):
        rest = file.read(MAX_WHOLE_BYTES)
        if len(rest) == MAX_WHOLE_BYTES:
            raise DataError("a file of over 64 MB whose lines do not end as UTF-8's; save it as UTF-8")
        for number, text in enumerate(split_lines(decode(first + rest)), 1):
            yield number, text + "\n"
        return
    number, line = 0, first
    while line:
        number += 1
        if len(line) > MAX_LINE_BYTES:
            skip(number, "a line of over 2 MB")
            while line and not line.endswith(b"\n"):
                line = file.readline(MAX_LINE_BYTES)
        else:
            try:
                yield number, decode(line) if number == 1 else line.decode()
            except UnicodeDecodeError as error:
                skip(number, f"not UTF-8 text (byte {line[error.start]:#04x}); save the file as UTF-8")
            except DataError as error:
                skip(number, str(error))
        line = file.readline(MAX_LINE_BYTES + 1)
