"""Read text files line by line: UTF-8, or UTF-16 with a byte order mark. Other encodings are reported, never guessed."""

import codecs
import io
import re
from collections.abc import Callable, Iterator
from typing import BinaryIO

from t2i.errors import DataError

MAX_LINE_BYTES = 2_000_000  # bytes: of a line of metadata, of a whole caption file
MAX_WHOLE_BYTES = 64 << 20  # of a file whose lines cannot be found without decoding all of it
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_HZ = re.compile(r"~\{((?:[!-w][!-~])+)~\}")  # a run of Chinese, two bytes a character


def decode(data: bytes) -> str:
    """Decode UTF-8, with or without a byte order mark, or UTF-16 with one.

    Raises:
        DataError: it is neither.
    """
    return _decoded(data, "utf-16" if data.startswith(_UTF16) else "utf-8-sig")


def _decoded(data: bytes, encoding: str) -> str:
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise DataError(f"it is not UTF-8 text (byte {data[error.start]:#04x}); save it as UTF-8") from error
    sign = _other_encoding(text)
    if sign is not None:
        raise DataError(f"it is not UTF-8 text ({sign}); save it as UTF-8")
    return text


def _other_encoding(text: str) -> str | None:
    """Return the sign of an encoding whose bytes are valid UTF-8 too, and mean something else; None for plain text."""
    if "\0" in text:
        return "byte 0x00, as in UTF-32, or in UTF-16 without a byte order mark"
    if "\x1b" in text:
        return "byte 0x1b, as in ISO-2022-JP"
    if "~{" in text and text.isascii() and any(map(_is_chinese, _HZ.findall(text))):
        return "characters between ~{ and ~}, as in HZ"
    return None


def _is_chinese(run: str) -> bool:
    """Return whether a run between ~{ and ~} is HZ: two or more characters, and no word as people write it in braces."""
    try:
        characters = f"~{{{run}~}}".encode().decode("hz")
    except UnicodeDecodeError:
        return False
    word = run.isalnum() and (run.islower() or run.istitle())
    return len(characters) > 1 and not word and any("\u4e00" <= each <= "\u9fff" for each in characters)


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
    wide = first.startswith(_UTF16)
    if wide or b"\r" in first.rstrip(b"\r\n"):  # of two bytes a character, or with the line ends of old Macs
        whole = first + file.read(MAX_WHOLE_BYTES)
        if len(whole) >= len(first) + MAX_WHOLE_BYTES:
            raise DataError(
                "a file of over 64 MB whose lines do not end in line feeds; save it as UTF-8 with line feeds"
            )
        data = decode(whole).encode() if wide else whole
        file = io.BytesIO(data.replace(b"\r\n", b"\n").replace(b"\r", b"\n"))
        first = file.readline(MAX_LINE_BYTES + 1)
    if b"\0" in first:  # its lines cannot be told: the whole file is of another encoding
        decode(first)
    number, line = 0, first
    while line:
        number += 1
        if len(line) > MAX_LINE_BYTES:
            skip(number, "a line of over 2 MB")
            while line and not line.endswith(b"\n"):
                line = file.readline(MAX_LINE_BYTES)
        else:
            try:
                yield number, decode(line) if number == 1 else _decoded(line, "utf-8")
            except DataError as error:
                skip(number, str(error))
        line = file.readline(MAX_LINE_BYTES + 1)
