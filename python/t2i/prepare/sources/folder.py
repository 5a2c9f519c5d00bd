"""A folder of one's own pictures, or a Hugging Face image folder.

Captions stand in `metadata.jsonl`, `metadata.csv` or `metadata.parquet` (file_name, text), or in a .txt beside each
picture. The class is the picture's subfolder; where there are no subfolders there are no classes. A folder named `test`
(or `validation`) at the top marks the held-out split, `train` the other; neither is a class.
"""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from t2i.errors import DataError
from t2i.prepare.items import ENDINGS, HELD_OUT, Item, Report, checked_captions, inside, with_captions
from t2i.prepare.sources.metadata import METADATA, metadata_rows
from t2i.prepare.sources.table import caption_column

OUT = "a link out of the source folder"


def folder(source: Path, report: Report) -> Iterator[Item]:
    """List a folder of pictures with a metadata file or a .txt of captions beside each picture."""
    seen: set[Path] = set()
    for file in sorted(path for name in METADATA for path in source.rglob(name)):
        if inside(source, str(file.relative_to(source))) is None:
            report.skip(file, OUT)
            continue
        for where, row in metadata_rows(file, report):
            item = _item(source, file, where, row, report, seen)
            if item is not None:
                yield item
    for path in sorted(source.rglob("*")):
        if path.suffix.lower() not in ENDINGS or path in seen:
            continue
        if inside(source, str(path.relative_to(source))) is None:
            report.skip(path, OUT)
            continue
        text = path.with_suffix(".txt")
        if not text.exists():
            report.skip(path, "no captions: neither a line in metadata.jsonl nor a .txt beside it")
            continue
        if inside(source, str(text.relative_to(source))) is None:
            report.skip(text, OUT)
            continue
        found = with_captions(path, text, report)
        if found:
            yield Item(found[0], found[1], *class_and_split(source, path))


def class_and_split(source: Path, path: Path) -> tuple[str | None, bool]:
    """Read class and split off the folders between the source and a picture."""
    parts = list(path.parent.relative_to(source).parts)
    test = bool(parts) and parts[0] in HELD_OUT[:2]
    if parts and parts[0] in ("train", *HELD_OUT[:2]):
        parts = parts[1:]
    return ("/".join(parts) or None), test


def _item(source: Path, file: Path, where: str, row: Mapping[str, Any], report: Report, seen: set[Path]) -> Item | None:
    """Make one row of a metadata file an item; names in it are relative to its folder."""
    try:
        name, text = row["file_name"], row[caption_column(row) or "text"]
        if not isinstance(name, str):
            raise TypeError("file_name must be a string, text a string or a list of strings")
        if not isinstance(text, (str, list)) or not all(isinstance(each, str) for each in text):
            raise TypeError("file_name must be a string, text a string or a list of strings")
        captions, why = checked_captions(text), None
    except DataError as error:
        captions, why = (), str(error)
    except (ValueError, KeyError, TypeError) as error:
        missing = f"no {error}" if isinstance(error, KeyError) else str(error)
        report.skip(where, f"broken line: {missing}")
        return None
    path = inside(file.parent, name)
    if path is None or inside(source, str(path.relative_to(source))) is None:
        report.skip(where, f"{name[:200]!r} leads out of the source folder")
        return None
    seen.add(path)
    if why is not None:
        report.skip(where, why)
    elif not os.path.isfile(path):  # unlike Path.is_file, also for a name too long for the file system
        report.skip(where, f"no such picture: {name[:200]}")
    else:
        return Item(path, captions, *class_and_split(source, path))
    return None
