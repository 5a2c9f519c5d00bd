"""The char-CNN-RNN text encoder.

Source: Reed, Akata, Lee, Schiele 2016 (CVPR), and the released program.
"""

import math
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from t2i.errors import ConfigError
from t2i.ops.one_hot_convolution import one_hot_convolution
from t2i.text.protocol import TextEncoder, Tokenizer
from t2i.text.tokenizers import BYTE_VALUES, AlphabetTokenizer, ByteTokenizer

Variant = Literal["short", "long"]
ALPHABET_SIZE = 70
CAPTION_LENGTH = 201
THRESHOLD = 1e-6  # Lua's nn.Threshold() default: values up to it become 0
TEXT_DIM = 1024


class ReluRecurrence(nn.Module):
    """h_1 = relu(W x_1 + b); h_t = relu(W x_t + b + U h_(t-1) + c). The first step lacks even the hidden bias c."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.input = nn.Linear(width, width)
        self.hidden = nn.Linear(width, width)

    def forward(self, sequence: Tensor) -> Tensor:
        """Run over a sequence (B, steps, width); returns every hidden state, the same shape."""
        projected = self.input(sequence)
        states = [F.relu(projected[:, 0])]
        for step in range(1, sequence.shape[1]):
            states.append(F.relu(projected[:, step] + self.hidden(states[-1])))
        return torch.stack(states, dim=1)


class GatedRecurrence(nn.Module):
    """Gated unit with the reset gate before the hidden map: cand = tanh(W x + U (r * h)); h = u cand + (1 - u) h.

    The first state is tanh(W x_1), with the candidate's W and no gate.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.input_update = nn.Linear(width, width)
        self.hidden_update = nn.Linear(width, width)
        self.input_reset = nn.Linear(width, width)
        self.hidden_reset = nn.Linear(width, width)
        self.input = nn.Linear(width, width)
        self.hidden = nn.Linear(width, width)

    def forward(self, sequence: Tensor) -> Tensor:
        """Run over a sequence (B, steps, width); returns every hidden state, the same shape."""
        updates, resets, candidates = self.input_update(sequence), self.input_reset(sequence), self.input(sequence)
        states = [torch.tanh(candidates[:, 0])]
        for step in range(1, sequence.shape[1]):
            before = states[-1]
            update = torch.sigmoid(updates[:, step] + self.hidden_update(before))
            reset = torch.sigmoid(resets[:, step] + self.hidden_reset(before))
            candidate = torch.tanh(candidates[:, step] + self.hidden(reset * before))
            states.append(update * candidate + (1 - update) * before)
        return torch.stack(states, dim=1)


