"""A captioned image of a source, the report of a preparation, and checks of captions and paths that all sources share."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from t2i import _native
from t2i.data.blank import is_blank
from t2i.errors import DataError
from t2i.prepare.accounting import Account
from t2i.prepare.columns import SplitCells
from t2i.prepare.kinds import POINTER, is_pointer
from t2i.prepare.lines import MAX_LINE_BYTES, decode, split_lines

MAX_CAPTION_BYTES = _native.MAX_CAPTION_BYTES  # of UTF-8
Read = Callable[[int], "bytes | NDArray[np.uint8]"]  # takes the most bytes to read; a file's bytes, or pixels (H, W, 3)


@dataclass(frozen=True)
class Item:
    """One captioned image of a source."""

    path: Path  # the image, or the archive or table that holds it
    captions: tuple[str, ...]
    class_name: str | None = None
    test: bool = False
    box: tuple[float, float, float, float] | None = None  # x, y, width, height in pixels: cropped to first
    member: str | None = None  # the image's name in `path`, where that holds many
    named: str | None = None  # its name in the source, with / between folders; None: its path below the root
    length: int | None = None  # bytes of the image, where the source knows
    read: Read | None = field(default=None, compare=False)  # reads it, where it is no file of its own
    extra: dict[str, NDArray[Any]] = field(default_factory=dict, compare=False)  # further tensors to be packed with it

    def name(self, root: Path) -> str:
        """Return its name in the pack: the path below the root, or the name in the archive."""
        if self.member is not None or self.named is not None:
            return self.member or self.named or ""
        return self.path.relative_to(root).as_posix()

    def place(self) -> str:
        """Return its location for the report."""
        return str(self.path) if self.member is None else f"{self.path}: {self.member}"


@dataclass
class Report:
    """The result of a preparation."""

    images: int = 0
    captions: int = 0
    classes: int = 0
    train: int = 0
    test: int = 0
    skipped: list[tuple[str, str]] = field(default_factory=list)  # (path, reason)
    missing: int = 0  # shards that other parts have not written yet
    truncated: int = 0  # captions of more characters than the char-CNN-RNN reads
    unknown: int = 0  # captions with characters outside its alphabet
    notes: list[str] = field(default_factory=list)  # decisions about the source as a whole that the user should know
    read: set[str] = field(default_factory=set)  # files that captions, classes and splits were read from
    hints: list[str] = field(default_factory=list)  # suggestions if nothing is found
    account: Account | None = None  # what became of every file of the source
    splits: SplitCells = field(default_factory=SplitCells)  # as columns say them
    zip_names: str | None = None  # encoding of the names in zips that do not say it
    follow_links: bool = False  # links that lead out of the source are read as well

    def again(self) -> "Report":
        """Return an empty report of the same rules, for a second look at the source."""
        return Report(follow_links=self.follow_links, zip_names=self.zip_names)

    def skip(self, place: object, reason: str) -> None:
        """Record something that is skipped, with the reason."""
        self.skipped.append((str(place), reason))

    def record(self) -> dict[str, Any]:
        """Return what report.json contains beside the skipped files."""
        account = {} if self.account is None else {"source": self.account.record()}
        return ({"notes": self.notes} if self.notes else {}) | account

    def summary(self) -> str:
        """Return the result in a few lines of text."""
        lines = [
            f"{self.images} images, {self.captions} captions, {self.classes} classes; "
            f"{self.train} train, {self.test} test"
        ]
        if self.truncated or self.unknown:
            lines.append(
                f"note: the char-cnn-rnn encoder cannot read all captions ({self.truncated} are cut at "
                f"{_native.CAPTION_LENGTH} characters, {self.unknown} have characters outside its alphabet); the presets "
                "drawings and modern can, by n-grams"
            )
        lines += [f"note: {note}" for note in self.notes]
        if self.account is not None:
            elsewhere = self.images - self.account.images  # in the folder of --images
            more = f"; {elsewhere} images packed from another folder" if elsewhere > 0 else ""
            lines.append(self.account.summary() + more)
        if self.skipped:
            lines.append(f"{len(self.skipped)} skipped:")
            lines += [f"  {path}: {reason}" for path, reason in self.skipped[:10]]
            if len(self.skipped) > 10:
                lines.append(f"  ... and {len(self.skipped) - 10} more, all in report.json")
        return "\n".join(lines).encode("utf-8", "replace").decode()  # a file name may hold bytes that are no text


def inside(root: Path, name: str, follow_links: bool = False) -> Path | None:
    """Join a name from a table to the root; None if it leads out of the root (.., absolute, a link out).

    A link of the Hub's cache, datasets--NAME/snapshots/REVISION/..., into datasets--NAME/blobs/ is no link out; with
    `follow_links` no link is, and only the name counts.
    """
    try:
        path, top = Path(os.path.normpath(root / name)), root.resolve()
        if follow_links:
            return path if name and path.is_relative_to(os.path.normpath(root)) else None
        real = path.resolve()
        kept = real.is_relative_to(top) or (real.parent == _blobs(top) and path.is_relative_to(os.path.normpath(root)))
        return path if name and kept else None
    except (OSError, RuntimeError, ValueError):  # a loop of links; a name that no file system takes
        return None


def _blobs(folder: Path) -> Path | None:
    """Find the blobs of the Hub's cache that a folder belongs to."""
    for place in (folder, *folder.parents):
        if place.parent.name == "snapshots" and place.parent.parent.name.startswith(
            ("datasets--", "models--", "spaces--")
        ):
            return place.parent.parent / "blobs"
    return None


