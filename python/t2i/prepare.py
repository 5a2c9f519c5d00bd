"""Folders of captioned pictures to a packed data set.

* Each source is a function that lists `Item`s: a picture file, its captions, its class and split.
* `pack` decodes and resizes them on all cores (the native module; Pillow for formats it does not know), and writes
  shards of plain safetensors and, last, `pack.json`.
* A bad file never stops it: it is left out, counted, and named with its reason in `report.json`.
* A name or a link that leads out of an image folder is not followed.
"""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from t2i import _native, synthetic
from t2i.errors import ConfigError, DataError

SHARD_IMAGES = 4096
SHARD_BYTES = 256 * 2**20  # of pictures: a shard is put together in memory
BLOCK_IMAGES = 256  # decoded at once, between two moves of the progress bar
MAX_CAPTION_CHARACTERS = 100_000
MAX_PIXELS = 100_000_000
ENDINGS = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm"}
Fit = Literal["stretch", "crop"]


@dataclass(frozen=True)
class Item:
    """One captioned picture of a source."""

    path: Path
    captions: tuple[str, ...]
    class_name: str | None = None
    test: bool = False
    box: tuple[float, float, float, float] | None = None  # x, y, width, height in pixels: cropped to first


@dataclass
class Report:
    """What came of a preparation."""

    images: int = 0
    captions: int = 0
    classes: int = 0
    train: int = 0
    test: int = 0
    skipped: list[tuple[str, str]] = field(default_factory=list)  # (path, reason)

    def summary(self) -> str:
        """Say it in a few lines."""
        lines = [
            f"{self.images} images, {self.captions} captions, {self.classes} classes; "
            f"{self.train} train, {self.test} test"
        ]
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


def read_lines(path: Path) -> list[str]:
    """Read a caption file: its lines, stripped, without the empty ones. DataError where it is no text."""
    try:
        if path.stat().st_size > 20 * MAX_CAPTION_CHARACTERS:
            raise DataError("caption file of over 2 MB")
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError("captions are not UTF-8 text") from error
    except OSError as error:
        raise DataError(error.strerror or str(error)) from error
    return [line.strip() for line in text.splitlines() if line.strip()]


def _required(path: Path, what: str) -> Path:
    if not path.exists():
        raise DataError(f"no such file or folder: {path} ({what})")
    return path


def oxford102(source: Path, report: Report) -> Iterator[Item]:
    """List Oxford-102 as published: jpg/ beside text_c10/class_*/image_*.txt, trainvalclasses.txt, testclasses.txt."""
    images, texts = _required(source / "jpg", "pictures"), _required(source / "text_c10", "captions")
    held_out = set(read_lines(source / "testclasses.txt")) if (source / "testclasses.txt").exists() else set()
    names = {}
    if (source / "cat_to_name.json").exists():
        names = _class_names(source / "cat_to_name.json")
    for folder in sorted(path for path in texts.iterdir() if path.is_dir()):
        for file in sorted(folder.glob("*.txt")):
            item = _with_captions(images / f"{file.stem}.jpg", file, report)
            if item:
                name = names.get(folder.name, folder.name)
                yield Item(item[0], item[1], name, folder.name in held_out)


def _class_names(path: Path) -> dict[str, str]:
    """Read cat_to_name.json: {"1": "pink primrose", ...}, by the folder names of text_c10."""
    try:
        numbered = json.loads(path.read_text(encoding="utf-8"))
        return {f"class_{int(number):05d}": str(name) for number, name in numbered.items()}
    except (OSError, ValueError, AttributeError) as error:
        raise DataError(f"{path} must hold class numbers and names: {error}") from error


def _columns(path: Path, what: str, count: int) -> dict[str, list[str]]:
    """Read one of CUB's lists: `count` columns a line, the first of which is the picture's number."""
    rows = {}
    for line in read_lines(_required(path, what)):
        number, *values = line.split(maxsplit=count - 1)
        if len(values) != count - 1:
            raise DataError(f"{path} must have {count} columns, got {line[:80]!r}")
        rows[number] = values
    return rows


