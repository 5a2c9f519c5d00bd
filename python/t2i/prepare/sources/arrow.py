"""Parquet files with images in them, and Hugging Face data sets that `save_to_disk` wrote. Both need pyarrow.

The first pass reads captions and classes; the bytes of the images are read a row group (or record batch) at a time
when they are packed. Files are read, not mapped: one that is cut meanwhile is an error and no crash.
"""

import json
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from posixpath import join
from typing import Any

from t2i.errors import DataError
from t2i.prepare.collect import DEFAULTS, Collector, SourceOptions
from t2i.prepare.column_names import FILES, IMAGES
from t2i.prepare.columns import Columns, class_of, find_column, find_columns, named, unread_note
from t2i.prepare.encoded import decoded_image, holds_image
from t2i.prepare.finder import Finder
from t2i.prepare.items import Item, Report, checked_captions, inside, root_of
from t2i.prepare.kinds import HEAD, POINTER, ending, folder_of, is_hidden, is_pointer, stem_of
from t2i.prepare.leftovers import account_for_items
from t2i.prepare.lines import MAX_LINE_BYTES, decode
from t2i.prepare.sources.folder import folder
from t2i.prepare.sources.repeated import joined_rows
from t2i.prepare.sources.rows import (
    METADATA,
    class_names,
    distinct_columns,
    distinct_schema,
    import_pyarrow,
    read_listing,
    texts_of,
)
from t2i.prepare.sources.webdataset import SHARDS, is_shard, webdataset
from t2i.prepare.splits import split_of_file, split_of_folders, split_of_value
from t2i.prepare.tree import FolderTree, joined

MAX_GROUP_ROWS = 4 * 2**30  # bytes of images in one row group, which is read as a whole
MAX_GROUPS = 2  # row groups in memory: threads at work on the end of one and the start of the next


class _Images:
    """The image column of one file, a chunk at a time: `chunk(i)` returns an array of rows."""

    def __init__(self, root: Path, chunk: Callable[[int], Any], follow_links: bool) -> None:
        self.root, self._chunk, self._follow_links = root, chunk, follow_links
        self._kept: dict[int, Any] = {}
        self._lock = threading.Lock()

    def read(self, chunk: int, row: int, limit: int) -> bytes:
        """Read one image. DataError where there is none, it is too large, or the file is damaged."""
        pyarrow = import_pyarrow()
        try:
            with self._lock:
                if chunk not in self._kept:
                    for old in sorted(self._kept)[: max(0, len(self._kept) + 1 - MAX_GROUPS)]:
                        del self._kept[old]
                    self._kept[chunk] = self._chunk(chunk)
                scalar = self._kept[chunk][row]
            value = scalar.as_py()
        except (pyarrow.ArrowException, OSError, IndexError) as error:
            raise DataError(f"unreadable: {' '.join(str(error).split())[:300]}") from error
        data = value.get("bytes") if isinstance(value, dict) else value
        if isinstance(data, (bytes, str)) and holds_image(data):
            return decoded_image(data, limit)
        named = value.get("path") if isinstance(value, dict) else value
        if not isinstance(data, bytes) and isinstance(named, str):
            path = inside(self.root, named.replace("\\", "/"), self._follow_links)
            if path is None or not path.is_file():
                raise DataError(f"unreadable: no bytes, and no image at {named[:200]!r}")
            if path.stat().st_size > limit:
                raise DataError(f"too large: {path.stat().st_size} bytes, the limit is {limit}")
            return path.read_bytes()
        if not isinstance(data, bytes):
            raise DataError("broken: the row has no image")
        if len(data) > limit:
            raise DataError(f"too large: {len(data)} bytes, the limit is {limit}")
        return data


