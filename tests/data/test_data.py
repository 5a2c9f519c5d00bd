"""The packed data set and the loader, each against something slow, independent or counted by hand."""

import itertools
import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

import t2i
from helpers import write_pack
from t2i import _native
from t2i.blossoms.pack import pack_blossoms
from t2i.data.dataset import PackedDataset
from t2i.data.loader import Loader
from t2i.data.sampler import Sampler
from t2i.images import normalise


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
