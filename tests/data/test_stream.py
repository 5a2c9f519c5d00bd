"""What training is fed: characters equal to a slow reference, partners of another class and uniform, whatever the threads."""

import dataclasses
import hashlib
import math

import numpy as np
import pytest

import t2i
from helpers import slow_encode
from promises import cases, count
from t2i import prepare
from t2i.config.options import TrainConfig
from t2i.data.dataset import PackedDataset
from t2i.data.sampler import Sampler, sampler_from

BLOCK = 2000  # captions encoded at once


def captions(rng, number):
    """Captions of random Unicode: any character but half ones, ordinary text among them, of 0 to 300 characters."""
    out = []
    for length in rng.integers(0, 300, number):
        points = rng.integers(0, [128, 0x250, 0x3000, 0x110000][rng.integers(4)], length)
        plain = rng.random(length) < rng.random()
        points = np.where(plain, rng.integers(32, 127, length), points)
        points = np.where((points >= 0xD800) & (points < 0xE000), 0xE9, points)
        out.append("".join(map(chr, points)))
    return out


@pytest.mark.promise(16)
def test_random_unicode_encodes_to_the_ids_of_the_slow_reference(tally):
    rng = np.random.default_rng(16)
    made = 0
    for case in tally(cases(16)):
        if case % BLOCK == 0:
            texts = captions(rng, min(BLOCK, count(16) - case))
            ids = t2i.encode(texts)
            assert ids.shape == (len(texts), 201)
            assert np.array_equal(ids, slow_encode(texts))
            made += len(texts)
    assert made == count(16)


def write_pack(folder, groups, classes):
    """Pack pictures of one colour: `groups` pictures of each class, or of each caption where there are no classes."""
    writer = prepare.PackWriter(folder, "made", 16, {})
    for group, size in enumerate(groups):
        for _ in range(size):
            image = np.full((16, 16, 3), group, np.uint8)
            writer.add(image, [f"group {group}"], f"class {group}" if classes else None, False, "x")
    writer.close()
    return PackedDataset(folder)


def excess(counts, expected):
    """How far a chi-square lies above its mean, in its own standard deviations: under 5 but once in 10^6 cases."""
    degrees = counts.size - 1
    return (((counts - expected) ** 2 / expected).sum() - degrees) / math.sqrt(2 * degrees)


@pytest.mark.promise(17)
@pytest.mark.parametrize("classes", [True, False])
def test_mismatched_partners_are_of_another_group_and_uniform(tmp_path, tally, classes):
    sizes = [1, 2, 3, 5, 8, 13, 40, 4]
    data = write_pack(tmp_path / "p", sizes, classes)
    group_of = np.repeat(np.arange(len(sizes)), sizes)
    batch = 5000
    sampler = Sampler(data, batch=batch, seed=17, crop=16)
    drawn = np.zeros((len(sizes), len(group_of)), np.int64)  # by the group of the picture: how often each partner
    steps = max(1, count(17) // 2 // batch)
    for case in tally(range(steps * batch)):
        if case % batch == 0:
            plan = sampler.plan(case // batch)
            own, partner = group_of[plan.image], plan.mismatched_image
            assert (own != group_of[partner]).all()
            assert (plan.image != partner).all()
            np.add.at(drawn, (own, partner), 1)
    assert drawn.sum() == steps * batch
    for group in range(len(sizes)):
        others = group_of != group
        counts = drawn[group, others]
        each = np.array(sizes)[group_of[others]]
        share = 1 / each / (len(sizes) - 1) if classes else np.full(others.sum(), 1 / others.sum())
        assert abs(share.sum() - 1) < 1e-12
        assert excess(counts, share * counts.sum()) < 5, group


@pytest.mark.promise(17)
@pytest.mark.parametrize("classes", [True, False])
def test_a_data_set_of_one_group_is_refused(tmp_path, classes):
    with pytest.raises(t2i.DataError, match="at least two classes"):
        Sampler(write_pack(tmp_path / "p", [5], classes), batch=4, crop=16)


@pytest.mark.parametrize("classes", [True, False])
def test_one_group_is_enough_where_no_mismatch_is_needed(tmp_path, classes):
    data = write_pack(tmp_path / "p", [5], classes)
    plan = Sampler(data, batch=4, crop=16, mismatched=False).plan(0)
    np.testing.assert_array_equal(plan.image, plan.mismatched_image)
    config = TrainConfig(size=16, batch=4, captions_per_image=1, mismatch_weight=0.0)
    np.testing.assert_array_equal(sampler_from(config, data).plan(0).image, plan.image)
    with pytest.raises(
        t2i.DataError, match=r"at least two classes.*; --mismatch-weight 0 trains without mismatched pairs"
    ):
        sampler_from(dataclasses.replace(config, mismatch_weight=0.5), data)


def test_data_with_mismatched_pairs_have_the_same_ones_where_they_are_not_needed(blossoms):
    plans = [Sampler(blossoms, batch=64, crop=32, mismatched=needed).plan(7) for needed in (True, False)]
    for name in ("image", "mismatched_image", "caption", "mismatched_caption"):
        np.testing.assert_array_equal(getattr(plans[0], name), getattr(plans[1], name))


@pytest.mark.promise(18)
def test_the_samples_are_the_same_bytes_for_any_number_of_threads(blossoms, tally):
    steps = 200 if count(18) > 4 else 20
    sampler = Sampler(blossoms, batch=256, seed=18, crop=32, captions_per_image=3)
    shapes = {
        "images": (256, 32, 32, 3),
        "mismatched_images": (256, 32, 32, 3),
        "captions": (256, 3, 201),
        "mismatched_captions": (256, 3, 201),
    }
    hashes = set()
    for threads in tally([1, 2, 4, 8]):
        digest = hashlib.sha256()
        for step in range(steps):
            buffers = {name: np.empty(shape, np.uint8) for name, shape in shapes.items()}
            plan = sampler.plan(step)
            blossoms.native.fill(plan, **buffers, threads=threads)
            for part in (*buffers.values(), plan.image, plan.crop, plan.interpolation_weight):
                digest.update(part.tobytes())
        hashes.add(digest.hexdigest())
        assert len(hashes) == 1
