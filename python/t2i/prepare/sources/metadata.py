"""The rows of a metadata file, whichever of its three forms it has: metadata.jsonl, metadata.csv, metadata.parquet."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from t2i.errors import ConfigError
from t2i.prepare.items import Report, numbered_lines
from t2i.prepare.sources.table import rows_of_csv

METADATA = ("metadata.jsonl", "metadata.csv", "metadata.parquet")


def import_pyarrow() -> Any:
    """Import pyarrow, which is optional; ConfigError where it is not installed."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ConfigError("Parquet and Arrow files need pyarrow: pip install 't2i[parquet]'") from error
    return pyarrow


def metadata_rows(file: Path, report: Report) -> Iterator[tuple[str, Any]]:
    """Read the rows of a metadata file with their places; what cannot be read is reported with its place."""
    if file.suffix == ".parquet":
        yield from _parquet_rows(file, report)
    elif file.suffix == ".csv":
        yield from ((f"{file}:{number}", row) for number, row in rows_of_csv(file, report))
    else:
        for number, line in numbered_lines(file, report):
            if line.strip():
                try:
                    row = json.loads(line)
                except (ValueError, RecursionError) as error:
                    report.skip(f"{file}:{number}", f"broken line: {error}")
                    continue
                yield f"{file}:{number}", row


def _parquet_rows(file: Path, report: Report) -> Iterator[tuple[str, Any]]:
    pyarrow = import_pyarrow()
    number = 0  # counted from 0, as by every other reader of Parquet
    try:
        with pyarrow.parquet.ParquetFile(file, memory_map=False) as opened:
            for batch in opened.iter_batches(batch_size=1024):
                for row in batch.to_pylist():
                    yield f"{file}: row {number}", row
                    number += 1
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        report.skip(file, f"not a readable Parquet file: {' '.join(str(error).split())[:300]}")
