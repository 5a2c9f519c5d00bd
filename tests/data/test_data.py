"""The packed data set, the sampler and the loader, each against something slow, independent or counted by hand."""

import itertools
import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

import t2i
from t2i import _native, prepare
from t2i.blossoms.pack import pack_blossoms
from t2i.data.dataset import PackedDataset
from t2i.data.loader import Loader
from t2i.data.sampler import Sampler
from t2i.images import normalise


def write_pack(folder, rows, size=16, classes=True):
    """Pack rows of (class name, captions, test) with pictures of random pixels."""
    rng = np.random.default_rng(0)
    writer = prepare.PackWriter(folder, "made", size, {})
    for number, (name, captions, test) in enumerate(rows):
        image = rng.integers(0, 256, (size, size, 3), dtype=np.uint8)
        writer.add(image, captions, name if classes else None, test, f"picture {number}")
    writer.close()
    return PackedDataset(folder, verify=True)


@pytest.fixture(scope="module")
def uneven(tmp_path_factory):
    """Four training classes of 1, 2, 10 and 30 pictures with 1 to 4 captions, and a held-out one."""
    rows = []
    for name, count, test in (("a", 1, False), ("b", 2, False), ("c", 10, False), ("d", 30, False), ("e", 5, True)):
        rows += [(name, [f"{name} {i} {j}" for j in range(i % 4 + 1)], test) for i in range(count)]
    return write_pack(tmp_path_factory.mktemp("uneven"), rows)


@pytest.fixture(scope="module")
def classless(tmp_path_factory):
    rows = [(None, [f"caption {i // 2}", f"again {i // 2}"], False) for i in range(12)]  # pairs share their captions
    return write_pack(tmp_path_factory.mktemp("classless"), rows, classes=False)


# The packed data set.


def read_texts(shard):
    """Read the captions of a shard as the docs tell anybody to."""
    text, offsets = shard["caption_bytes"].tobytes(), shard["caption_byte_offsets"]
    return [text[start:end].decode() for start, end in itertools.pairwise(offsets)]


WRITTEN = (
    "A Red Flower!",
    "caf\u00e9 \u201cau lait\u201d",
    "\u82b1\u5f88\u7ea2",
    "\u0632\u0647\u0631\u0629 \u062d\u0645\u0631\u0627\u0621",
    "\U0001f33b emoji",
    "two\tcolumns\nand lines",
    "nul \0 inside",
    " spaces ",
    "",
    "x" * 2000,
    "\u00e9" * 32768,
)


def test_captions_come_back_to_the_letter_and_to_an_independent_reader(tmp_path):
    data = write_pack(tmp_path, [("a", WRITTEN, False), ("b", ["another"], False)])
    assert data.captions_of(0) == list(WRITTEN)
    assert data.caption_texts([11, 2]) == ["another", WRITTEN[2]]
    assert read_texts(load_file(tmp_path / "shard-00000.safetensors")) == [*WRITTEN, "another"]
    with pytest.raises(IndexError, match="caption index must be from 0 to 11, got 12"):
        data.caption_texts([12])


def test_ids_are_made_from_the_text_for_whoever_asks(tmp_path):
    data = write_pack(tmp_path, [("a", WRITTEN, False), ("b", ["another"], False)])
    rows = [2, 0, 9]
    assert np.array_equal(data.read_captions(rows), t2i.encode([WRITTEN[row] for row in rows]))
    expected = np.zeros((3, 20), np.uint8)
    for row, text in zip(expected, rows, strict=True):
        data_bytes = WRITTEN[text].encode()[:20]
        row[: len(data_bytes)] = np.frombuffer(data_bytes, np.uint8) + 1
    assert np.array_equal(data.read_captions(rows, "bytes", 20), expected)
    assert data.read_captions([2], "bytes", 8)[0, 6:].tolist() == [0, 0], "the third character does not fit whole"
    with pytest.raises(t2i.ConfigError, match="caption length must be from 1 to 65536, got 0"):
        data.read_captions([0], "bytes", 0)
    with pytest.raises(t2i.ConfigError, match='tokenizer must be "alphabet" or "bytes", got "words"'):
        data.read_captions([0], "words")


