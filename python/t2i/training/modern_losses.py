"""Losses of the modern preset, as functions of scores, features and embeddings; none knows of networks or loops."""

import torch
import torch.nn.functional as F
from torch import Tensor

from t2i.errors import ConfigError

LAYOUT = 8  # places a side of the pixels that the diversity loss compares; 2 of the two deepest taps
FEATURE_GOAL = 0.7  # 1 - cosine of the features of two images of one text that is enough


def hinge_discriminator_loss(
    matching: list[Tensor], mismatched: list[Tensor] | None, fake: list[Tensor], mismatch_weight: float = 0.5
) -> Tensor:
    """Matching-aware hinge loss, averaged over taps and places: relu(1 - m) + c relu(1 + w) + (1 - c) relu(1 + f).

    Args:
        matching: One map of logits (B, H, W) a tap: real images with their own texts.
        mismatched: Real images with texts of others; None where c is 0.
        fake: Generated images with the texts they were generated from.
        mismatch_weight: c.

    Source: Lim and Ye 2017 (hinge); Reed et al. 2016, Algorithm 1 (the third kind of pair).
    """
    parts = []
    for tap, (real, generated) in enumerate(zip(matching, fake, strict=True)):
        part = F.relu(1 - real).mean() + (1 - mismatch_weight) * F.relu(1 + generated).mean()
        if mismatched is not None:
            part = part + mismatch_weight * F.relu(1 + mismatched[tap]).mean()
        parts.append(part)
    return torch.stack(parts).mean()


def hinge_generator_loss(fake: list[Tensor]) -> Tensor:
    """Average -f over taps and places.

    Source: Lim and Ye 2017.
    """
    return -torch.stack([scores.mean() for scores in fake]).mean()


def hard_negatives(other: Tensor, text: Tensor, classes: Tensor, chosen: Tensor) -> Tensor:
    """Mine hard negatives: replace mismatched texts by the batch's most similar text of another class.

    Args:
        other: (B, T) mismatched texts.
        text: (B, T) the images' own.
        classes: (B,) of the images.
        chosen: (B,) which to replace; where all have one class, none is.
    """
    directions = F.normalize(text, dim=1)
    alike = classes[:, None] == classes[None, :]
    nearest = (directions @ directions.T).masked_fill(alike, -2.0).argmax(dim=1)
    return torch.where((chosen & ~alike.all(dim=1))[:, None], text[nearest], other)


def repeated_rows(count: int, repeats: int) -> list[int]:
    """Return whose text each of `count` fakes shows, where the last `repeats` repeat the first ones' with other noise.

    Example:
        >>> repeated_rows(6, 2)
        [0, 1, 2, 3, 0, 1]
    """
    if not 0 <= 2 * repeats <= count:
        raise ConfigError(f"at most half of {count} rows can repeat another's text, got {repeats}")
    return [*range(count - repeats), *range(repeats)]


def diversity_loss(generated: Tensor, real: Tensor, repeats: int, goal: float = 1.0) -> Tensor:
    """Penalise pairs of one text that differ less than real images do: mean of relu(1 - d / (goal d_real)).

    d is the distance of the codes of generated rows i and B - repeats + i, d_real the root of the mean squared distance of
    neighbouring rows of `real`.

    Args:
        generated: (B, D) codes of generated images; the last `repeats` rows have the first rows' texts (`repeated_rows`).
        real: (N, D) codes of real images, N of at least 2; no gradient.
        repeats: Pairs.
        goal: The distance that is enough, in parts of d_real.

    Source: ours, after the mode-seeking loss of Mao et al. 2019, with real images as the measure of enough.
    """
    real = real.detach()
    enough = goal**2 * (real[1:] - real[:-1]).square().sum(dim=1).mean()
    distance = (generated[:repeats] - generated[len(generated) - repeats :]).square().sum(dim=1)
    return F.relu(1 - (distance / enough.clamp_min(1e-12) + 1e-8).sqrt()).mean()


