"""Read tar archives without unpacking anything: names, places and sizes of the plain files in them, strictly checked.

Everything that is no plain file (links, devices, pipes), every name that leads out, every size that is negative or larger
than the archive, and every archive that was cut is a `Fault`, told by the member's name. Python's own `tarfile` ends in
silence at the first damaged header. A compressed archive is read as a stream, which is unpacked in memory and no further
than an archive of images can be.
"""

import bz2
import gzip
import lzma
import os
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from t2i.errors import DataError
from t2i.prepare.kinds import archive_kind, looks_like_image
from t2i.prepare.lines import MAX_LINE_BYTES
from t2i.prepare.tree import MAX_RATIO, unusable

BLOCK = 512
MAX_PADDING = 64 << 20  # bytes of zeros behind the end that are looked through
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
    data: bytes | None = field(default=None, compare=False)  # of a small one in a compressed archive: read on the way


@dataclass(frozen=True)
class Fault:
    """Something in an archive that is not used, and why."""

    name: str
    reason: str


class _DamagedError(Exception):
    """The rest of the archive cannot be read reliably."""


def members(path: Path) -> Iterator[Member | Fault]:
    """Walk an archive from header to header.

    Args:
        path: A tar (ustar, GNU or pax), plain or compressed by gzip, bzip2 or xz.

    Raises:
        OSError: the file cannot be read.
    """
    at = 0
    try:
        with open_archive(path) as (file, length):
            for position, found in _members(file, length):
                at = position
                yield found
    except _OtherArchiveError as error:
        yield Fault(path.name, str(error))
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile, _BombError) as error:
        yield Fault(f"byte {at}", f"cannot be unpacked further: {' '.join(str(error).split())}")


COMPRESSED: dict[bytes, Callable[[BinaryIO], Any]] = {
    b"\x1f\x8b": lambda file: gzip.GzipFile(fileobj=file),
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\0": lzma.LZMAFile,
}
FREE_BYTES = 16 << 20  # that a small compressed archive may be unpacked to


class _OtherArchiveError(Exception):
    """The file is another kind of archive than a tar."""


class _BombError(Exception):
    """A compressed archive unpacks to more than one of images can."""


class _Unpacked:
    """A compressed archive as a seekable file; seeking backward restarts the decompression."""

    def __init__(self, file: BinaryIO, stream: Any) -> None:
        self._file, self._stream = file, stream
        self._limit = FREE_BYTES + MAX_RATIO * os.fstat(file.fileno()).st_size

    def seek(self, at: int) -> None:
        if at < self._stream.tell():
            self._stream.seek(at)
        while self._stream.tell() < at and self.read(min(1 << 20, at - self._stream.tell())):
            pass

    def read(self, count: int) -> bytes:
        data: bytes = self._stream.read(count)
        if self._stream.tell() > self._limit:
            raise _BombError(f"it unpacks to over {MAX_RATIO} times its size: a decompression bomb")
        return data


class _Opened:
    """An open archive: its content as a file, and its length (None if compressed)."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> tuple[Any, int | None]:
        self._file = open(self._path, "rb")
        start = self._file.read(8)
        self._file.seek(0)
        for magic, opener in COMPRESSED.items():
            if start.startswith(magic):
                return _Unpacked(self._file, opener(self._file)), None
        kind = archive_kind(start)
        if kind is not None and kind != "tar":
            self._file.close()
            raise _OtherArchiveError(
                f"a {kind} archive, not a tar; {'use t2i-prepare folder' if kind == 'zip' else 'unpack it'}"
            )
        return self._file, os.fstat(self._file.fileno()).st_size

    def __exit__(self, *error: object) -> None:
        self._file.close()


def open_archive(path: Path) -> _Opened:
    """Open a tar, plain or compressed."""
    return _Opened(path)


def is_compressed(path: Path) -> bool:
    """Return whether an archive is compressed, by its first bytes."""
    with open(path, "rb") as file:
        return file.read(8).startswith(tuple(COMPRESSED))


class Reader:
    """Reads members of one archive from several threads; a compressed archive is unpacked once, front to back.

    Args:
        path: The archive.

    Members that are skipped on the way to a later one are kept for the threads that read them next.
    """

    KEPT = 64  # members kept for threads that are behind
    KEPT_BYTES = 256 << 20  # of all of them; a larger one is unpacked again

    def __init__(self, path: Path) -> None:
        self._held = ExitStack()  # the open archive, if any
        self.path = path
        self.expected: list[tuple[int, int]] = []  # offset and size of each image, in the order of the archive
        self._lock = threading.Lock()
        self._compressed = is_compressed(path)
        self._file: Any = None
        self._next = 0
        self._kept: dict[int, bytes] = {}
        self._order: dict[int, int] = {}

    def read(self, offset: int, size: int, limit: int) -> bytes:
        """Read a member. DataError where it is larger than the limit, or the archive has fewer bytes now."""
        if size > limit:
            raise DataError(f"too large: {size} bytes, the limit is {limit}")
        try:
            if not self._compressed:
                with open(self.path, "rb") as file:
                    return _exactly(file, offset, size)
            with self._lock:
                return self._unpack(offset, size)
        except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile, _BombError) as error:
            raise DataError(f"unreadable: {error}") from error

    def _unpack(self, offset: int, size: int) -> bytes:
        if offset in self._kept:
            return self._kept.pop(offset)
        try:
            return self._read_on(offset, size)
        finally:
            if self.expected and self._next == len(self.expected):  # do not hold a file for every archive
                self._close()

    def close(self) -> None:
        """Close the archive; the next read opens it again."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        self._file = None
        self._held.close()

    def __del__(self) -> None:
        self._held.close()  # a part of a preparation may end within an archive

    def _read_on(self, offset: int, size: int) -> bytes:
        if self._file is None:
            self._file = self._held.enter_context(open_archive(self.path))[0]
        if len(self._order) != len(self.expected):
            self._order = {at: place for place, (at, _) in enumerate(self.expected)}
        place = self._order.get(offset, -1)
        if place >= self._next:
            for at, length in self.expected[max(self._next, place - self.KEPT) : place]:
                if length <= self.KEPT_BYTES // self.KEPT:
                    self._kept[at] = _exactly(self._file, at, length)
                while len(self._kept) > self.KEPT:
                    del self._kept[min(self._kept)]
            self._next = place + 1
        return _exactly(self._file, offset, size)