def cub(source: Path, report: Report, boxes: bool = False) -> Iterator[Item]:
    """List CUB-200-2011 as published, with text_c10/ and the class lists beside or inside CUB_200_2011/."""
    root = source / "CUB_200_2011" if (source / "CUB_200_2011").is_dir() else source
    texts = next((p for p in (source / "text_c10", root / "text_c10") if p.is_dir()), source / "text_c10")
    _required(texts, "captions")
    paths = _columns(root / "images.txt", "list of pictures", 2)
    found: dict[str, tuple[float, float, float, float]] = {}
    if boxes:
        for number, values in _columns(root / "bounding_boxes.txt", "bounding boxes", 5).items():
            try:
                x, y, width, height = map(float, values)
            except ValueError as error:
                raise DataError(f"{root / 'bounding_boxes.txt'} must hold numbers, got {values}") from error
            found[number] = (x, y, width, height)
    lists = next((p for p in (source, root) if (p / "testclasses.txt").exists()), source)
    held_out = set(read_lines(lists / "testclasses.txt")) if (lists / "testclasses.txt").exists() else set()
    for number, (name,) in paths.items():
        path = inside(root / "images", name)
        if path is None:
            report.skipped.append((name, "leads out of the source folder"))
            continue
        folder = path.parent.name
        item = _with_captions(path, texts / folder / f"{path.stem}.txt", report)
        if item:
            yield Item(item[0], item[1], folder, folder in held_out, found.get(number))


def _with_captions(image: Path, captions: Path, report: Report) -> tuple[Path, tuple[str, ...]] | None:
    """Pair a picture with its caption file, or report why not."""
    try:
        lines = read_lines(captions)
    except DataError as error:
        report.skipped.append((str(captions), str(error)))
        return None
    if not image.exists():
        report.skipped.append((str(image), "no such picture"))
    elif not lines:
        report.skipped.append((str(image), "no captions"))
    else:
        return image, tuple(lines)
    return None


def folder(source: Path, report: Report) -> Iterator[Item]:
    """List a folder of pictures with `metadata.jsonl` (file_name, text) or a .txt of captions beside each picture.

    The class is the picture's subfolder; where there are no subfolders there are no classes. A folder named `test` (or
    `validation`) at the top marks the held-out split, `train` the other; neither is a class.
    """
    seen: set[Path] = set()
    for file in sorted(source.rglob("metadata.jsonl")):
        if inside(source, str(file.relative_to(source))) is None:
            report.skipped.append((str(file), "a link out of the source folder"))
        else:
            yield from _metadata(source, file, report, seen)
    for path in sorted(source.rglob("*")):
        if path.suffix.lower() not in ENDINGS or path in seen:
            continue
        if inside(source, str(path.relative_to(source))) is None:
            report.skipped.append((str(path), "a link out of the source folder"))
            continue
        text = path.with_suffix(".txt")
        if not text.exists():
            report.skipped.append((str(path), "no captions: neither a line in metadata.jsonl nor a .txt beside it"))
            continue
        if inside(source, str(text.relative_to(source))) is None:
            report.skipped.append((str(text), "a link out of the source folder"))
            continue
        item = _with_captions(path, text, report)
        if item:
            yield Item(item[0], item[1], *_class_and_split(source, path))


def _class_and_split(source: Path, path: Path) -> tuple[str | None, bool]:
    parts = list(path.parent.relative_to(source).parts)
    test = bool(parts) and parts[0] in ("test", "validation")
    if parts and parts[0] in ("train", "test", "validation"):
        parts = parts[1:]
    return ("/".join(parts) or None), test


