"""The usual loader: Pillow decodes and resizes each time a picture is wanted, a dictionary tokenizes, DataLoader joins.

Written from how public PyTorch implementations describe theirs: a `Dataset` whose item is a picture file decoded, scaled to
76 x 76, cropped and mirrored at random and scaled to [-1, 1]; a picture of another class; a caption as one-hot characters.
"""

import io
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from .tokenizer import one_hot, tokenize


def load(data: bytes, size: int) -> np.ndarray:
    """Decode and resize with Pillow: uint8 (size, size, 3)."""
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB").resize((size, size), Image.Resampling.BILINEAR))


class UsualDataset(Dataset):
    """Pictures as files, captions as strings, classes as numbers.

    Args:
        files: Of each picture.
        captions: Of each picture.
        classes: Of each picture.
        size: Side that pictures are scaled to.
        crop: Side of the crop.
    """

    def __init__(
        self,
        files: Sequence[Path],
        captions: Sequence[Sequence[str]],
        classes: Sequence[int],
        size: int = 76,
        crop: int = 64,
    ) -> None:
        self.files, self.captions, self.classes, self.size, self.crop = files, captions, classes, size, crop

    def __len__(self) -> int:
        return len(self.files)

    def picture(self, index: int) -> torch.Tensor:
        picture = load(self.files[index].read_bytes(), self.size)
        top, left = (random.randint(0, self.size - self.crop) for _ in range(2))
        picture = picture[top : top + self.crop, left : left + self.crop]
        if random.random() < 0.5:
            picture = picture[:, ::-1]
        return torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1).float() / 127.5 - 1

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        other = index
        while self.classes[other] == self.classes[index]:
            other = random.randrange(len(self))
        caption = random.choice(self.captions[index])
        return {"image": self.picture(index), "wrong": self.picture(other), "text": one_hot(tokenize(caption))}


def usual_loader(dataset: UsualDataset, batch: int, workers: int = 0) -> DataLoader:
    """Join items to batches."""
    return DataLoader(dataset, batch, shuffle=True, drop_last=True, num_workers=workers)