def root_of(source: Path) -> Path:
    """Find the folder that names of images are relative to: the source, or its parent where it is a single file."""
    if source.is_dir():
        return source
    return source.parent.parent if source.parent.name == "annotations" else source.parent  # as COCO's archives unpack


def checked_captions(value: object) -> tuple[str, ...]:
    """Check captions: a string or a list of strings.

    Whitespace is collapsed to single spaces; captions that are empty or show nothing are dropped.

    Raises:
        TypeError: they are neither.
        UnicodeEncodeError: unpaired surrogates, which JSON can express.
        DataError: none is left, or one is longer than any caption.
    """
    captions = [value] if isinstance(value, str) else value
    if not isinstance(captions, (list, tuple)) or not all(isinstance(caption, str) for caption in captions):
        raise TypeError("text must be a string or a list of strings")
    "".join(captions).encode()
    kept = tuple(" ".join(caption.split()) for caption in captions if not is_blank(caption))
    if not kept:
        raise DataError("no captions")
    check_caption_lengths(kept)
    return kept


def check_caption_lengths(captions: Sequence[str]) -> None:
    """Refuse captions that a pack does not hold. DataError for one of over 64 KiB."""
    if max((len(caption.encode("utf-8", "replace")) for caption in captions), default=0) > MAX_CAPTION_BYTES:
        raise DataError(f"a caption of over {MAX_CAPTION_BYTES} bytes")


def caption_lines(data: bytes) -> list[str]:
    """Read captions, one per line. DataError if they cannot be decoded."""
    if len(data) > MAX_LINE_BYTES:
        raise DataError("caption file of over 2 MB")
    if is_pointer(data):
        raise DataError(POINTER)
    captions = [" ".join(line.split()) for line in split_lines(decode(data)) if not is_blank(line)]
    check_caption_lengths(captions)
    return captions


def read_lines(path: Path) -> list[str]:
    """Read a caption file, one caption per line; empty lines are dropped. DataError if it cannot be read."""
    try:
        if path.exists() and not path.is_file():  # reading a pipe would wait for its writer for ever
            raise DataError("it is not a file")
        with open(path, "rb") as file:
            return caption_lines(file.read(MAX_LINE_BYTES + 1))
    except OSError as error:
        raise DataError(error.strerror or str(error)) from error
