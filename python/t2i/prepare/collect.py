"""Convert rows of tables and metadata to items: all rows of an image are its captions; classes and splits are read alike."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from t2i.errors import DataError
from t2i.prepare.columns import Columns, class_of, unread_note
from t2i.prepare.finder import Finder
from t2i.prepare.items import Item, Report, checked_captions
from t2i.prepare.splits import SplitFolders, splits_of_names
from t2i.prepare.tree import Tree


@dataclass(frozen=True)
class SourceOptions:
    """Options of a source beside its kind."""

    image_column: str | None = None
    caption_column: str | None = None
    images: Path | None = None  # folder of the images that a table names
    captions: Literal["files", "name"] = "files"  # name: the caption is the name of the image's file
    boxes: bool = False  # cub: crop each image to its bounding box
    zip_names: str | None = None  # encoding of the names in a zip that does not say it
    follow_links: bool = False  # read what links lead to, outside of the source too


DEFAULTS = SourceOptions()


@dataclass
class _Entry:
    tree: Tree
    path: str
    captions: list[str] = field(default_factory=list)
    class_name: str | None = None
    split: bool | None = None


class Collector:
    """Collects the captions of images listed in tables, row by row.

    Args:
        finder: Finds the images.
        report: Receives skipped rows with the reason.
    """

    def __init__(self, finder: Finder, report: Report) -> None:
        self.finder, self._report = finder, report
        self._entries: dict[str, _Entry] = {}
        self.named: set[str] = set()  # every image of the source that a row lists, usable or not
        self._unread: set[str] = set()  # columns that may hold captions

    def add(
        self,
        where: str,
        folder: str,
        row: Mapping[str, Any],
        columns: Columns,
        *,
        split: bool | None = None,
        class_names: Sequence[str] = (),
        table: str = "",
    ) -> None:
        """Add a row.

        Args:
            where: Its place, for the report.
            folder: The folder that its image's name is relative to.
            row: Its cells.
            columns: Which cell is what.
            split: Of the table, by its name; the row's own column comes first.
            class_names: Names of numbered classes.
            table: Name of the table without extension, which a folder of its images may have too.
        """
        captions: tuple[str, ...] = ()
        why = None
        self._unread.update(columns.unread)
        try:
            for column in (columns.image, columns.caption):
                if column not in row:
                    raise KeyError(column)
            name = row[columns.image]
            if not isinstance(name, (str, int)) or isinstance(name, bool):
                raise TypeError(f"{columns.image} must be a string")
            class_name = class_of(row, columns.label, class_names)
            captions = checked_captions(columns.captions(row))
        except DataError as error:
            why = str(error)
        except (ValueError, KeyError, TypeError) as error:
            self._report.skip(where, f"broken line: {_said(error)}")
            return
        try:
            tree, path = self.finder.find(folder, str(name), table)
        except DataError as error:
            self._report.skip(where, why if why is not None and "leads out" not in str(error) else str(error))
            return
        if tree is self.finder.tree:
            self.named.add(path)
        if why is not None:
            self._report.skip(where, why)
        else:
            said = self._report.splits.read(row, columns.splits)
            self._take(where, tree, path, captions, class_name, split if said is None else said)

    def _take(
        self, where: str, tree: Tree, path: str, captions: Sequence[str], class_name: str | None, split: bool | None
    ) -> None:
        key = tree.place(path)
        entry = self._entries.get(key)
        if entry is None:
            entry = self._entries[key] = _Entry(tree, path, class_name=class_name, split=split)
        elif class_name is not None and entry.class_name not in (None, class_name):
            self._report.skip(where, f"another class for its image: {class_name[:100]}, after {entry.class_name}")
            return
        elif split is not None and entry.split not in (None, split):
            self._report.skip(where, "another split for its image than on a row before")
            return
        entry.class_name = entry.class_name if entry.class_name is not None else class_name
        entry.split = entry.split if entry.split is not None else split
        entry.captions += captions

    def items(self) -> Iterator[Item]:
        """Yield the images in the order of their first rows."""
        self._report.notes += unread_note(self._unread)
        if self.finder.absolute:
            self._report.notes.append(
                f"{self.finder.absolute} absolute paths were looked for by their ends, inside the source"
            )
        entries = list(self._entries.values())
        folders = [tuple(entry.path.split("/")[:-1]) for entry in entries]
        known = SplitFolders(folders)
        splits = [
            known.read(parts)[0] if entry.split is None else entry.split
            for entry, parts in zip(entries, folders, strict=True)
        ]
        self._report.notes += known.notes()
        if all(split is None for split in splits):
            splits = splits_of_names([entry.path for entry in entries], self._report.notes)
        for entry, split in zip(entries, splits, strict=True):
            yield entry.tree.item(entry.path, tuple(entry.captions), entry.class_name, bool(split))


def _said(error: Exception) -> str:
    return f"no {error}" if isinstance(error, KeyError) else str(error)
