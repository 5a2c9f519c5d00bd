"""What a training step needs of the whole data set, beside its batches: a few real images, and the training captions."""

import dataclasses

import numpy as np
import torch
from torch import Tensor

from t2i.data.dataset import PackedDataset
from t2i.images import normalise
from t2i.metrics.inputs import center_crop

REFERENCES = 64  # images


@dataclasses.dataclass(frozen=True)
class Reference:
    """What a step needs of the data set beside its batches.

    Args:
        images: (N, 3, S, S) real training images, evenly spaced, center-cropped.
        captions: (M,) rows of the training captions.
        classes: (M,) class of each; without classes, the number of its image.
        owners: (M,) image of each, by its number in the pack.
    """

    images: Tensor
    captions: Tensor
    classes: Tensor
    owners: Tensor

    @classmethod
    def of(cls, data: PackedDataset, size: int) -> "Reference":
        """Collect them from a packed data set, at `size` pixels."""
        rows = data.split("train")
        chosen = rows[np.linspace(0, len(rows) - 1, min(REFERENCES, len(rows))).astype(np.int64)]
        images = center_crop(data.read_images(chosen), size)
        owners = np.repeat(rows, np.diff(data.caption_offsets)[rows])
        return cls(
            normalise(torch.from_numpy(images)),
            torch.from_numpy(data.caption_rows(rows)),
            torch.from_numpy(data.groups()[owners]),
            torch.from_numpy(owners),
        )
