"""all-MiniLM-L6-v2, frozen, with a linear map that is learned: an encoder that knows words no caption of the data has.

The network is written out here; `wordpieces.py` has its tokenizer and the files of its release.

Source: Wang et al. 2020, *MiniLM*; Reimers and Gurevych 2019, *Sentence-BERT* (mean of the states, length 1); Devlin et al.
2019, *BERT*.
"""

from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load
from torch import Tensor, nn

from t2i.errors import CheckpointError
from t2i.text.protocol import TextEncoder
from t2i.text.wordpieces import SHA256, WordPieceTokenizer, released_file

LAYERS, WIDTH, HEADS, INNER, VOCABULARY, POSITIONS = 6, 384, 12, 1536, 30522, 512


class _Layer(nn.Module):
    """A layer of BERT: attention among the pieces, then two linear maps; each added and normalised."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value, self.mixed = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.attended = nn.LayerNorm(WIDTH, 1e-12)
        self.wide, self.narrow = nn.Linear(WIDTH, INNER), nn.Linear(INNER, WIDTH)
        self.out = nn.LayerNorm(WIDTH, 1e-12)

    def forward(self, x: Tensor, real: Tensor) -> Tensor:
        """Run over states (B, L, 384), `real` (B, 1, 1, L) where a piece is no padding."""
        q, k, v = (map_(x).unflatten(2, (HEADS, -1)).transpose(1, 2) for map_ in (self.query, self.key, self.value))
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=real).transpose(1, 2).flatten(2)  # (B, L, 384)
        x = self.attended(x + self.mixed(mixed))
        y: Tensor = self.out(x + self.narrow(F.gelu(self.wide(x))))
        return y


class MiniLm(nn.Module):
    """The released network: word pieces (B, L) to sentence vectors (B, 384) of length 1."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(VOCABULARY, WIDTH)
        self.positions = nn.Embedding(POSITIONS, WIDTH)
        self.segment = nn.Parameter(torch.zeros(WIDTH))
        self.norm = nn.LayerNorm(WIDTH, 1e-12)
        self.layers = nn.ModuleList(_Layer() for _ in range(LAYERS))

    def forward(self, pieces: Tensor) -> Tensor:
        """Embed (B, L) integers, 0 is padding."""
        real = pieces != 0  # (B, L)
        places = torch.arange(pieces.shape[1], device=pieces.device)
        x = self.norm(self.words(pieces.long()) + self.positions(places) + self.segment)  # (B, L, 384)
        for layer in self.layers:
            x = layer(x, real[:, None, None, :])
        weights = real.to(x.dtype)[:, :, None]
        mean = (x * weights).sum(dim=1) / weights.sum(dim=1).clamp_min(1)
        return F.normalize(mean.float(), dim=1)

    def fill(self, tensors: dict[str, Tensor]) -> "MiniLm":
        """Take the released weights over, by their names of the release.

        Raises:
            CheckpointError: one is missing or of another shape.
        """
        names = {"words.weight": "embeddings.word_embeddings.weight", "norm": "embeddings.LayerNorm"}
        names["positions.weight"] = "embeddings.position_embeddings.weight"
        parts = {
            "query": "attention.self.query",
            "key": "attention.self.key",
            "value": "attention.self.value",
            "mixed": "attention.output.dense",
            "attended": "attention.output.LayerNorm",
            "wide": "intermediate.dense",
            "narrow": "output.dense",
            "out": "output.LayerNorm",
        }
        for number in range(LAYERS):
            names |= {f"layers.{number}.{own}": f"encoder.layer.{number}.{its}" for own, its in parts.items()}
        state = {}
        for own in self.state_dict():
            stem, _, end = own.rpartition(".")
            key = names.get(own) or f"{names.get(stem)}.{end}"
            state[own] = (
                tensors["embeddings.token_type_embeddings.weight"][0]
                if own == "segment"
                else tensors.get(key, torch.empty(0))
            )
        try:
            self.load_state_dict(state)
        except (RuntimeError, KeyError) as error:
            raise CheckpointError(f"the MiniLM weights do not fit: {str(error).splitlines()[-1].strip()}") from error
        return self


class MiniLmEncoder(TextEncoder):
    """MiniLM, frozen and not part of the saved weights, and a linear map that is.

    Args:
        text_dim: T.
        dropout: Part of MiniLM's numbers that are left out while the map learns.

    Example:
        >>> MiniLmEncoder(64).embed(["a crimson blossom"]).shape  # doctest: +SKIP
        torch.Size([1, 64])
    """

    kind = "minilm"

    def __init__(self, text_dim: int = 128, dropout: float = 0.3) -> None:
        super().__init__()
        self.tokenizer: WordPieceTokenizer = WordPieceTokenizer()
        self.text_dim, self.dropout = text_dim, dropout
        self.map = nn.Linear(WIDTH, text_dim)
        self._body: tuple[MiniLm, ...] = ()  # in a tuple, which hides it from state_dict, parameters() and to()

    def body(self) -> MiniLm:
        """Return the frozen network, read from its package when it is first asked for, on the map's device."""
        if not self._body:
            made = MiniLm().fill(load(released_file("model.safetensors")))
            self._body = (made.eval().requires_grad_(False),)
        return self._body[0].to(self.map.weight.device)

    def forward(self, tokens: Tensor) -> Tensor:
        """Embed word pieces (B, L), or MiniLM's own vectors of captions (B, 384), floating point: (B, T) float32."""
        vectors = tokens if tokens.is_floating_point() else self.body()(tokens)
        if self.training and self.dropout:
            vectors = F.dropout(vectors, self.dropout)
        embedded: Tensor = F.normalize(self.map(vectors).float(), dim=1, eps=1e-6) * self.text_dim**0.5
        return embedded

    def settings(self) -> dict[str, Any]:
        """Describe everything but the map's weights; the frozen ones by their hash."""
        return {**super().settings(), "minilm": SHA256["model.safetensors"]}