def parquet(source: Path, report: Report, options: SourceOptions = DEFAULTS) -> Iterator[Item]:
    """List the images of one .parquet, or of every one in a folder and below.

    Columns: the image (`image` and the like: bytes, Hugging Face's struct of bytes and path, or a path), captions (`text`,
    `caption` ...: a string or a list), and, if they are there, a class (`label`, `class` ...) and a split. Files and folders
    named for a split (test-00000-of-00001.parquet) hold what is held out.
    """
    import_pyarrow()
    root = root_of(source)
    tree = FolderTree(root, report)
    if source.is_file():
        names = [source.relative_to(root).as_posix()]
    else:
        names = [name for name in tree.names if ending(name) == ".parquet" and not is_hidden(name)]
    if not names:
        raise DataError(f"{source} has no .parquet")
    items = list[Item]()
    for name in names:
        split = split_of_file(name.rpartition("/")[2])
        if split is None:
            split, _ = split_of_folders(tuple(name.split("/")[:-1]))
        items += _guarded(root / name, report, _parquet_items(root / name, name, bool(split), report, options))
    if source.is_dir():
        account_for_items(tree, report, items)
    yield from items


def _guarded(file: Path, report: Report, items: Iterator[Item]) -> Iterator[Item]:
    """Yield items; report a file that cannot be read, or not completely."""
    pyarrow = import_pyarrow()
    try:
        yield from items
    except (pyarrow.ArrowException, OSError, DataError, UnicodeDecodeError) as error:
        report.skip(file, f"cannot be used: {' '.join(str(error).split())[:300]}")


def _parquet_items(file: Path, name: str, test: bool, report: Report, options: SourceOptions) -> Iterator[Item]:
    pyarrow = import_pyarrow()
    if not file.is_file():
        raise DataError("it is not a file")
    with open(file, "rb") as begun:
        if is_pointer(begun.read(HEAD)):
            raise DataError(POINTER)
    opened = pyarrow.parquet.ParquetFile(file, memory_map=False)
    if _names_files(opened, options):
        yield from _listed_files(file, name, test, report, options)
        return
    schema = distinct_schema(opened.schema_arrow)
    stored = dict(zip(schema.names, opened.schema_arrow.names, strict=True))
    rows_of = _Rows(file, name, schema, test, report, options)
    columns = rows_of.columns
    wanted = list(dict.fromkeys(stored[column] for column in rows_of.wanted))
    for group in range(opened.num_row_groups):
        described = opened.metadata.row_group(group)
        if described.total_byte_size > MAX_GROUP_ROWS:
            raise DataError(f"row group {group} has {described.total_byte_size} bytes, the limit is {MAX_GROUP_ROWS}")
    image = stored[columns.image]
    images = _Images(
        file.parent, lambda group: opened.read_row_group(group, columns=[image]).column(0), report.follow_links
    )
    listed, paths = list[Item](), list[str | None]()
    for group in range(opened.num_row_groups):
        listed += rows_of.items(images, group, distinct_columns(opened.read_row_group(group, columns=wanted)))
    if _has_paths(schema, columns.image):
        paths = opened.read(columns=[f"{image}.path"]).column(0).combine_chunks().field(0).to_pylist()
    report.read.add(str(file))
    yield from joined_rows(listed, paths, report)


def _has_paths(schema: Any, column: str) -> bool:
    """Return whether a column of images holds structs with a path, as Hugging Face's do."""
    kind = schema.field(column).type
    return bool(import_pyarrow().types.is_struct(kind)) and any(field.name == "path" for field in kind)


def _names_files(opened: Any, options: SourceOptions) -> bool:
    """Return whether the image column holds file names, by its type and its first cell, instead of images (or their base64)."""
    schema = distinct_schema(opened.schema_arrow)
    image = find_column(schema.names, IMAGES, options.image_column) or find_column(schema.names, FILES)
    if image is None or str(schema.field(image).type) not in ("string", "large_string"):
        return False
    stored = opened.schema_arrow.names[schema.names.index(image)]
    batches = opened.iter_batches(batch_size=16, columns=[stored])
    cells = (cell for batch in batches for cell in batch.column(0).to_pylist() if cell)
    return not holds_image(next(cells, ""))


