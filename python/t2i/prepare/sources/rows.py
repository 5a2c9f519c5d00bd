"""Read the rows of a file that lists images: CSV, TSV, JSON lines, a JSON list or Parquet."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from t2i.errors import ConfigError, DataError
from t2i.prepare.collect import SourceOptions
from t2i.prepare.column_names import CAPTIONS, FILES
from t2i.prepare.columns import Columns, caption_keys, distinct, filled, find_columns
from t2i.prepare.items import Report
from t2i.prepare.kinds import POINTER, ending, is_pointer, looks_like_image
from t2i.prepare.languages import are_languages
from t2i.prepare.lines import decode, numbered_lines
from t2i.prepare.tables import Fault, read_rows
from t2i.prepare.tree import MAX_TABLE_BYTES, Tree, head, read_text_file

METADATA = ("metadata.jsonl", "metadata.csv", "metadata.parquet", "metadata.json")
_find_in = lru_cache(maxsize=1000)(find_columns)


@dataclass(frozen=True)
class ListedRow:
    """A row of a file that lists images."""

    where: str  # its place, for the report
    cells: Any
    columns: Columns
    class_names: tuple[str, ...] = ()


def find_in(row: Mapping[str, Any], image: str | None, caption: str | None) -> Columns:
    """Find the columns of a JSON object, where an empty cell gives way to one that is not. DataError where one is missing."""
    try:
        return _find_in(filled(row), image, caption)
    except DataError:  # an empty cell is no reason to say that there is no such column
        return _find_in(tuple(row), image, caption)


def parse_json(text: str | bytes) -> Any:
    """Parse JSON; a key that an object has several times has all of its values, as a list."""
    return json.loads(text, object_pairs_hook=_object)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):
        values: dict[str, list[Any]] = {}
        for key, value in pairs:
            values.setdefault(key, []).append(value)
        for key, all_of_it in values.items():
            if any(value != all_of_it[0] for value in all_of_it):
                row[key] = [part for value in all_of_it for part in (value if isinstance(value, list) else [value])]
    return row


def import_pyarrow() -> Any:
    """Import pyarrow, which is optional; ConfigError where it is not installed."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ConfigError("Parquet and Arrow files need pyarrow: pip install 't2i[parquet]'") from error
    return pyarrow


def read_listing(tree: Tree, name: str, report: Report, options: SourceOptions) -> Iterator[ListedRow]:
    """Read the rows of a file; invalid rows are reported with their location."""
    kind = ending(name)
    if is_pointer(head(tree, name)):
        report.skip(tree.place(name), POINTER)
        return
    if kind == ".parquet":
        reader = _parquet_rows
    elif kind in (".jsonl", ".ndjson", ".jl"):
        reader = _json_lines
    else:
        reader = _json_list if kind.startswith(".json") else _text_rows
    try:
        yield from reader(tree, name, report, options)
    except (OSError, DataError) as error:
        report.skip(tree.place(name), getattr(error, "strerror", None) or str(error))


def _text_rows(tree: Tree, name: str, report: Report, options: SourceOptions) -> Iterator[ListedRow]:
    place = tree.place(name)
    with tree.open(name) as file:
        lines = numbered_lines(file, lambda number, reason: report.skip(f"{place}:{number}", reason))
        rows = read_rows(lines, tabs=ending(name) == ".tsv", image=options.image_column, caption=options.caption_column)
        for row in rows:
            if isinstance(row, Fault):
                report.skip(f"{place}:{row.line}", row.reason)
            else:
                yield ListedRow(f"{place}:{row.line}", row.cells, row.columns)


def _json_lines(tree: Tree, name: str, report: Report, options: SourceOptions) -> Iterator[ListedRow]:
    place = tree.place(name)
    with tree.open(name) as file:
        for number, line in numbered_lines(file, lambda number, reason: report.skip(f"{place}:{number}", reason)):
            if not line.strip():
                continue
            try:
                row = parse_json(line)
            except (ValueError, RecursionError) as error:
                report.skip(f"{place}:{number}", f"broken line: {error}")
                continue
            yield from _json_row(f"{place}:{number}", row, report, options)


def _json_row(
    where: str, row: Any, report: Report, options: SourceOptions, fault: str = "broken line: "
) -> Iterator[ListedRow]:
    if not isinstance(row, dict):
        report.skip(where, "broken line: an object was expected")
        return
    try:
        yield ListedRow(where, row, find_in(row, options.image_column, options.caption_column))
    except DataError as error:
        report.skip(where, f"{fault}{error}")


