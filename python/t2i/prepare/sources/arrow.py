"""Parquet files with pictures in them, and Hugging Face data sets that `save_to_disk` wrote. Both need pyarrow.

The first pass reads captions and classes; the bytes of the pictures are read a row group (or record batch) at a time
when they are packed. Files are read, not mapped: one that is cut meanwhile is an error and no crash.
"""

import json
import re
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from t2i.errors import DataError
from t2i.prepare.items import HELD_OUT, MAX_LINE_BYTES, Item, Report, checked_captions, inside, root_of
from t2i.prepare.sources.folder import class_and_split, folder
from t2i.prepare.sources.metadata import import_pyarrow
from t2i.prepare.sources.table import CLASSES, caption_column

PICTURES = ("image", "img", "picture", "jpg", "png", "webp")
MAX_GROUP_ROWS = 4 * 2**30  # bytes of pictures in one row group, which is read as a whole
MAX_GROUPS = 2  # row groups in memory: threads at work on the end of one and the start of the next


class _Pictures:
    """The picture column of one file, a chunk at a time: `chunk(i)` returns an array of rows."""

    def __init__(self, root: Path, chunk: Callable[[int], Any]) -> None:
        self.root, self._chunk = root, chunk
        self._kept: dict[int, Any] = {}
        self._lock = threading.Lock()

    def read(self, chunk: int, row: int, limit: int) -> bytes:
        """Read one picture. DataError where there is none, it is too large, or the file is damaged."""
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
        if data is None and isinstance(value, dict) and isinstance(value.get("path"), str):
            path = inside(self.root, value["path"])
            if path is None or not path.is_file():
                raise DataError(f"unreadable: no bytes, and no picture at {value['path'][:200]!r}")
            if path.stat().st_size > limit:
                raise DataError(f"too large: {path.stat().st_size} bytes, the limit is {limit}")
            return path.read_bytes()
        if not isinstance(data, bytes):
            raise DataError("broken: the row has no picture")
        if len(data) > limit:
            raise DataError(f"too large: {len(data)} bytes, the limit is {limit}")
        return data


def parquet(source: Path, report: Report) -> Iterator[Item]:
    """List the pictures of one .parquet, or of every one in a folder and below.

    Columns: the picture (`image` and the like: bytes, or Hugging Face's struct of bytes and path), captions (`text`,
    `caption` ...: a string or a list), and, if it is there, a class (`label`, `class` ...). Files or folders named
    `test` or `validation` (test-00000-of-00001.parquet) are the held-out split.
    """
    import_pyarrow()
    files = [source] if source.is_file() else sorted(source.rglob("*.parquet"))
    if not files:
        raise DataError(f"{source} has no .parquet")
    for file in files:
        if source.is_dir() and inside(source, str(file.relative_to(source))) is None:
            report.skip(file, "a link out of the source folder")
            continue
        held_out = source.is_dir() and class_and_split(source, file)[1]
        name = str(file.relative_to(root_of(source)))
        yield from _guarded(file, report, _parquet_items(file, name, held_out or _names_held_out(file), report))


def _names_held_out(file: Path) -> bool:
    return re.split(r"[-_.]", file.name.lower())[0] in HELD_OUT


def _guarded(file: Path, report: Report, items: Iterator[Item]) -> Iterator[Item]:
    """Pass items on; report a file that cannot be read, or not to its end."""
    pyarrow = import_pyarrow()
    try:
        yield from items
    except (pyarrow.ArrowException, OSError, DataError, UnicodeDecodeError) as error:
        report.skip(file, f"cannot be used: {' '.join(str(error).split())[:300]}")


def _parquet_items(file: Path, name: str, test: bool, report: Report) -> Iterator[Item]:
    pyarrow = import_pyarrow()
    if not file.is_file():
        raise DataError("it is not a file")
    opened = pyarrow.parquet.ParquetFile(file, memory_map=False)
    picture, caption, label = _columns(opened.schema_arrow)
    names = _class_names(opened.schema_arrow, label)
    for group in range(opened.num_row_groups):
        described = opened.metadata.row_group(group)
        if described.total_byte_size > MAX_GROUP_ROWS:
            raise DataError(f"row group {group} has {described.total_byte_size} bytes, the limit is {MAX_GROUP_ROWS}")
    pictures = _Pictures(file.parent, lambda group: opened.read_row_group(group, columns=[picture]).column(0))
    first = 0
    for group in range(opened.num_row_groups):
        rows = opened.read_row_group(group, columns=[caption, *([label] if label else [])])
        yield from _items(file, name, pictures, group, first, rows, (caption, label, names), test, report)
        first += rows.num_rows


