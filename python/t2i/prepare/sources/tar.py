"""Read tar archives without unpacking anything: names, places and sizes of the plain files in them, strictly checked.

Everything that is no plain file (links, devices, pipes), every name that leads out, every size that is negative or larger
than the archive, and every archive that was cut is a `Fault`, told by the member's name. Python's own `tarfile` ends in
silence at the first damaged header.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

BLOCK = 512
MAX_NAME_BYTES = 1 << 20  # bytes of a long name or of a block of pax records
OTHER_KINDS = {
    b"1": "a hard link",
    b"2": "a symbolic link",
    b"3": "a character device",
    b"4": "a block device",
    b"6": "a pipe",
    b"S": "a sparse file",
}


@dataclass(frozen=True)
class Member:
    """A plain file of an archive."""

    name: str
    offset: int  # of its first byte in the archive
    size: int  # bytes


@dataclass(frozen=True)
class Fault:
    """Something in an archive that is not used, and why."""

    name: str
    reason: str


class _DamagedError(Exception):
    """After this nothing in the archive can be trusted."""


def members(path: Path) -> Iterator[Member | Fault]:
    """Walk an archive from header to header.

    Args:
        path: A plain, uncompressed tar (ustar, GNU or pax).

    Raises:
        OSError: the file cannot be read.
    """
    with open(path, "rb") as file:
        length = os.fstat(file.fileno()).st_size
        at, long_name, records = 0, None, dict[str, bytes]()
        while True:
            name = "" if long_name is None else long_name
            try:
                header = _block(file, at, length)
                if header is None:
                    return
                name = name or _text(records["path"] if "path" in records else _header_name(header))
                kind = header[156:157]
                size = _size(header[124:136], records.get("size"))
                data = at + BLOCK
                if kind in b"0\x007xgLKS" and size > length - data:
                    raise _DamagedError(f"declares {size} bytes, the archive has {max(0, length - data)} left")
                if kind in b"xgLK":
                    if size > MAX_NAME_BYTES:
                        raise _DamagedError(f"has a header of {size} bytes, the limit is {MAX_NAME_BYTES}")
                    content = _read(file, data, size)
                    if kind == b"L":
                        long_name = _text(content.rstrip(b"\0"))
                    elif kind == b"x":
                        records = _pax(content)
            except _DamagedError as error:
                yield Fault(name or f"byte {at}", str(error))
                return
            holds = kind not in b"123456"  # what is no file has no data, whatever its size says
            at = data + (-(-size // BLOCK) * BLOCK if holds else 0)
            if kind in b"xgLK":
                continue
            plain = kind in (b"0", b"\0", b"7") and not name.endswith("/")
            if plain and any(key.startswith("GNU.sparse") for key in records):
                plain, kind = False, b"S"
            long_name, records = None, {}
            fault = _unusable(name)
            if fault is not None:
                yield Fault(name, fault)
            elif plain:
                yield Member(name, data, size)
            elif kind != b"5" and not name.endswith("/"):
                yield Fault(name, f"{OTHER_KINDS.get(kind, f'a member of kind {kind!r}')}, not a file")


def _block(file: BinaryIO, at: int, length: int) -> bytes | None:
    """Read the header at `at`; None at the end of the archive."""
    header = _read(file, at, BLOCK)
    if len(header) < BLOCK:
        raise _DamagedError(
            f"the archive ends at byte {min(at, length)} without a mark of its end, so it was cut"
            if length
            else "the archive is empty"
        )
    if not any(header):
        return None
    stated = _number(header[148:156])
    plain = header[:148] + b" " * 8 + header[156:]
    signed = sum(byte - 256 if byte > 127 else byte for byte in plain)  # as some old programs counted
    if stated not in (sum(plain), signed):
        raise _DamagedError("has a wrong header checksum")
    return header


def _read(file: BinaryIO, at: int, count: int) -> bytes:
    file.seek(at)
    return file.read(count)


def _number(digits: bytes) -> int:
    """Read a number of a header: octal digits, or 255 or 128 and bytes of a signed binary number."""
    if digits[0] in (0x80, 0xFF):
        return int.from_bytes(digits[1:], "big") - (256 ** (len(digits) - 1) if digits[0] == 0xFF else 0)
    text = digits.split(b"\0")[0].strip()
    if text.strip(b"01234567"):
        raise _DamagedError(f"has a number that is not octal: {text[:20]!r}")
    return int(text or b"0", 8)


def _size(digits: bytes, record: bytes | None) -> int:
    if record is not None:
        if not record.isdigit() or len(record) > 20:
            raise _DamagedError(f"has an impossible size: {record[:24]!r}")
        return int(record)
    size = _number(digits)
    if size < 0:
        raise _DamagedError(f"has a negative size: {size}")
    return size


def _header_name(header: bytes) -> bytes:
    name, prefix = header[:100].split(b"\0")[0], header[345:500].split(b"\0")[0]
    return prefix + b"/" + name if prefix and header[257:263] == b"ustar\0" else name


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _pax(content: bytes) -> dict[str, bytes]:
    """Read pax records, each `LENGTH KEY=VALUE` and a line feed, the length counting itself."""
    records = {}
    while content:
        digits, space, _ = content[:12].partition(b" ")
        if not space or not digits.isdigit() or not len(digits) + 3 <= int(digits) <= len(content):
            raise _DamagedError("has a broken extended header")
        record, content = content[len(digits) + 1 : int(digits)], content[int(digits) :]
        key, equals, value = record.partition(b"=")
        if not equals or not value.endswith(b"\n"):
            raise _DamagedError("has a broken extended header")
        records[key.decode("utf-8", "replace")] = value[:-1]
    return records


def _unusable(name: str) -> str | None:
    """Say what is wrong with a member's name, if anything is."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return "its name is not UTF-8"
    if not name or "\0" in name:
        return "it has no usable name"
    if name.startswith(("/", "\\")) or re.match(r"[A-Za-z]:", name) or ".." in name.replace("\\", "/").split("/"):
        return "its name leads out of the archive"
    return None