class CharCnnRnn(TextEncoder):
    """Encode captions, character by character: three convolutions, a recurrence, the mean of its states, a linear map.

    Args:
        variant: "short" is HybridCNN (flowers; ReLU recurrence over 8 steps), "long" HybridCNNLong (birds, COCO; gated
            recurrence over 18 steps).
        width: Channels of the last convolution and of the recurrence; 512 in the released networks, 256 by default in
            their training program.
        text_dim: T, length of the embedding.
        first_channels: Channels of the first two convolutions; 384 and 512 in the released networks.
        alphabet: "paper" has 70 characters; "bytes" reads UTF-8, any language.

    Raises:
        ConfigError: an unknown variant or alphabet.

    Source: Reed et al. CVPR 2016; parameters: short 1,814,144 (width 256), 2,994,560 (512); long 4,045,184.

    Example:
        >>> import t2i
        >>> CharCnnRnn(width=64)(torch.from_numpy(t2i.encode(["a red flower"]))).shape
        torch.Size([1, 1024])
    """

    def __init__(
        self,
        variant: Variant = "short",
        width: int = 512,
        text_dim: int = TEXT_DIM,
        first_channels: tuple[int, int] = (384, 512),
        alphabet: Literal["paper", "bytes"] = "paper",
    ) -> None:
        super().__init__()
        if variant not in ("short", "long"):
            raise ConfigError(f"char-CNN-RNN variant must be 'short' or 'long', got {variant!r}")
        if alphabet not in ("paper", "bytes"):
            raise ConfigError(f"char-CNN-RNN alphabet must be 'paper' or 'bytes', got {alphabet!r}")
        self.variant, self.width, self.text_dim = variant, width, text_dim
        self.tokenizer: Tokenizer = AlphabetTokenizer() if alphabet == "paper" else ByteTokenizer()
        first, second = first_channels
        self.convolution1 = nn.Conv1d(ALPHABET_SIZE if alphabet == "paper" else BYTE_VALUES, first, 4)
        self.convolution2 = nn.Conv1d(first, second, 4)
        self.convolution3 = nn.Conv1d(second, width, 4)
        self.recurrence = ReluRecurrence(width) if variant == "short" else GatedRecurrence(width)
        self.head = nn.Linear(width, text_dim)
        self._scale()

    @torch.no_grad()
    def _scale(self) -> None:
        """Draw weights that keep the size of the signal from layer to layer.

        Only 4 of the 280 inputs of the first convolution are ever 1, so PyTorch's default, which divides by the root of
        280, shrinks the signal tenfold at the first layer; with it, the loss of the joint embedding on blossoms after 500
        steps was 2.1, with this 1.0.
        """
        taps = self.convolution1.kernel_size[0]
        for layer, active in (
            (self.convolution1, taps),
            (self.convolution2, self.convolution2.in_channels * taps),
            (self.convolution3, self.convolution3.in_channels * taps),
        ):
            nn.init.normal_(layer.weight, 0.0, math.sqrt(2 / active))
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        for map_ in self.recurrence.modules():
            if isinstance(map_, nn.Linear):
                nn.init.normal_(map_.weight, 0.0, math.sqrt(1 / map_.in_features))

    def initialise(self, bound: float = 0.08) -> None:
        """Draw every weight from U(-bound, bound), as the paper's joint embedding starts. In place, from torch's generator."""
        for weight in self.parameters():
            nn.init.uniform_(weight, -bound, bound)

    @property
    def kind(self) -> str:  # type: ignore[override]
        """Name it as the settings do."""
        return "char-cnn-rnn" if isinstance(self.tokenizer, AlphabetTokenizer) else "char-cnn-rnn-bytes"

    def settings(self) -> dict[str, Any]:
        """Describe everything but the weights."""
        return {**super().settings(), "variant": self.variant}

    def exportable(self, tokens: Tensor) -> Tensor:
        """Encode (B, 201) ids: the look-ups of `forward` would become a loop over characters.

        The one-hot form, which equals them, is a comparison and a convolution. Padding (0) and unknown characters (71) match no
        row: zeros, as they should be.
        """
        slots = torch.arange(1, self.convolution1.in_channels + 1, device=tokens.device)
        one_hot = (tokens.long()[:, None] == slots[:, None]).to(self.convolution1.weight.dtype)  # (B, A, 201)
        embedded: Tensor = self(one_hot)
        return embedded

    def forward(self, captions: Tensor) -> Tensor:
        """Encode captions.

        Args:
            captions: (B, 201) uint8 or int64 character ids from `t2i.encode`, or (B, 70, 201) one-hot, floating
                point; 256 in place of 70 for bytes.

        Returns:
            (B, T) embeddings.
        """
        if captions.dim() == 2:
            x = one_hot_convolution(captions, self.convolution1.weight, self.convolution1.bias)  # (B, 384, 198)
        else:
            x = self.convolution1(captions)
        # The program applies the threshold first; the maximum is the same, of a third of the numbers.
        x = F.threshold(F.max_pool1d(x, 3, 3), THRESHOLD, 0.0)  # (B, 384, 66)
        x = F.threshold(F.max_pool1d(self.convolution2(x), 3, 3), THRESHOLD, 0.0)  # (B, 512, 21)
        x = F.threshold(self.convolution3(x), THRESHOLD, 0.0)  # (B, width, 18)
        if self.variant == "short":
            x = F.max_pool1d(x, 3, 2)  # (B, width, 8)
        states = self.recurrence(x.transpose(1, 2))  # (B, steps, width)
        embeddings: Tensor = self.head(states.mean(dim=1))
        return embeddings.float()