def _exactly(file: Any, offset: int, size: int) -> bytes:
    file.seek(offset)
    data: bytes = file.read(size)
    if len(data) != size:
        raise DataError("unreadable: the archive was cut while it was read")
    return data


def _members(file: Any, length: int | None) -> Iterator[tuple[int, Member | Fault]]:
    """Walk the headers: where each member begins, and what it is."""
    at, long_name, records = 0, None, dict[str, bytes]()
    while True:
        name = "" if long_name is None else long_name
        try:
            header = _block(file, at)
            if header is None:
                behind = _behind_end(file, at + BLOCK)
                if behind is not None:
                    yield at, Fault(f"byte {behind}", "what follows the mark of the archive's end is not read")
                return
            name = name or _text(records["path"] if "path" in records else _header_name(header))
            kind = header[156:157]
            size = _size(header[124:136], records.get("size"))
            data = at + BLOCK
            if length is not None and kind in b"0\x007xgLKS" and size > length - data:
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
            yield at, Fault(name or f"byte {at}", str(error))
            return
        holds = kind not in b"123456"  # what is no file has no data, whatever its size says
        at = data + (-(-size // BLOCK) * BLOCK if holds else 0)
        if kind in b"xgLK":
            continue
        plain = kind in (b"0", b"\0", b"7") and not name.endswith("/")
        if plain and any(key.startswith("GNU.sparse") for key in records):
            plain, kind = False, b"S"
        long_name, records = None, {}
        fault = unusable(name)
        if fault is not None:
            yield at, Fault(name, fault)
        elif plain:
            small = length is None and size <= MAX_LINE_BYTES and not looks_like_image(name)
            yield at, Member(name, data, size, _read(file, data, size) if small else None)
        elif kind != b"5" and not name.endswith("/"):
            yield at, Fault(name, f"{OTHER_KINDS.get(kind, f'a member of kind {kind!r}')}, not a file")


def _behind_end(file: Any, at: int) -> int | None:
    """Return the position of data after the end of an archive, such as a second archive; None if there is none."""
    for start in range(at, at + MAX_PADDING, 1 << 20):
        data = _read(file, start, 1 << 20)
        if data.strip(b"\0"):
            return start + len(data) - len(data.lstrip(b"\0"))
        if len(data) < 1 << 20:
            break
    return None


def _block(file: Any, at: int) -> bytes | None:
    """Read the header at `at`; None at the end of the archive."""
    header = _read(file, at, BLOCK)
    if len(header) < BLOCK:
        raise _DamagedError(
            "the archive is empty"
            if not at and not header
            else f"the archive ends at byte {at + len(header)} without a mark of its end, so it was cut"
        )
    if not any(header):
        return None
    stated = _number(header[148:156])
    plain = header[:148] + b" " * 8 + header[156:]
    signed = sum(byte - 256 if byte > 127 else byte for byte in plain)  # as some old programs counted
    if stated not in (sum(plain), signed):
        raise _DamagedError("has a wrong header checksum")
    return header


def _read(file: Any, at: int, count: int) -> bytes:
    file.seek(at)
    data: bytes = file.read(count)
    return data


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
