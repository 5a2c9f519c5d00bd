"""A folder or zip of the user's own images, or a Hugging Face ImageFolder.

Captions are in `metadata.jsonl`, `.csv`, `.parquet` or `.json` (file_name, text), or in a text file with the image's
name, beside it or in a folder of texts beside the folder of images. The class is the label column of the metadata, otherwise
the subfolder. A folder named after a split (test, val, validation ...) is held out.
"""

import json
import re
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path

from t2i.errors import DataError
from t2i.prepare.collect import DEFAULTS, Collector, SourceOptions
from t2i.prepare.finder import Finder
from t2i.prepare.items import Item, Report, caption_lines, checked_captions
from t2i.prepare.kinds import (
    CAPTION_ENDINGS,
    RAW_ENDINGS,
    TEXT_ENDINGS,
    ending,
    image_kind,
    is_hidden,
    looks_like_image,
)
from t2i.prepare.leftovers import account_for_collected
from t2i.prepare.lines import decode
from t2i.prepare.sources.rows import METADATA, find_in, read_listing
from t2i.prepare.splits import split_of_folders, splits_of_names
from t2i.prepare.tree import FolderTree, Tree, head, open_tree, read_text_file

NO_CAPTIONS = (
    "no captions: neither a line in metadata.jsonl nor a .txt beside it (--captions name takes the file's name)"
)
CONTAINERS = frozenset({"image", "images", "img", "imgs", "picture", "pictures", "photos", "data"})


def folder(source: Path, report: Report, options: SourceOptions = DEFAULTS) -> Iterator[Item]:
    """List the captioned images of a folder or zip."""
    tree = open_tree(source, report)
    images = FolderTree(options.images, report) if options.images is not None else None
    read, items = set[str](), list[Item]()
    collector = Collector(Finder(tree, report, images), report)
    if options.captions == "files":
        for name in tree.names:
            if name.rpartition("/")[2].casefold() in METADATA and not is_hidden(name):
                read.add(name)
                for row in read_listing(tree, name, report, options):
                    folder_of = name.rpartition("/")[0]
                    collector.add(row.where, folder_of, row.cells, row.columns, class_names=row.class_names)
    items += collector.items()
    named = collector.named
    alone = [name for name in tree.names if name not in named and not is_hidden(name) and is_image(tree, name)]
    found = _by_name(alone) if options.captions == "name" else _sidecars(tree, alone, report, read, options)
    items += [tree.item(name, captions, *where) for name, captions, where in _with_classes(found, report)]
    account_for_collected(tree, report, items, read, collector, alone)
    yield from items


def is_image(tree: Tree, name: str) -> bool:
    """Return whether a file is an image: by its extension, otherwise by its first bytes."""
    if looks_like_image(name):
        return True
    if ending(name) in TEXT_ENDINGS or ending(name) in RAW_ENDINGS:
        return False
    return image_kind(head(tree, name)) is not None