def _json_list(tree: Tree, name: str, report: Report, options: SourceOptions) -> Iterator[ListedRow]:
    """Read a JSON list of objects, an object of captions by image, or JSON lines under another name."""
    data = read_text_file(tree, name, MAX_TABLE_BYTES)
    try:
        content = parse_json(decode(data))
    except (ValueError, RecursionError) as error:
        if isinstance(error, DataError):
            raise
        yield from _json_lines(tree, name, report, options)
        return
    yield from rows_of_json(content, tree.place(name), report, options)


def rows_of_json(content: Any, place: str, report: Report, options: SourceOptions) -> Iterator[ListedRow]:
    """Convert the content of a JSON file to rows: a list of objects, or an object of captions by image.

    Raises:
        DataError: it is neither.
    """
    if isinstance(content, dict) and _captions_by_image(content, options):
        columns, by_name = Columns("file_name", "text"), replace(options, image_column="file_name")
        for key, value in content.items():
            where = f"{place}: {key[:200]}"
            if isinstance(value, dict) and not are_languages(tuple(value), CAPTIONS):  # as in kohya's meta_cap.json
                keys = caption_keys(value) if options.caption_column is None else ()
                if len(keys) > 1:
                    rest = {name: cell for name, cell in value.items() if name not in keys}
                    value = rest | {"text": {name: value[name] for name in keys}}
                yield from _json_row(where, {"file_name": key} | value | {"file_name": key}, report, by_name, "")
            else:
                yield ListedRow(where, {"file_name": key, "text": value}, columns)
    elif isinstance(content, list):
        for number, row in enumerate(content):
            yield from _json_row(f"{place}: [{number}]", row, report, options)
    elif isinstance(content, dict):
        lists = [key for key, value in content.items() if _is_rows(value)]
        if len(lists) == 1:  # {"data": [...]}
            yield from rows_of_json(content[lists[0]], f"{place}: {lists[0][:100]}", report, options)
        else:
            yield from _json_row(f"{place}:1", content, report, options)
    else:
        raise DataError('a list of objects was expected, such as [{"file_name": "a.jpg", "text": "..."}]')


def _captions_by_image(content: dict[str, Any], options: SourceOptions) -> bool:
    """Return whether an object's keys are names of images, with or without an extension, and not the columns of a row."""
    if any(looks_like_image(key) for key in content):
        return True
    try:
        find_columns(list(content), options.image_column, options.caption_column)
    except DataError:
        values = content.values()
        return bool(content) and all(isinstance(value, (str, list, dict)) and not _is_rows(value) for value in values)
    return False


def _is_rows(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(row, dict) for row in value)


def texts_of(schema: Any, names: Sequence[str]) -> list[str]:
    """List those of some columns that hold strings or lists of strings."""
    kinds = ((name, schema.field(name).type) for name in names)
    return [name for name, kind in kinds if str(getattr(kind, "value_type", kind)) in ("string", "large_string")]


def distinct_schema(schema: Any) -> Any:
    """Number the names that a schema repeats."""
    fields = zip(schema, distinct(schema.names), strict=True)
    return import_pyarrow().schema([field.with_name(name) for field, name in fields], schema.metadata)


def distinct_columns(rows: Any) -> Any:
    """Number the names that the columns of a table or record batch repeat."""
    return rows.rename_columns(distinct(rows.schema.names))


def class_names(schema: Any, column: str | None) -> tuple[str, ...]:
    """Read the names of numbered classes from Hugging Face's note in the schema."""
    try:
        note = json.loads((schema.metadata or {})[b"huggingface"])
        return tuple(str(name) for name in note["info"]["features"][column]["names"])
    except (KeyError, TypeError, ValueError, RecursionError):
        return ()


def _parquet_rows(tree: Tree, name: str, report: Report, options: SourceOptions) -> Iterator[ListedRow]:
    pyarrow = import_pyarrow()
    place, number = tree.place(name), 0  # counted from 0, as by every other reader of Parquet
    try:
        with tree.open(name) as file, pyarrow.parquet.ParquetFile(file) as opened:
            schema = distinct_schema(opened.schema_arrow)
            stored = dict(zip(schema.names, opened.schema_arrow.names, strict=True))
            columns = find_columns(schema.names, options.image_column, options.caption_column, FILES)
            names = class_names(schema, columns.label)
            roles = (
                columns.image,
                columns.caption,
                *columns.more,
                *texts_of(schema, columns.unread),
                columns.label,
                *columns.splits,
            )
            wanted = list(dict.fromkeys(stored[each] for each in roles if each))
            for batch in opened.iter_batches(batch_size=1024, columns=wanted):
                for row in distinct_columns(batch).to_pylist():
                    yield ListedRow(f"{place}: row {number}", row, columns, names)
                    number += 1
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        report.skip(place, f"not a readable Parquet file: {' '.join(str(error).split())[:300]}")
