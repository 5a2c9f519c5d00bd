"""The host loader: a plan carried out by the native module into buffers that torch owns."""

import threading
from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from t2i._native import CAPTION_LENGTH
from t2i.data.sampler import Sampler
from t2i.images import normalise

RING = 3  # sets of pinned buffers of a loader that feeds a GPU


@dataclass
class Batch:
    """One step's data on the device. B images; captions as rows of the pack and, where asked for, as characters."""

    images: Tensor  # (B, 3, S, S) float32 in [-1, 1], channels last
    mismatched_images: Tensor | None  # the same, of other classes
    classes: Tensor  # (B,) int64 class of each image; without classes, the image's own number
    captions: Tensor  # (B, K) int64 caption rows
    mismatched_captions: Tensor  # (B, K) int64, of the mismatched images
    caption_ids: Tensor | None  # (B, K, 201) uint8, of the paper's alphabet
    mismatched_caption_ids: Tensor | None
    interpolation_partner: Tensor  # (B/2,) int64 rows of the batch of all processes
    interpolation_weight: Tensor  # (B/2,) float32


class Loader:
    """Carry plans out.

    Args:
        sampler: Decides.
        device: Where the batch goes; to a GPU from pinned memory, without waiting.
        batch: B, this process's rows.
        crop: Side of the images.
        captions_per_image: K.
        mismatched_images: Also read the mismatched images.
        characters: Also encode the captions to ids of the paper's alphabet (learned text encoder).
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
        pixels = (batch, crop, crop, 3)
        letters = (batch, captions_per_image, CAPTION_LENGTH)

        def buffers() -> dict[str, Tensor]:
            shapes: dict[str, tuple[int, ...]] = {"images": pixels}
            if mismatched_images:
                shapes["mismatched_images"] = pixels
            if characters:
                shapes |= {"captions": letters, "mismatched_captions": letters}
            return {name: torch.empty(shape, dtype=torch.uint8, pin_memory=pinned) for name, shape in shapes.items()}

        # One is filled while others are still being copied.
        self.ring = [buffers() for _ in range(RING if pinned else 1)]
        self.sent: list[torch.cuda.Event | None] = [None] * len(self.ring)
        self._filling = threading.Lock()  # threads that share a loader wait for each other: the buffers are one batch's

    def _send(self, array: NDArray[Any]) -> Tensor:
        return torch.tensor(array).to(self.device, non_blocking=True)  # a copy: a plan's arrays are read-only

    def batch(self, step: int) -> Batch:
        """Read the batch of one step; threads may share a loader."""
        with self._filling:
            return self._batch(step)

    def _batch(self, step: int) -> Batch:
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