def _by_name(images: list[str]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Use file names as captions: without extension and copy number, underscores as spaces."""
    for name in images:
        base = _base(name)
        caption = re.sub(r" *\(\d+\)$", "", base).replace("_", " ").strip()
        yield name, checked_captions(caption or base)


class _Texts:
    """Finds the caption file of an image: beside it, otherwise by name in another folder."""

    def __init__(self, tree: Tree, images: list[str]) -> None:
        self._present = set(tree.names)
        self._alike = {_plain(name): name for name in tree.names}
        self._elsewhere: dict[str, list[str]] = {}
        stems = {_stem(name) for name in images}
        self._images: dict[str, list[str]] = {}
        for name in images:
            self._images.setdefault(_base(name), []).append(name)
        for name in tree.names:
            if ending(name) in CAPTION_ENDINGS and not is_hidden(name):
                stem = _stem(name)
                if stem not in stems and stem not in self._present:
                    base = _base(stem) if looks_like_image(stem) else stem.rpartition("/")[2]
                    self._elsewhere.setdefault(base, []).append(name)

    def of(self, image: str) -> list[str]:
        """Return its caption files, the one to read first."""
        stem = _stem(image)
        beside = [f"{base}{end}" for base in dict.fromkeys((stem, image)) for end in CAPTION_ENDINGS]
        found = [name for name in beside if name in self._present]
        if not found:
            found = list(dict.fromkeys(self._alike[_plain(name)] for name in beside if _plain(name) in self._alike))
        if not found and f"{stem}.json" in self._present:
            found = [f"{stem}.json"]
        return found or self._parallel(image)

    def _parallel(self, image: str) -> list[str]:
        base = _base(image)
        texts = self._elsewhere.get(base, [])
        if len(texts) == 1 and len(self._images[base]) == 1:
            return texts
        parts = image.split("/")[:-1]
        return [text for text in texts if _differ_once(parts, text.split("/")[:-1])]


def _plain(name: str) -> str:
    """Write a name without case, in one of the two forms that Unicode has for accented letters (macOS writes the other)."""
    return unicodedata.normalize("NFC", name).casefold()


def _stem(name: str) -> str:
    """Return a name without its extension."""
    return name[: len(name) - len(ending(name))]


def _base(name: str) -> str:
    """Return the name of a file without its folders and its extension; of a file that has none, all of it."""
    return _stem(name.rpartition("/")[2]) if looks_like_image(name) else name.rpartition("/")[2]


def _differ_once(left: list[str], right: list[str]) -> bool:
    """Return whether two paths differ in one folder only: train/images and train/text."""
    return len(left) == len(right) and sum(a != b for a, b in zip(left, right, strict=True)) == 1


def _sidecars(
    tree: Tree, images: list[str], report: Report, read: set[str], options: SourceOptions
) -> Iterator[tuple[str, tuple[str, ...]]]:
    texts = _Texts(tree, images)
    for image in images:
        found = texts.of(image)
        if not found:
            report.skip(tree.place(image), NO_CAPTIONS)
            continue
        parts = {text.rpartition("/")[0] for text in found}
        if len(found) > 1 and parts != {image.rpartition("/")[0]}:
            report.skip(tree.place(image), f"{len(found)} caption files could be its own: {', '.join(found[:3])}")
            continue
        for other in found[1:]:
            report.skip(tree.place(other), f"not read: {found[0]} has the captions of its image")
        read.add(found[0])
        try:
            captions = _read_captions(tree, found[0], options)
        except (DataError, TypeError, UnicodeError) as error:
            place = image if str(error) == "no captions" else found[0]
            report.skip(tree.place(place), str(error))
            continue
        yield image, captions


def _read_captions(tree: Tree, name: str, options: SourceOptions) -> tuple[str, ...]:
    try:
        data = read_text_file(tree, name)
    except DataError as error:
        raise DataError("caption file of over 2 MB" if "over" in str(error) else str(error)) from error
    if ending(name) != ".json":
        return checked_captions(caption_lines(data))
    text = decode(data)
    try:
        content = json.loads(text)
        columns = find_in(("file_name", *content), "file_name", options.caption_column)
        return checked_captions(columns.captions(content))
    except (ValueError, TypeError, RecursionError) as error:
        raise DataError(f"no captions in it: {error}") from error


def _with_classes(
    found: Iterable[tuple[str, tuple[str, ...]]], report: Report
) -> Iterator[tuple[str, tuple[str, ...], tuple[str | None, bool]]]:
    """Read class and split of each image from its folders."""
    listed = list(found)
    splits, classes = list[bool | None](), []
    for name, _ in listed:
        split, parts = split_of_folders(tuple(name.split("/")[:-1]))
        splits.append(split)
        while parts and parts[0].casefold() in CONTAINERS:
            parts = parts[1:]
        classes.append("/".join(parts))
    if all(split is None for split in splits):
        splits = splits_of_names([name for name, _ in listed], report.notes)
    kinds = set(classes)
    if len(kinds) == 1 and kinds != {""}:
        report.notes.append(f"all images are in one folder, {kinds.pop()}, which is no class")
        classes = [""] * len(listed)
    elif kinds and all(re.fullmatch(r"\d{5,}", kind) for kind in kinds):
        report.notes.append(
            f"folders of five digits and more ({min(kinds)} ...) are parts of the source, and no classes"
        )
        classes = [""] * len(listed)
    for (name, captions), class_name, test in zip(listed, classes, splits, strict=True):
        yield name, captions, (class_name or None, bool(test))