def _metadata(source: Path, file: Path, report: Report, seen: set[Path]) -> Iterator[Item]:
    """List one metadata.jsonl; names in it are relative to its folder."""
    with open(file, encoding="utf-8-sig", errors="replace") as lines:
        for number, line in enumerate(lines, 1):
            where = f"{file}:{number}"
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                name, text = row["file_name"], row["text"]
                captions = [text] if isinstance(text, str) else text
                strings = isinstance(captions, list) and all(isinstance(caption, str) for caption in captions)
                if not isinstance(name, str) or not strings:
                    raise TypeError("file_name must be a string, text a string or a list of strings")
                "".join(captions).encode()  # JSON can hold half characters, which are no text
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                missing = f"no {error}" if isinstance(error, KeyError) else str(error)
                report.skipped.append((where, f"broken line: {missing}"))
                continue
            path = inside(file.parent, name)
            if path is None or inside(source, str(path.relative_to(source))) is None:
                report.skipped.append((where, f"{name!r} leads out of the source folder"))
                continue
            seen.add(path)
            kept = tuple(caption.strip() for caption in captions if caption.strip())
            if not kept:
                report.skipped.append((where, "no captions"))
            elif max(map(len, kept)) > MAX_CAPTION_CHARACTERS:
                report.skipped.append((where, f"a caption of over {MAX_CAPTION_CHARACTERS} characters"))
            elif not os.path.isfile(path):  # unlike Path.is_file, also for a name too long for the file system
                report.skipped.append((where, f"no such picture: {name[:200]}"))
            else:
                yield Item(path, kept, *_class_and_split(source, path))


def load_images(
    items: Sequence[Item], size: int, fit: Fit, max_pixels: int
) -> tuple[NDArray[np.uint8], list[str | None]]:
    """Decode and resize pictures: uint8 (n, size, size, 3), and for each None or the reason it cannot be used."""
    out = np.zeros((len(items), size, size, 3), np.uint8)
    boxes = None
    if any(item.box for item in items):
        boxes = np.array([item.box or (np.nan,) * 4 for item in items], np.float32)
    answers = _native.load_images([str(item.path) for item in items], boxes, fit, max_pixels, out)
    reasons: list[str | None] = []
    for row, answer in enumerate(answers):
        if answer is not None and answer[0] == "unsupported":
            reasons.append(_load_with_pillow(items[row], fit, max_pixels, out[row]))
        else:
            reasons.append(None if answer is None else f"{answer[0]}: {answer[1]}")
    return out, reasons


def _load_with_pillow(item: Item, fit: Fit, max_pixels: int, out: NDArray[np.uint8]) -> str | None:
    """Decode what the native module does not know into `out` (size, size, 3); the reason where Pillow cannot either."""
    try:
        with Image.open(item.path) as opened:
            if opened.width * opened.height > max_pixels:
                return f"too large: {opened.width} x {opened.height} pixels, the limit is {max_pixels}"
            picture = ImageOps.exif_transpose(opened).convert("RGBA")
    except Exception as error:  # Pillow's parsers raise whatever they meet: struct.error, IndexError, EOFError, ...
        return f"broken: {' '.join(str(error).split()) or type(error).__name__}"
    white = Image.new("RGBA", picture.size, "white")
    array = np.ascontiguousarray(Image.alpha_composite(white, picture).convert("RGB"))
    if item.box is not None:
        x, y, width, height = (round(value) for value in item.box)
        array = np.ascontiguousarray(array[max(0, y) : y + height, max(0, x) : x + width])
        if array.size == 0:
            return "broken: the bounding box lies outside the picture"
    _native.resize(array, out, fit)
    return None


