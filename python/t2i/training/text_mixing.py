"""Text embeddings interpolated with those of other images of the same class, so that a text stands for more than its one image.

A training caption has one image, and a generator that fits it exactly draws that image whatever the noise. Captions of a class
are mostly true of each other's images: between two of them, what an image of the class may look like counts for more.

Source: ours, after the vicinal estimate of CcGAN (Ding et al. 2021) and mixup (Zhang et al. 2018). See `docs/method.md`.
"""

import torch
from torch import Tensor

from t2i.text.means import group_means
from t2i.training.reference import Reference


def _variance(differences: Tensor, freedom: int) -> Tensor:
    """Sum of the variances of all numbers, from differences to a mean and their degrees of freedom: 0-d."""
    return differences.square().sum() / max(freedom, 1)


def class_share(embeddings: Tensor, classes: Tensor, images: Tensor) -> float:
    """Estimate how much of what images say about their captions is said by their classes already.

    The variance of the texts (M, T) between classes over that between images, 0..1; what captions of one image differ by is
    taken off. 1 where every class has one image.

    Source: variance components of a nested design (Searle, Casella and McCulloch 1992).
    """
    _, image, captions = torch.unique(images, return_inverse=True, return_counts=True)
    texts = group_means(embeddings, image, captions)  # (I, T)
    _, kind, sizes = torch.unique(
        classes.new_empty(len(texts)).scatter(0, image, classes), return_inverse=True, return_counts=True
    )
    if len(sizes) == len(texts):
        return 1.0
    noise = _variance(embeddings - texts[image], len(embeddings) - len(texts)) * captions.double().reciprocal().mean()
    within = _variance(texts - group_means(texts, kind, sizes)[kind], len(texts) - len(sizes))
    whole = _variance(texts - texts.mean(dim=0), len(texts) - 1)
    return float(((whole - within) / (whole - noise).clamp_min(1e-12)).clamp(0, 1))


class TextMixing:
    """Interpolate texts with random ones of their class.

    How far follows the data: at most `most` times `class_share`, which is near 1 for species of flowers, and 0 for one class of
    everything, whose captions are not true of each other's images.

    Args:
        table: (N, T) of all captions.
        rows: (M,) which of them are training captions; the others are not mixed. On the CPU, as the next two.
        classes: (M,) class of each; without classes, the number of its image.
        images: (M,) image of each.
        most: 0..1, how far a text moves at most where its class says all that its image does.
    """

    def __init__(self, table: Tensor, rows: Tensor, classes: Tensor, images: Tensor, most: float) -> None:
        # On the CPU, where sums have one order: the same setting gives the same bits.
        known, device = table[rows.to(table.device)].cpu(), table.device
        known = (known - known.mean(dim=0)) / known.std(dim=0).clamp_min(1e-6)
        self.table = table
        self.reach = most * class_share(known, classes, images)
        _, index, counts = torch.unique(classes, return_inverse=True, return_counts=True)
        group = torch.full((len(table),), -1, dtype=torch.int64)
        group[rows] = index
        self.counts, self.first = counts.to(device), (counts.cumsum(0) - counts).to(device)
        self.rows = rows[torch.argsort(index, stable=True)].to(device)  # class by class
        self.group = group.to(device)

    @classmethod
    def of(cls, reference: Reference, table: Tensor, most: float) -> "TextMixing":
        """Mix the texts of a data set's training captions; `table` (N, T) has all captions."""
        return cls(table, reference.captions, reference.classes, reference.owners, most)

    def __call__(self, text: Tensor, captions: Tensor, draws: Tensor) -> Tensor:
        """Mix each text with one of its class.

        Args:
            text: (B, T).
            captions: (B,) row of a caption of each.
            draws: (B, 2) uniform in 0..1: which partner, and how far.
        """
        group = self.group[captions]
        weight = (self.reach * draws[:, 1] * (group >= 0))[:, None]
        group = group.clamp(min=0)
        chosen = (draws[:, 0] * self.counts[group]).long().minimum(self.counts[group] - 1)
        return torch.lerp(text, self.table[self.rows[self.first[group] + chosen]], weight)
