"""The packed data set, the sampler over it, and the loader that turns a plan into a batch.

* `PackedDataset`: a folder of safetensors shards that `t2i-prepare` wrote, read by the native module, never mapped.
* `Sampler.plan(step)`: a few hundred integers, a pure function of (data set, seed, step): resuming needs only the step.
* `Loader.batch(step)`: the plan carried out, as tensors on the device.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from t2i import _native
from t2i.errors import ConfigError, DataError

Plan = _native.Plan
RING = 3  # sets of pinned buffers of a loader that feeds a GPU


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
        self.path = Path(path)
        if not self.path.is_dir():
            raise DataError(f"no such folder: {self.path}; t2i-prepare makes one from your pictures")
        if not (self.path / "pack.json").is_file():
            raise DataError(
                f"{self.path} is not a packed data set (no pack.json); run t2i-prepare on your pictures first"
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

    def __len__(self) -> int:
        return self.images

    def __repr__(self) -> str:
        return (
            f"PackedDataset({str(self.path)!r}: {self.images} images of {self.image_size} px, "
            f"{self.captions} captions, {len(self.class_names)} classes)"
        )

    def read_images(self, index: Any) -> NDArray[np.uint8]:
        """Copy the pictures `index` (n,) out: uint8 (n, S, S, 3)."""
        rows = np.ascontiguousarray(index, np.int64)
        out = np.empty((len(rows), self.image_size, self.image_size, 3), np.uint8)
        self.native.read_images(rows, out)
        return out

    def read_captions(self, rows: Any) -> NDArray[np.uint8]:
        """Copy caption rows (n,), counted over the whole set, out: uint8 ids (n, 201)."""
        index = np.ascontiguousarray(rows, np.int64)
        out = np.empty((len(index), _native.CAPTION_LENGTH), np.uint8)
        self.native.read_captions(index, out)
        return out

    def captions_of(self, image: int) -> list[str]:
        """Decode the captions of one picture (lower-cased and cut, as they are stored)."""
        first, last = self.caption_offsets[image : image + 2]
        return _native.decode(self.read_captions(np.arange(first, last)))

    def groups(self) -> NDArray[np.int64]:
        """Number what a picture must not be told from: its class; without classes, itself. (N,)."""
        classes = self.classes.astype(np.int64)
        return np.where(classes < 0, np.arange(len(classes)), classes)

    def split(self, name: str) -> NDArray[np.int64]:
        """List the pictures of "train", "test" or "all"."""
        if name == "all":
            return np.arange(self.images)
        return np.flatnonzero(self.splits == {"train": 0, "test": 1}[name])

    def extra(self, name: str) -> NDArray[Any]:
        """Read an additional per-picture tensor of the shards (blossoms: "attributes", "style"), joined over shards.

        Raises:
            DataError: the pack has no tensor of that name.
        """
        parts = []
        manifest = json.loads((self.path / "pack.json").read_text(encoding="utf-8"))
        for shard in [self.path / entry["file"] for entry in manifest["shards"]]:
            parts.append(_read_tensor(shard, name))
        return np.concatenate(parts)


_HEADER_LIMIT = 1 << 20  # bytes, as in the native module
_DTYPES = {"U8": np.uint8, "I32": np.int32, "I64": np.int64, "F32": np.float32, "F64": np.float64}


def _read_tensor(shard: Path, name: str) -> NDArray[Any]:
    """Read one tensor of a shard whose header the native module has checked; read, not mapped: the file may change."""
    try:
        with open(shard, "rb") as file:
            size = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(min(size, _HEADER_LIMIT)))
            if name not in header:
                raise DataError(f"{shard} has no tensor {name!r}")
            start, end = header[name]["data_offsets"]
            file.seek(8 + size + start)
            return np.frombuffer(file.read(end - start), _DTYPES[header[name]["dtype"]]).reshape(header[name]["shape"])
    except (OSError, ValueError, KeyError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{shard} changed while in use: {error}") from error


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
        facts = json.loads(record.read_text(encoding="utf-8"))
        data, fingerprint = PackedDataset(facts["path"]), facts["fingerprint"]
    except DataError as error:
        raise ConfigError(f"the data set of {run} cannot be used: {error}; or say where it is: --data DIR") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{record} does not say what the run was trained on; say so: --data DIR") from error
    if data.fingerprint != fingerprint:
        raise ConfigError(f"{data.path} has changed since {run} was trained on it; say what to use: --data DIR")
    return data


class Sampler:
    """Decide what each step trains on.

    `plan(step)` draws classes uniformly, a picture in each, a mismatched partner of another class, captions with
    replacement, crops, flips and interpolation partners. A pure function of its arguments: no state, any order.

    Args:
        data: The packed data set.
        batch: B, pictures a step over all processes.
        seed: Everything random follows from it.
        split: "train", "test" or "all".
        crop: Side of the crop in pixels, at most the pack's picture size.
        crop_low: Smallest crop offset.
        flip: Mirror half of the pictures.
        captions_per_image: K, drawn with replacement.
        class_uniform: Draw classes uniformly, then a picture (the paper); otherwise pictures uniformly.
        distinct_classes: No class twice in a batch (the joint embedding's batches).
        interpolation: "fixed", "uniform" U(0, 1) or "extrapolate" U(-0.5, 1.5).
        interpolation_weight: b where fixed.
        rank: This process.
        world: Number of processes; divides B.

    Raises:
        DataError: the split is empty or has a single class, so that nothing can be mismatched.
        ConfigError: arguments that do not fit each other.
    """

    def __init__(self, data: PackedDataset, *, batch: int = 64, **options: Any) -> None:
        self.data = data
        self.native = _native.Sampler(data.native, batch=batch, **options)
        self.images: int = self.native.images
        self.classes: int = self.native.classes

    def plan(self, step: int) -> Plan:
        """Draw the plan of one step: arrays of indices, see `t2i._native.Plan`."""
        return self.native.plan(step)


@dataclass
class Batch:
    """One step's data on the device. B pictures; captions as rows of the pack and, where asked for, as characters."""

    images: Tensor  # (B, 3, S, S) float32 in [-1, 1], channels last
    mismatched_images: Tensor | None  # the same, of other classes
    classes: Tensor  # (B,) int64 class of each picture; without classes, the picture's own number
    captions: Tensor  # (B, K) int64 caption rows
    mismatched_captions: Tensor  # (B, K) int64, of the mismatched pictures
    caption_ids: Tensor | None  # (B, K, 201) uint8
    mismatched_caption_ids: Tensor | None
    interpolation_partner: Tensor  # (B/2,) int64 rows of the batch of all processes
    interpolation_weight: Tensor  # (B/2,) float32


def normalise(images: Tensor) -> Tensor:
    """Turn uint8 NHWC pictures into float32 NCHW (channels last in memory) in [-1, 1]."""
    return images.permute(0, 3, 1, 2).float() / 127.5 - 1


class Loader:
    """Carry plans out.

    Args:
        sampler: Decides.
        device: Where the batch goes; to a GPU from pinned memory, without waiting.
        crop: Side of the pictures.
        captions_per_image: K.
        mismatched_images: Also read the mismatched pictures.
        characters: Also read the captions as characters (learned text encoder).
    """

    def __init__(
        self,
        sampler: Sampler,
        device: torch.device,
        *,
        batch: int,
        crop: int,
        captions_per_image: int = 1,
        mismatched_images: bool = False,
        characters: bool = False,
    ) -> None:
        self.sampler, self.device = sampler, device
        self._groups = sampler.data.groups()
        pinned = device.type == "cuda"
        pictures = (batch, crop, crop, 3)
        letters = (batch, captions_per_image, _native.CAPTION_LENGTH)

        def buffers() -> dict[str, Tensor]:
            shapes: dict[str, tuple[int, ...]] = {"images": pictures}
            if mismatched_images:
                shapes["mismatched_images"] = pictures
            if characters:
                shapes |= {"captions": letters, "mismatched_captions": letters}
            return {name: torch.empty(shape, dtype=torch.uint8, pin_memory=pinned) for name, shape in shapes.items()}

        self.ring = [
            buffers() for _ in range(RING if pinned else 1)
        ]  # one is filled while others are still being copied
        self.sent: list[torch.cuda.Event | None] = [None] * len(self.ring)

    def _send(self, array: NDArray[Any]) -> Tensor:
        return torch.tensor(array).to(self.device, non_blocking=True)  # a copy: a plan's arrays are read-only

    def batch(self, step: int) -> Batch:
        """Read the batch of one step."""
        plan, place = self.sampler.plan(step), step % len(self.ring)
        buffers, event = self.ring[place], self.sent[place]
        if event is not None:
            event.synchronize()  # the copy out of these buffers, RING steps ago
        arrays: dict[str, Any] = {name: tensor.numpy() for name, tensor in buffers.items()}
        self.sampler.data.native.fill(plan, **arrays)
        sent = {name: tensor.to(self.device, non_blocking=True, copy=True) for name, tensor in buffers.items()}
        if self.device.type == "cuda":
            event = torch.cuda.Event()
            event.record()
            self.sent[place] = event
        mismatched = sent.get("mismatched_images")
        return Batch(
            images=normalise(sent["images"]),
            mismatched_images=None if mismatched is None else normalise(mismatched),
            classes=self._send(self._groups[plan.image]),
            captions=self._send(plan.caption),
            mismatched_captions=self._send(plan.mismatched_caption),
            caption_ids=sent.get("captions"),
            mismatched_caption_ids=sent.get("mismatched_captions"),
            interpolation_partner=self._send(plan.interpolation_partner),
            interpolation_weight=self._send(plan.interpolation_weight),
        )
