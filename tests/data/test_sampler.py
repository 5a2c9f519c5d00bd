"""The sampler: pure, uniform where it should be, mismatched always, and the same for any number of processes."""

import numpy as np
import pytest

import t2i
from helpers import write_pack
from t2i.data.sampler import Sampler

ARRAYS = (
    "image",
    "mismatched_image",
    "caption",
    "mismatched_caption",
    "crop",
    "mismatched_crop",
    "flip",
    "mismatched_flip",
    "interpolation_partner",
    "interpolation_weight",
)


def arrays(plan):
    return {name: getattr(plan, name).copy() for name in ARRAYS}


def same(one, other):
    return all(np.array_equal(one[name], other[name]) for name in ARRAYS)


def gathered(sampler, steps):
    """Join the plans of many steps."""
    plans = [arrays(sampler.plan(step)) for step in range(steps)]
    return {name: np.concatenate([plan[name] for plan in plans]) for name in ARRAYS}


def test_a_plan_is_a_pure_function_of_data_seed_and_step(blossoms):
    options = {"batch": 16, "crop": 32, "captions_per_image": 3, "interpolation": "uniform"}
    one = Sampler(blossoms, seed=5, **options)
    in_order = [arrays(one.plan(step)) for step in range(4)]
    backwards = [arrays(one.plan(step)) for step in (3, 2, 1, 0)][::-1]
    again = Sampler(blossoms, seed=5, **options)
    for step in range(4):
        assert same(in_order[step], backwards[step])
        assert same(in_order[step], arrays(again.plan(step)))
    assert not same(in_order[0], in_order[1])
    assert not same(in_order[0], arrays(Sampler(blossoms, seed=6, **options).plan(0)))


def test_shapes_are_those_of_the_loader(blossoms):
    plan = Sampler(blossoms, batch=10, crop=32, captions_per_image=3).plan(0)
    shapes = {name: getattr(plan, name).shape for name in ARRAYS}
    assert shapes == {
        "image": (10,),
        "mismatched_image": (10,),
        "caption": (10, 3),
        "mismatched_caption": (10, 3),
        "crop": (10, 2),
        "mismatched_crop": (10, 2),
        "flip": (10,),
        "mismatched_flip": (10,),
        "interpolation_partner": (5,),
        "interpolation_weight": (5,),
    }


def test_classes_are_uniform_and_the_mismatched_one_is_always_another(uneven):
    drawn = gathered(Sampler(uneven, batch=50, crop=16), 200)
    classes, others = uneven.classes[drawn["image"]], uneven.classes[drawn["mismatched_image"]]
    assert (classes != others).all()
    counts = np.bincount(classes, minlength=5)
    assert counts[4] == 0  # held out
    # 10,000 draws of 4 classes: chi-square with 3 degrees of freedom is below 16.3 with p = 0.999.
    assert ((counts[:4] - 2500) ** 2 / 2500).sum() < 16.3
    pairs = np.zeros((4, 4))
    np.add.at(pairs, (classes, others), 1)
    off = pairs[~np.eye(4, dtype=bool)]
    assert ((off - 10000 / 12) ** 2 / (10000 / 12)).sum() < 31.3  # 11 degrees of freedom
    inside = np.bincount(drawn["image"][classes == 3] - 13, minlength=30)
    assert ((inside - inside.mean()) ** 2 / inside.mean()).sum() < 58.3  # 29 degrees of freedom


def test_pictures_are_uniform_where_classes_need_not_be(uneven):
    drawn = gathered(Sampler(uneven, batch=43, crop=16, class_uniform=False), 200)
    counts = np.bincount(drawn["image"], minlength=43)[:43]
    assert counts.sum() == 43 * 200
    assert ((counts - 200) ** 2 / 200).sum() < 76.1  # 42 degrees of freedom


def test_captions_belong_to_their_picture_and_are_drawn_with_replacement(uneven):
    drawn = gathered(Sampler(uneven, batch=50, crop=16, captions_per_image=3), 100)
    for image, caption in (("image", "caption"), ("mismatched_image", "mismatched_caption")):
        first, last = uneven.caption_offsets[drawn[image]], uneven.caption_offsets[drawn[image] + 1]
        assert (drawn[caption] >= first[:, None]).all()
        assert (drawn[caption] < last[:, None]).all()
        four = drawn[caption][last - first == 4]
        repeated = np.mean([len(set(row)) < 3 for row in four.tolist()])
        assert abs(repeated - (1 - 3 / 4 * 2 / 4)) < 0.05  # three draws of four, all different: 3/8


