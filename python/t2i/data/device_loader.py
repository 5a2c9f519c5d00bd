"""Loaders that keep a GPU busy: both carry out the same plan, to the byte.

* `Loader` (`loader.py`), the host loader: Rust fills pinned buffers, a ring of them, and copies run beside the computation. Its
  memory does not grow with the data set. For sets larger than the card.
* `DeviceLoader`: the whole data set lies on the device as uint8; a step uploads the plan, a few hundred integers, and gathers,
  crops, mirrors and scales there.
"""

import math
import threading
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from t2i._native import CAPTION_LENGTH
from t2i.data.dataset import PackedDataset
from t2i.data.loader import Batch, Loader
from t2i.data.sampler import Sampler
from t2i.ops.crop_flip_normalise import Impl, crop_flip_normalise

Kind = Literal["auto", "host", "device"]
SHARE = 0.4  # of the free memory of a GPU that a data set may take up
RING = 4  # plans on their way at once


class DeviceLoader:
    """Carry plans out on the device that the data set lies on.

    Args:
        sampler: Decides.
        device: Where the data set is copied to, and batches are made; the CPU serves for tests.
        batch: B, this process's rows.
        crop: Side of the images.
        captions_per_image: K.
        mismatched_images: Also make the mismatched images.
        characters: Also give the captions as ids of the paper's alphabet (learned text encoder).
        kernels: "reference" or "triton", see `crop_flip_normalise`.
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
        kernels: Impl = "reference",
    ) -> None:
        data = sampler.data
        self.sampler, self.device, self.crop, self.kernels = sampler, device, crop, kernels
        self.mismatched = mismatched_images
        self.stored = torch.empty(len(data), data.image_size, data.image_size, 3, dtype=torch.uint8, device=device)
        for rows in np.array_split(np.arange(len(data)), max(1, len(data) // 4096)):
            self.stored[rows[0] : rows[-1] + 1] = torch.from_numpy(data.read_images(rows)).to(device)
        self.characters: Tensor | None = None
        if characters:
            ids = data.read_captions(np.arange(data.captions))
            self.characters = torch.from_numpy(ids).to(device)
        self.groups = torch.from_numpy(data.groups()).to(device)
        b = batch
        self.shapes = {
            "image": (b,),
            "mismatched_image": (b,),
            "caption": (b, captions_per_image),
            "mismatched_caption": (b, captions_per_image),
            "crop": (b, 2),
            "mismatched_crop": (b, 2),
            "flip": (b,),
            "mismatched_flip": (b,),
            "interpolation_partner": (b // 2,),
            "interpolation_weight": (b // 2,),
        }
        self.sizes = {name: math.prod(shape) for name, shape in self.shapes.items()}
        total = sum(self.sizes.values())
        pinned = device.type == "cuda"
        self.ring = [torch.empty(total, dtype=torch.int64, pin_memory=pinned) for _ in range(RING if pinned else 1)]
        self.sent: list[torch.cuda.Event | None] = [None] * len(self.ring)
        self._filling = threading.Lock()  # threads that share a loader wait for each other

    def _upload(self, step: int) -> dict[str, Tensor]:
        """Send a step's plan as one block of int64, and cut it up there."""
        with self._filling:
            return self._send(step)

    def _send(self, step: int) -> dict[str, Tensor]:
        plan, place = self.sampler.plan(step), step % len(self.ring)
        event = self.sent[place]
        if event is not None:
            event.synchronize()  # the copy of RING steps ago: long over
        host = self.ring[place].numpy()
        at = 0
        for name, size in self.sizes.items():
            values = getattr(plan, name).reshape(-1)
            # Weights travel as bits, in the same block.
            host[at : at + size] = values.view(np.int32) if values.dtype == np.float32 else values
            at += size
        block = self.ring[place].to(self.device, non_blocking=True, copy=True)
        if self.device.type == "cuda":
            event = torch.cuda.Event()
            event.record()
            self.sent[place] = event
        parts = block.split(list(self.sizes.values()))
        return {name: part.view(shape) for (name, shape), part in zip(self.shapes.items(), parts, strict=True)}

    def batch(self, step: int) -> Batch:
        """Make the batch of one step."""
        plan = self._upload(step)

        def cut(kind: str) -> Tensor:
            rows, corner, flip = (plan[f"{kind}{name}"] for name in ("image", "crop", "flip"))
            return crop_flip_normalise(self.stored, rows, corner, flip, self.crop, impl=self.kernels)

        letters = self.characters
        weight = plan["interpolation_weight"].to(torch.int32).view(torch.float32)
        return Batch(
            images=cut(""),
            mismatched_images=cut("mismatched_") if self.mismatched else None,
            classes=self.groups[plan["image"]],
            captions=plan["caption"],
            mismatched_captions=plan["mismatched_caption"],
            caption_ids=None if letters is None else letters[plan["caption"]],
            mismatched_caption_ids=None if letters is None else letters[plan["mismatched_caption"]],
            interpolation_partner=plan["interpolation_partner"],
            interpolation_weight=weight,
        )


def fits(data: PackedDataset, device: torch.device, characters: bool) -> bool:
    """Return whether a data set leaves a GPU enough room for the networks."""
    if device.type != "cuda":
        return False
    free, _ = torch.cuda.mem_get_info(device)
    bytes_ = len(data) * data.image_size**2 * 3 + (data.captions * CAPTION_LENGTH if characters else 0)
    return bytes_ < SHARE * free


def make_loader(
    kind: Kind,
    sampler: Sampler,
    device: torch.device,
    *,
    batch: int,
    crop: int,
    captions_per_image: int,
    mismatched_images: bool,
    characters: bool,
    kernels: Impl = "reference",
) -> Loader | DeviceLoader:
    """Make the loader that `--loader` asks for; the arguments are `DeviceLoader`'s."""
    options: dict[str, Any] = {
        "batch": batch,
        "crop": crop,
        "captions_per_image": captions_per_image,
        "mismatched_images": mismatched_images,
        "characters": characters,
    }
    if kind == "device" or (kind == "auto" and fits(sampler.data, device, characters)):
        return DeviceLoader(sampler, device, **options, kernels=kernels)
    return Loader(sampler, device, **options)
