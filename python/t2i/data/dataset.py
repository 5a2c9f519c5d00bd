"""The packed data set: a folder of safetensors shards that `t2i-prepare` wrote, read by the native module, never mapped."""

import hashlib
import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load

from t2i import _native
from t2i.config.sizes import stored_size
from t2i.errors import ConfigError, DataError
from t2i.files import is_file, is_folder, read_file, read_json, write_atomically

MAX_RECORD = 1 << 30  # bytes of a pack.json: a large one lists thousands of shards and classes
Tokenizer = Literal["alphabet", "bytes"]


class PackedDataset:
    """A packed data set, opened for reading.

    Args:
        path: The folder that `t2i-prepare` wrote (the one with pack.json).
        verify: Compare every shard with its checksum first (reads everything once).
        memory: A pack of at most so many bytes is copied to memory; a larger one is read from its files, batch by batch.

    Raises:
        DataError: no such folder, not a packed data set, or a damaged one; the message names the file.

    Example:
        >>> data = PackedDataset("data/flowers")     # doctest: +SKIP
        >>> data.read_images([0, 1]).shape           # doctest: +SKIP
        (2, 76, 76, 3)
    """

    def __init__(self, path: str | Path, verify: bool = False, memory: int = 2 * 2**30) -> None:
        self.path, self._memory = Path(path), memory
        if not is_folder(self.path, DataError):
            raise DataError(f"no such folder: {self.path}; t2i-prepare makes one from your images")
        if not is_file(self.path / "pack.json", DataError):
            raise DataError(
                f"{self.path} is not a packed data set (no pack.json); run t2i-prepare on your images first"
            )
        self.native = _native.Pack(str(self.path), verify, memory)
        self.images = self.native.images
        self.captions = self.native.captions
        self.image_size = self.native.image_size
        self.class_names = self.native.class_names
        self.fingerprint = self.native.fingerprint
        self.classes = self.native.classes()  # (N,) int32, -1 without classes
        self.splits = self.native.splits()  # (N,) uint8: 0 train, 1 test
        self.caption_offsets = self.native.caption_offsets()  # (N + 1,) int64
        self._shards = _read_shards(self.path / "pack.json")  # now: another pack may take the place of this one

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel to another process (`multiprocessing` by spawn) as the folder, which is opened again there."""
        return _reopened, (str(self.path.absolute()), self._memory, self.fingerprint)

    def __len__(self) -> int:
        return self.images

    def __repr__(self) -> str:
        return (
            f"PackedDataset({str(self.path)!r}: {self.images} images of {self.image_size} px, "
            f"{self.captions} captions, {len(self.class_names)} classes)"
        )

    def require_size(self, size: int) -> None:
        """Refuse to train on images of `size` pixels a side where the pack's are smaller: ConfigError."""
        if size > self.image_size:
            raise ConfigError(
                f"--size {size} is larger than the images of {self.path} ({self.image_size} px); choose a smaller one, "
                f"or prepare them with --size {stored_size(size)} or more"
            )

    def read_images(self, index: Any) -> NDArray[np.uint8]:
        """Copy the images `index` (n,) out: uint8 (n, S, S, 3)."""
        rows = np.ascontiguousarray(index, np.int64)
        out = np.empty((len(rows), self.image_size, self.image_size, 3), np.uint8)
        self.native.read_images(rows, out)
        return out

    def read_captions(
        self, rows: Any, tokenizer: Tokenizer = "alphabet", length: int = _native.CAPTION_LENGTH
    ) -> NDArray[np.uint8]:
        """Encode captions by their rows.

        Args:
            rows: (n,) rows of captions, counted over the whole set.
            tokenizer: "alphabet", the paper's characters; "bytes", 1 + each byte of UTF-8.
            length: L, ids per caption; 201 for "alphabet".

        Returns:
            (n, L) uint8 ids, 0 after the end.

        Raises:
            IndexError: a row that the set does not have.
            ConfigError: a length that the tokenizer does not have.
        """
        index = np.ascontiguousarray(rows, np.int64)
        out = np.empty((len(index), length), np.uint8)
        self.native.read_captions(index, out, tokenizer)
        return out

    def caption_texts(self, rows: Any) -> list[str]:
        """Return captions as they were written, by their rows (n,), counted over the whole set."""
        return self.native.caption_texts(np.ascontiguousarray(rows, np.int64))

    def captions_of(self, image: int) -> list[str]:
        """Return the captions of one image as they were written."""
        first, last = self.caption_offsets[image : image + 2]
        return self.caption_texts(np.arange(first, last))

    def caption_rows(self, images: NDArray[np.int64]) -> NDArray[np.int64]:
        """List the caption rows of images (n,), image by image: (m,), counted over the whole set."""
        first = self.caption_offsets[images]
        counts = self.caption_offsets[images + 1] - first
        return np.repeat(first - np.cumsum(counts) + counts, counts) + np.arange(counts.sum())

    def groups(self) -> NDArray[np.int64]:
        """Return the group of each image (N,), its class or, without one, its number; mismatched pairs never share one."""
        classes = self.classes.astype(np.int64)
        return np.where(classes < 0, np.arange(len(classes)), classes)

    def split(self, name: str) -> NDArray[np.int64]:
        """List the images of "train", "test" or "all"."""
        if name == "all":
            return np.arange(self.images)
        return np.flatnonzero(self.splits == {"train": 0, "test": 1}[name])

    def extra(self, name: str) -> NDArray[Any]:
        """Read an additional per-image tensor of the shards (blossoms: "attributes", "style"), joined over shards.

        Raises:
            DataError: the pack has no tensor of that name, or a shard is not what pack.json says.
        """
        return np.concatenate([_read_tensor(self.path / file, name, sha256) for file, sha256 in self._shards])


