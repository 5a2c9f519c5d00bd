"""Join the rows of a Parquet or Arrow file that repeat an image: their captions are captions of one image.

A data set with five captions an image is often stored as five rows with the same image in each. Packed as five images, one
could be drawn as the mismatched partner of another.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace

from t2i.errors import DataError
from t2i.prepare.items import Item, Report

MAX_BYTES = 2**30  # of an image that is compared; a longer one is refused when it is packed


def joined_rows(items: Sequence[Item], paths: Sequence[str | None], report: Report) -> Iterator[Item]:
    """Join rows that have the same path and the same bytes.

    Args:
        items: The rows of one file, each with `member` ending in its number.
        paths: The path that each row of the file gives its image, by number; empty where the file has none.
        report: Receives a note where rows were joined, and rows whose class or split contradicts the first one's.
    """
    rows: dict[str, list[int]] = {}
    for place, item in enumerate(items):
        path = paths[_number(item)] if paths else None
        if path:
            rows.setdefault(path, []).append(place)
    captions, dropped = {place: list(item.captions) for place, item in enumerate(items)}, set[int]()
    for places in rows.values():
        first: dict[bytes, int] = {}
        for place in places if len(places) > 1 else ():
            digest = _digest(items[place])
            if digest is None:
                continue
            one = first.setdefault(digest, place)
            if one != place:
                dropped.add(place)
                reason = _contradiction(items[one], items[place])
                if reason is None:
                    captions[one] += captions[place]
                else:
                    report.skip(items[place].place(), reason)
    if dropped:
        report.notes.append(
            f"{len(dropped)} rows repeat the image of a row before them: their captions are its captions"
        )
    for place, item in enumerate(items):
        if place not in dropped:
            yield replace(item, captions=tuple(captions[place]))


def _number(item: Item) -> int:
    return int((item.member or "").rpartition(":")[2])


def _digest(item: Item) -> bytes | None:
    assert item.read is not None
    try:
        data = item.read(MAX_BYTES)
    except DataError:  # reported when it is packed
        return None
    return hashlib.sha256(data).digest() if isinstance(data, bytes) else None


def _contradiction(one: Item, other: Item) -> str | None:
    if other.class_name != one.class_name:
        return f"another class for its image: {str(other.class_name)[:100]}, after {one.class_name}"
    return None if other.test == one.test else "another split for its image than on a row before"
