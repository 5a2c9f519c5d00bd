"""What every text encoder is: captions in, tokens between, vectors out.

`encoder(encoder.tokenize(captions))` is (B, T) for every kind. A tokenizer is an object of its own, without weights, so that an
exported model needs nothing else of an encoder.
"""

import hashlib
import json
from collections.abc import Sequence
from typing import Any, ClassVar, Protocol

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from t2i.data.blank import is_blank
from t2i.text.tokenizers import quoted
from t2i.weights import plain_tensors, tensor_digest


class Tokenizer(Protocol):
    """Captions to rows of numbers."""

    def __call__(self, captions: Sequence[str]) -> NDArray[Any]:
        """Tokenize: (B, L) integers, 0 is padding; L is fixed or that of the longest caption."""
        ...

    def ragged(self, captions: Sequence[str]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Tokenize without padding: values (V,) and offsets (B + 1,) int64."""
        ...

    def unseen(self, captions: Sequence[str]) -> int:
        """Count the captions that are not seen whole: cut, or with characters that have no token."""
        ...

    def unread(self, caption: str) -> str:
        """Describe what of a caption has no token: "'花'", "what comes after 201 characters"; empty if it is seen whole."""
        ...

    def settings(self) -> dict[str, Any]:
        """Describe it as JSON, for `tokenizer_of`."""
        ...


class TextEncoder(nn.Module):
    """A text encoder. `forward` takes tokens (B, L) and returns (B, T) float32.

    Attributes:
        kind: Its name in the settings.
        text_dim: T.
        tokenizer: Makes its tokens.
    """

    kind: ClassVar[str]
    text_dim: int
    tokenizer: Tokenizer

    def tokenize(self, captions: Sequence[str]) -> Tensor:
        """Tokenize captions: (B, L) integers on the CPU, 0 is padding."""
        return torch.from_numpy(self.tokenizer(captions))

    def unread(self, caption: str) -> str:
        """Describe what of a caption the embedding does not depend on, as `Tokenizer.unread`; empty if it is read whole."""
        return self.tokenizer.unread(caption)

    def embed(self, captions: Sequence[str]) -> Tensor:
        """Embed captions: (B, T) on the encoder's device."""
        device = next(self.parameters()).device
        embedded: Tensor = self(self.tokenize(captions).to(device))
        return embedded

    def fit(self, tokens: Tensor, captions: int) -> None:
        """Take statistics over from the training captions, before the first step; most encoders have none.

        Args:
            tokens: Values of all of them, without padding.
            captions: How many there are.
        """

    def exportable(self, tokens: Tensor) -> Tensor:
        """Compute what `forward` does with standard operators only, for ONNX."""
        embedded: Tensor = self(tokens)
        return embedded

    def settings(self) -> dict[str, Any]:
        """Describe everything but the weights, as JSON."""
        return {"kind": self.kind, "dim": self.text_dim, "tokenizer": self.tokenizer.settings()}

    def digest(self) -> str:
        """Hash settings and weights: what embeddings depend on."""
        facts = json.dumps(self.settings(), sort_keys=True)
        return hashlib.sha256((facts + tensor_digest(plain_tensors(self.state_dict()))).encode()).hexdigest()


def unread_warnings(captions: Sequence[str], reader: TextEncoder | Tokenizer) -> list[str]:
    """Warn of each caption that a model does not read whole, naming what it does not know; empty captions have no warning."""
    found = (
        (quoted([caption]), reader.unread(caption)) for caption in dict.fromkeys(captions) if not is_blank(caption)
    )
    return [
        f"warning: the model does not know {part}{'' if part == caption else f' in {caption}'}: the image does not depend on "
        "it; write captions like those it was trained on"
        for caption, part in found
        if part
    ]
