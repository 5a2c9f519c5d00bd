"""The captions of a data set as an encoder reads them, tokenized once and kept in memory."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from t2i import runtime
from t2i.data.cache import cached_tensor
from t2i.data.dataset import PackedDataset
from t2i.text.minilm import WIDTH, MiniLmEncoder
from t2i.text.protocol import TextEncoder
from t2i.text.wordpieces import SHA256

BLOCK = 128  # captions that MiniLM reads at once


class CaptionInputs:
    """Tokens of every caption of a data set; for MiniLM, its frozen vectors of them, computed once and kept beside the pack.

    Args:
        encoder: Whose tokens.
        data: The captions.
        device: Where rows go, and where MiniLM runs.
    """

    def __init__(self, encoder: TextEncoder, data: PackedDataset, device: torch.device) -> None:
        self.device, self.vectors = device, None
        if isinstance(encoder, MiniLmEncoder):
            facts = {
                "data": data.fingerprint,
                "model": SHA256["model.safetensors"],
                "tokenizer": SHA256["tokenizer.json"],
                "precision": str(runtime.pick_precision("auto", device)),
            }
            self.vectors = cached_tensor(
                data.path,
                "minilm-vectors",
                facts,
                (data.captions, WIDTH),
                lambda: minilm_vectors(encoder, data.caption_texts(np.arange(data.captions)), device).half(),
            ).float()
        else:
            self.values, self.offsets = encoder.tokenizer.ragged(data.caption_texts(np.arange(data.captions)))

    def __call__(self, rows: NDArray[np.int64]) -> Tensor:
        """Give caption rows (n,) to the encoder: tokens (n, L), or vectors (n, 384) float32, on the device."""
        if self.vectors is not None:
            return self.vectors[torch.from_numpy(rows)].to(self.device)
        starts = self.offsets[rows]
        lengths = self.offsets[rows + 1] - starts
        places = np.arange(max(1, int(lengths.max(initial=0))))
        tokens = self.values[np.minimum(starts[:, None] + places, len(self.values) - 1)] if len(self.values) else None
        if tokens is None:  # no caption has a token
            return torch.zeros(len(rows), 1, dtype=torch.int32, device=self.device)
        tokens[places >= lengths[:, None]] = 0
        return torch.from_numpy(tokens).to(self.device)

    def fit(self, encoder: TextEncoder, rows: NDArray[np.int64]) -> None:
        """Let the encoder take its statistics over from training captions (n,)."""
        if self.vectors is None:
            lengths = np.diff(self.offsets)
            chosen = np.zeros(len(lengths), bool)
            chosen[rows] = True
            encoder.fit(torch.from_numpy(self.values[np.repeat(chosen, lengths)]), len(rows))


@torch.no_grad()
def minilm_vectors(encoder: MiniLmEncoder, captions: Sequence[str], device: torch.device) -> Tensor:
    """Compute MiniLM's vectors of captions: (M, 384) float32 on the CPU; those of like length together."""
    body = encoder.body().to(device)
    values, offsets = encoder.tokenizer.ragged(captions)
    lengths = np.diff(offsets)
    order = np.argsort(lengths, kind="stable")
    out = torch.empty(len(captions), WIDTH)
    with tqdm(total=len(captions), desc="minilm", unit="caption", dynamic_ncols=True, disable=None) as bar:
        for first in range(0, len(order), BLOCK):
            rows = order[first : first + BLOCK]
            tokens = np.zeros((len(rows), int(lengths[rows].max())), np.int32)
            for place, row in enumerate(rows):
                tokens[place, : lengths[row]] = values[offsets[row] : offsets[row + 1]]
            with runtime.autocast(device, runtime.pick_precision("auto", device)):
                out[torch.from_numpy(rows)] = body(torch.from_numpy(tokens).to(device)).cpu()
            bar.update(len(rows))
    return out


def train_rows(data: PackedDataset) -> NDArray[np.int64]:
    """List the caption rows of the training images."""
    return data.caption_rows(data.split("train"))
