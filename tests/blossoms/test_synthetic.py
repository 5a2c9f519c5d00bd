"""Blossoms: what is drawn is what is named, and held-out classes are really held out."""

import re
from collections import Counter

import numpy as np
import pytest

from t2i.blossoms.captions import COUNT_WORDS, SHAPE_WORDS, captions_for, held_out_captions
from t2i.blossoms.classes import (
    BACKGROUNDS,
    CENTRE_COLOURS,
    PETAL_COLOURS,
    PETAL_COUNTS,
    PETAL_SHAPES,
    SCALE_RANGE,
    BlossomClass,
    BlossomStyle,
    blossom_classes,
    draw_style,
    held_out_classes,
)
from t2i.blossoms.dataset import blossom_blocks, make_blossoms
from t2i.blossoms.drawing import PETAL_CONTRAST, draw_blossom
from t2i.errors import ConfigError

# Directions of colour as a person tells them apart: (hue in degrees low, high); white and black go by lightness alone.
HUES = {
    "red": (345, 375),
    "orange": (18, 38),
    "yellow": (42, 62),
    "pink": (315, 345),
    "purple": (265, 295),
    "blue": (215, 235),
    "turquoise": (165, 188),
    "green": (90, 125),
    "brown": (18, 38),
}


def hue_and_lightness(colour: np.ndarray) -> tuple[float, float, float]:
    """Hue in degrees, saturation and value of one RGB colour, by the textbook's formula."""
    red, green, blue = (float(value) / 255 for value in colour)
    high, low = max(red, green, blue), min(red, green, blue)
    if high == low:
        return 0.0, 0.0, high
    if high == red:
        hue = 60 * ((green - blue) / (high - low))
    elif high == green:
        hue = 60 * (2 + (blue - red) / (high - low))
    else:
        hue = 60 * (4 + (red - green) / (high - low))
    return hue % 360, (high - low) / high, high


def shows(name: str, pixels: np.ndarray) -> bool:
    """Whether the median colour of pixels (n, 3) is what a person calls `name`."""
    hue, saturation, value = hue_and_lightness(np.median(pixels, axis=0))
    if name == "white":
        return saturation < 0.15 and value > 0.6
    if name == "black":
        return value < 0.3
    low, high = HUES[name]
    inside = low <= hue <= high or low <= hue + 360 <= high
    return inside and saturation > 0.3 and (value < 0.6 if name == "brown" else value > 0.38)


def petal_pixels(picture: np.ndarray, count: int, style: BlossomStyle) -> np.ndarray:
    """Pixels near the middle line of every petal, 55 to 80% of the way out, found from the true style."""
    size, found = len(picture), []
    for index in range(count):
        angle = style.rotation + 2 * np.pi * index / count
        for part in (0.55, 0.65, 0.75, 0.80):
            x = (style.x + part * style.scale * np.sin(angle)) * size
            y = (style.y - part * style.scale * np.cos(angle)) * size
            if 0 <= x < size and 0 <= y < size:
                found.append(picture[int(y), int(x)])
    return np.array(found)


def centre_pixels(picture: np.ndarray, style: BlossomStyle) -> np.ndarray:
    """Pixels within 18% of the flower's radius of its middle."""
    rows, columns = np.mgrid[: len(picture), : len(picture)] + 0.5
    distance = np.hypot(columns / len(picture) - style.x, rows / len(picture) - style.y)
    return picture[distance < 0.18 * style.scale]


def all_colours() -> list[tuple[BlossomClass, BlossomStyle, int]]:
    """Every pair of colours on every background, in shapes and counts that take turns."""
    rng, cases = np.random.default_rng(7), []
    pairs = list(dict.fromkeys((kind.petal, kind.centre) for kind in blossom_classes()))
    for turn, (petal, centre) in enumerate(pairs):
        for background in range(len(BACKGROUNDS)):
            count, shape = PETAL_COUNTS[(turn + background) % 4], PETAL_SHAPES[(turn + background) % 3]
            drawn = draw_style(rng)
            style = BlossomStyle(background, drawn.x, drawn.y, drawn.scale, drawn.rotation, drawn.warmth)
            cases.append((BlossomClass(petal, centre, count, shape), style, turn))
    return cases