def test_losses_of_a_tokenizer_are_counted(tmp_path):
    data = write_pack(tmp_path, [("a", WRITTEN, False), ("b", ["another"], False)])
    # Of more than 201 characters: the last two. Outside the alphabet: accents and quotes, Chinese, Arabic, the emoji, a
    # tab, a NUL, accents.
    assert data.native.count_losses() == _native.count_losses(WRITTEN) == (2, 7)
    assert data.native.count_losses("bytes", 2000) == (1, 0)
    record = json.loads((tmp_path / "pack.json").read_text())
    assert record["char_cnn_rnn"] == {"truncated": 2, "unknown": 7}


@pytest.mark.parametrize(
    ("caption", "says"),
    [("x" * 65537, "a caption of over 65536 bytes"), ("\u00e9" * 32769, "65536"), ("\ud800", "surrog")],
)
def test_captions_that_a_pack_cannot_hold_are_refused_with_the_image(tmp_path, caption, says):
    with pytest.raises(t2i.DataError, match=rf"^picture 0: .*{says}"):
        write_pack(tmp_path, [("a", ["fine", caption], False)])


def test_mismatched_pairs_never_match_where_classes_share_captions(tmp_path):
    colours = ("red", "blue", "white")
    rows = [
        (
            f"class {i % 4}",
            [f"a {colours[i % 3]} flower", f"A {colours[i % 3]}  Flower", f"{colours[i % 3]} {i}"],
            False,
        )
        for i in range(24)
    ]
    data = write_pack(tmp_path, rows)
    sampler = Sampler(data, batch=64, crop=16)
    assert sampler.ambiguous_captions == 0
    plans = [sampler.plan(step) for step in range(20)]
    colour = np.arange(24) % 3  # the last caption of each image differs from all others; the rest say the colour
    for plan in plans:
        shared = plan.caption[:, 0] % 3 < 2
        assert np.all(colour[plan.image[shared]] != colour[plan.mismatched_image[shared]])
        shared = plan.mismatched_caption[:, 0] % 3 < 2
        assert np.all(colour[plan.image[shared]] != colour[plan.mismatched_image[shared]])


def test_captions_without_a_mismatch_are_counted_and_a_set_of_nothing_else_is_refused(tmp_path):
    rows = [("a", ["a flower"], False), ("a", ["red", "a flower"], False), ("b", ["A flower"], False)]
    data = write_pack(tmp_path / "some", rows)
    # "a flower" of class a is everywhere in b; in a not the other way round: "A flower" of b has the images of a.
    assert Sampler(data, batch=2, crop=16).ambiguous_captions == 3 / 4
    data = write_pack(tmp_path / "all", rows[::2])
    with pytest.raises(t2i.DataError, match="mismatched pairs need captions that differ between classes"):
        Sampler(data, batch=2, crop=16)


def test_a_pack_of_the_old_form_is_refused_with_the_command_that_renews_it(uneven, tmp_path):
    folder = copied(uneven, tmp_path)
    old = {"version": 1, "provenance": {"kind": "folder", "source": "flowers", "fit": "crop", "boxes": False}}
    edited(**old)(folder)
    with pytest.raises(t2i.DataError, match="t2i-pack 1, which kept captions as character ids") as caught:
        PackedDataset(folder)
    assert str(caught.value).endswith(f": t2i-prepare folder flowers --out {folder} --size 16 --fit crop --force")


@pytest.mark.parametrize("images", [[], [0], [3, 1, 3], [47, 0, 12]], ids=str)
def test_the_caption_rows_of_images_are_listed_image_by_image(uneven, images):
    rows = uneven.caption_rows(np.array(images, np.int64))
    assert uneven.caption_texts(rows) == [caption for image in images for caption in uneven.captions_of(image)]


