"""The grids of samples/: the same captions and the same noise after every so many steps."""

from pathlib import Path

import torch
from torch import Tensor

from t2i import runtime
from t2i.data.dataset import PackedDataset
from t2i.images import save_image, to_uint8
from t2i.plots import grids
from t2i.training.steps import Step

ROWS, COLUMNS = 8, 8  # captions and noise vectors of a grid


def sample_captions(data: PackedDataset) -> tuple[list[str], Tensor, Tensor]:
    """Choose the captions of the grid, unseen ones where the data has a test split.

    Returns:
        The captions, their rows of the pack (n, 1), and their characters (n, 1, 201).
    """
    images = data.split("test")
    if len(images) == 0:
        images = data.split("train")
    chosen = images[:: max(1, len(images) // ROWS)][:ROWS]
    captions = torch.from_numpy(data.caption_offsets[chosen])
    ids = torch.from_numpy(data.read_captions(captions.numpy()))
    return [data.captions_of(int(image))[0] for image in chosen], captions[:, None], ids[:, None]


class SampleGrid:
    """Write a grid a call: a row a caption, a column a noise vector.

    Args:
        gan: Its EMA generates.
        data: Where the captions come from.
        folder: The run folder.
    """

    def __init__(self, gan: Step, data: PackedDataset, folder: Path) -> None:
        self.gan, self.folder = gan, folder / "samples"
        self.captions, self.rows, self.ids = sample_captions(data)

    @torch.no_grad()
    def __call__(self, step: int) -> Tensor:
        """Write the grid of a step, and return its images (n, 8, 3, S, S) float32 in [-1, 1]."""
        gan, size, count = self.gan, self.gan.config.size, len(self.captions)
        with runtime.autocast(gan.device, gan.precision):
            text = gan.text(self.rows.to(gan.device), self.ids.to(gan.device))  # (n, T)
            noise = runtime.noise((COLUMNS, gan.config.noise_dim), gan.device, gan.config.seed, 0, "samples")
            images: Tensor = gan.ema(noise.repeat(count, 1), text.repeat_interleave(COLUMNS, dim=0))
        shown = to_uint8(images).reshape(count, COLUMNS, size, size, 3)
        path = self.folder / f"step-{step:07d}.png"
        save_image(grids.grid(shown, self.captions, side=max(64, size)), path)
        return images.float().view(count, COLUMNS, *images.shape[1:])