@pytest.mark.parametrize(("crop_low", "lowest"), [(0, 0), (1, 1), (4, 4)])
def test_crops_reach_from_the_lowest_offset_to_the_last_and_flips_are_half(blossoms, crop_low, lowest):
    drawn = gathered(Sampler(blossoms, batch=64, crop=32, crop_low=crop_low), 20)
    for name in ("crop", "mismatched_crop"):
        assert set(np.unique(drawn[name])) == set(range(lowest, 7))
    for name in ("flip", "mismatched_flip"):
        assert 0.45 < drawn[name].mean() < 0.55
    assert abs(np.corrcoef(drawn["flip"], drawn["mismatched_flip"])[0, 1]) < 0.1


def test_without_flips_nothing_is_mirrored(blossoms):
    drawn = gathered(Sampler(blossoms, batch=64, crop=32, flip=False), 3)
    assert not drawn["flip"].any()
    assert not drawn["mismatched_flip"].any()


@pytest.mark.parametrize("batch", [2, 40, 300])
def test_distinct_classes_never_repeat_in_a_batch(blossoms, batch):
    sampler = Sampler(blossoms, batch=batch, crop=32, distinct_classes=True)
    for step in range(5):
        assert len(set(blossoms.classes[sampler.plan(step).image])) == batch


def test_more_distinct_classes_than_there_are_is_refused_with_the_number(uneven):
    with pytest.raises(t2i.ConfigError, match="batch must be at most 4"):
        Sampler(uneven, batch=5, crop=16, distinct_classes=True)


@pytest.mark.parametrize(
    ("options", "low", "high", "mean"),
    [
        ({"interpolation": "fixed"}, 0.5, 0.5, 0.5),
        ({"interpolation": "fixed", "interpolation_weight": 0.25}, 0.25, 0.25, 0.25),
        ({"interpolation": "uniform"}, 0.0, 1.0, 0.5),
        ({"interpolation": "extrapolate"}, -0.5, 1.5, 0.5),
    ],
)
def test_interpolation_weights_keep_their_range(blossoms, options, low, high, mean):
    drawn = gathered(Sampler(blossoms, batch=200, crop=32, **options), 20)
    weight, partner = drawn["interpolation_weight"], drawn["interpolation_partner"]
    assert weight.dtype == np.float32
    assert weight.min() >= low
    assert weight.max() <= high
    assert weight.max() - weight.min() >= 0.99 * (high - low)
    assert abs(weight.mean() - mean) < 0.05
    # The program mixes text i with text i + B/2: never with itself, and every row of the batch once.
    assert np.array_equal(partner, np.tile(np.arange(100, 200), 20))


@pytest.mark.parametrize("world", [2, 4])
def test_ranks_together_draw_what_one_process_draws(blossoms, world):
    options = {"batch": 16, "crop": 32, "captions_per_image": 2, "interpolation": "uniform", "seed": 3}
    whole = arrays(Sampler(blossoms, **options).plan(7))
    parts = [arrays(Sampler(blossoms, rank=rank, world=world, **options).plan(7)) for rank in range(world)]
    for name in ARRAYS:
        assert np.array_equal(np.concatenate([part[name] for part in parts]), whole[name]), name


@pytest.mark.parametrize(
    ("rows", "classes", "split", "says"),
    [
        ([("one", ["x"], False), ("one", ["y"], False)], True, "train", r"at least two classes.*one \(one\)"),
        ([("a", ["x"], False), ("b", ["y"], True)], True, "train", r"at least two classes.*one \(a\)"),
        ([("a", ["x"], False), ("b", ["y"], False)], True, "test", "no image in its test split"),
        ([(None, ["x"], False), (None, ["x"], False)], False, "train", "same captions for every image"),
    ],
)
def test_data_without_a_mismatch_is_refused_and_says_why(tmp_path, rows, classes, split, says):
    pack = write_pack(tmp_path, rows, classes=classes)
    with pytest.raises(t2i.DataError, match=says):
        Sampler(pack, batch=4, crop=16, split=split)


def test_without_classes_the_mismatched_picture_has_other_captions(classless):
    sampler = Sampler(classless, batch=40, crop=16)
    assert sampler.classes == 6
    drawn = gathered(sampler, 20)
    assert (drawn["image"] // 2 != drawn["mismatched_image"] // 2).all()
    assert len(np.unique(drawn["image"])) == 12


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"batch": 0}, "batch"),
        ({"batch": 4, "crop": 39}, "crop must be from 1 to the image size of 38, got 39"),
        ({"batch": 4, "crop": 32, "crop_low": 7}, "crop_low must be from 0 to 6"),
        ({"batch": 4, "split": "dev"}, "split"),
        ({"batch": 4, "interpolation": "cubic"}, "interpolation"),
        ({"batch": 4, "interpolation_weight": float("nan")}, "finite"),
        ({"batch": 4, "world": 3}, "divisor"),
        ({"batch": 4, "world": 2, "rank": 2}, "rank"),
        ({"batch": 4, "seed": -1}, "seed"),
    ],
)
def test_arguments_out_of_range_are_refused_by_name(blossoms, options, says):
    with pytest.raises(t2i.ConfigError, match=says):
        Sampler(blossoms, **({"crop": 32} | options))