def _listed_files(file: Path, name: str, test: bool, report: Report, options: SourceOptions) -> Iterator[Item]:
    """Read a table of file names; all rows of a file are captions of one image."""
    tree = FolderTree(file.parents[name.count("/")], report)
    images = FolderTree(options.images, report) if options.images is not None else None
    collector = Collector(Finder(tree, report, images), report)
    split, below, stem = True if test else split_of_file(file.name), folder_of(name), stem_of(file.name)
    for row in read_listing(tree, name, report, options):
        collector.add(row.where, below, row.cells, row.columns, split=split, class_names=row.class_names, table=stem)
    yield from collector.items()
    report.read.add(str(file))


def huggingface(source: Path, report: Report, options: SourceOptions = DEFAULTS) -> Iterator[Item]:
    """List a Hugging Face data set: a `save_to_disk` folder, Parquet files, tar shards, or an image folder."""
    tree = FolderTree(source, report)
    if (source / "dataset_dict.json").is_file():
        listed = _json(tree, "dataset_dict.json", report).get("splits")
        if not isinstance(listed, list) or not all(isinstance(name, str) for name in listed):
            raise DataError(f"{source / 'dataset_dict.json'} must list its splits")
        splits = []
        for name in listed:
            place = joined("", name)
            if place is None:
                raise DataError(f"{source / 'dataset_dict.json'} names a split outside of its folder: {name[:200]!r}")
            splits.append((place, bool(split_of_value(name))))
        unknown = [name for name in listed if split_of_value(name) is None]
        if unknown and len(listed) > 1:
            report.notes.append(f"no known names of splits, read as training: {', '.join(unknown)[:300]}")
    elif (source / "state.json").is_file():
        splits = [("", False)]
    else:
        yield from _repository(source, report)(source, report, options)
        return
    import_pyarrow()
    items = list[Item]()
    for place, test in splits:
        state = join(place, "state.json")
        content = _json(tree, state, report)
        files = content.get("_data_files")
        if not isinstance(files, list):
            raise DataError(f"{source / state} must list its _data_files")
        if content.get("_indices_files") or content.get("_indices_data_files"):  # of datasets before version 2
            raise DataError(
                f"{source / state} chooses rows by a file of indices, which is not read: "
                "load it with datasets and save flatten_indices() of it"
            )
        for entry in files:
            base = entry.get("filename") if isinstance(entry, dict) else None
            below = joined("", base) if isinstance(base, str) else None
            if below is None:
                report.skip(source / state, f"names a file outside of its folder: {str(base)[:200]!r}")
                continue
            name = join(place, below)
            items += _guarded(source / name, report, _stream_items(tree, name, test, report, options))
    account_for_items(tree, report, items)
    yield from items


def _repository(source: Path, report: Report) -> Callable[[Path, Report, SourceOptions], Iterator[Item]]:
    """Choose the reader of a Hub repository by the files in it."""
    names = [name for name in FolderTree(source, report.again()).names if not is_hidden(name)]
    bases = {name.rpartition("/")[2].casefold() for name in names}
    parts = {folder_of(name) for name in names} | {
        name[: -len(end)] for name in names for end in SHARDS if name.endswith(end)
    }
    tables = [
        name for name in names if ending(name) == ".parquet" and name.rpartition("/")[2].casefold() not in METADATA
    ]
    if not parts.issuperset(map(stem_of, tables)):  # 00000.parquet beside 00000.tar or 00000/ are img2dataset's notes
        return parquet
    return webdataset if any(map(is_shard, bases)) and bases.isdisjoint(METADATA) else folder