def test_there_are_540_classes_and_none_has_a_centre_of_the_petals_colour():
    classes = blossom_classes()
    assert len(classes) == (8 * 6 - 3) * 4 * 3  # red, yellow and white are in both lists
    assert len({kind.name for kind in classes}) == 540
    assert all(kind.petal != kind.centre for kind in classes)
    assert BlossomClass("red", "yellow", 5, "round").name == "red-yellow-5-round"
    assert BlossomClass("orange", "white", 5, "narrow").attributes == (1, 1, 1, 2)


@pytest.mark.parametrize("seed", [0, 1, 2, 3, 17])
def test_a_fifth_is_held_out_with_whole_colour_pairs_and_every_value_stays_frequent(seed):
    held = set(held_out_classes(seed))
    train = [kind for kind in blossom_classes() if kind not in held]
    assert len(held) == 108
    assert len(train) == 432
    pairs = Counter((kind.petal, kind.centre) for kind in held)
    seen = {(kind.petal, kind.centre) for kind in train}
    assert sum(pair not in seen for pair in pairs) == 2
    assert len(pairs) == 45, "every pair has some combination that is zero-shot"
    for field, least in (("petal", 36), ("centre", 48), ("count", 81), ("shape", 108)):
        counts = Counter(getattr(kind, field) for kind in train)
        assert min(counts.values()) >= least, (field, counts)


def test_splits_differ_by_seed_and_repeat_for_the_same():
    assert held_out_classes(3) == held_out_classes(3)
    assert held_out_classes(3) != held_out_classes(4)


@pytest.mark.parametrize("size", [32, 38, 64, 76, 128])
def test_drawing_is_deterministic_and_takes_any_size(size):
    kind = BlossomClass("pink", "black", 6, "pointed")
    style = BlossomStyle(2, 0.5, 0.5, 0.4, 0.1, 0.0)
    first, again = (draw_blossom(kind, style, size, np.random.default_rng(5)) for _ in range(2))
    assert first.shape == (size, size, 3)
    assert first.dtype == np.uint8
    assert np.array_equal(first, again)
    assert not np.array_equal(first, draw_blossom(kind, style, size, np.random.default_rng(6)))


def test_every_petal_and_centre_has_the_hue_that_its_name_says():
    wrong = []
    for kind, style, turn in all_colours():
        picture = draw_blossom(kind, style, 76, np.random.default_rng(turn))
        if not shows(kind.petal, petal_pixels(picture, kind.count, style)):
            wrong.append(("petal", kind.name, style.background))
        if not shows(kind.centre, centre_pixels(picture, style)):
            wrong.append(("centre", kind.name, style.background))
    assert wrong == []


def test_the_check_of_hues_can_fail():
    style = BlossomStyle(0, 0.5, 0.5, 0.4, 0.0, 0.0)
    picture = draw_blossom(BlossomClass("red", "yellow", 5, "round"), style, 76)
    others = [name for name in PETAL_COLOURS if name != "red"]
    assert not any(shows(name, petal_pixels(picture, 5, style)) for name in others)