def huggingface(source: Path, report: Report) -> Iterator[Item]:
    """List a Hugging Face data set: a `save_to_disk` folder, a folder of Parquet files, or an image folder."""
    if (source / "dataset_dict.json").is_file():
        listed = _json(source / "dataset_dict.json").get("splits")
        if not isinstance(listed, list) or not all(isinstance(name, str) for name in listed):
            raise DataError(f"{source / 'dataset_dict.json'} must list its splits")
        splits = []
        for name in listed:
            path = inside(source, name)
            if path is None:
                raise DataError(f"{source / 'dataset_dict.json'} names a split outside of its folder: {name[:200]!r}")
            splits.append((path, name.lower() in HELD_OUT))
    elif (source / "state.json").is_file():
        splits = [(source, False)]
    else:
        tables = any(path.name != "metadata.parquet" for path in source.rglob("*.parquet"))
        yield from (parquet if tables else folder)(source, report)
        return
    import_pyarrow()
    for path, test in splits:
        files = _json(path / "state.json").get("_data_files")
        if not isinstance(files, list):
            raise DataError(f"{path / 'state.json'} must list its _data_files")
        for entry in files:
            name = entry.get("filename") if isinstance(entry, dict) else None
            file = inside(path, name) if isinstance(name, str) else None
            if file is None:
                report.skip(path / "state.json", f"names a file outside of its folder: {str(name)[:200]!r}")
                continue
            yield from _guarded(file, report, _stream_items(file, str(file.relative_to(source)), test, report))


def _json(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > 8 * MAX_LINE_BYTES:
            raise DataError(f"{path} is too large for what it is")
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise TypeError(f"an object was expected, got {type(content).__name__}")
        return content
    except (OSError, ValueError, TypeError, RecursionError) as error:
        if isinstance(error, DataError):
            raise
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
                    return batch.column(self.column)
        except StopIteration as error:
            raise IndexError(f"the file has no batch {number} any more") from error


def _stream_items(file: Path, name: str, test: bool, report: Report) -> Iterator[Item]:
    pyarrow = import_pyarrow()
    if not file.is_file():
        raise DataError("no such file")
    with pyarrow.OSFile(str(file)) as opened, pyarrow.ipc.open_stream(opened) as reader:
        picture, caption, label = _columns(reader.schema)
        names = _class_names(reader.schema, label)
        pictures = _Pictures(file.parent, _Stream(file, picture))
        first = 0
        for number, batch in enumerate(reader):
            batch.validate(full=True)
            rows = batch.select([caption, *([label] if label else [])])
            yield from _items(file, name, pictures, number, first, rows, (caption, label, names), test, report)
            first += batch.num_rows


def _columns(schema: Any) -> tuple[str, str, str | None]:
    """Find the columns of pictures, captions and classes by their usual names."""
    picture = next((name for name in PICTURES if name in schema.names), None)
    caption = caption_column(schema.names)
    if picture is None or caption is None:
        missing = "pictures (image)" if picture is None else "captions (text or caption)"
        raise DataError(f"it has no column of {missing}; its columns: {', '.join(schema.names)[:300]}")
    return picture, caption, next((name for name in CLASSES if name in schema.names), None)


def _class_names(schema: Any, label: str | None) -> list[str]:
    """Read the names of numbered classes from Hugging Face's note in the schema."""
    try:
        note = json.loads((schema.metadata or {})[b"huggingface"])
        names = note["info"]["features"][label]["names"]
        return [str(name) for name in names]
    except (KeyError, TypeError, ValueError, RecursionError):
        return []


def _items(
    file: Path,
    name: str,
    pictures: _Pictures,
    chunk: int,
    first: int,
    rows: Any,
    columns: tuple[str, str | None, list[str]],
    test: bool,
    report: Report,
) -> Iterator[Item]:
    """Make the rows of one chunk items; their names count the rows of the file from 0."""
    caption, label, names = columns
    for row, values in enumerate(rows.to_pylist()):
        try:
            captions = checked_captions(values[caption])
        except (DataError, TypeError, UnicodeEncodeError) as error:
            report.skip(f"{file}: row {first + row}", str(error))
            continue
        value = values[label] if label else None
        if isinstance(value, int) and 0 <= value < len(names):
            value = names[value]
        class_name = None if value is None else str(value)[:1000]
        yield Item(
            file, captions, class_name, test, member=f"{name}:{first + row}", read=partial(pictures.read, chunk, row)
        )
