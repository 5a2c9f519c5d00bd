"""Where the text embeddings of a GAN step come from: a table, or an encoder that learns with it."""

from typing import Protocol

from torch import Tensor

from t2i.text.inputs import CaptionInputs
from t2i.text.protocol import TextEncoder


class TextSource(Protocol):
    """Where a batch's text embeddings come from."""

    encoder: TextEncoder | None
    learned: bool
    inputs: CaptionInputs | None

    def __call__(self, rows: Tensor, ids: Tensor | None) -> Tensor:
        """Embed (B, K) caption rows, or their characters (B, K, 201), averaged over K: (B, T)."""
        ...


class FrozenText:
    """Embeddings computed once: a table (M, T) with a row a caption."""

    learned = False
    inputs: CaptionInputs | None = None

    def __init__(self, table: Tensor, encoder: TextEncoder | None) -> None:
        self.table, self.encoder = table, encoder

    def __call__(self, rows: Tensor, ids: Tensor | None) -> Tensor:
        """Look (B, K) rows up and average: (B, T)."""
        return self.table[rows].mean(dim=1)


class LearnedText:
    """Embeddings of an encoder that learns with the GAN."""

    learned = True

    def __init__(self, encoder: TextEncoder, inputs: CaptionInputs | None = None) -> None:
        self.encoder: TextEncoder | None = encoder
        self.inputs = inputs  # None: the batch brings the paper's characters

    def __call__(self, rows: Tensor, ids: Tensor | None) -> Tensor:
        """Encode the captions of (B, K) rows, or their characters (B, K, 201), and average: (B, T)."""
        assert self.encoder is not None
        if self.inputs is not None:
            tokens = self.inputs(rows.reshape(-1).cpu().numpy())
        else:
            assert ids is not None
            tokens = ids.flatten(0, 1)
        embedded: Tensor = self.encoder(tokens)
        return embedded.view(*rows.shape, -1).mean(dim=1)