class PackWriter:
    """Write a packed data set: shards as they fill, `pack.json` last.

    Args:
        folder: Made where it does not exist.
        name: Of the data set.
        size: Side of the pictures.
        provenance: Where it comes from; kept in pack.json.
    """

    def __init__(self, folder: Path, name: str, size: int, provenance: dict[str, Any]) -> None:
        self.folder, self.name, self.size, self.provenance = folder, name, size, provenance
        self.classes: dict[str, int] = {}
        self.shards: list[dict[str, Any]] = []
        self._rows: list[dict[str, Any]] = []
        self._full = max(1, min(SHARD_IMAGES, SHARD_BYTES // (3 * size * size)))  # pictures
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(f"cannot write into {folder}: {error.strerror}; choose another --out") from error

    def add(
        self, image: NDArray[np.uint8], captions: Sequence[str], class_name: str | None, test: bool, name: str,
        extra: dict[str, NDArray[Any]] | None = None,
    ) -> None:  # fmt: skip
        """Add one picture (size, size, 3) with its captions; `extra` are further tensors, one row a picture."""
        number = -1 if class_name is None else self.classes.setdefault(class_name, len(self.classes))
        self._rows.append(
            {
                "image": image,
                "captions": list(captions),
                "class": number,
                "test": test,
                "name": name,
                "extra": extra or {},
            }
        )
        if len(self._rows) == self._full:
            self._flush()

    def _flush(self) -> None:
        from safetensors.numpy import save

        rows, self._rows = self._rows, []
        captions = [caption for row in rows for caption in row["captions"]]
        ids = np.zeros((len(captions), _native.CAPTION_LENGTH), np.uint8)
        _native.encode(captions, ids)
        offsets = np.cumsum([0, *(len(row["captions"]) for row in rows)])
        tensors: dict[str, NDArray[Any]] = {
            "images": np.stack([row["image"] for row in rows]),
            "captions": ids,
            "caption_offsets": offsets.astype(np.int64),
            "classes": np.array([row["class"] for row in rows], np.int32),
            "splits": np.array([row["test"] for row in rows], np.uint8),
            "names": np.frombuffer(
                "\n".join(row["name"].replace("\n", " ") for row in rows).encode("utf-8", "replace"), np.uint8
            ),
        }
        for key in rows[0]["extra"]:
            tensors[key] = np.stack([row["extra"][key] for row in rows])
        data = save(tensors)
        file = f"shard-{len(self.shards):05d}.safetensors"
        _write(self.folder / file, data)
        checksum = hashlib.sha256(data).hexdigest()
        shard = {"file": file, "images": len(rows), "captions": len(captions), "bytes": len(data), "sha256": checksum}
        self.shards.append(shard | {"test": int(tensors["splits"].sum())})

    def close(self) -> dict[str, Any]:
        """Write the last shard and pack.json; returns what it says. DataError where no picture was added."""
        if self._rows:
            self._flush()
        images = sum(shard["images"] for shard in self.shards)
        test = sum(shard.pop("test") for shard in self.shards)
        record = {
            "format": "t2i-pack",
            "version": 1,
            "name": self.name,
            "image_size": self.size,
            "images": images,
            "captions": sum(shard["captions"] for shard in self.shards),
            "classes": list(self.classes),
            "splits": {"train": images - test, "test": test},
            "provenance": self.provenance,
            "shards": self.shards,
        }
        _write(self.folder / "pack.json", (json.dumps(record, indent=2) + "\n").encode())
        return record


def _write(path: Path, data: bytes) -> None:
    """Write beside, flush, rename; DataError where the disk does not take it."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        with open(partial, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise DataError(f"cannot write {path}: {error.strerror}; free some space or choose another --out") from error


SOURCES: dict[str, Callable[[Path, Report], Iterable[Item]]] = {"oxford102": oxford102, "cub": cub, "folder": folder}


def pack(
    kind: str,
    source: Path,
    out: Path,
    *,
    size: int = 76,
    fit: Fit = "stretch",
    boxes: bool = False,
    max_pixels: int = MAX_PIXELS,
    force: bool = False,
    show_progress: bool = True,
) -> Report:
    """Prepare a source folder.

    Args:
        kind: "oxford102", "cub" or "folder".
        source: The folder as it was unpacked.
        out: Where the packed data set goes.
        size: Side of the pictures in pixels (76 for crops of 64).
        fit: "stretch" ignores the aspect ratio (the paper), "crop" cuts the longer side off.
        boxes: Crop CUB to its bounding boxes first.
        max_pixels: Larger pictures are refused before they are decoded.
        force: Replace a packed data set that is there.
        show_progress: Draw a bar on stderr.

    Raises:
        ConfigError: a size that pictures cannot be stored in.
        DataError: no such folder, nothing usable in it, or a packed data set already at `out`.
    """
    from tqdm import tqdm

    if not source.is_dir():
        raise DataError(f"no such folder: {source}")
    if not 16 <= size <= 2048:
        raise ConfigError(f"--size must be from 16 to 2048, got {size}")
    _refuse_replacing(out, force)
    report = Report()
    listed = list(cub(source, report, boxes) if kind == "cub" else SOURCES[kind](source, report))
    if not listed:
        some = f"; the first reason: {report.skipped[0][0]}: {report.skipped[0][1]}" if report.skipped else ""
        hint = (
            "a metadata.jsonl with file_name and text, or a .txt of captions beside each picture"
            if kind == "folder"
            else kind
        )
        raise DataError(f"{source} has no captioned pictures (looked for {hint}){some}")
    classed = {item.class_name for item in listed}
    classless = None in classed  # pictures at the top and in subfolders at once: no classes at all
    provenance = {"kind": kind, "source": source.name, "fit": fit, "boxes": boxes}
    _remove_pack(out)
    writer = PackWriter(out, source.name or kind, size, provenance)
    with tqdm(total=len(listed), desc="prepare", unit="img", dynamic_ncols=True, disable=not show_progress) as bar:
        for first in range(0, len(listed), BLOCK_IMAGES):
            block = listed[first : first + BLOCK_IMAGES]
            images, reasons = load_images(block, size, fit, max_pixels)
            for item, image, reason in zip(block, images, reasons, strict=True):
                if reason is not None:
                    report.skipped.append((str(item.path), reason))
                    continue
                class_name = None if classless else item.class_name
                writer.add(image, item.captions, class_name, item.test, str(item.path.relative_to(source)))
            bar.update(len(block))
    if not writer.shards and not writer._rows:
        raise DataError(f"none of the {len(listed)} pictures of {source} could be used; the first: {report.skipped[0]}")
    _finish(writer, report)
    return report


def _finish(writer: PackWriter, report: Report) -> None:
    record = writer.close()
    report.images, report.captions, report.classes = record["images"], record["captions"], len(record["classes"])
    report.train, report.test = record["splits"]["train"], record["splits"]["test"]
    reasons = Counter(reason.split(":")[0] for _, reason in report.skipped)
    listing = {"skipped": len(report.skipped), "reasons": reasons, "files": report.skipped}
    _write(writer.folder / "report.json", (json.dumps(listing, indent=2) + "\n").encode())


def _refuse_replacing(out: Path, force: bool) -> None:
    if (out / "pack.json").exists() and not force:
        raise DataError(f"{out} already holds a packed data set; choose another --out or add --force")


def _remove_pack(out: Path) -> None:
    """Remove a packed data set, whole or left unfinished by a process that was stopped."""
    for pattern in ("pack.json", "shard-*.safetensors", ".*.partial"):
        for file in out.glob(pattern):
            file.unlink()


def cache_folder() -> Path:
    """Name the user's folder for what can be made again: $XDG_CACHE_HOME/t2i or ~/.cache/t2i."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "t2i"


def embedded_blossoms(size: int, folder: Path, images: int = 6000) -> Path:
    """Find the default data set for pictures of `size`, drawing it first where this machine has not yet.

    It is kept in the user's cache folder ($XDG_CACHE_HOME/t2i), or in the run folder where that cannot be written.
    """
    stored = size * 76 // 64  # room for crops, in the paper's proportion
    name = f"blossoms-{synthetic.VERSION}-{stored}px-{images}"
    cache = cache_folder()
    for place in (cache / name, folder / name):
        if (place / "pack.json").exists():
            return place
        try:
            place.mkdir(parents=True, exist_ok=True)
            if os.access(place, os.W_OK):
                blossoms(place, images=images, size=stored)
                return place
        except OSError:
            continue
    raise DataError(f"neither {cache} nor {folder} can be written; choose another --out")


def blossoms(
    out: Path, *, images: int = 6000, size: int = 38, seed: int = 0, force: bool = False, show_progress: bool = True
) -> Report:
    """Draw the embedded data set into a packed one, with the truth of content (`attributes`) and style (`style`)."""
    from tqdm import tqdm

    _refuse_replacing(out, force)
    report = Report()
    provenance = {"kind": "blossoms", "seed": seed, "licence": "drawn by t2i; MIT"}
    drawn = synthetic.make_blossoms(images, size, seed)
    _remove_pack(out)
    writer = PackWriter(out, "blossoms", size, provenance)
    for row in tqdm(range(images), desc="blossoms", unit="img", dynamic_ncols=True, disable=not show_progress):
        extra = {"attributes": drawn.attributes[row], "style": drawn.style[row]}
        name = drawn.class_names[drawn.classes[row]]
        writer.add(drawn.images[row], drawn.captions[row], name, bool(drawn.splits[row]), f"blossom-{row:06d}", extra)
    _finish(writer, report)
    return report
