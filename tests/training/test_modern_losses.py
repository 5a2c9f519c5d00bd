"""Losses of the modern preset against closed forms and slow references."""

import math

import pytest
import torch
import torch.nn.functional as F

from t2i.errors import ConfigError
from t2i.training import modern_losses as losses


def maps(*values: float) -> list[torch.Tensor]:
    """One constant map a tap, of different sizes, so that taps and not places are averaged."""
    return [torch.full((2, side + 1, side + 1), value, dtype=torch.float64) for side, value in enumerate(values)]


@pytest.mark.parametrize(
    ("matching", "mismatched", "fake", "weight", "expected"),
    [
        ((2.0,), (-2.0,), (-2.0,), 0.5, 0.0),  # all on the right side of the margin
        ((0.0,), (0.0,), (0.0,), 0.5, 2.0),
        ((0.0,), None, (0.0,), 0.0, 2.0),  # without GAN-CLS the fake pair counts whole
        ((-1.0, 3.0), (1.0, -3.0), (0.5, -3.0), 0.5, (2 + 0.5 * 2 + 0.5 * 1.5) / 2),
        ((0.0,), (1.0,), (3.0,), 0.25, 1 + 0.25 * 2 + 0.75 * 4),
    ],
)
def test_the_discriminators_hinge_equals_its_closed_form(
    matching: tuple[float, ...],
    mismatched: tuple[float, ...] | None,
    fake: tuple[float, ...],
    weight: float,
    expected: float,
) -> None:
    other = None if mismatched is None else maps(*mismatched)
    assert float(losses.hinge_discriminator_loss(maps(*matching), other, maps(*fake), weight)) == pytest.approx(
        expected
    )


def test_the_generators_hinge_is_the_negative_mean_over_taps() -> None:
    assert float(losses.hinge_generator_loss(maps(1.0, -4.0))) == pytest.approx(1.5)


def test_repeated_rows_show_the_first_texts_again() -> None:
    assert losses.repeated_rows(16, 6) == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1, 2, 3, 4, 5]
    assert losses.repeated_rows(4, 0) == [0, 1, 2, 3]
    with pytest.raises(ConfigError, match="at most half of 4"):
        losses.repeated_rows(4, 3)


def test_diversity_equals_a_loop_over_pairs() -> None:
    torch.manual_seed(0)
    generated, real = torch.randn(8, 5, dtype=torch.float64), 2 * torch.randn(6, 5, dtype=torch.float64)
    apart = [float(((real[i + 1] - real[i]) ** 2).sum()) for i in range(5)]
    enough = 0.8 * math.sqrt(sum(apart) / 5)
    expected = sum(max(0.0, 1 - float((generated[i] - generated[5 + i]).norm()) / enough) for i in range(3)) / 3
    assert float(losses.diversity_loss(generated, real, 3, goal=0.8)) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("scale", "expected"), [(0.0, 1.0), (10.0, 0.0)])
def test_equal_images_cost_1_and_distant_ones_nothing(scale: float, expected: float) -> None:
    torch.manual_seed(0)
    real = torch.randn(8, 5)
    generated = scale * torch.randn(8, 5)
    assert float(losses.diversity_loss(generated, real, 4)) == pytest.approx(expected, abs=1e-3)


def test_the_diversity_of_equal_images_has_a_finite_gradient() -> None:
    generated = torch.ones(4, 3, requires_grad=True)
    losses.diversity_loss(generated, torch.randn(4, 3), 2).backward()
    assert generated.grad is not None
    assert torch.isfinite(generated.grad).all()


def test_feature_diversity_equals_a_loop_over_pairs() -> None:
    torch.manual_seed(1)
    taps = [torch.randn(8, 5, 4, 4), torch.randn(8, 3, 2, 2)]
    means = torch.cat([tap.mean(dim=(2, 3)) for tap in taps], dim=1)
    cosines = [float(F.cosine_similarity(means[i], means[6 + i], dim=0)) for i in range(2)]
    expected = sum(max(0.0, 1 - (1 - cosine) / 0.8) for cosine in cosines) / 2
    assert float(losses.feature_diversity_loss(taps, 2, goal=0.8)) == pytest.approx(expected, abs=1e-5)


def test_feature_diversity_asks_for_another_direction_and_not_for_more_of_the_same() -> None:
    torch.manual_seed(2)
    tap = torch.randn(4, 6, 2, 2)
    stretched = torch.cat([tap, 5 * tap])  # far apart, and alike
    moved = torch.cat([tap, tap.roll(1, dims=3)])
    other = torch.cat([tap, -tap])
    found = [float(losses.feature_diversity_loss([pairs], 4)) for pairs in (stretched, moved, other)]
    assert found == pytest.approx([1.0, 1.0, 0.0], abs=1e-5)
    same = torch.ones(4, 3, 2, 2, requires_grad=True)
    losses.feature_diversity_loss([same], 2).backward()
    assert same.grad is not None
    assert torch.isfinite(same.grad).all()


def test_a_layout_code_averages_places_and_scales_by_the_root_of_the_channels() -> None:
    image = torch.arange(32.0).view(1, 2, 4, 4)
    code = losses.layout_code(image, 2)
    assert code.shape == (1, 8)
    assert float(code[0, 0]) == pytest.approx((0 + 1 + 4 + 5) / 4 / math.sqrt(2))
    assert losses.layout_code(torch.zeros(1, 2, 1, 1), 2).shape == (1, 2)  # no larger than the map itself


def test_the_banked_contrastive_loss_equals_a_slow_reference() -> None:
    torch.manual_seed(0)
    images, texts, bank = torch.randn(4, 6), torch.randn(4, 6), torch.randn(5, 6)
    classes, bank_classes = torch.tensor([0, 1, 0, 2]), torch.tensor([0, 1, 3, 3, 2])
    expected = 0.0
    for i in range(4):
        own = F.cosine_similarity(images[i], texts[i], dim=0) / 0.07
        against = [F.cosine_similarity(images[i], texts[j], dim=0) / 0.07 for j in range(4) if classes[j] != classes[i]]
        against += [
            F.cosine_similarity(images[i], bank[j], dim=0) / 0.07 for j in range(5) if bank_classes[j] != classes[i]
        ]
        expected += float(torch.logsumexp(torch.stack([own, *against]), 0) - own) / 8
        back = [F.cosine_similarity(images[j], texts[i], dim=0) / 0.07 for j in range(4) if classes[j] != classes[i]]
        expected += float(torch.logsumexp(torch.stack([own, *back]), 0) - own) / 8
    found = losses.banked_contrastive_loss(images, texts, classes, bank, bank_classes)
    assert float(found) == pytest.approx(expected, rel=1e-4)
