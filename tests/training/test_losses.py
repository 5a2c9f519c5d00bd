"""Losses against the formulas of the papers, written out slowly."""

import math

import pytest
import torch

from t2i.training import losses


def bce(score: float, target: int) -> float:
    """Binary cross-entropy as the papers write it, on the probability."""
    p = 1 / (1 + math.exp(-score))
    return -math.log(p) if target else -math.log(1 - p)


MATCHING, MISMATCHED, FAKE = [2.0, -1.0, 0.5], [0.3, -2.0, 1.0], [-0.7, 0.1, -3.0]


@pytest.mark.parametrize("c", [0.0, 0.5, 0.8])
def test_discriminator_loss_weighs_the_three_kinds_of_pair(c):
    def mean(scores, target):
        return sum(bce(s, target) for s in scores) / len(scores)

    expected = mean(MATCHING, 1) + c * mean(MISMATCHED, 0) + (1 - c) * mean(FAKE, 0)
    mismatched = torch.tensor(MISMATCHED) if c else None
    loss = losses.discriminator_loss(torch.tensor(MATCHING), mismatched, torch.tensor(FAKE), c)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("w", [1.0, 0.3])
def test_generator_loss_is_one_mean_over_texts_and_midpoints(w):
    fake, between = [0.2, -1.0, 3.0, 0.0], [1.0, -0.5]
    expected = (sum(bce(s, 1) for s in fake) + w * sum(bce(s, 1) for s in between)) / 6
    assert losses.generator_loss(torch.tensor(fake), torch.tensor(between), w).item() == pytest.approx(
        expected, rel=1e-5
    )


def test_generator_loss_without_interpolation_is_the_mean_over_the_batch():
    expected = sum(bce(s, 1) for s in FAKE) / 3
    assert losses.generator_loss(torch.tensor(FAKE)).item() == pytest.approx(expected, rel=1e-5)


def test_interpolation_mixes_each_text_with_its_partner():
    text = torch.tensor([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0], [6.0, 7.0]])
    mixed = losses.interpolate(text, torch.tensor([2, 3]), torch.tensor([0.5, 0.25]))
    assert mixed.tolist() == [[2.0, 3.0], [5.0, 6.0]]


@pytest.mark.parametrize("count", [1, 2, 7, 40])  # 40 is the paper's batch
def test_joint_embedding_loss_and_its_gradients_equal_the_double_loop(count):
    rng = torch.Generator().manual_seed(0)
    images, texts = (torch.randn(count, 5, generator=rng, dtype=torch.float64, requires_grad=True) for _ in range(2))
    expected = 0 * (images.sum() + texts.sum())
    for i in range(count):
        for j in range(count):
            if i != j:
                own = images[i] @ texts[i]
                expected = expected + (images[i] @ texts[j] - own + 1).clamp_min(0)
                expected = expected + (images[j] @ texts[i] - own + 1).clamp_min(0)
    expected = expected / count**2
    found = losses.joint_embedding_loss(images, texts)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    slopes = (torch.autograd.grad(loss, (images, texts)) for loss in (found, expected))
    for ours, theirs in zip(*slopes, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_contrastive_loss_equals_the_double_loop_and_skips_rows_of_the_same_class():
    torch.manual_seed(0)
    images, texts = torch.randn(4, 5).double(), torch.randn(4, 5).double()
    classes = torch.tensor([0, 1, 0, 2])
    cosine = torch.nn.functional.cosine_similarity(images[:, None], texts[None, :], dim=2) / 0.07
    expected = 0.0
    for i in range(4):
        others = [j for j in range(4) if j == i or classes[j] != classes[i]]
        expected -= math.log(math.exp(cosine[i, i]) / sum(math.exp(cosine[i, j]) for j in others)) / 8
        expected -= math.log(math.exp(cosine[i, i]) / sum(math.exp(cosine[j, i]) for j in others)) / 8
    assert losses.contrastive_loss(images, texts, classes=classes).item() == pytest.approx(expected, rel=1e-9)


def test_extrapolation_is_the_released_programs_type_2():
    draws = torch.Generator().manual_seed(0)
    text = torch.randn(8, 5, generator=draws)
    partner = torch.tensor([3, 0, 7, 1])
    a = torch.rand(4, generator=draws) * 2 - 1  # U(-1, 1)
    first, second = text[:4], text[partner]
    released = (first + second) / 2 + a[:, None] * (second - first)
    torch.testing.assert_close(losses.interpolate(text, partner, 0.5 - a), released)  # b is then U(-0.5, 1.5)
