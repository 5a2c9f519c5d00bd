"""One captioned picture of a source, and what every source needs: captions that are checked, names that stay inside."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from t2i import _native
from t2i.errors import DataError

MAX_CAPTION_BYTES = _native.MAX_CAPTION_BYTES  # of UTF-8
MAX_LINE_BYTES = 2_000_000  # bytes: of a line of metadata, of a whole caption file
ENDINGS = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm"}
HELD_OUT = ("test", "validation", "val")  # names of a split that training never sees
Read = Callable[[int], "bytes | NDArray[np.uint8]"]  # takes the most bytes to read; a file's bytes, or pixels (H, W, 3)


@dataclass(frozen=True)
class Item:
    """One captioned picture of a source."""

    path: Path  # the picture, or the archive or table that holds it
    captions: tuple[str, ...]
    class_name: str | None = None
    test: bool = False
    box: tuple[float, float, float, float] | None = None  # x, y, width, height in pixels: cropped to first
    member: str | None = None  # the picture's name in `path`, where that holds many
    length: int | None = None  # bytes of the picture, where the source knows
    read: Read | None = field(default=None, compare=False)  # reads it, where it is no file of its own
    extra: dict[str, NDArray[Any]] = field(default_factory=dict, compare=False)  # further tensors to be packed with it

    def name(self, root: Path) -> str:
        """Name it in the pack: its path below the root, or its name in the archive."""
        return self.member if self.member is not None else str(self.path.relative_to(root))

    def place(self) -> str:
        """Say where it is, for the report."""
        return str(self.path) if self.member is None else f"{self.path}: {self.member}"


@dataclass
class Report:
    """What came of a preparation."""

    images: int = 0
    captions: int = 0
    classes: int = 0
    train: int = 0
    test: int = 0
    skipped: list[tuple[str, str]] = field(default_factory=list)  # (path, reason)
    missing: int = 0  # shards that other parts have not written yet
    truncated: int = 0  # captions of more characters than the char-CNN-RNN reads
    unknown: int = 0  # captions with characters outside its alphabet

    def skip(self, place: object, reason: str) -> None:
        """Leave something out, and say why."""
        self.skipped.append((str(place), reason))

    def summary(self) -> str:
        """Say it in a few lines."""
        lines = [
            f"{self.images} images, {self.captions} captions, {self.classes} classes; "
            f"{self.train} train, {self.test} test"
        ]
        if self.truncated or self.unknown:
            lines.append(
                f"the char-cnn-rnn encoder does not read all captions whole: {self.truncated} are cut at "
                f"{_native.CAPTION_LENGTH} characters, {self.unknown} have characters outside its alphabet"
            )
        if self.skipped:
            lines.append(f"{len(self.skipped)} skipped:")
            lines += [f"  {path}: {reason}" for path, reason in self.skipped[:10]]
            if len(self.skipped) > 10:
                lines.append(f"  ... and {len(self.skipped) - 10} more, all in report.json")
        return "\n".join(lines).encode("utf-8", "replace").decode()  # a file name may hold bytes that are no text


def inside(root: Path, name: str) -> Path | None:
    """Join a name from someone's file to the root; None where it leads out of it (.., absolute, a link out)."""
    try:
        path = Path(os.path.normpath(root / name))
        return path if name and path.resolve().is_relative_to(root.resolve()) else None
    except (OSError, RuntimeError, ValueError):  # a loop of links; a name that no file system takes
        return None


def root_of(source: Path) -> Path:
    """Find the folder that names of pictures are told from: the source, or what holds it where it is a single file."""
    if source.is_dir():
        return source
    return source.parent.parent if source.parent.name == "annotations" else source.parent  # as COCO's archives unpack


def required(path: Path, what: str) -> Path:
    """Return a path that must exist; DataError where it does not."""
    if not path.exists():
        raise DataError(f"no such file or folder: {path} ({what})")
    return path


def checked_captions(value: object) -> tuple[str, ...]:
    """Check captions of someone's file: a string or a list of strings; stripped, without the empty ones.

    Raises:
        TypeError: they are neither.
        UnicodeEncodeError: half characters, which JSON can hold and which are no text.
        DataError: none is left, or one is longer than any caption.
    """
    captions = [value] if isinstance(value, str) else value
    if not isinstance(captions, list) or not all(isinstance(caption, str) for caption in captions):
        raise TypeError("text must be a string or a list of strings")
    "".join(captions).encode()
    kept = tuple(caption.strip() for caption in captions if caption.strip())
    if not kept:
        raise DataError("no captions")
    check_caption_lengths(kept)
    return kept


def check_caption_lengths(captions: Sequence[str]) -> None:
    """Refuse captions that a pack does not hold. DataError for one of over 64 KiB."""
    if max((len(caption.encode("utf-8", "replace")) for caption in captions), default=0) > MAX_CAPTION_BYTES:
        raise DataError(f"a caption of over {MAX_CAPTION_BYTES} bytes")


def read_lines(path: Path) -> list[str]:
    """Read a caption file: its lines, stripped, without the empty ones. DataError where it is no text."""
    try:
        if path.exists() and not path.is_file():  # reading a pipe would wait for its writer for ever
            raise DataError("it is not a file")
        if path.stat().st_size > MAX_LINE_BYTES:
            raise DataError("caption file of over 2 MB")
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError("captions are not UTF-8 text") from error
    except OSError as error:
        raise DataError(error.strerror or str(error)) from error
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    check_caption_lengths(lines)
    return lines


def numbered_lines(path: Path, report: Report) -> Iterator[tuple[int, str]]:
    """Read a text file line by line, counted from 1; a line of over 2 MB is never held, but reported and left out."""
    try:
        if not path.is_file():
            raise DataError("it is not a file")
        with open(path, "rb") as file:
            number = 0
            while line := file.readline(MAX_LINE_BYTES + 1):
                number += 1
                if len(line) <= MAX_LINE_BYTES:
                    yield number, line.decode("utf-8-sig" if number == 1 else "utf-8", "replace")
                    continue
                report.skip(f"{path}:{number}", "a line of over 2 MB")
                while line and not line.endswith(b"\n"):
                    line = file.readline(MAX_LINE_BYTES)
    except (OSError, DataError) as error:
        report.skip(path, getattr(error, "strerror", None) or str(error))


def with_captions(image: Path, captions: Path, report: Report) -> tuple[Path, tuple[str, ...]] | None:
    """Pair a picture with its caption file, or report why not."""
    try:
        lines = read_lines(captions)
    except DataError as error:
        report.skip(captions, str(error))
        return None
    if not image.exists():
        report.skip(image, "no such picture")
    elif not lines:
        report.skip(image, "no captions")
    else:
        return image, tuple(lines)
    return None