def test_petals_stand_out_from_every_background():
    faint = []
    for kind, style, _ in all_colours():
        picture = draw_blossom(kind, style, 76).astype(float)
        petals = np.median(petal_pixels(picture, kind.count, style), axis=0)
        border = np.concatenate([picture[0], picture[: len(picture) // 2, 0], picture[: len(picture) // 2, -1]])
        if np.linalg.norm(np.median(border, axis=0) - petals) < 0.5 * PETAL_CONTRAST:
            faint.append((kind.name, style.background))
    assert faint == []


@pytest.mark.parametrize("shape", PETAL_SHAPES)
@pytest.mark.parametrize("count", PETAL_COUNTS)
def test_a_walk_around_the_flower_crosses_the_named_number_of_petals(count, shape):
    kind = BlossomClass("red", "white", count, shape)
    style = BlossomStyle(5, 0.5, 0.5, 0.44, 0.2, 0.0)  # pale grey: redness tells petal from background, leaf and stem
    picture = draw_blossom(kind, style, 256).astype(float)
    angles = np.linspace(0, 2 * np.pi, 2000, endpoint=False)
    radius = 0.90 * style.scale * 256
    around = picture[(128 - radius * np.cos(angles)).astype(int), (128 + radius * np.sin(angles)).astype(int)]
    petal = around[:, 0] > 2.5 * around[:, 1]
    # An edge that runs along the walk flickers with the pixel grid: take the majority over 4 degrees.
    petal = np.convolve(np.concatenate([petal[-11:], petal, petal[:11]]), np.ones(23) / 23, "valid") > 0.5
    assert np.sum(petal & ~np.roll(petal, 1)) == count


def test_shapes_differ_where_their_names_say():
    style = BlossomStyle(5, 0.5, 0.5, 0.44, 0.0, 0.0)
    middle, taper = {}, {}
    for shape in PETAL_SHAPES:
        picture = draw_blossom(BlossomClass("red", "white", 4, shape), style, 512).astype(float)
        upper = (picture[..., 0] > 2.5 * picture[..., 1])[:256, 128:384]  # holds the petal that points up
        widths = upper.sum(axis=1)
        tip = int(np.flatnonzero(widths)[0])
        middle[shape] = int(widths[int(256 - 0.60 * style.scale * 512)])
        taper[shape] = widths[tip + 9] / widths[tip + 36]  # 4 and 16% of the radius below the tip
    assert middle["round"] > 1.2 * middle["pointed"] > 1.8 * middle["narrow"], middle
    # Near a sharp end the width grows with the distance (9 / 36), near a round one with its square root.
    assert taper["pointed"] < 0.38 < 0.45 < taper["round"], taper


def test_captions_name_both_colours_and_mostly_count_and_shape():
    rng = np.random.default_rng(0)
    for kind in blossom_classes():
        captions = captions_for(kind, rng)
        assert len(captions) == 10
        assert len(set(captions)) == 10
        full = 0
        for caption in captions:
            words = set(re.findall(r"[a-z0-9-]+", caption))
            assert {kind.petal, kind.centre} <= words, caption
            assert len(caption) < 201
            assert caption == caption.lower()
            counted = bool(words & {COUNT_WORDS[kind.count], str(kind.count)})
            shaped = bool(words & set(SHAPE_WORDS[kind.shape]))
            assert counted or shaped, caption
            full += counted and shaped
            lies = set(PETAL_COLOURS) | set(CENTRE_COLOURS)
            assert not words & (lies - {kind.petal, kind.centre}), caption
            assert not words & {word for other in PETAL_SHAPES if other != kind.shape for word in SHAPE_WORDS[other]}
        assert full == 8


def test_captions_have_no_slot_left_and_the_right_article():
    rng = np.random.default_rng(1)
    for kind in blossom_classes():
        for caption in captions_for(kind, rng, count=22):
            assert "{" not in caption
            assert "  " not in caption
            assert not re.search(r"\ba [aeiou]|\ban [^aeiou]", caption), caption
            assert not ("center" in caption and ("colour" in caption or "disc" in caption)), caption


def test_captions_never_name_the_style():
    rng = np.random.default_rng(2)
    forbidden = {word for name in BACKGROUNDS for word in name.split()} - {"green"}  # green is also a centre
    forbidden |= {"background", "left", "top", "bottom", "small", "large", "big", "tilted", "rotated", "stem", "leaves"}
    for kind in blossom_classes()[::3]:
        for caption in captions_for(kind, rng):
            assert not forbidden & set(re.findall(r"[a-z]+", caption)), caption


def test_the_sentence_of_the_readme_is_one_of_the_wordings():
    rng = np.random.default_rng(3)
    kind = BlossomClass("red", "yellow", 5, "round")
    captions = {caption for _ in range(300) for caption in captions_for(kind, rng)}
    assert "a flower with five red petals and a yellow centre" in captions
    assert any("center" in caption for caption in captions), "American spelling too"
    assert len(captions) > 500, "ten wordings an image are not the same ten for every image"


def test_a_set_is_balanced_labelled_and_repeats():
    made = make_blossoms(600, 12, seed=3)
    again = make_blossoms(600, 12, seed=3)
    counts = Counter(made.classes.tolist())
    assert len(counts) == 540
    assert set(counts.values()) == {1, 2}
    assert np.array_equal(made.images, again.images)
    assert made.captions == again.captions
    assert np.array_equal(made.style, again.style)
    held = {kind.name for kind in held_out_classes(0)}
    kinds = blossom_classes()
    for row in range(0, 600, 7):
        kind = kinds[made.classes[row]]
        assert made.class_names[made.classes[row]] == kind.name
        assert made.splits[row] == (kind.name in held)
        assert tuple(made.attributes[row]) == kind.attributes
        assert all(kind.petal in caption for caption in made.captions[row])
    assert not np.array_equal(made.images[:9], make_blossoms(9, 12, seed=4).images)


def test_blocks_are_the_set_cut_into_pieces_and_style_redraws_the_picture():
    whole = make_blossoms(30, 24, seed=1)
    pieces = list(blossom_blocks(30, 24, seed=1, block=7))
    assert [len(piece.images) for piece in pieces] == [7, 7, 7, 7, 2]
    assert np.array_equal(np.concatenate([piece.images for piece in pieces]), whole.images)
    assert [c for piece in pieces for c in piece.captions] == whole.captions
    index, x, y, scale, rotation, warmth = whole.style[4].tolist()
    plain = draw_blossom(
        blossom_classes()[whole.classes[4]], BlossomStyle(int(index), x, y, scale, rotation, warmth), 24
    )
    assert np.abs(plain.astype(int) - whole.images[4]).mean() < 12, "only the small irregularities differ"


def test_styles_stay_in_range_and_keep_the_flower_in_a_crop_of_32_of_38():
    rng = np.random.default_rng(0)
    styles = [draw_style(rng) for _ in range(4000)]
    assert Counter(style.background for style in styles).keys() == set(range(len(BACKGROUNDS)))
    for style in styles:
        assert SCALE_RANGE[0] <= style.scale <= SCALE_RANGE[1]
        for place in (style.x, style.y):
            # The worst crop cuts 6 of 38 pixels from one side; three quarters of the radius must survive it.
            assert 6 / 38 - (place - style.scale) < 0.25 * 2 * style.scale
            assert place + style.scale - 32 / 38 < 0.25 * 2 * style.scale


def test_held_out_captions_cover_the_held_out_classes_evenly():
    captions = held_out_captions(216, seed=9)
    held = Counter(kind.attributes for kind in held_out_classes(0))
    assert Counter(attributes for _, attributes in captions) == dict.fromkeys(held, 2)
    for caption, (petal, centre, _, shape) in captions:
        assert list(PETAL_COLOURS)[petal] in caption
        assert list(CENTRE_COLOURS)[centre] in caption
        assert any(word in caption for word in SHAPE_WORDS[PETAL_SHAPES[shape]])
    assert captions == held_out_captions(216, seed=9) != held_out_captions(216, seed=10)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: make_blossoms(0, 38, 0), "at least one image, got 0"),
        (lambda: make_blossoms(1, 4, 0), "at least 8 pixels, got 4"),
        (lambda: held_out_classes(-1), r"seed must be in .* got -1"),
    ],
)
def test_bad_arguments_are_refused_with_the_value(call, message):
    with pytest.raises(ConfigError, match=message):
        call()
