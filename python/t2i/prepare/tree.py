"""The files of a folder or zip by name. Nothing is unpacked to disk; links out of the source need --follow-links."""

import io
import os
import re
import stat
import struct
import sys
import zipfile
import zlib
from functools import cached_property, partial
from pathlib import Path
from typing import BinaryIO, Protocol

from t2i.errors import DataError
from t2i.prepare.items import Item, Report, inside
from t2i.prepare.kinds import ENDINGS, HEAD, archive_kind, ending, is_hidden
from t2i.prepare.lines import MAX_LINE_BYTES

OUT = "a link out of the source folder"
NOT_FOLLOWED = "a link to a folder, which is not followed"
LEADS_OUT = "leads out of the source folder"
MAX_TABLE_BYTES = 1 << 30  # of a table in an archive, which is read into memory
MAX_RATIO = 100  # bytes unpacked per byte of the archive; images never compress that well
RATIO_FREE = 1 << 20  # bytes that may be unpacked at any ratio


class Tree(Protocol):
    """Files by name, relative to the source, with / as separator."""

    path: Path
    refused: int  # files or members skipped while listing

    @property
    def names(self) -> list[str]:
        """Every file, sorted."""

    def has(self, name: str) -> bool:
        """Return whether a readable file of this name exists."""

    def place(self, name: str) -> str:
        """Return the location of a file for the report."""

    def open(self, name: str) -> BinaryIO:
        """Open a file. OSError or DataError where that cannot be done."""

    def item(self, name: str, captions: tuple[str, ...], class_name: str | None, test: bool) -> Item:
        """Return the item of an image."""


class FolderTree:
    """The files of a folder.

    Args:
        path: The folder.
        report: Receives links that lead out, and entries that are not regular files.
    """

    def __init__(self, path: Path, report: Report) -> None:
        self.path, self._report = path, report
        self.refused = 0

    @cached_property
    def names(self) -> list[str]:
        """Every regular file below the folder, sorted by path; other entries are listed in the report.

        Folders come before links to folders, so that a file of the source has the name of its own folder.
        """
        found: list[str] = []
        folders, visited = [""], set[str]()
        while folders:
            folder = folders.pop()
            if self._report.follow_links:  # a link to a folder above would go round for ever
                real = os.path.realpath(self.path / folder)
                if real in visited:
                    self._report.skip(self.path / folder, "a link to a folder that is read already")
                    continue
                visited.add(real)
            try:
                with os.scandir(self.path / folder) as listing:
                    entries = sorted(listing, key=lambda entry: entry.name)
            except OSError as error:
                self._report.skip(self.path / folder, f"unreadable: {error.strerror or error}")
                continue
            for entry in entries:
                name = f"{folder}/{entry.name}" if folder else entry.name
                if is_folder(entry, self._report.follow_links):
                    folders.insert(0 if entry.is_symlink() else len(folders), name)
                    if ending(name) in ENDINGS:
                        self._report.skip(self.path / name, "unreadable: it is a folder")
                elif self._usable(entry, name):
                    found.append(name)
                else:
                    self.refused += 1
        return sorted(found, key=lambda name: name.split("/"))

    def _usable(self, entry: os.DirEntry[str], name: str) -> bool:
        place = self.path / name
        try:
            if entry.is_symlink() and inside(self.path, name, self._report.follow_links) is None:
                self._report.skip(place, OUT)
            elif entry.is_symlink() and place.is_dir():
                self._report.skip(place, NOT_FOLLOWED)
            elif not stat.S_ISREG(place.stat().st_mode):
                self._report.skip(place, "it is not a file")
            else:
                return True
        except OSError as error:
            self._report.skip(place, f"unreadable: {error.strerror or error}")
        return False

    @cached_property
    def _listed(self) -> set[str]:
        return set(self.names)

    def has(self, name: str) -> bool:
        """Return whether the file exists and is reached without a link out of the source."""
        if "names" in self.__dict__ and name in self._listed:  # it was checked when the folder was listed
            return True
        return os.path.isfile(self.path / name) and inside(self.path, name, self._report.follow_links) is not None

    def within(self, name: str) -> Path:
        """Return the path of a file, which may be missing. DataError where a link leads out of the source."""
        if not self.has(name) and inside(self.path, name, self._report.follow_links) is None:
            raise DataError(LEADS_OUT if self._report.follow_links else f"{LEADS_OUT}; --follow-links reads it")
        return self.path / name

    def real(self, name: str) -> str:
        """Return the name in the listing of what is reached through a link to a folder of the source."""
        try:
            return Path(os.path.realpath(self.path / name)).relative_to(os.path.realpath(self.path)).as_posix()
        except ValueError:  # elsewhere
            return name

    def enter(self, name: str) -> str:
        """Return the name in the listing of a folder that is read by its name; a link to it is no longer reported."""
        link = (self.place(name), NOT_FOLLOWED)
        if self.names and link in self._report.skipped:  # reported while the files were listed
            self._report.skipped.remove(link)
            self.refused -= 1
        return self.real(name)

    def again(self) -> "FolderTree":
        """Return the same folder, to be listed once more without another entry in the report."""
        return FolderTree(self.path, self._report.again())

    def place(self, name: str) -> str:
        """Return the path of a file."""
        return str(self.path / name)

    def open(self, name: str) -> BinaryIO:
        """Open a file; a named pipe is refused, since reading it could block."""
        path = self.path / name
        if path.exists() and not path.is_file():
            raise DataError("it is not a file")
        return open(path, "rb")

    def item(self, name: str, captions: tuple[str, ...], class_name: str | None, test: bool) -> Item:
        """Return the item of an image, which is read from its own file."""
        return Item(self.path / name, captions, class_name, test, named=name)


