"""A folder or zip of the user's own images, or a Hugging Face ImageFolder.

Captions are in `metadata.jsonl`, `.csv`, `.parquet` or `.json` (file_name, text), or in a text file with the image's
name, beside it or in a folder of texts beside the folder of images. The class is the label column of the metadata, otherwise
the subfolder. A folder named after a split (test, val, validation ...) is held out.
"""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from t2i.errors import DataError
from t2i.prepare.collect import DEFAULTS, Collector, SourceOptions
from t2i.prepare.columns import unread_note
from t2i.prepare.finder import Finder
from t2i.prepare.items import Item, Report, caption_lines, checked_captions
from t2i.prepare.kinds import (
    RAW_ENDINGS,
    TEXT_ENDINGS,
    ending,
    folder_of,
    image_kind,
    is_hidden,
    looks_like_image,
)
from t2i.prepare.leftovers import account_for_collected
from t2i.prepare.lines import decode
from t2i.prepare.sources.boxes import box_files
from t2i.prepare.sources.rows import METADATA, find_in, parse_json, read_listing
from t2i.prepare.sources.sidecars import CONTAINERS, Texts, base_of
from t2i.prepare.split_lists import with_listed_splits
from t2i.prepare.splits import SplitFolders, splits_of_names
from t2i.prepare.tree import FolderTree, Tree, head, open_tree, read_text_file

NO_CAPTIONS = (
    "no captions: neither a line in metadata.jsonl nor a .txt beside it (--captions name takes the file's name)"
)
NOT_TAKEN = (
    "; a text of its name is not taken, since it could be of something else. Put it beside the image; or name the folders "
    "images and captions, with the same folders in both, and move away other images of the same name. It is in: "
)
OTHER_CASE = (
    "; a text of its name in other capitals is not taken, since it could be another image's: rename it like its image"
)


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
                    collector.add(row.where, folder_of(name), row.cells, row.columns, class_names=row.class_names)
    items += collector.items()
    named = collector.named
    alone = [name for name in tree.names if name not in named and not is_hidden(name) and is_image(tree, name)]
    found = _by_name(alone) if options.captions == "name" else _sidecars(tree, alone, report, read, options)
    items += [tree.item(name, captions, *where) for name, captions, where in _with_classes(found, report)]
    items = with_listed_splits(tree, report, items, read)
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
        base = base_of(name)
        caption = re.sub(r" *\(\d+\)$", "", base).replace("_", " ").strip()
        yield name, checked_captions(caption or base)


def _sidecars(
    tree: Tree, images: list[str], report: Report, read: set[str], options: SourceOptions
) -> Iterator[tuple[str, tuple[str, ...]]]:
    boxes, unread = box_files(tree), set[str]()
    if boxes:
        note = f"{len(boxes)} text files hold numbers of boxes and no captions, such as {min(boxes)}: not read"
        report.notes.append(note)
        report.hints.append(note)
    texts = Texts([name for name in tree.names if name not in boxes], images)
    for image in images:
        found = texts.of(image)
        if not found:
            report.skip(tree.place(image), NO_CAPTIONS + _not_taken(image, texts.near(image)))
            continue
        parts = {text.rpartition("/")[0] for text in found}
        if len(found) > 1 and parts != {image.rpartition("/")[0]}:
            report.skip(tree.place(image), f"{len(found)} caption files could be its own: {', '.join(found[:3])}")
            continue
        for other in found[1:]:
            report.skip(tree.place(other), f"not read: {found[0]} has the captions of its image")
        read.add(found[0])
        try:
            captions = _read_captions(tree, found[0], options, unread)
        except (DataError, TypeError, UnicodeError) as error:
            place = image if str(error) == "no captions" else found[0]
            report.skip(tree.place(place), str(error))
            continue
        yield image, captions
    report.notes += unread_note(unread)


def _not_taken(image: str, near: list[str]) -> str:
    """Say where texts of an image's name are: in the same words for all images of a folder, so that reports can count them."""
    folders = dict.fromkeys(folder_of(text) or "the top of the source" for text in near)
    if not folders or set(map(folder_of, near)) == {folder_of(image)}:
        return OTHER_CASE if folders else ""
    return NOT_TAKEN + ", ".join(list(folders)[:3])


def _read_captions(tree: Tree, name: str, options: SourceOptions, unread: set[str]) -> tuple[str, ...]:
    try:
        data = read_text_file(tree, name)
    except DataError as error:
        raise DataError("caption file of over 2 MB" if "over" in str(error) else str(error)) from error
    if ending(name) != ".json":
        return checked_captions(caption_lines(data))
    text = decode(data)
    try:
        content = parse_json(text)
        if not isinstance(content, dict):
            raise TypeError("an object was expected")
        columns = find_in(content | {"file_name": name}, "file_name", options.caption_column)
        unread.update(columns.unread)
        return checked_captions(columns.captions(content))
    except (ValueError, TypeError, RecursionError) as error:
        raise DataError(f"no captions in it: {error}") from error


def _with_classes(
    found: Iterable[tuple[str, tuple[str, ...]]], report: Report
) -> Iterator[tuple[str, tuple[str, ...], tuple[str | None, bool]]]:
    """Read class and split of each image from its folders."""
    listed = list(found)
    splits, classes = list[bool | None](), []
    folders = [tuple(name.split("/")[:-1]) for name, _ in listed]
    known = SplitFolders(folders)
    for parts in folders:
        split, parts = known.read(parts)
        splits.append(split)
        while parts and parts[0].casefold() in CONTAINERS:
            parts = parts[1:]
        classes.append("/".join(parts))
    report.notes += known.notes()
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
