"""The Frechet and kernel distances, against closed forms and slow references."""

import math

import numpy as np
import pytest
import torch

from t2i.errors import ConfigError
from t2i.metrics.fid import Gaussian, frechet_distance, kernel_distance

pytestmark = pytest.mark.usefixtures("one_thread")


def rows(count, width, seed=0):
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rotation(width, seed=1):
    return torch.linalg.qr(rows(width, width, seed))[0]


def gaussian(mean, covariance):
    return Gaussian(torch.as_tensor(mean, dtype=torch.float64), torch.as_tensor(covariance, dtype=torch.float64))


TURN = rotation(5)
A, B = torch.tensor([1.0, 4, 9, 16, 25]).double(), torch.tensor([4.0, 4, 1, 0.25, 36]).double()
U, V = torch.tensor([3.0, 0, 4]).double(), torch.tensor([1.0, 2, 2]).double()
ONE, TWO = torch.tensor([[2.0, 1], [1, 3]]).double(), torch.tensor([[5.0, -2], [-2, 1]]).double()
CLOSED_FORMS = {  # two Gaussians and their distance
    "means only": (gaussian([0, 0], np.eye(2)), gaussian([3, 4], np.eye(2)), 25.0),
    # sum of (sqrt a - sqrt b)^2: 1 + 0 + 4 + 12.25 + 1
    "diagonal covariances": (gaussian(np.zeros(5), A.diag()), gaussian(np.ones(5), B.diag()), 5 + 18.25),
    "the same turned in space": (
        gaussian(np.zeros(5), TURN @ A.diag() @ TURN.T),
        gaussian(np.zeros(5), TURN @ B.diag() @ TURN.T),
        18.25,
    ),
    # of a 2 x 2 product P, tr sqrt P = sqrt(tr P + 2 sqrt det P); here tr P = 9, det P = 5
    "covariances that do not commute": (
        gaussian([0, 0], ONE),
        gaussian([0, 0], TWO),
        11 - 2 * math.sqrt(9 + 2 * 5**0.5),
    ),
    # rank one each: tr sqrt (u u' v v') = |u . v| = 11
    "singular covariances": (
        gaussian(np.zeros(3), torch.outer(U, U)),
        gaussian(np.zeros(3), torch.outer(V, V)),
        34 - 22,
    ),
    "a point and a Gaussian": (gaussian([1, 1], np.zeros((2, 2))), gaussian([0, 0], ONE), 2 + 5),
}


@pytest.mark.parametrize("name", CLOSED_FORMS)
def test_the_frechet_distance_equals_its_closed_form_either_way_round(name):
    one, two, expected = CLOSED_FORMS[name]
    assert frechet_distance(one, two) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(two, one) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("width", [3, 40, 200])
def test_the_frechet_distance_equals_the_eigenvalues_of_the_product(width):
    one, two = (Gaussian.of(rows(500, width, seed) @ rows(width, width, seed + 10)) for seed in (1, 2))
    eigenvalues = np.linalg.eigvals((one.covariance @ two.covariance).numpy())
    spread = one.covariance.trace() + two.covariance.trace() - 2 * np.sqrt(eigenvalues.clip(0)).real.sum()
    expected = float((one.mean - two.mean).square().sum() + spread)
    assert frechet_distance(one, two) == pytest.approx(expected, rel=1e-8)


def test_samples_of_two_gaussians_are_as_far_apart_as_the_gaussians():
    mean, spread = torch.tensor([1.0, -1, 0.5]).double(), torch.tensor([2.0, 1, 0.5]).double()
    found = frechet_distance(Gaussian.of(rows(200_000, 3, 1)), Gaussian.of(rows(200_000, 3, 2) * spread + mean))
    assert found == pytest.approx(2.25 + 1 + 0.25, rel=0.02)


@pytest.mark.parametrize(("count", "width"), [(500, 8), (40, 768), (2, 5)])  # the last two: singular covariances
def test_a_set_is_at_no_distance_from_itself(count, width):
    features = rows(count, width).float().abs()
    one = Gaussian.of(features)
    assert abs(frechet_distance(one, Gaussian.of(features.flip(0)))) < 1e-9 * float(one.covariance.trace())


def test_rounding_in_empty_directions_does_not_add_up():
    # 30 pictures of 400 features against as many others: tr sqrt (C1 C2) is the nuclear norm of X Y' / (n - 1) exactly
    one, two = rows(30, 400, 1), rows(30, 400, 2) + 1
    x, y = one - one.mean(0), two - two.mean(0)
    shared = torch.linalg.svdvals(x @ y.T).sum() / 29
    expected = (one.mean(0) - two.mean(0)).square().sum() + (x.square().sum() + y.square().sum()) / 29 - 2 * shared
    assert frechet_distance(Gaussian.of(one), Gaussian.of(two)) == pytest.approx(float(expected), rel=1e-10)


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (torch.zeros(1, 4), r"2 images or more, got \(1, 4\)"),
        (torch.zeros(4), r"got \(4,\)"),
        (torch.full((3, 2), float("nan")), "finite features"),
    ],
)
def test_features_that_have_no_gaussian_are_refused(features, message):
    with pytest.raises(ConfigError, match=message):
        Gaussian.of(features)


def slow_discrepancy(one, two):
    """The unbiased estimate, a pair at a time."""

    def kernel(a, b):
        return (sum(float(x) * float(y) for x, y in zip(a, b, strict=True)) / len(a) + 1) ** 3

    def within(s):
        pairs = [kernel(s[i], s[j]) for i in range(len(s)) for j in range(len(s)) if i != j]
        return sum(pairs) / len(pairs)

    across = [kernel(a, b) for a in one for b in two]
    return within(one) + within(two) - 2 * sum(across) / len(across)


def test_the_kernel_distance_of_whole_sets_equals_the_double_loop():
    one, two = rows(12, 5, 1), rows(12, 5, 2) * 1.5 + 0.3
    found = kernel_distance(one, two, subsets=3, size=12)
    assert found.mean == pytest.approx(slow_discrepancy(one, two), rel=1e-10)
    assert found.spread == pytest.approx(0, abs=1e-10)  # every subset is the whole set


def test_the_kernel_distance_averages_over_subsets_and_says_how_far_they_differ():
    one, two = rows(300, 6, 1), rows(200, 6, 2) + 0.5
    found, whole = kernel_distance(one, two, seed=3), kernel_distance(one[:200], two, subsets=1, size=200)
    assert (found.subsets, found.subset_size) == (100, 100)  # half of the smaller set
    assert found.spread > 0
    assert found.mean == pytest.approx(whole.mean, abs=found.spread)
    assert found == kernel_distance(one, two, seed=3)
    assert found != kernel_distance(one, two, seed=4)


def test_the_kernel_distance_of_one_distribution_is_zero_on_average_and_grows_with_the_distance():
    one, two = rows(400, 8, 1), rows(400, 8, 2)
    near, far, farther = (kernel_distance(one, two + shift, subsets=20).mean for shift in (0, 0.5, 1))
    assert abs(near) < 0.1 * far < 0.1 * farther


@pytest.mark.parametrize("size", [1, 7])
def test_subsets_that_cannot_be_drawn_are_refused(size):
    with pytest.raises(ConfigError, match=f"subsets of 2 to 6 images, got {size}"):
        kernel_distance(rows(6, 3), rows(9, 3), size=size)