def _json(tree: FolderTree, name: str, report: Report) -> dict[str, Any]:
    path = tree.path / name
    try:
        tree.within(name)
        if path.stat().st_size > 8 * MAX_LINE_BYTES:
            raise DataError("it is too large for what it is")
        content = json.loads(decode(path.read_bytes()))
        if not isinstance(content, dict):
            raise TypeError(f"an object was expected, got {type(content).__name__}")
        report.read.add(str(path))
        return content
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error


class _Stream:
    """The record batches of an Arrow stream by number; they can only be read forward, so going back opens it anew."""

    def __init__(self, file: Path, column: str) -> None:
        self.file, self.column = file, column
        self._next, self._reader = 0, None

    def __call__(self, number: int) -> Any:
        pyarrow = import_pyarrow()
        if self._reader is None or number < self._next:
            self._next, self._reader = 0, pyarrow.ipc.open_stream(pyarrow.OSFile(str(self.file)))
        try:
            while True:
                batch = self._reader.read_next_batch()  # type: ignore[attr-defined]
                self._next += 1
                if self._next == number + 1:
                    return distinct_columns(batch).column(self.column)
        except StopIteration as error:
            raise IndexError(f"the file has no batch {number} any more") from error


def _stream_items(tree: FolderTree, name: str, test: bool, report: Report, options: SourceOptions) -> Iterator[Item]:
    pyarrow = import_pyarrow()
    file = tree.within(name)
    if not file.is_file():
        raise DataError("no such file")
    with pyarrow.OSFile(str(file)) as opened, pyarrow.ipc.open_stream(opened) as reader:
        rows_of = _Rows(file, name, distinct_schema(reader.schema), test, report, options)
        images = _Images(file.parent, _Stream(file, rows_of.columns.image), report.follow_links)
        listed, paths = list[Item](), list[str | None]()
        for number, batch in enumerate(reader):
            batch.validate(full=True)
            batch = distinct_columns(batch)
            listed += rows_of.items(images, number, batch.select(rows_of.wanted))
            if _has_paths(batch.schema, rows_of.columns.image):
                paths += batch.column(rows_of.columns.image).field("path").to_pylist()
        yield from joined_rows(listed, paths, report)


class _Rows:
    """Converts the rows of one file to items, named by their index in the file."""

    def __init__(self, file: Path, name: str, schema: Any, test: bool, report: Report, options: SourceOptions) -> None:
        self.columns: Columns = find_columns(schema.names, options.image_column, options.caption_column, IMAGES)
        columns = self.columns
        roles = (columns.caption, *columns.more, *texts_of(schema, columns.unread), columns.label, *columns.splits)
        self.wanted = list(dict.fromkeys(column for column in roles if column is not None))
        self._class_names = class_names(schema, columns.label)
        texts = ((column, class_names(schema, column)) for column in (columns.caption, *columns.more))
        self._captions = {column: names for column, names in texts if names}  # numbered classes as captions
        self._splits = {column: class_names(schema, column) for column in columns.splits}
        self._file, self._name, self._test, self._report = file, name, test, report
        self._rows = 0
        report.notes += [note for note in unread_note(columns.unread) if note not in report.notes]

    def items(self, images: _Images, chunk: int, rows: Any) -> Iterator[Item]:
        """Yield the items of one chunk; the images are read later."""
        for row, values in enumerate(rows.to_pylist()):
            number, self._rows = self._rows, self._rows + 1
            try:
                texts = {column: named(values[column], names) for column, names in self._captions.items()}
                captions = checked_captions(self.columns.captions(values | texts))
                class_name = class_of(values, self.columns.label, self._class_names)
            except (DataError, TypeError, UnicodeEncodeError) as error:
                self._report.skip(f"{self._file}: row {number}", str(error))
                continue
            cells = {column: named(values[column], names) for column, names in self._splits.items()}
            split = self._report.splits.read(cells, self.columns.splits)
            test = self._test if split is None else split
            read = partial(images.read, chunk, row)
            yield Item(self._file, captions, class_name, test, member=f"{self._name}:{number}", read=read)