class ZipTree:
    """The files of a zip.

    Raises:
        DataError: it is damaged, or no zip.
    """

    def __init__(self, path: Path, report: Report) -> None:
        self.path = path
        self.refused = 0
        self._members: dict[str, zipfile.ZipInfo] = {}
        try:
            self._zip = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
            raise DataError(f"{path} is not a zip that can be read: {error}") from error
        names = _ZipNames(path.name, self._zip.infolist(), report)
        for member in self._zip.infolist():
            name, fault = names.of(member)
            name = name.replace("\\", "/")
            if name.endswith("/"):
                continue
            fault = fault or unusable(name) or self._fault(member, name)
            if fault is None:
                self._members[name] = member
            else:
                report.skip(self.place(name), fault)
                self.refused += 1

    def _fault(self, member: zipfile.ZipInfo, name: str) -> str | None:
        """Return why a member is not read, or None."""
        if stat.S_ISLNK(member.external_attr >> 16):
            return "a symbolic link, not a file"
        if member.flag_bits & 1:
            return "it is encrypted"
        if name in self._members:
            return "a second member of this name"
        if member.file_size > MAX_RATIO * member.compress_size + RATIO_FREE:
            return f"a decompression bomb: {member.file_size} bytes out of {member.compress_size}"
        return None

    @cached_property
    def names(self) -> list[str]:
        """Every readable member, sorted by path."""
        return sorted(self._members, key=lambda name: name.split("/"))

    def has(self, name: str) -> bool:
        """Return whether the member exists."""
        return name in self._members

    def place(self, name: str) -> str:
        """Return the archive's path and the member's name."""
        return f"{self.path}: {shown(name)}"

    def open(self, name: str) -> BinaryIO:
        """Read a member of at most 1 GB into memory."""
        return io.BytesIO(self.read(name, MAX_TABLE_BYTES))

    def read(self, name: str, limit: int) -> bytes:
        """Read a member. DataError where it is larger than the limit, or damaged."""
        member = self._members[name]
        if member.file_size > limit:
            raise DataError(f"too large: {member.file_size} bytes, the limit is {limit}")
        try:
            with self._zip.open(member) as file:
                data = file.read(member.file_size + 1)
        except Exception as error:  # zlib's, lzma's and zipfile's own, and NotImplementedError for unknown methods
            raise DataError(f"broken: {' '.join(str(error).split()) or type(error).__name__}") from error
        if len(data) != member.file_size:
            raise DataError("broken: it has not the size that the archive says")
        return data

    def item(self, name: str, captions: tuple[str, ...], class_name: str | None, test: bool) -> Item:
        """Return the item of an image, which is read from the archive when it is packed."""
        size = self._members[name].file_size
        return Item(self.path, captions, class_name, test, member=name, length=size, read=partial(self.read, name))


def is_folder(entry: os.DirEntry[str], follow_links: bool = True) -> bool:
    """Return whether an entry is a folder; one that cannot be looked at, such as a link to itself, is none."""
    try:
        return entry.is_dir(follow_symlinks=follow_links)
    except OSError:
        return False


UTF8_FLAG = 0x800  # of a member: its name is UTF-8
UNICODE_PATH = 0x7075  # Info-ZIP's extra field


