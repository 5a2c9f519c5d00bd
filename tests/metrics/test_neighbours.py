"""Precision, recall, density, coverage and copies, against closed forms and slow references."""

import itertools

import numpy as np
import pytest
import torch

from t2i.errors import ConfigError
from t2i.metrics.fid import kernel_distance
from t2i.metrics.neighbours import copies, nearest_distance, neighbourhood
from t2i.metrics.pixels import contrast_normalised, mirrored, small_pixels


def cloud(count, width=3, seed=0, shift=0.0):
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed)) + shift


def slow_neighbourhood(real, fake, k):
    """The definitions, point by point, with plain loops."""
    real, fake = real.double().numpy(), fake.double().numpy()

    def radius(points, place):
        others = sorted(np.linalg.norm(points[place] - p) for row, p in enumerate(points) if row != place)
        return others[k - 1]

    real_radius = [radius(real, place) for place in range(len(real))]
    fake_radius = [radius(fake, place) for place in range(len(fake))]
    distance = {
        (i, j): np.linalg.norm(real[i] - fake[j]) for i, j in itertools.product(range(len(real)), range(len(fake)))
    }
    precision = np.mean([any(distance[i, j] <= real_radius[i] for i in range(len(real))) for j in range(len(fake))])
    recall = np.mean([any(distance[i, j] <= fake_radius[j] for j in range(len(fake))) for i in range(len(real))])
    density = np.mean([sum(distance[i, j] <= real_radius[i] for i in range(len(real))) for j in range(len(fake))]) / k
    coverage = np.mean([any(distance[i, j] <= real_radius[i] for j in range(len(fake))) for i in range(len(real))])
    return precision, recall, density, coverage


@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize(("seed", "shift", "sizes"), [(0, 0.0, (30, 30)), (1, 0.7, (20, 45)), (2, 2.0, (41, 11))])
def test_the_four_measures_equal_their_definitions(k, seed, shift, sizes):
    real, fake = cloud(sizes[0], seed=seed), cloud(sizes[1], seed=seed + 9, shift=shift)
    found = neighbourhood(real, fake, k)
    expected = slow_neighbourhood(real, fake, k)
    assert (found.precision, found.recall, found.density, found.coverage) == pytest.approx(expected)


def test_more_images_than_a_block_are_counted_alike(monkeypatch):
    real, fake = cloud(60), cloud(50, seed=4, shift=0.5)
    expected = neighbourhood(real, fake)
    monkeypatch.setattr("t2i.metrics.neighbours.BLOCK", 7)
    assert neighbourhood(real, fake) == expected
    differences = real[:, None] - fake[None]  # (60, 50, 3)
    torch.testing.assert_close(nearest_distance(real, fake), differences.square().sum(2).sqrt().amin(1))


CASES = {  # real and generated points on a line, k = 1: precision, recall, density, coverage
    "the same points": (
        [0.0, 1, 10, 11],
        [0.0, 1, 10, 11],
        (1, 1, 2, 1),
    ),  # each lies in its own ball and its neighbour's
    "far away": ([0.0, 1, 10, 11], [100.0, 101], (0, 0, 0, 0)),
    "one of two modes": ([0.0, 1, 10, 11], [0.0, 1], (1, 0.5, 2, 0.5)),
    "a mode too many": ([0.0, 1], [0.0, 1, 10, 11], (0.5, 1, 1, 1)),
    "one point repeated": ([0.0, 1, 10, 11], [0.5, 0.5], (1, 0, 2, 0.5)),  # its balls have radius 0
}


@pytest.mark.parametrize("name", CASES)
def test_closed_forms_on_a_line(name):
    real, fake, expected = CASES[name]
    found = neighbourhood(torch.tensor(real)[:, None], torch.tensor(fake)[:, None], k=1)
    assert (found.precision, found.recall, found.density, found.coverage) == pytest.approx(expected)


