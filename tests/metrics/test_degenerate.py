"""The measures on what is hardly there: one value, one class, duplicates, NaN. Each is right, or says what it needs."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from t2i.errors import ConfigError
from t2i.metrics.clusters import kmeans
from t2i.metrics.diversity import by_noise, feature_distances, groups_of_one_class
from t2i.metrics.draws import draws
from t2i.metrics.fid import Gaussian, frechet_distance, kernel_distance
from t2i.metrics.neighbours import copies, nearest_distance, neighbourhood
from t2i.metrics.pixels import contrast_normalised, small_pixels
from t2i.metrics.retrieval import mismatched_rows, r_precision
from t2i.metrics.roc import roc
from t2i.metrics.style import sample_pairs
from t2i.metrics.zero_shot import average_precision, top1

pytestmark = pytest.mark.usefixtures("one_thread")


def cloud(count, width=4, seed=0):
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


def spoilt(value):
    rows = cloud(10)
    rows[3, 1] = value
    return rows


X, NAN, INFINITE = cloud(10), spoilt(math.nan), spoilt(math.inf)
OTHERS = (np.arange(10)[:, None] + [[1, 2]]) % 10
REFUSED = {
    "KID of NaN": (lambda: kernel_distance(NAN, X), "KID needs finite features"),
    "KID of infinity": (lambda: kernel_distance(X, INFINITE), "KID needs finite features"),
    "KID beyond float64": (lambda: kernel_distance(X.double() * 1e200, X.double()), "cubes are finite"),
    "KID of two widths": (lambda: kernel_distance(X, X[:, :3]), r"\(10, 4\), \(10, 3\)"),
    "KID without a subset": (lambda: kernel_distance(X, X, subsets=0), "and a subset"),
    "KID of no features": (lambda: kernel_distance(X[:, :0], X[:, :0]), r"got \(10, 0\)"),
    "KID of a negative seed": (lambda: kernel_distance(X, X, seed=-1), r"seed must be in 0..2\^64 - 1, got -1"),
    "a Gaussian of no features": (lambda: Gaussian.of(X[:, :0]), r"got \(10, 0\)"),
    "a Gaussian beyond float64": (lambda: Gaussian.of(X.double() * 1e200), "squares are finite"),
    "Gaussians of two widths": (
        lambda: frechet_distance(Gaussian.of(X), Gaussian.of(X[:, :3])),
        "of one width, got 4 and 3",
    ),
    "no neighbours": (lambda: neighbourhood(X, X, 0), "neighbours must be at least 1, got 0"),
    "copies of infinite distances": (lambda: copies(torch.ones(3), torch.full((3,), math.inf)), "one training image"),
    "copies of NaN": (lambda: copies(torch.full((3,), math.nan), torch.ones(3)), "finite distances"),
    "features of NaN": (lambda: feature_distances(NAN.view(2, 5, 4), torch.zeros(4)), "finite features"),
    "no captions": (lambda: by_noise(np.zeros((0, 4, 2))), "at least one caption"),
    "K-means of NaN": (lambda: kmeans(NAN.numpy(), 3, 0), "finite points"),
    "a truth too few": (lambda: roc(np.ones(3), np.array([True, False])), r"got \(3,\) and \(2,\)"),
    "R-precision of NaN": (lambda: r_precision(NAN, X, np.arange(10), OTHERS), "finite embeddings"),
    "R-precision of no images": (lambda: r_precision(X[:0], X, np.arange(0), OTHERS[:0]), "got 0 and 2"),
    "R-precision of one caption": (lambda: r_precision(X, X, np.arange(10), OTHERS[:, :0]), "got 10 and 0"),
    "mismatched captions of one class": (lambda: mismatched_rows(np.zeros(300, int), np.arange(3), 0), "there are 0"),
    "top-1 of NaN": (lambda: top1(NAN, np.arange(4), np.arange(10) % 4), "scores must be finite"),
    "top-1 of no images": (lambda: top1(X[:0], np.arange(4), np.arange(0)), r"got \(0, 4\)"),
    "AP of NaN": (lambda: average_precision(NAN, np.arange(4), np.arange(10) % 4, 5), "scores must be finite"),
    "AP@0": (lambda: average_precision(X, np.arange(4), np.arange(10) % 4, 0), "at least 1, got 0"),
    "no pairs": (lambda: sample_pairs(np.array([0, 0, 1]), -2, 0), "at least 2, got -2"),
    "a seed of 65 bits": (lambda: draws(2**64), "seed must be in"),
    "a seed that is no number": (lambda: draws("1"), "whole number"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_value_is_refused_with_what_is_needed(name):
    measure, message = REFUSED[name]
    with pytest.raises(ConfigError, match=message):
        measure()


@pytest.mark.parametrize(("count", "width"), [(10, 4), (30, 64), (2, 96)])  # 64 and 96: more features than images
def test_the_distance_of_a_set_to_itself_is_never_below_zero(count, width):
    for seed in range(20):
        one = Gaussian.of(cloud(count, width, seed))
        assert 0 <= frechet_distance(one, one) < 1e-6


@pytest.mark.parametrize("kind", [torch.float16, torch.int64])
def test_features_of_any_type_of_number_have_neighbours(kind):
    real, made = (4 * cloud(12, seed=1)).to(kind), (4 * cloud(9, seed=2)).to(kind)
    assert neighbourhood(real, made) == neighbourhood(real.float(), made.double())
    assert nearest_distance(made, real).tolist() == nearest_distance(made.float(), real.float()).tolist()
    assert nearest_distance(made[:0], real).shape == (0,)


def test_copies_are_found_where_the_data_hold_images_twice():
    """Three real images in a hundred are training images too: the distance that a hundredth is below is 0."""
    near = torch.cat([torch.zeros(3), torch.linspace(0.5, 1.5, 97)])
    memorised, fresh = torch.zeros(50), torch.full((50,), 0.9)
    found = copies(torch.cat([memorised, fresh]), near)
    assert found.share == 0.5
    assert found.real == pytest.approx(0.04)  # the three, and one in a hundred of the others
    assert found.ratio == pytest.approx(0.45 / 1.0, abs=0.5)
    assert copies(fresh, near).share == 0


def test_where_every_real_image_is_there_twice_only_exact_copies_count():
    found = copies(torch.tensor([0.0, 1e-7, 0.01, 0.3]), torch.zeros(8))
    assert (found.share, found.real, found.ratio) == (0.5, 1.0, None)


def test_an_image_of_one_grey_has_no_contrast():
    greys = np.stack([np.full((20, 20, 3), level, np.uint8) for level in (0, 100, 200, 255)])
    assert contrast_normalised(small_pixels(greys)).abs().max() == 0
    faint = np.full((1, 64, 64, 3), 200, np.uint8)
    faint[0, 10, 10] += 1  # one level in one pixel is contrast
    assert float(contrast_normalised(small_pixels(faint)).norm()) == pytest.approx(1)


def test_images_that_are_all_the_same_do_not_differ_wherever_the_centre_is():
    same = torch.ones(2, 5, 4)
    for centre in (torch.ones(4), torch.zeros(4), torch.full((4,), 0.3)):
        assert feature_distances(same, centre) == pytest.approx(0, abs=1e-6)
    one_at_the_centre = torch.stack([torch.ones(4), torch.tensor([2.0, 1, 1, 1])])[None]
    assert feature_distances(one_at_the_centre, torch.ones(4)) == 1  # no direction: the cosine is 0


def test_no_groups_are_no_rows():
    assert groups_of_one_class(np.zeros(5, np.int64), 0, 2, 0).shape == (0, 2)


def slow_area(scores, same):
    """The share of (same, different) pairs in which the same one scores higher, a tie counting one half."""
    high, low = scores[same], scores[~same]
    return np.mean([(a > b) + 0.5 * (a == b) for a in high for b in low])


@pytest.mark.parametrize("kind", [np.float32, np.int64, np.uint8, bool])  # uint8: -1 is 255; bool: has no minus
@pytest.mark.parametrize("truth", [bool, np.int64])  # of integers, ~1 is -2
def test_the_area_under_the_curve_does_not_depend_on_types(kind, truth):
    rng = np.random.default_rng(0)
    scores, same = rng.integers(0, 2 if kind is bool else 9, 60), rng.integers(0, 2, 60)
    expected = slow_area(scores.astype(float), same.astype(bool))
    assert roc(scores.astype(kind), same.astype(truth)).area == pytest.approx(expected)


def test_mismatched_captions_are_those_of_a_list_of_the_others():
    """The same rows as by listing, for each class, what is not of it: hundreds of megabytes on a set without classes."""
    for classes in (np.array([3] * 50 + [1] * 150 + [2] * 60), np.arange(260), np.arange(260) % 7):
        own = np.array([0, 49, 50, 200, 259])
        rng = draws(5)
        expected = []
        for label in classes[own]:
            rows = np.flatnonzero(classes != label)
            expected.append(rows[rng.choice(len(rows), 99, replace=False)])
        assert (mismatched_rows(classes, own, seed=5) == np.stack(expected)).all()


def test_mismatched_captions_of_many_images_without_classes_take_little_memory():
    import tracemalloc

    classes, own = np.arange(50_000), np.arange(0, 50_000, 250)
    tracemalloc.start()
    mismatched_rows(classes, own, seed=0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < len(own) * len(classes) * 8 / 2  # a list of the others for each of the 200 images is 80 MB


def slow_average_precision(scores, classes, labels, depth):
    """For each class, walk down its ranking and count."""
    out = []
    for column, label in enumerate(classes):
        ranked = sorted(range(len(scores)), key=lambda row: (-float(scores[row, column]), row))
        out.append(sum(labels[row] == label for row in ranked[:depth]) / depth)
    return sum(out) / len(out)


@pytest.mark.parametrize("depth", [1, 5, 17, 40])
def test_average_precision_and_top1_equal_loops(depth):
    classes, labels = np.array([2, 5, 9]), np.array([2, 5, 9, 9] * 10)
    scores = cloud(40, 3, seed=3).round(decimals=1)  # with ties
    expected = slow_average_precision(scores, classes, labels, depth)
    assert average_precision(scores, classes, labels, depth) == pytest.approx(expected)
    right = [
        classes[max(range(3), key=lambda c: float(row[c]))] == label for row, label in zip(scores, labels, strict=True)
    ]
    by_class = np.mean(
        [np.mean([r for r, own in zip(right, labels, strict=True) if own == label]) for label in classes]
    )
    assert top1(scores, classes, labels) == pytest.approx((np.mean(right), by_class))


def test_fid_equals_torch_fidelitys_where_that_is_installed():
    theirs = pytest.importorskip("torch_fidelity.metric_fid")
    one, two = cloud(300, 12, 1) * 2 + 1, cloud(200, 12, 2)
    statistics = [theirs.fid_features_to_statistics(each) for each in (one, two)]
    expected = theirs.fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]
    assert frechet_distance(Gaussian.of(one), Gaussian.of(two)) == pytest.approx(expected, rel=1e-6)


def test_kid_equals_torch_fidelitys_where_that_is_installed():
    theirs = pytest.importorskip("torch_fidelity.metric_kid")
    one, two = cloud(120, 8, 1), cloud(120, 8, 2) * 1.5 + 0.3
    settings = {"kid_subsets": 2, "kid_subset_size": 120, "rng_seed": 0, "verbose": False}
    found = theirs.kid_features_to_metric(one, two, **settings)["kernel_inception_distance_mean"]
    assert kernel_distance(one, two, subsets=2, size=120).mean == pytest.approx(found, rel=1e-4)


def test_precision_and_recall_equal_torch_fidelitys_where_that_is_installed():
    theirs = pytest.importorskip("torch_fidelity.metric_prc")
    real, made = cloud(80, 6, 1), F.pad(cloud(80, 5, 2) * 0.7, (0, 1))
    settings = {"prc_neighborhood": 3, "prc_batch_size": 100, "verbose": False, "save_cpu_ram": True}
    found = theirs.prc_features_to_metric(made, real, **settings)
    ours = neighbourhood(real, made, 3)
    assert found["precision"] == pytest.approx(ours.precision)
    assert found["recall"] == pytest.approx(ours.recall)