def diversity_of(
    fakes: Tensor, images: Tensor, fake_taps: list[Tensor], real_taps: list[Tensor], repeats: int
) -> Tensor:
    """Average the diversity loss over the layout in pixels and the two deepest taps.

    Args:
        fakes: (B, 3, S, S), of which the last `repeats` have the first ones' texts.
        images: (N, 3, S, S) real ones.
        fake_taps: Maps of frozen features of `fakes`; none without them.
        real_taps: Of `images`.
        repeats: Pairs.
    """
    sides = [(fakes, images, LAYOUT), *((f, r, 2) for f, r in zip(fake_taps[-2:], real_taps[-2:], strict=True))]
    found = [diversity_loss(layout_code(f, side), layout_code(r, side), repeats) for f, r, side in sides]
    return torch.stack(found).mean()


def feature_diversity_loss(taps: list[Tensor], repeats: int, goal: float = FEATURE_GOAL) -> Tensor:
    """Penalise pairs of one text whose features point the same way: mean of relu(1 - d / goal), d = 1 - cosine.

    The features are the means of each channel over its places, of all taps. Distances alone are also met by a shift, a change
    of brightness, or one image that has more of everything than the other: those leave the direction as it is.

    Args:
        taps: Standardised maps (B, C, S, S) of frozen features of generated images; the last `repeats` rows have the first
            rows' texts (`repeated_rows`). Real images' means are near 0 (`FrozenTaps.fit`), so that d of unrelated ones is
            about 1.
        repeats: Pairs.
        goal: The d that is enough; that of images of one species of flower is 0.65 to 0.7.

    Source: ours, after the mode-seeking loss of Mao et al. 2019.
    """
    directions = F.normalize(torch.cat([tap.float().mean(dim=(2, 3)) for tap in taps], dim=1), dim=1)
    distance = 1 - (directions[:repeats] * directions[len(directions) - repeats :]).sum(dim=1)
    return F.relu(1 - distance / goal).mean()


def layout_code(image_or_map: Tensor, side: int) -> Tensor:
    """Average (B, C, S, S) down to at most `side` places a side, and scale by the root of the channels: (B, D)."""
    reduced: Tensor = F.adaptive_avg_pool2d(image_or_map, min(side, image_or_map.shape[-1]))
    code: Tensor = reduced.flatten(1).float() / image_or_map.shape[1] ** 0.5
    return code


def pooled(taps: list[Tensor]) -> Tensor:
    """Take mean and deviation of each channel over its places: maps (B, C, S, S) to (B, 2 sum C) float32."""
    moments = [
        moment for tap in taps for moment in (tap.mean(dim=(2, 3)), (tap.var(dim=(2, 3), correction=0) + 1e-4).sqrt())
    ]
    return torch.cat(moments, dim=1).float()


def banked_contrastive_loss(
    images: Tensor, texts: Tensor, classes: Tensor, bank: Tensor, bank_classes: Tensor, temperature: float = 0.07
) -> Tensor:
    """Two-sided cross-entropy of images and texts, with a bank of further negative texts.

    A batch has few texts, mostly distinguished by colour; the bank has enough that some differ in shape or number alone. Rows
    of the same class are not contrasted.

    Args:
        images: (B, T) image embeddings.
        texts: (B, T) text embeddings, row by row of the same images.
        classes: (B,) class of each row.
        bank: (N, T) embeddings of other texts.
        bank_classes: (N,) their classes.
        temperature: Divides the cosines.

    Source: Radford et al. 2021 (CLIP), with a bank of texts as in He et al. 2020 (MoCo).
    """
    images, texts = F.normalize(images.float(), dim=1), F.normalize(texts, dim=1)
    own = torch.arange(len(images), device=images.device)
    scores = images @ texts.T / temperature
    same = (classes[:, None] == classes[None, :]) & (own[:, None] != own[None, :])
    scores = scores.masked_fill(same, float("-inf"))
    others = images @ F.normalize(bank, dim=1).T / temperature
    others = others.masked_fill(classes[:, None] == bank_classes[None, :], float("-inf"))
    by_image = F.cross_entropy(torch.cat([scores, others], dim=1), own)
    return (by_image + F.cross_entropy(scores.T, own)) / 2
