"""The packed data set as it is written: shards of plain safetensors and, last, `pack.json`; each file whole or not there."""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from t2i import _native
from t2i.errors import DataError
from t2i.files import make_folder, write_atomically
from t2i.prepare.items import Report, check_caption_lengths
from t2i.prepare.outputs import (
    NOTES,
    free_suffix,
    note_writer,
    refuse_replacing,
    remove_unfinished,
    replace_pack,
    shard_name,
)

VERSION = 2  # of the format; 1 kept character ids in place of captions
TOTALS = ("test", "truncated", "unknown")  # what a shard adds to the totals of pack.json
SHARD_IMAGES = 4096
SHARD_BYTES = 256 * 2**20  # of images: a shard is put together in memory


@dataclass(frozen=True)
class Row:
    """One image of a shard."""

    image: NDArray[np.uint8]  # (size, size, 3)
    captions: Sequence[str]
    class_number: int  # -1: none
    test: bool
    name: str
    extra: Mapping[str, NDArray[Any]]


def shard_capacity(size: int, images: int | None = None) -> int:
    """Count the images of `size` that a shard holds: `images`, or SHARD_IMAGES, within SHARD_BYTES."""
    return max(1, min(images or SHARD_IMAGES, SHARD_BYTES // (3 * size * size)))


def write_shard(folder: Path, number: int, rows: Sequence[Row], suffix: str = "") -> dict[str, Any]:
    """Write a shard; returns what pack.json says of it, and what it adds to the totals there."""
    from safetensors.numpy import save

    captions = [caption for row in rows for caption in row.captions]
    texts = [caption.encode() for caption in captions]
    offsets = np.cumsum([0, *(len(row.captions) for row in rows)])
    names = "\n".join(row.name.replace("\n", " ") for row in rows).encode("utf-8", "replace")
    tensors: dict[str, NDArray[Any]] = {
        "images": np.stack([row.image for row in rows]),
        "caption_bytes": np.frombuffer(b"".join(texts), np.uint8),
        "caption_byte_offsets": np.cumsum([0, *map(len, texts)]).astype(np.int64),
        "caption_offsets": offsets.astype(np.int64),
        "classes": np.array([row.class_number for row in rows], np.int32),
        "splits": np.array([row.test for row in rows], np.uint8),
        "names": np.frombuffer(names, np.uint8),
    }
    for key in rows[0].extra:
        tensors[key] = np.stack([row.extra[key] for row in rows])
    data = save(tensors)
    file = shard_name(number, suffix)
    write_atomically(folder / file, data, DataError)
    truncated, unknown = _native.count_losses(captions)
    return {
        "file": file,
        "images": len(rows),
        "captions": len(captions),
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "test": int(tensors["splits"].sum()),
        "truncated": truncated,
        "unknown": unknown,
    }


def manifest(
    name: str,
    size: int,
    classes: Sequence[str],
    provenance: Mapping[str, Any],
    shards: Sequence[dict[str, Any]],
) -> dict[str, Any]:
    """Say what pack.json says, of shards as `write_shard` described them."""
    images = sum(shard["images"] for shard in shards)
    test = sum(shard["test"] for shard in shards)
    return {
        "format": "t2i-pack",
        "version": VERSION,
        "name": name,
        "image_size": size,
        "images": images,
        "captions": sum(shard["captions"] for shard in shards),
        "classes": list(classes),
        "splits": {"train": images - test, "test": test},
        "char_cnn_rnn": {key: sum(shard[key] for shard in shards) for key in ("truncated", "unknown")},
        "provenance": dict(provenance),
        "shards": [{key: value for key, value in shard.items() if key not in TOTALS} for shard in shards],
    }


class PackWriter:
    """Write a packed data set image by image: shards as they fill, `pack.json` last.

    Args:
        folder: Made where it does not exist.
        name: Of the data set.
        size: Side of the pictures.
        provenance: Where it comes from; kept in pack.json.
    """

    def __init__(self, folder: Path, name: str, size: int, provenance: dict[str, Any]) -> None:
        self.folder, self.name, self.size, self.provenance = folder, name, size, provenance
        self.classes: dict[str, int] = {}
        self.shards: list[dict[str, Any]] = []
        self._rows: list[Row] = []
        self._full = shard_capacity(size)
        make_folder(folder, DataError)
        refuse_replacing(folder, force=True)  # whether a pack may be replaced is the caller's question
        remove_unfinished(folder)
        self._suffix = free_suffix(folder)
        make_folder(folder / NOTES, DataError)
        note = json.dumps(note_writer(folder, self._suffix)).encode()
        write_atomically(folder / NOTES / "writer.json", note, DataError)

    def add(
        self,
        image: NDArray[np.uint8],
        captions: Sequence[str],
        class_name: str | None,
        test: bool,
        name: str,
        extra: dict[str, NDArray[Any]] | None = None,
    ) -> None:
        """Add one image (size, size, 3) with its captions; `extra` are further tensors, one row a picture.

        Raises:
            DataError: a caption of over 64 KiB, or one that is no valid text.
        """
        try:
            check_caption_lengths(captions)
            "".join(captions).encode()
        except (DataError, UnicodeEncodeError) as error:
            raise DataError(f"{name}: {error}") from error
        number = -1 if class_name is None else self.classes.setdefault(class_name, len(self.classes))
        self._rows.append(Row(image, list(captions), number, test, name, extra or {}))
        if len(self._rows) == self._full:
            self._flush()

    def _flush(self) -> None:
        rows, self._rows = self._rows, []
        self.shards.append(write_shard(self.folder, len(self.shards), rows, self._suffix))

    def close(self) -> dict[str, Any]:
        """Write the last shard and pack.json; returns what it says. DataError where no image was added."""
        if self._rows:
            self._flush()
        record = manifest(self.name, self.size, list(self.classes), self.provenance, self.shards)
        replace_pack(self.folder, record)
        return record


def count(record: Mapping[str, Any], report: Report) -> None:
    """Count what pack.json says into a report."""
    report.images, report.captions, report.classes = record["images"], record["captions"], len(record["classes"])
    report.train, report.test = record["splits"]["train"], record["splits"]["test"]
    report.truncated, report.unknown = record["char_cnn_rnn"]["truncated"], record["char_cnn_rnn"]["unknown"]


def write_report(folder: Path, record: Mapping[str, Any], report: Report) -> None:
    """Count what pack.json says into the report, and write what was left out as report.json."""
    count(record, report)
    reasons = Counter(reason.split(":")[0] for _, reason in report.skipped)
    listing = {
        "captions": report.captions,
        "char_cnn_rnn": record["char_cnn_rnn"],
        "skipped": len(report.skipped),
        "reasons": reasons,
        "files": report.skipped,
    } | report.record()
    write_atomically(folder / "report.json", (json.dumps(listing, indent=2) + "\n").encode(), DataError)