def test_an_independent_reader_sees_what_the_native_one_does(blossoms, blossoms_folder):
    record = json.loads((blossoms_folder / "pack.json").read_text())
    shards = [load_file(blossoms_folder / shard["file"]) for shard in record["shards"]]
    images = np.concatenate([shard["images"] for shard in shards])
    captions = [caption for shard in shards for caption in read_texts(shard)]
    assert images.shape == (800, 38, 38, 3)
    assert len(blossoms) == blossoms.images == record["images"] == 800
    assert blossoms.captions == record["captions"] == len(captions) == 8000
    assert blossoms.image_size == record["image_size"] == 38
    order = [799, 0, 5, 5]
    assert np.array_equal(blossoms.read_images(order), images[order])
    assert np.array_equal(blossoms.read_captions([7999, 3]), t2i.encode([captions[7999], captions[3]]))
    assert blossoms.caption_texts([7999, 3]) == [captions[7999], captions[3]]
    assert np.array_equal(blossoms.classes, np.concatenate([shard["classes"] for shard in shards]))
    assert np.array_equal(blossoms.splits, np.concatenate([shard["splits"] for shard in shards]))
    assert blossoms.class_names == record["classes"]
    assert blossoms.captions_of(3) == captions[30:40]
    assert np.array_equal(blossoms.extra("style"), np.concatenate([shard["style"] for shard in shards]))


def test_splits_are_those_of_pack_json_and_share_no_class(blossoms, blossoms_folder):
    record = json.loads((blossoms_folder / "pack.json").read_text())
    train, test = blossoms.split("train"), blossoms.split("test")
    assert {"train": len(train), "test": len(test)} == record["splits"]
    assert len(test) > 0
    assert not set(blossoms.classes[train]) & set(blossoms.classes[test])
    assert np.array_equal(np.sort(np.concatenate([train, test])), blossoms.split("all"))


def test_the_shards_of_a_pack_that_was_left_unfinished_are_not_read(tmp_path):
    pack_blossoms(tmp_path, images=40, size=16, show_progress=False)
    shutil.copy(tmp_path / "shard-00000.safetensors", tmp_path / "shard-00001.safetensors")
    assert PackedDataset(tmp_path).extra("attributes").shape == (40, 4)


def test_a_tensor_that_the_pack_lacks_is_named(uneven):
    with pytest.raises(t2i.DataError, match="no tensor 'style'"):
        uneven.extra("style")


def copied(pack, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(pack.path, folder)
    return folder


def edited(**changes):
    def damage(folder):
        record = json.loads((folder / "pack.json").read_text())
        (folder / "pack.json").write_text(json.dumps(record | changes))

    return damage


def other_tensor(folder):
    tensors = load_file(folder / "shard-00000.safetensors")
    save_file(tensors | {"classes": tensors["classes"].astype(np.int64)}, folder / "shard-00000.safetensors")


def padded(folder, spaces=2**24):
    (folder / "pack.json").write_text((folder / "pack.json").read_text() + " " * spaces)  # valid JSON


def test_spaces_behind_the_record_of_a_pack_do_no_harm(uneven, tmp_path):
    folder = copied(uneven, tmp_path)
    padded(folder, spaces=2**20)
    assert len(PackedDataset(folder)) == len(uneven)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (padded, "at most 16777216 bytes"),  # refused unread; a megabyte of spaces is not
        (lambda f: (f / "shard-00000.safetensors").write_bytes(b"short"), "shard-00000"),
        (lambda f: (f / "shard-00000.safetensors").unlink(), "shard-00000"),
        (other_tensor, "shard-00000"),
        (lambda f: (f / "pack.json").unlink(), "no pack.json"),
        (lambda f: (f / "pack.json").write_text("{"), "pack.json"),
        (lambda f: (f / "pack.json").write_text("[]"), "pack.json"),
        (lambda f: (f / "pack.json").write_bytes(b"\xff\xfe"), "pack.json"),
        (edited(format="zip"), "zip"),
        (edited(version=3), "t2i-pack 2, got .* 3"),
        (edited(images=49), "49"),
        (edited(captions=5), "5"),
        (edited(image_size=17), "17"),
        (edited(classes=["a"]), "class"),
        (edited(splits={"train": 48, "test": 0}), "48"),
        (edited(shards=[]), "shard|images"),
    ],
)
def test_a_damaged_pack_is_refused_with_its_file(uneven, tmp_path, damage, says):
    folder = copied(uneven, tmp_path)
    damage(folder)
    with pytest.raises(t2i.DataError, match=says) as caught:
        PackedDataset(folder)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_not_there_and_one_that_is_no_pack_say_what_to_run(tmp_path):
    with pytest.raises(t2i.DataError, match=r"no such folder: .*; t2i-prepare"):
        PackedDataset(tmp_path / "nothing")
    with pytest.raises(t2i.DataError, match=r"no pack\.json.*t2i-prepare"):
        PackedDataset(tmp_path)