class _ZipNames:
    """The names in a zip. Old programs do not say their encoding: Windows writes that of its language.

    All of them are taken for UTF-8 where they are; otherwise they are in `--zip-names`, or in cp437, as the format has it, with
    a note.
    """

    def __init__(self, archive: str, members: list[zipfile.ZipInfo], report: Report) -> None:
        unknown = [_raw(member) for member in members if _stated_name(member) is None]
        utf8 = all(_decoded(name, "utf-8") is not None for name in unknown)
        self._encoding = report.zip_names or ("utf-8" if utf8 else "cp437")
        if self._encoding == "cp437" and report.zip_names is None:
            name = next(name for name in unknown if not name.isascii())
            chinese = _decoded(name, "gb18030")
            other = "ENCODING names another one" if chinese is None else f"gb18030 would make that {chinese[:200]!r}"
            note = (
                f"{archive} does not say the encoding of its names; they are read as cp437, such as "
                f"{name.decode('cp437')[:200]!r}: --zip-names {other}"
            )
            report.notes.append(note)
            report.hints.append(note)

    def of(self, member: zipfile.ZipInfo) -> tuple[str, str | None]:
        """Return the name of a member, and what is wrong with it."""
        stated = _stated_name(member)
        if stated is not None:
            return stated, None
        name = _decoded(_raw(member), self._encoding)
        return (name, None) if name is not None else (member.filename, f"its name is not {self._encoding}")


def _raw(member: zipfile.ZipInfo) -> bytes:
    return member.orig_filename.encode("cp437")  # as zipfile decoded it


def _decoded(name: bytes, encoding: str) -> str | None:
    try:
        return name.decode(encoding)
    except UnicodeError:
        return None


def _stated_name(member: zipfile.ZipInfo) -> str | None:
    """Return the name of a member that says its encoding: ASCII, flagged as UTF-8, or given a second time in an extra field."""
    if member.flag_bits & UTF8_FLAG or member.orig_filename.isascii():
        return member.filename
    extra = member.extra
    while len(extra) >= 4:
        kind, length = struct.unpack("<HH", extra[:4])
        field, extra = extra[4 : 4 + length], extra[4 + length :]
        if kind == UNICODE_PATH and field[:5] == b"\1" + struct.pack("<I", zlib.crc32(_raw(member))):
            return _decoded(field[5:], "utf-8")
    return None


def open_tree(source: Path, report: Report) -> Tree:
    """Open a folder, a zip, or the parent folder of any other file."""
    if source.is_dir():
        return FolderTree(source, report)
    return ZipTree(source, report) if is_zip(source) else FolderTree(source.parent, report)


def is_zip(path: Path) -> bool:
    """Return whether a file is a zip by its extension or its first bytes."""
    try:
        with open(path, "rb") as file:
            return path.suffix.lower() == ".zip" or archive_kind(file.read(HEAD)) == "zip"
    except OSError:
        return False


def shown(name: str) -> str:
    """Shorten a name for a message, and escape what is not valid text."""
    return name[:200].encode("utf-8", "backslashreplace").decode()


def top_level(tree: Tree) -> list[str]:
    """List the files at the top of a source, or in its only folder."""
    shown = [name for name in tree.names if not is_hidden(name)]
    tops = {name.partition("/")[0] for name in shown}
    depth = 1 if len(tops) == 1 and "/" in shown[0] else 0
    return [name for name in shown if name.count("/") == depth]


def head(tree: Tree, name: str) -> bytes:
    """Read the first bytes of a file; empty if it cannot be read."""
    try:
        with tree.open(name) as file:
            return file.read(HEAD)
    except (OSError, DataError):
        return b""


def read_text_file(tree: Tree, name: str, limit: int = MAX_LINE_BYTES) -> bytes:
    """Read a whole small file. DataError where it is too large or cannot be read."""
    try:
        with tree.open(name) as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise DataError(error.strerror or str(error)) from error
    if len(data) > limit:
        raise DataError(f"a file of over {limit // 1_000_000} MB")
    return data


def unusable(name: str) -> str | None:
    """Return what is wrong with the name of an archive's member, or None."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return "its name is not UTF-8"
    if not name or "\0" in name:
        return "it has no usable name"
    if name.startswith(("/", "\\")) or re.match(r"[A-Za-z]:", name) or ".." in name.replace("\\", "/").split("/"):
        return "its name leads out of the archive"
    return None


# Names that are devices on Windows, whatever their ending.
_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)


def joined(folder: str, name: str) -> str | None:
    """Join a name from someone's file to the folder that it is relative to; None where it leads out of the source.

    >>> joined("train", "a.jpg"), joined("train", "../a.jpg"), joined("train", "../../a.jpg"), joined("", "x/a.jpg")
    ('train/a.jpg', 'a.jpg', None, 'x/a.jpg')
    """
    if not name or "\0" in name or name.startswith("/") or re.match(r"[A-Za-z]:[\\/]", name):
        return None
    if sys.platform == "win32" and any(_RESERVED.fullmatch(part) for part in re.split(r"[\\/]", name)):
        return None
    path = os.path.normpath(f"{folder}/{name}" if folder else name).replace(os.sep, "/")
    return None if path == ".." or path.startswith(("../", "/")) else path