def test_coverage_of_two_sets_of_one_distribution_is_its_expectation():
    """Naeem et al. 2020, eq. 9: for N real and M generated points, 1 - prod (N-1-i)/(N+M-1-i) over i < k."""
    real, fake = cloud(2000, width=2), cloud(2000, width=2, seed=1)
    expected = 1 - np.prod([(2000 - 1 - i) / (2000 + 2000 - 1 - i) for i in range(5)])
    assert neighbourhood(real, fake).coverage == pytest.approx(expected, abs=0.02)
    assert neighbourhood(real, fake).density == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize(
    ("real", "fake", "message"),
    [
        (cloud(5), cloud(9), "need more than 5 images, got 5 real and 9 generated"),
        (cloud(9), cloud(9, width=2), r"got \(9, 3\) and \(9, 2\)"),
        (cloud(9) * torch.nan, cloud(9), "must be finite"),
        (cloud(9), cloud(9)[0], r"got \(9, 3\) and \(3,\)"),
    ],
)
def test_features_that_cannot_be_compared_are_refused(real, fake, message):
    with pytest.raises(ConfigError, match=message):
        neighbourhood(real, fake)


def test_the_nearest_distance_leaves_out_what_it_is_told():
    line = torch.tensor([[0.0], [1], [3], [7]])
    assert nearest_distance(line, line).tolist() == [0, 0, 0, 0]
    assert nearest_distance(line, line, torch.arange(4)).tolist() == [1, 1, 2, 4]
    assert nearest_distance(line, line, torch.tensor([-1, 1, -1, 3])).tolist() == [0, 1, 0, 4]


@pytest.mark.parametrize("copied", [0.0, 0.25, 1.0])
def test_copies_are_counted_against_the_nearest_one_percent_of_real_images(copied):
    """Real and generated images of one distribution, of which a share is replaced by training images with a little noise."""
    training, held_out = cloud(3000, width=4), cloud(2000, width=4, seed=1)
    made = cloud(2000, width=4, seed=2)
    count = int(copied * len(made))
    made[:count] = training[:count] + 1e-4
    found = copies(nearest_distance(made, training), nearest_distance(held_out, training))
    assert found.real == pytest.approx(0.01)
    assert found.share == pytest.approx(copied + (1 - copied) * 0.01, abs=0.01)
    assert (found.ratio < 0.01) == (copied == 1)
    if not copied:
        assert found.ratio == pytest.approx(1, abs=0.05)


def test_copies_without_images_are_refused():
    with pytest.raises(ConfigError, match="copies need images"):
        copies(torch.empty(0), torch.ones(3))


def test_small_pixels_are_means_of_areas():
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    found = small_pixels(images).view(3, 3, 16, 16)
    for n, c, y, x in itertools.product(range(3), range(3), (0, 7, 15), (0, 3, 15)):
        area = images[n, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2, c].astype(float)
        assert float(found[n, c, y, x]) == pytest.approx(area.mean() / 127.5 - 1, abs=1e-5)
    assert small_pixels(images[:0]).shape == (0, 768)
    flipped = small_pixels(np.ascontiguousarray(images[:, :, ::-1]))
    torch.testing.assert_close(mirrored(small_pixels(images)), flipped)


def test_contrast_and_brightness_do_not_make_an_image_near():
    pixels = cloud(4, width=48)
    torch.testing.assert_close(contrast_normalised(pixels * 0.1 + 0.3), contrast_normalised(pixels))
    assert torch.linalg.vector_norm(contrast_normalised(pixels), dim=1).tolist() == pytest.approx([1] * 4)


def test_the_kernel_distance_of_pixels_sees_a_shift_of_colour():
    images = np.random.default_rng(0).integers(60, 180, (80, 32, 32, 3), np.uint8)
    one, two = small_pixels(images[:40]), small_pixels(images[40:])
    alike, shifted = kernel_distance(one, two).mean, kernel_distance(one, two + 0.2).mean
    assert abs(alike) < 0.01 * shifted