def test_rows_outside_the_pack_are_refused(uneven):
    for index in ([48], [-1]):
        with pytest.raises(IndexError, match=f"from 0 to 47, got {index[0]}"):
            uneven.read_images(index)


# The sampler.

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


# The loader.


def slow_pictures(data, plan, size, prefix=""):
    """Crop and mirror one picture after another."""
    pictures = []
    rows = zip(*(getattr(plan, prefix + name) for name in ("image", "crop", "flip")), strict=True)
    for image, (top, left), mirrored in rows:
        picture = data.read_images([image])[0][top : top + size, left : left + size]
        pictures.append(picture[:, ::-1] if mirrored else picture)
    return np.stack(pictures)


def test_a_batch_is_the_plan_carried_out_slowly(blossoms):
    sampler = Sampler(blossoms, batch=16, crop=32, captions_per_image=2, interpolation="uniform", seed=1)
    options = {"batch": 16, "crop": 32, "captions_per_image": 2, "mismatched_images": True, "characters": True}
    loader = Loader(sampler, torch.device("cpu"), **options)
    batch, plan = loader.batch(9), sampler.plan(9)
    for tensor, prefix in ((batch.images, ""), (batch.mismatched_images, "mismatched_")):
        expected = slow_pictures(blossoms, plan, 32, prefix).transpose(0, 3, 1, 2) / 127.5 - 1
        assert tensor.dtype == torch.float32
        np.testing.assert_allclose(tensor.numpy(), expected, atol=1e-6)
    assert batch.images.min() >= -1
    assert batch.images.max() <= 1
    assert batch.images.is_contiguous(memory_format=torch.channels_last)
    assert np.array_equal(batch.captions, plan.caption)
    assert np.array_equal(batch.caption_ids.reshape(-1, 201), blossoms.read_captions(plan.caption.ravel()))
    others = blossoms.read_captions(plan.mismatched_caption.ravel())
    assert np.array_equal(batch.mismatched_caption_ids.reshape(-1, 201), others)
    assert np.array_equal(batch.classes, blossoms.classes[plan.image])
    assert np.array_equal(batch.interpolation_weight, plan.interpolation_weight)


def test_a_batch_stays_what_it_was_when_the_next_one_is_read(blossoms):
    loader = Loader(Sampler(blossoms, batch=4, crop=32), torch.device("cpu"), batch=4, crop=32, characters=True)
    first = loader.batch(0)
    images, letters = first.images.clone(), first.caption_ids.clone()
    second = loader.batch(1)
    assert torch.equal(first.images, images)
    assert torch.equal(first.caption_ids, letters)
    assert not torch.equal(second.images, images)
    assert not torch.equal(second.caption_ids, letters)


def test_the_number_of_threads_changes_nothing(blossoms):
    plan = Sampler(blossoms, batch=24, crop=32).plan(2)
    out = [np.empty((24, 32, 32, 3), np.uint8) for _ in range(4)]
    for buffer, threads in zip(out, (1, 2, 4, 8), strict=True):
        blossoms.native.fill(plan, images=buffer, threads=threads)
        assert np.array_equal(buffer, slow_pictures(blossoms, plan, 32))


def test_without_classes_every_picture_is_a_class_of_its_own(classless):
    loader = Loader(Sampler(classless, batch=8, crop=16), torch.device("cpu"), batch=8, crop=16)
    assert np.array_equal(loader.batch(0).classes, loader.sampler.plan(0).image)


def test_pixels_map_to_minus_one_and_one_exactly():
    pixels = torch.tensor([0, 51, 255], dtype=torch.uint8).reshape(1, 1, 1, 3)
    assert normalise(pixels).flatten().tolist() == pytest.approx([-1.0, -0.6, 1.0])


def test_a_shard_cut_under_a_running_loader_is_an_error_and_no_crash(uneven, tmp_path):
    data = PackedDataset(copied(uneven, tmp_path))
    loader = Loader(Sampler(data, batch=4, crop=16), torch.device("cpu"), batch=4, crop=16)
    loader.batch(0)
    with open(data.path / "shard-00000.safetensors", "r+b") as file:
        file.truncate(100)
    with pytest.raises(t2i.DataError, match="shard-00000"):
        loader.batch(1)
