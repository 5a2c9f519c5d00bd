"""Prepare a data set, or a part of it: list the images, decode them, write shards."""

import dataclasses
import hashlib
import json
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from t2i import console
from t2i.config.sizes import MAX_PIXELS
from t2i.errors import ConfigError, DataError
from t2i.files import is_file, is_folder, shell_path
from t2i.prepare.collect import DEFAULTS, SourceOptions
from t2i.prepare.images import Fit, load_images
from t2i.prepare.items import Item, Report, root_of
from t2i.prepare.outputs import output_lock, refuse_replacing
from t2i.prepare.parts import Done, Listing, begin, join, note_done
from t2i.prepare.sources.arrow import huggingface, parquet
from t2i.prepare.sources.coco import coco
from t2i.prepare.sources.folder import folder
from t2i.prepare.sources.layouts import cub, oxford102
from t2i.prepare.sources.stackgan import stackgan
from t2i.prepare.sources.table import table
from t2i.prepare.sources.webdataset import is_shard, webdataset
from t2i.prepare.tree import NOT_FOLLOWED, OUT, is_zip
from t2i.prepare.writer import VERSION, Row, shard_capacity, write_shard

BLOCK_IMAGES = 256  # decoded at once, between two moves of the progress bar
SOURCES: dict[str, Callable[[Path, Report, SourceOptions], Iterable[Item]]] = {
    "folder": folder,
    "huggingface": huggingface,
    "csv": table,
    "coco": coco,
    "webdataset": webdataset,
    "parquet": parquet,
    "stackgan": stackgan,
    "oxford102": oxford102,
    "cub": cub,
}
LOOKED_FOR = {
    "folder": "a metadata.jsonl with file_name and text, or a .txt of captions beside each image",
    "csv": "a .csv or .tsv with columns file_name and text, or a table given by name",
    "coco": "captions_*.json, at its top or in annotations/",
    "webdataset": "tar shards of images with a .txt or .json each",
    "parquet": "Parquet files with columns image and text",
}
LISTS = ("folder", "huggingface", "csv", "coco", "parquet")  # kinds whose tables may name images elsewhere
BY_NAME = ("folder", "huggingface")  # kinds whose file names may be captions
ONE_FILE = ("folder", "csv", "coco", "webdataset", "parquet")  # kinds whose source may be a single file


def read_shard(text: str) -> tuple[int, int]:
    """Read `i/n`, part i of n, counted from 0. ConfigError for anything else."""
    match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
    if not match or not int(match[1]) < int(match[2]):
        raise ConfigError(f"--shard must be i/n with i from 0 to n - 1, such as 0/8 for the first of eight, got {text}")
    return int(match[1]), int(match[2])


