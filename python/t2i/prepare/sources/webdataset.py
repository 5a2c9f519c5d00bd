"""WebDataset tar shards, as img2dataset writes them: streamed, never extracted.

A sample is the members of one name up to the first dot: 000000012.jpg, 000000012.txt, 000000012.json. The first pass
reads headers and captions, the second the bytes of each picture where it lies in the archive.
"""

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from t2i.errors import DataError
from t2i.prepare.items import ENDINGS, MAX_LINE_BYTES, Item, Report, checked_captions, inside
from t2i.prepare.sources.folder import class_and_split
from t2i.prepare.sources.table import CAPTIONS
from t2i.prepare.sources.tar import Fault, Member, members


def webdataset(source: Path, report: Report) -> Iterator[Item]:
    """List the samples of one .tar, or of every .tar in a folder and below.

    Captions: the .txt, one a line; without it the .json's caption (or text, captions). The class is the .cls, if there is
    one. A folder named `test` or `validation` at the top holds the held-out split.
    """
    files = [source] if source.is_file() else sorted(source.rglob("*.tar"))
    if not files:
        raise DataError(f"{source} has no .tar")
    for file in files:
        if source.is_dir() and inside(source, str(file.relative_to(source))) is None:
            report.skip(file, "a link out of the source folder")
        elif not file.is_file():
            report.skip(file, "it is not a file")
        else:
            yield from _samples(file, source.is_dir() and class_and_split(source, file)[1], report)


def _samples(file: Path, test: bool, report: Report) -> Iterator[Item]:
    sample: dict[str, Member] = {}
    key = None
    try:
        for member in members(file):
            if isinstance(member, Fault):
                report.skip(f"{file}: {_shown(member.name)}", member.reason)
                continue
            folder, _, base = member.name.rpartition("/")
            stem, _, ending = base.partition(".")
            if key != (folder, stem):
                yield from _item(file, sample, test, report)
                sample, key = {}, (folder, stem)
            sample[ending.lower()] = member
        yield from _item(file, sample, test, report)
    except OSError as error:
        report.skip(file, error.strerror or str(error))


def _shown(name: str) -> str:
    return name[:200].encode("utf-8", "backslashreplace").decode()


def _item(file: Path, sample: dict[str, Member], test: bool, report: Report) -> Iterator[Item]:
    pictures = [name for name in sample if f".{name.rpartition('.')[2]}" in ENDINGS]
    if not pictures:
        if sample:
            report.skip(f"{file}: {next(iter(sample.values())).name}", "no picture in its sample")
        return
    picture = sample[pictures[0]]
    where = f"{file}: {picture.name}"
    try:
        captions = _captions(file, sample)
        class_name = _read_text(file, sample["cls"]).strip()[:1000] or None if "cls" in sample else None
    except (DataError, TypeError, UnicodeError) as error:
        report.skip(where, str(error))
        return
    read = partial(read_span, file, picture.offset, picture.size)
    yield Item(file, captions, class_name, test, member=picture.name, length=picture.size, read=read)


def _captions(file: Path, sample: dict[str, Member]) -> tuple[str, ...]:
    if "txt" in sample:
        try:
            return checked_captions(_read_text(file, sample["txt"]).splitlines())
        except DataError:
            if "json" not in sample:
                raise
    if "json" not in sample:
        raise DataError("no captions: neither a .txt nor a .json in its sample")
    try:
        content: Any = json.loads(_read_text(file, sample["json"]))
        text: object = next((content[name] for name in CAPTIONS if content.get(name)), [])
    except (ValueError, AttributeError, RecursionError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"broken .json: {error}") from error
    return checked_captions(text)


def _read_text(file: Path, member: Member) -> str:
    data = read_span(file, member.offset, member.size, MAX_LINE_BYTES)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{member.name} is not UTF-8 text") from error


def read_span(path: Path, offset: int, size: int, limit: int) -> bytes:
    """Read bytes from the middle of a file. DataError for more than the limit, or where the file has fewer now."""
    if size > limit:
        raise DataError(f"too large: {size} bytes, the limit is {limit}")
    with open(path, "rb") as file:
        file.seek(offset)
        data = file.read(size)
    if len(data) != size:
        raise DataError("unreadable: the archive was cut while it was read")
    return data
