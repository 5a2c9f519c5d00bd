"""What the figures of a model in training are said to mean, on figures made up for it."""

import pytest

from t2i.metrics.verdict import still_improving, verdict, warnings

GOOD = {
    "kid": 5.0,
    "kid_real": 0.1,
    "kid_pixels": 4.0,
    "kid_pixels_real": 0.2,
    "r_precision": 0.40,
    "r_precision_real": 0.45,
    "diversity": 0.3,
    "diversity_real": 0.33,
    "copies": 0.012,
    "copies_real": 0.01,
}


@pytest.mark.parametrize(
    ("ours", "real", "says"),
    [
        (0.40, 0.45, "the text is followed: 40.0% against 45.0% for real images"),
        (0.20, 0.45, "the text is followed in part"),
        (0.06, 0.45, "the text is hardly followed"),
        (0.012, 0.45, "the text is not followed"),
        (0.50, 0.015, "cannot be said: the scorer fails on real images (1.5%)"),
    ],
)
def test_the_text_is_followed_or_not(ours, real, says):
    lines = verdict([GOOD | {"r_precision": ours, "r_precision_real": real}], 500)
    assert says in lines[0]


def test_without_a_figure_nothing_is_said_of_it():
    bare = {name: value for name, value in GOOD.items() if not name.startswith(("r_precision", "diversity"))}
    assert verdict([bare], 500) == ["copies: 1.2% (real images 1.0%)"]
    assert warnings(bare) == {}


def test_copies_are_called_too_many_where_they_are():
    many = GOOD | {"copies": 0.031}
    assert "too many copies: 3.1% (real images 1.0%)" in verdict([many], 500)
    assert "memorises" in warnings(many)["copies"]
    assert warnings(GOOD | {"copies": 0.029}) == {}


def test_images_that_are_alike_are_named():
    assert "images of one caption are alike: 0.16 (real images of a class 0.33)" in verdict(
        [GOOD | {"diversity": 0.16}], 500
    )
    assert "alike" in warnings(GOOD | {"diversity": 0.08})
    assert "images of one caption differ: 0.30 (real images of a class 0.33)" in verdict([GOOD], 500)


def falling(*distances):
    return [GOOD | {"kid": distance, "kid_pixels": 0.0} for distance in distances]


@pytest.mark.parametrize(
    ("distances", "expected"),
    [
        ((9.0,), None),
        ((9.0, 8.0), None),
        ((9.0, 8.0, 7.0), True),
        ((9.0, 7.0, 7.0), False),
        ((9.0, 7.0, 6.9), False),  # by less than noise
        ((9.0, 8.0, 7.0, 8.0, 6.0, 7.0), True),  # thirds are compared, not neighbours
        ((5.0, 6.0, 7.0), False),
    ],
)
def test_a_run_that_still_improves_is_told_to_go_on(distances, expected):
    assert still_improving(falling(*distances)) is expected
    last = verdict(falling(*distances), 500)[-1]
    assert last.startswith({True: "still improving", False: "no longer improving", None: "images of one"}[expected])