def pack(
    kind: str,
    source: Path,
    out: Path,
    *,
    size: int = 76,
    fit: Fit = "stretch",
    boxes: bool = False,
    options: SourceOptions = DEFAULTS,
    classes: bool = True,
    max_pixels: int = MAX_PIXELS,
    force: bool = False,
    show_progress: bool = True,
    shard: str | None = None,
    shard_images: int | None = None,
) -> Report:
    """Prepare a source; an interrupted preparation is resumed.

    Args:
        kind: A key of SOURCES.
        source: The folder as it was unpacked, or the file.
        out: Where the packed data set goes.
        size: Side of the images in pixels (76 for crops of 64).
        fit: "stretch" ignores the aspect ratio (the paper), "crop" cuts the longer side off.
        boxes: Crop CUB to its bounding boxes first.
        options: Columns of the source, and where its images and captions are.
        classes: Keep the classes of the source; False packs it without any.
        max_pixels: Larger images are refused before they are decoded.
        force: Replace a packed data set that is there.
        show_progress: Draw a bar on stderr.
        shard: "i/n": write only part i of n, counted from 0; the part that finds all others done writes pack.json.
        shard_images: Most images in a shard of the pack; all parts must agree. None: SHARD_IMAGES.

    Returns:
        What came of it; `missing` counts the shards that other parts have yet to write.

    Raises:
        ConfigError: a size that images cannot be stored in; a part that is none; a missing optional package.
        DataError: no such folder, nothing usable in it, or a packed data set already at `out`.
    """
    options = dataclasses.replace(options, boxes=boxes or options.boxes)
    settings = _Settings(kind, source, size, fit, options, classes, max_pixels, shard_capacity(size, shard_images))
    part, parts = _checked_part(settings, shard, shard_images, force)
    if Listing.read(out) is None:  # refused before the source is read, which may take long
        refuse_replacing(out, force)
    report = Report(follow_links=options.follow_links, zip_names=options.zip_names)
    items = _items(settings, report)
    listing = _listing(settings, items, report)
    with output_lock(out, shared=shard is not None):
        before = Listing.read(out)  # beside a pack.json: one that replaces it, or was killed in its very last moments
        if before is None or before.digest != listing.digest:
            refuse_replacing(out, force)
        listing, done = begin(out, listing, shared=shard is not None)
        wanted = range(part * listing.shards // parts, (part + 1) * listing.shards // parts)
        todo = [number for number in wanted if number not in done]
        if done and show_progress:
            print(f"going on: {len(done)} of {listing.shards} shards are there", file=sys.stderr)
        _write_shards(settings, out, items, listing, todo, show_progress)
        return join(out, listing)


@dataclasses.dataclass(frozen=True)
class _Settings:
    """Settings that every part of a preparation shares."""

    kind: str
    source: Path
    size: int
    fit: Fit
    options: SourceOptions
    classes: bool
    max_pixels: int
    capacity: int  # images of a shard


def _checked_part(settings: _Settings, shard: str | None, shard_images: int | None, force: bool) -> tuple[int, int]:
    """Check the settings before anything is read; return the part and the number of parts."""
    kind, source = settings.kind, settings.source
    folder_given = is_folder(source, DataError)
    if not folder_given and not (kind in ONE_FILE and is_file(source, DataError)):
        raise DataError(f"no such {'file or ' if kind in ONE_FILE else ''}folder: {source}")
    if kind == "folder" and not folder_given and not is_zip(source):
        raise DataError(f"{source} is neither a folder nor a zip; {_other_kind(source)}")
    images, zip_names = settings.options.images, settings.options.zip_names
    for flag, given, kinds in (
        ("--images", images is not None, LISTS),
        ("--captions", _by_name(settings), BY_NAME),
        ("--zip-names", zip_names is not None, LISTS),
    ):
        if given and kind not in kinds:
            raise ConfigError(f"{flag} has no effect on {kind}; it goes with {', '.join(kinds)}")
    if images is not None and not is_folder(images, ConfigError):
        raise ConfigError(f"--images must be a folder, got {images}")
    try:
        b"a".decode(zip_names or "utf-8")
    except (LookupError, UnicodeError):
        raise ConfigError(f"--zip-names must be an encoding, such as gb18030 or cp932, got {zip_names}") from None
    if not 16 <= settings.size <= 2048:
        raise ConfigError(f"--size must be from 16 to 2048, got {settings.size}")
    if shard_images is not None and shard_images < 1:
        raise ConfigError(f"--shard-images must be at least 1, got {shard_images}")
    if shard is not None and force:
        raise ConfigError("--force and --shard exclude each other: a part would remove the others; remove --out first")
    return (0, 1) if shard is None else read_shard(shard)


def _by_name(settings: _Settings) -> bool:
    return settings.options.captions == "name"


def _other_kind(source: Path) -> str:
    """Return which kind reads a file that `folder` does not."""
    quoted = shell_path(source)
    if is_shard(source.name):
        return f"tar shards are read by t2i-prepare webdataset {quoted}"
    if source.suffix.lower() == ".parquet":
        return f"Parquet is read by t2i-prepare parquet {quoted}"
    return f"a table is read by t2i-prepare csv {quoted}"


def _first_reason(report: Report) -> str:
    """Return the first reason why something was skipped, with what it applies to."""
    reasons = [each for each in report.skipped if "a link" not in each[1]] or report.skipped
    if not reasons:
        return ""
    first = reasons[0][1]
    places = [place for place, reason in reasons if reason == first]
    more = f" and {len(places) - 3} more" if len(places) > 3 else ""
    return f"; the first reason: {', '.join(places[:3])}{more}: {first}"


def _items(settings: _Settings, report: Report) -> list[Item]:
    """List the images of the source; DataError if it has no captioned image."""
    kind, source = settings.kind, settings.source
    items = list(SOURCES[kind](source, report, settings.options))
    report.notes += report.splits.notes()
    links = sum(reason in (OUT, NOT_FOLLOWED) for _, reason in report.skipped)
    if links:
        advice = f"{links} links are not followed: --follow-links reads what they lead to"
        (report.notes if items else report.hints).append(advice)
    if not items:
        some = _first_reason(report)
        hints = f"; perhaps: {'; '.join(report.hints[:3])}" if report.hints else ""
        raise DataError(f"{source} has no captioned images (looked for {LOOKED_FOR.get(kind, kind)}){hints}{some}")
    if all(item.test for item in items):
        report.notes.append("every image is held out by its split, so that there is none to train on")
    return _with_classes(items, report) if settings.classes else _without_classes(items)


def _with_classes(items: Sequence[Item], report: Report) -> list[Item]:
    """Note classes that are not kept; a single one is none, since a mismatched pair would be of two."""
    unnamed = sum(item.class_name is None for item in items)
    names = {item.class_name for item in items}
    if 0 < unnamed < len(items):
        report.notes.append(
            f"{unnamed} of {len(items)} images have no class, so that the classes of the others are not kept"
        )
    elif not unnamed and len(names) == 1:
        report.notes.append(f"all images are of one class, {names.pop()}, which is no class")
        return _without_classes(items)
    return list(items)


def _without_classes(items: Sequence[Item]) -> list[Item]:
    return [dataclasses.replace(item, class_name=None) for item in items]


def _listing(settings: _Settings, items: Sequence[Item], report: Report) -> Listing:
    """Describe what is prepared; the same for every part on every machine."""
    source, root = settings.source, root_of(settings.source)
    boxes = settings.options.boxes
    values = [
        VERSION,
        settings.kind,
        source.name,
        settings.size,
        settings.fit,
        boxes,
        settings.max_pixels,
        settings.capacity,
    ]
    digest = hashlib.sha256(json.dumps(values).encode())
    for item in items:
        length = item.length if item.read is not None else _length(item.path)
        facts = [item.name(root), item.captions, item.class_name, item.test, item.box, length]
        digest.update(json.dumps(facts).encode())
        for name, tensor in item.extra.items():
            digest.update(name.encode() + tensor.tobytes())
    # Images at the top and in subfolders at once: no classes at all.
    named = [item.class_name for item in items if item.class_name is not None]
    classes = list(dict.fromkeys(named)) if len(named) == len(items) else []
    return Listing(
        digest=digest.hexdigest(),
        name=source.name or settings.kind,
        size=settings.size,
        classes=classes,
        provenance={"kind": settings.kind, "source": source.name, "fit": settings.fit, "boxes": boxes},
        shards=-(-len(items) // settings.capacity),
        images=len(items),
        skipped=[list(each) for each in report.skipped],
        notes=report.notes,
        account=None if report.account is None else report.account.record(),
    )


def _length(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1  # the decoder will say what is the matter with it


def _write_shards(
    settings: _Settings,
    out: Path,
    items: Sequence[Item],
    listing: Listing,
    numbers: Sequence[int],
    show_progress: bool,
) -> None:
    from tqdm import tqdm

    root, capacity = root_of(settings.source), settings.capacity
    class_numbers = {name: number for number, name in enumerate(listing.classes)}
    shares = [items[number * capacity : (number + 1) * capacity] for number in numbers]
    total = sum(map(len, shares))
    with tqdm(
        total=total,
        desc="prepare",
        unit="img",
        dynamic_ncols=True,
        mininterval=console.refresh_seconds(),
        disable=not show_progress,
    ) as bar:
        for number, share in zip(numbers, shares, strict=True):
            rows, skipped = [], []
            for first in range(0, len(share), BLOCK_IMAGES):
                block = share[first : first + BLOCK_IMAGES]
                images, reasons = load_images(block, listing.size, settings.fit, settings.max_pixels)
                for item, image, reason in zip(block, images, reasons, strict=True):
                    if reason is not None:
                        skipped.append([item.place(), reason])
                        continue
                    class_number = class_numbers[item.class_name or ""] if class_numbers else -1
                    rows.append(Row(image, item.captions, class_number, item.test, item.name(root), item.extra))
                bar.update(len(block))
            shard = write_shard(out, number, rows, listing.suffix) if rows else None
            note_done(out, number, listing.digest, Done(shard, skipped))