def _reopened(path: str, memory: int, fingerprint: str) -> PackedDataset:
    data = PackedDataset(path, memory=memory)
    if data.fingerprint != fingerprint:
        raise DataError(f"{path} has changed since another process opened it: open it again there")
    return data


def _read_shards(path: Path) -> list[tuple[str, str]]:
    """List the shards of a pack.json that the native module has opened: names and SHA-256."""
    try:
        return [
            (str(entry["file"]), str(entry["sha256"])) for entry in read_json(path, DataError, MAX_RECORD)["shards"]
        ]
    except (FileNotFoundError, LookupError, TypeError) as error:
        raise DataError(f"{path} changed while it was read: {error}; open the data set again") from error


def _read_tensor(shard: Path, name: str, sha256: str) -> NDArray[Any]:
    """Read one tensor of a shard; read, not mapped: the file may change."""
    try:
        data = read_file(shard, error=DataError)
        found_sha256 = hashlib.sha256(data).hexdigest()
        if found_sha256 != sha256.lower():
            raise DataError(f"{shard} changed while in use: its sha256 was {sha256}, now {found_sha256}")
        tensors = load(data)
    except (OSError, SafetensorError, LookupError, TypeError, AttributeError) as error:  # also a dtype that NumPy lacks
        raise DataError(f"{shard} changed while in use, or holds what NumPy lacks: {error}") from error
    if name not in tensors:
        raise DataError(f"{shard} has no tensor {name!r}")
    found: NDArray[Any] = tensors[name]
    return found


def record_dataset(folder: Path, data: PackedDataset) -> None:
    """Write down in a run folder's data.json what the run is trained on."""
    record = {"fingerprint": data.fingerprint, "path": str(data.path), "images": data.images}
    write_atomically(folder / "data.json", (json.dumps(record, indent=2) + "\n").encode())


def dataset_of_run(run: Path, path: str | None = None) -> PackedDataset:
    """Open the data set that a run was trained on, as its data.json says, or the one at `path`.

    Raises:
        ConfigError: the run does not say, or its data set is no longer there or has changed.
        DataError: `path` is no packed data set.
    """
    if path is not None:
        return PackedDataset(path)
    record = run / "data.json"
    try:
        facts = read_json(record)
        data, fingerprint = PackedDataset(facts["path"]), facts["fingerprint"]
    except DataError as error:
        raise ConfigError(f"the data set of {run} cannot be used: {error}; or pass its location: --data DIR") from error
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ConfigError(f"{record} does not name the data set of the run; pass it: --data DIR") from error
    if data.fingerprint != fingerprint:
        raise ConfigError(
            f"{data.path} has changed since {run} was trained on it; pass the data set to use: --data DIR"
        )
    return data
