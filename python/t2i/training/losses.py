"""Losses of the paper, as functions of scores and embeddings; none knows of networks, batches or loops."""

import torch
import torch.nn.functional as F
from torch import Tensor


def _cross_entropy(scores: Tensor, target: float) -> Tensor:
    """Binary cross-entropy of logits (B,) against one target, averaged: softplus(-s) for 1, softplus(s) for 0."""
    return F.softplus(-scores if target else scores).mean()


def discriminator_loss(
    matching: Tensor, mismatched: Tensor | None, fake: Tensor, mismatch_weight: float = 0.5
) -> Tensor:
    """Matching-aware discriminator loss: BCE(matching, 1) + c BCE(mismatched, 0) + (1 - c) BCE(fake, 0).

    Args:
        matching: (B,) logits of real images with their texts.
        mismatched: (B,) logits of real images with texts of another class; None where c is 0.
        fake: (B,) logits of generated images with the texts they were generated from.
        mismatch_weight: c; 0.5 is GAN-CLS, 0 the plain GAN.

    Source: Reed et al. 2016, Algorithm 1, line 7, and the released program, which weighs by c = 0.5.
    """
    loss = _cross_entropy(matching, 1) + (1 - mismatch_weight) * _cross_entropy(fake, 0)
    if mismatched is not None:
        loss = loss + mismatch_weight * _cross_entropy(mismatched, 0)
    return loss


def generator_loss(fake: Tensor, interpolated: Tensor | None = None, interpolation_weight: float = 1.0) -> Tensor:
    """Non-saturating generator loss: [sum_B BCE(fake, 1) + w sum_(B/2) BCE(interpolated, 1)] / (1.5 B).

    Args:
        fake: (B,) logits of images generated from real texts.
        interpolated: (B/2,) logits of images generated from interpolated texts; None: no GAN-INT, and the mean is over B.
        interpolation_weight: w.

    Source: Reed et al. 2016, equation 5, with the weights of the released program (one batch of 1.5 B).
    """
    if interpolated is None:
        return _cross_entropy(fake, 1)
    total = F.softplus(-fake).sum() + interpolation_weight * F.softplus(-interpolated).sum()
    return total / (len(fake) + len(interpolated))


def interpolate(text: Tensor, partner: Tensor, weight: Tensor, first: int = 0) -> Tensor:
    """Mix text embeddings: b t1 + (1 - b) t2.

    Args:
        text: (B, T) embeddings.
        partner: (B/2,) int64: row first + i is mixed with row partner[i].
        weight: (B/2,) b, one a pair; outside 0..1 it extrapolates.
        first: Where the pairs begin, of a process that mixes only a part of them.

    Returns:
        (B/2, T).

    Source: Reed et al. 2016, section 4.3.
    """
    b = weight[:, None]
    return b * text[first : first + len(partner)] + (1 - b) * text[partner]


def joint_embedding_loss(images: Tensor, texts: Tensor) -> Tensor:
    """Two-sided hinge: each image scores its own text highest by a margin of 1, each text its own image (DS-SJE).

    (1/B^2) sum_i sum_(j != i) max(0, s_ij - s_ii + 1) + max(0, s_ji - s_ii + 1), s_ij = image_i . text_j.

    Args:
        images: (B, T) image embeddings, each of another class.
        texts: (B, T) text embeddings, row by row of the same classes.

    Source: Reed et al. CVPR 2016, equations 2 to 4, with a margin of 1.
    """
    scores = images @ texts.T
    own, count = scores.diagonal(), len(scores)
    # On the diagonal each hinge is exactly the margin, 1: it has no gradient and is taken off again.
    by_image = F.relu(scores - own[:, None] + 1).sum() - count
    by_text = F.relu(scores - own[None, :] + 1).sum() - count
    return (by_image + by_text) / count**2


def contrastive_loss(images: Tensor, texts: Tensor, temperature: float = 0.07, classes: Tensor | None = None) -> Tensor:
    """Cross-entropy of picking each image's own text among the batch's, and each text's own image, by cosine.

    Args:
        images: (B, T) image embeddings.
        texts: (B, T) text embeddings, row by row of the same images.
        temperature: Divides the cosines.
        classes: (B,) class of each row, where a class can be in the batch twice: its rows are no negatives of each other.

    Source: Radford et al. 2021 (CLIP), with a fixed temperature. Not in Reed et al.
    """
    scores = F.normalize(images, dim=1) @ F.normalize(texts, dim=1).T / temperature
    target = torch.arange(len(scores), device=scores.device)
    if classes is not None:
        same = (classes[:, None] == classes[None, :]) & (target[:, None] != target[None, :])
        scores = scores.masked_fill(same, float("-inf"))
    return (F.cross_entropy(scores, target) + F.cross_entropy(scores.T, target)) / 2


def class_contrastive_loss(images: Tensor, texts: Tensor, classes: Tensor, temperature: float = 0.1) -> Tensor:
    """Two-sided cross-entropy of cosines against a target that knows classes.

    Half of the target of a row lies on its own partner, half evenly on all partners of its class, its own among them: captions
    of a class are mostly true of each other's images.

    Args:
        images: (B, T) image embeddings.
        texts: (B, T) text embeddings, row by row of the same images.
        classes: (B,) class of each row.
        temperature: Divides the scores.

    Source: none; after Khosla et al. 2020 (supervised contrastive learning). Measured in `docs/paper.md`.
    """
    scores = F.normalize(images, dim=1) @ F.normalize(texts, dim=1).T / temperature  # (B, B)
    same = (classes[:, None] == classes[None, :]).to(scores.dtype)
    target = (torch.eye(len(scores), device=scores.device) + same / same.sum(dim=1, keepdim=True)) / 2
    return (F.cross_entropy(scores, target) + F.cross_entropy(scores.T, target)) / 2


def style_loss(read: Tensor, noise: Tensor) -> Tensor:
    """Mean squared error of the noise that S reads from generated images: ||z - S(G(z, phi(t)))||^2 / Z, averaged.

    Args:
        read: (B, Z) what the style encoder says.
        noise: (B, Z) the truth.

    Returns:
        1 where the encoder answers 0 throughout, 0 where it is always right: divided by Z, so that no length of noise
        needs a learning rate of its own.

    Source: Reed et al. 2016, equation 6.
    """
    return F.mse_loss(read, noise)
