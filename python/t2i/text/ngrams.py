"""A bag of hashed n-grams: each has a vector, and a caption is their sum, weighted by how rare they are.

Knows words from the first step, where a network over characters must learn to spell: on classes of Oxford-102 that it never
saw, it names more images after a minute than the char-CNN-RNN after an hour (`docs/paper.md`). Order is in pairs of
words only.
"""

import itertools
import unicodedata
from collections.abc import Collection

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from t2i.text.protocol import TextEncoder
from t2i.text.tokenizers import NgramTokenizer, quoted


def fewest(captions: int) -> int:
    """Return how many of so many training captions must have a token: 1 below 5,000, 5 from 20,000 on.

    What two captions have in common is mostly their author. Measured on Oxford-102 (70,000 captions; `docs/paper.md`).

    Example:
        >>> fewest(40), fewest(5_000), fewest(11_000), fewest(60_000)
        (1, 2, 3, 5)
    """
    return min(5, 1 + captions // 5000)


def _cut(word: str, spaceless: Collection[str]) -> list[str]:
    """Cut a word into characters that are words by themselves, each with its marks, and what lies between them."""
    parts: list[str] = []
    alone = True  # what comes next is no continuation of a part
    for character in word:
        mark = unicodedata.category(character) in ("Mn", "Mc", "Cf")
        if parts and (mark or not (alone or character in spaceless)):
            parts[-1] += character
        else:
            parts.append(character)
            alone = character in spaceless
    return parts


class NgramEncoder(TextEncoder):
    """Embed tokens of `NgramTokenizer`: sum_i w_i v_i of length 1, times the root of T.

    w_i is the token's inverse document frequency over the training captions, divided by the length of the caption's weights; 0
    for a token that too few training captions have (`fewest`), so that random vectors add nothing.

    Args:
        words: Buckets of words and pairs of words.
        characters: Buckets of pieces of words.
        text_dim: T.
        dropout: Part of the tokens that are left out while it learns.
        pieces: Weight of a piece of a word against a word.

    Example:
        >>> NgramEncoder(1024, 512).embed(["a red flower", "花"]).shape
        torch.Size([2, 128])
    """

    kind = "ngrams"

    def __init__(
        self,
        words: int = 1 << 16,
        characters: int = 1 << 15,
        text_dim: int = 128,
        dropout: float = 0.3,
        pieces: float = 0.3,
    ) -> None:
        super().__init__()
        self.tokenizer: NgramTokenizer = NgramTokenizer(words, characters)
        self.text_dim, self.dropout, self.pieces = text_dim, dropout, pieces
        self.vectors = nn.Parameter(torch.empty(1 + words + characters, text_dim))
        self.idf: Tensor
        self.register_buffer("idf", torch.ones(1 + words + characters))
        nn.init.normal_(self.vectors, std=0.05)

    @torch.no_grad()
    def fit(self, tokens: Tensor, captions: int) -> None:
        """Weigh tokens by ln((1 + n) / (1 + df)) + 1, df the training captions that have them; 0 where these are too few."""
        seen = torch.bincount(tokens.long().cpu(), minlength=len(self.idf)).to(self.idf)
        weights = torch.where(seen >= fewest(captions), torch.log((1 + captions) / (1 + seen)) + 1, 0)
        weights[0] = 0  # padding
        weights[1 + self.tokenizer.words :] *= self.pieces
        self.idf.copy_(weights)

    def forward(self, tokens: Tensor) -> Tensor:
        """Embed (B, L) integers, 0 is padding: (B, T) float32."""
        real = tokens != 0
        lengths = real.sum(dim=1)
        values = tokens[real].long()  # (V,)
        weights = self.idf[values]
        if self.training and self.dropout:
            weights = weights * (torch.rand_like(weights) >= self.dropout)
        row = torch.repeat_interleave(torch.arange(len(tokens), device=tokens.device), lengths)
        square = weights.new_zeros(len(tokens)).index_add_(0, row, weights * weights)
        weights = weights * square.clamp_min(1e-12).rsqrt()[row]
        starts = lengths.cumsum(0) - lengths
        total = F.embedding_bag(values, self.vectors, starts, mode="sum", per_sample_weights=weights)
        return self._scaled(total)

    def unread(self, caption: str) -> str:
        """Name the words that too few training captions had; of scripts without spaces, the letters.

        A word counts as known where its hash is, and those of its pieces: another word may share one, hardly all.
        """
        words = caption.split()
        spaceless = self._spaceless(set(caption))
        cut = [_cut(word, spaceless) for word in words]
        knows = self._knows({*words, *(part for parts in cut for part in parts)})
        unknown: list[str] = []
        for word, parts in zip(words, cut, strict=True):
            runs = itertools.groupby(parts, lambda part: knows[part])
            found = ["".join(run) for known, run in runs if not known]
            unknown += found or ([] if knows[word] else [word])
        return quoted(unknown) if self.tokenizer.unseen([caption]) == 0 else super().unread(caption)

    def _knows(self, several: Collection[str]) -> dict[str, bool]:
        """Tell of each word, or part of one, whether training captions had it; what has no token is not unknown."""
        distinct, known = list(several), self.idf.cpu().numpy() > 0
        values, offsets = self.tokenizer.ragged(distinct)
        found = {}
        for word, first, last in zip(distinct, offsets[:-1], offsets[1:], strict=True):
            tokens = values[first:last]
            units = tokens[tokens <= self.tokenizer.words]  # and pairs of them; without pieces
            mostly_new = 2 * known[units].sum() < len(units)
            found[word] = not (mostly_new or (len(units) == 1 and not known[tokens].all()))
        return found

    def _spaceless(self, characters: Collection[str]) -> set[str]:
        """List the characters that are words by themselves: two of them have the token of one."""
        distinct = [each for each in characters if not each.isascii()]
        values, offsets = self.tokenizer.ragged([each * times for each in distinct for times in (1, 2)])
        bags = [values[first:last] for first, last in itertools.pairwise(offsets)]
        pairs = zip(distinct, bags[::2], bags[1::2], strict=True)
        return {each for each, one, two in pairs if len(one) and one[0] in two}

    def exportable(self, tokens: Tensor) -> Tensor:
        """Embed (B, L) by a look-up and a sum, where ONNX has no ragged bag."""
        values = tokens.long()
        weights = self.idf[values] * (values != 0)  # (B, L)
        weights = weights * (weights * weights).sum(dim=1, keepdim=True).clamp_min(1e-12).rsqrt()
        return self._scaled((self.vectors[values] * weights[:, :, None]).sum(dim=1))

    def _scaled(self, total: Tensor) -> Tensor:
        """Bring (B, T) to the length of T numbers of variance 1, as the layers behind expect; nothing stays nothing."""
        scaled: Tensor = F.normalize(total.float(), dim=1, eps=1e-6) * self.text_dim**0.5
        return scaled
