"""Lists of the images of a split, as Flickr8k has them: Flickr_8k.testImages.txt, the name of an image a line."""

import os
import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path, PurePosixPath

from t2i.errors import DataError
from t2i.files import shell_path
from t2i.prepare.items import Item, Report
from t2i.prepare.kinds import ending, folder_of, looks_like_image, stem_of
from t2i.prepare.lines import MAX_WHOLE_BYTES, decode, split_lines
from t2i.prepare.splits import split_of_file, split_of_folders
from t2i.prepare.tree import FolderTree, Tree, read_text_file, top_level


def with_listed_splits(tree: Tree, report: Report, items: Sequence[Item], read: set[str]) -> list[Item]:
    """Hold out the images in the lists at the top of a source: what any list, column or name holds out is held out.

    Args:
        tree: The source.
        report: Receives notes of what the lists decide.
        items: Its images.
        read: Names of the files that are read for something else; receives those of the lists.
    """
    splits: dict[str, bool] = {}
    lists, stems = list[str](), _Stems(tree, items)
    for name in top_level(tree):
        split = split_of_file(_base(name))
        if name not in read and ending(name) == ".txt" and split is not None:
            images = stems.as_images(_lines(tree, name))
            splits |= {image: split or splits.get(image, False) for image in images}
            lists += [name] if images else []
    if not lists or not items:
        return list(items)
    read.update(lists)
    names = [item.named or item.member or "" for item in items]
    found = _as_in_lists(tree, names, splits)
    held_out = [name is not None and splits[name] for name in found]
    shown = ", ".join(_base(name) for name in lists if split_of_file(_base(name)))
    if all(held_out):
        report.notes.append(f"{shown} would hold out every image: not used")
        return list(items)
    if shown:
        report.notes.append(f"{sum(held_out)} images are held out by {shown}")
    unlisted, unknown, every = found.count(None), splits.keys() - set(found), ", ".join(map(_base, lists))
    if unlisted:
        report.notes.append(f"{unlisted} images are not found in {every}, which leaves their split as it is")
    if unknown:
        report.notes.append(
            f"{len(unknown)} names in {every} are of no captioned image, such as {min(unknown)[:100]!r}"
        )
    return [replace(item, test=True) if test else item for item, test in zip(items, held_out, strict=True)]


def note_unread_lists(tree: FolderTree, table: str, report: Report) -> None:
    """Add a note where lists of splits stand beside a table that is read alone, which leaves them unread."""
    try:
        with os.scandir(tree.path) as entries:
            beside = sorted(entry.name for entry in entries if entry.is_file() and ending(entry.name) == ".txt")
    except OSError:
        return
    named = [name for name in beside if name != table and split_of_file(name) is not None]
    lists = [name for name in named if (lines := _lines(tree, name)) and all(map(_is_image_name, lines))]
    if lists:
        what = f"not read beside a single table: {', '.join(lists)[:300]}, which list the images of splits"
        report.notes.append(f"{what}; t2i-prepare csv {shell_path(tree.path)} reads them")


def _is_image_name(line: str) -> bool:
    return looks_like_image(line) and "\t" not in line


def _as_in_lists(tree: Tree, images: Sequence[str], listed: Collection[str]) -> list[str | None]:
    """Return how each image is called in the lists: by its path, or by a path whose last part is as unique as its own.

    The last part alone counts neither for an image whose folder says its split, nor for a path that leads to a folder of the
    source: that is of another image.
    """
    folders = {str(parent) for name in set(map(folder_of, tree.names)) for parent in PurePosixPath(name, "_").parents}
    elsewhere = [name for name in listed if folder_of(name) not in folders]
    ends, count = {_base(name): name for name in elsewhere}, Counter(map(_base, listed))
    of_images = Counter(map(_base, images))
    unique = {end: name for end, name in ends.items() if count[end] == 1 and of_images[end] == 1}
    return [name if name in listed else _unless_told(name, unique.get(_base(name))) for name in images]


def _unless_told(image: str, found: str | None) -> str | None:
    """Return what was found, unless the folder of the image says its split."""
    return found if split_of_folders(tuple(image.split("/")[:-1]))[0] is None else None


def _base(name: str) -> str:
    return name.rpartition("/")[2]


class _Stems:
    """Knows lists of images without their extensions, as COCO-CN has them: COCO_val2014_000000123599.

    Args:
        tree: The source.
        items: Its images.
    """

    def __init__(self, tree: Tree, items: Sequence[Item]) -> None:
        self._tree, self._items = tree, items

    @cached_property
    def _images(self) -> dict[str, list[str]]:
        names = {Path(self._tree.place(name)).absolute(): name for name in self._tree.names if looks_like_image(name)}
        names |= {Path(item.place()).absolute(): item.named or item.member or "" for item in self._items}
        images: dict[str, list[str]] = {}
        for name in names.values():
            images.setdefault(_base(stem_of(name)), []).append(name)
        return images

    def as_images(self, lines: list[str]) -> list[str]:
        """Return the images that a list names; nothing of a file that is no list of images.

        Without extensions each line must be one word with a digit in it, none twice, and one of them the name of an image. Such
        a name counts where one image alone has it.
        """
        names = [line.replace("\\", "/").removeprefix("./") for line in lines]
        if all(map(_is_image_name, names)):
            return names
        words = len(set(names)) == len(names) and all(re.fullmatch(r"[^\s,;|#]*\d[^\s,;|#]*", name) for name in names)
        if not words or not any(name in self._images for name in names):
            return []
        return [found[0] if len(found := self._images.get(name, [])) == 1 else name for name in names]


def _lines(tree: Tree, name: str) -> list[str]:
    """Read the lines of a list that are not empty; nothing of a file that cannot be read."""
    try:
        lines = split_lines(decode(read_text_file(tree, name, MAX_WHOLE_BYTES)))
    except DataError:
        return []
    return [text for line in lines if (text := line.strip())]
