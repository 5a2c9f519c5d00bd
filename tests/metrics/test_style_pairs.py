"""What the style encoder is verified by: ROC curves, clusters of colours, and pairs of one style."""

import itertools

import numpy as np
import pytest

from t2i.blossoms import drawing
from t2i.blossoms import drawing as synthetic
from t2i.blossoms.classes import held_out_classes
from t2i.errors import ConfigError
from t2i.metrics import style as verification
from t2i.metrics.clusters import border_colour, kmeans
from t2i.metrics.roc import roc
from t2i.plots.roc import roc_figure, roc_picture

SCORES = np.array([0.9, 0.8, 0.7, 0.6, 0.5])


@pytest.mark.parametrize(
    ("scores", "same", "area"),
    [
        (SCORES, [1, 1, 1, 0, 0], 1.0),
        (SCORES, [0, 0, 1, 1, 1], 0.0),
        (SCORES, [1, 0, 1, 0, 1], 0.5),  # 3 of 6 pairs the right way round
        (np.zeros(5), [1, 0, 1, 0, 1], 0.5),  # all tied: chance, in whatever order they come
        (np.zeros(5), [1, 1, 0, 0, 0], 0.5),
        (np.array([1.0, 1.0, 0.0]), [1, 0, 0], 0.75),  # one tie, one right
    ],
)
def test_the_area_has_its_closed_form(scores, same, area):
    curve = roc(scores, np.array(same, bool))
    assert curve.area == pytest.approx(area)
    for rates in (curve.false_positive, curve.true_positive):
        assert (rates[0], rates[-1]) == (0, 1)
        assert (np.diff(rates) >= 0).all()


@pytest.mark.parametrize("seed", range(5))
def test_the_area_counts_pairs_and_half_of_ties(seed):
    rng = np.random.default_rng(seed)
    scores, same = rng.integers(0, 12, 60).astype(float), rng.random(60) < 0.3
    won = [float(a > b) + 0.5 * (a == b) for a, b in itertools.product(scores[same], scores[~same])]
    assert roc(scores, same).area == pytest.approx(np.mean(won))


def test_the_area_of_two_gaussians():
    """Two unit Gaussians a distance d apart: the area is Phi(d / sqrt 2), 0.7602 at d = 1."""
    rng = np.random.default_rng(0)
    same = np.arange(40_000) < 20_000
    assert roc(rng.normal(size=40_000) + same, same).area == pytest.approx(0.7602, abs=0.01)


@pytest.mark.parametrize(("scores", "same"), [(SCORES, [1] * 5), (SCORES, [0] * 5), (SCORES * np.nan, [1, 0, 1, 0, 1])])
def test_a_curve_that_cannot_be_is_refused(scores, same):
    with pytest.raises(ConfigError, match="ROC"):
        roc(scores, np.array(same, bool))


def test_the_plot_shows_the_curve():
    pytest.importorskip("matplotlib")
    perfect, useless = roc(SCORES, np.array([1, 1, 0, 0, 0], bool)), roc(np.zeros(5), np.array([1, 0, 1, 0, 1], bool))
    (axes,) = roc_figure({"a": perfect, "b": useless}).axes
    chance, one, two = axes.lines
    assert np.array_equal(one.get_xydata(), np.stack([perfect.false_positive, perfect.true_positive], axis=1))
    assert chance.get_xydata().tolist() == two.get_xydata().tolist() == [[0, 0], [1, 1]]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["a: area 1.000", "b: area 0.500"]
    image = roc_picture({"a": perfect}, side=200)
    assert (image.size, image.mode) == ((200, 200), "RGB")
    pixels = np.asarray(image).astype(int)
    assert ((pixels[..., 0] > 150) & (pixels[..., 1] < 110)).sum() > 100  # the red curve
    assert roc_picture({}, side=200).size == (200, 200)


def test_kmeans_finds_clusters_that_are_plain_to_see():
    rng = np.random.default_rng(0)
    truth = np.repeat(np.arange(5), 40)
    points = rng.normal(size=(5, 3))[truth] * 20 + rng.normal(size=(200, 3)) * 0.1
    labels = kmeans(points, 5, seed=3)
    assert len({(a, b) for a, b in zip(truth, labels, strict=True)}) == 5
    assert len(set(labels)) == 5
    assert np.array_equal(labels, kmeans(points, 5, seed=3))


@pytest.mark.parametrize("points", [np.zeros((6, 2)), np.arange(6.0)[:, None]])
def test_kmeans_takes_points_that_coincide_and_as_many_clusters_as_points(points):
    labels = kmeans(points, 6, seed=0)
    assert len(np.unique(labels)) == len(np.unique(points))


@pytest.mark.parametrize("clusters", [0, 4])
def test_kmeans_refuses_more_clusters_than_points(clusters):
    with pytest.raises(ConfigError, match="1 to 3 clusters"):
        kmeans(np.zeros((3, 2)), clusters, seed=0)


def test_the_border_is_the_ring_and_not_the_middle():
    images = np.full((2, 16, 16, 3), 200, np.uint8)
    images[0, 2:-2, 2:-2] = 0
    images[1, :2] = (0, 100, 200)  # 32 of the ring's 16 * 16 - 12 * 12 pixels
    colours = border_colour(images)
    assert colours[0].tolist() == [200, 200, 200]
    assert colours[1] == pytest.approx((32 * np.array([0, 100, 200]) + 80 * 200) / 112)


def test_pairs_are_what_they_say_and_half_of_them_the_same():
    labels = np.array([0, 0, 1, 1, 1, 2])  # the last is alone: no first of a same pair
    one, two, same = verification.sample_pairs(labels, 1000, seed=0)
    assert same.sum() == 500
    assert np.array_equal(labels[one] == labels[two], same)
    assert (one != two).all()
    assert set(one[same]) == {0, 1, 2, 3, 4}
    assert set(one[~same]) == set(range(6))


@pytest.mark.parametrize("labels", [[0, 0, 0], [0, 1, 2]])
def test_pairs_need_two_styles_one_of_them_twice(labels):
    with pytest.raises(ConfigError, match="style pairs need two styles"):
        verification.sample_pairs(np.array(labels), 10, seed=0)


def test_twins_share_their_style_and_strangers_do_not(monkeypatch):
    drawn = []
    plain = drawing.draw_blossom
    monkeypatch.setattr(synthetic, "draw_blossom", lambda *a: drawn.append(a[:2]) or plain(*a))
    images, captions, (one, two, same) = verification.twin_blossoms(6, 19, 16, seed=0)
    assert images.shape == (12, 16, 16, 3)
    order = [0, 6, 1, 7, 2, 8, 3, 9, 4, 10, 5, 11]  # pair by pair
    made = {row: drawn[position] for position, row in enumerate(order)}
    assert (
        [made[a][1] == made[b][1] for a, b in zip(one, two, strict=True)] == same.tolist() == [True] * 3 + [False] * 3
    )
    assert all(made[row][0].petal in captions[row] and made[row][0].centre in captions[row] for row in range(12))
    assert all(kind in held_out_classes() for kind, _ in drawn)
