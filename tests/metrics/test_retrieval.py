"""R-precision: chance and perfection, a slow reference, and runs without a scorer."""

import contextlib
import zlib

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import t2i
from t2i.config.options import TextOptions, TrainConfig
from t2i.errors import CheckpointError, ConfigError, ScorerError
from t2i.metrics.retrieval import (
    JointEmbedding,
    captions_of_split,
    check_scorer,
    mismatched_rows,
    network_input,
    r_precision,
    r_precision_of,
)
from t2i.models.encoders import ImageEncoder
from t2i.weights import save_weights

pytestmark = pytest.mark.usefixtures("one_thread")
CPU = torch.device("cpu")
CONFIG = TrainConfig(size=16, text=TextOptions(width=8, channels=(8, 8), dim=16, objective="contrastive"))


def rows(count, width, seed):
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def asked():
    """3,000 pictures and captions of 50 classes, and 99 captions of other classes for each."""
    classes = np.arange(3000) % 50
    own = np.arange(3000)
    return own, mismatched_rows(classes, own, seed=0)


def test_random_embeddings_are_at_chance_of_one_percent(asked):
    found = r_precision(rows(3000, 16, 1), rows(3000, 16, 2), *asked)
    assert found == pytest.approx(0.01, abs=0.006)  # three standard errors


def test_perfect_embeddings_are_always_right(asked):
    captions = torch.nn.functional.normalize(rows(3000, 64, 1), dim=1)
    assert r_precision(captions, captions, *asked) == 1.0


def test_an_embedding_that_tells_nothing_apart_is_at_chance_exactly(asked):
    assert r_precision(rows(3000, 4, 1), torch.ones(3000, 4), *asked) == pytest.approx(0.01)


def test_r_precision_equals_a_loop_over_pictures():
    pictures, captions = rows(300, 6, 1), rows(80, 6, 2)  # 300: more than one block
    own = np.arange(300) % 80
    others = np.stack([np.random.default_rng(i).permutation(np.delete(np.arange(80), own[i]))[:5] for i in range(300)])
    right = sum(
        float(pictures[i] @ captions[own[i]]) > max(float(pictures[i] @ captions[j]) for j in others[i])
        for i in range(300)
    )
    assert 30 < right < 270
    assert r_precision(pictures, captions, own, others) == pytest.approx(right / 300)


def test_mismatched_captions_are_distinct_and_of_other_classes():
    classes = np.array([0] * 50 + [1] * 150 + [2] * 60)
    own = np.array([0, 49, 50, 200])
    others = mismatched_rows(classes, own, seed=5)
    assert others.shape == (4, 99)
    assert all(len(set(row)) == 99 for row in others)
    assert not (classes[others] == classes[own][:, None]).any()
    assert (others == mismatched_rows(classes, own, seed=5)).all()
    assert (others != mismatched_rows(classes, own, seed=6)).any()


def test_too_few_captions_of_other_classes_are_one_clear_line():
    classes = np.array([0] * 98 + [1] * 200)
    with pytest.raises(ConfigError, match=r"99 captions of other classes.*there are 98$"):
        mismatched_rows(classes, np.array([150]), seed=0)


def test_captions_carry_the_class_of_their_picture(tiny_blossoms):
    pictures = tiny_blossoms.split("test")
    rows_, classes = captions_of_split(tiny_blossoms, pictures)
    offsets = tiny_blossoms.caption_offsets
    for picture in pictures[:10]:
        mine = (rows_ >= offsets[picture]) & (rows_ < offsets[picture + 1])
        assert mine.sum() == offsets[picture + 1] - offsets[picture]
        assert (classes[mine] == tiny_blossoms.classes[picture]).all()


def test_without_classes_each_picture_is_its_own(tiny_blossoms, monkeypatch):
    monkeypatch.setattr(tiny_blossoms, "classes", np.full(len(tiny_blossoms), -1, np.int32))
    _, classes = captions_of_split(tiny_blossoms, np.array([3, 7]))
    assert set(classes) == {3, 7}


class Seer:
    """A scorer that knows: a caption's embedding is drawn from its text, and so is a picture's from its first pixel."""

    text = t2i.CharCnnRnn(width=8, text_dim=16, first_channels=(8, 8))  # for its tokens alone

    def embed_captions(self, ids):
        return torch.nn.functional.normalize(
            torch.stack([rows(1, 32, zlib.crc32(row.numpy().tobytes()))[0] for row in ids]), dim=1
        )

    def embed_images(self, images):
        return self.embed_captions(self.seen[images[:, 0, 0, 0].long()])


def test_each_image_is_scored_against_its_own_caption(tiny_blossoms):
    split = tiny_blossoms.split("all")
    generator = np.random.default_rng(0)
    captions = tiny_blossoms.caption_offsets[generator.permutation(split)[:40]] + generator.integers(0, 10, 40)
    seer = Seer()
    seer.seen = torch.from_numpy(tiny_blossoms.read_captions(captions))
    right = torch.arange(40.0).view(40, 1, 1, 1).expand(40, 3, 2, 2)
    found = r_precision_of(seer, tiny_blossoms, split, captions, 0, {"right": right, "wrong": right.roll(7, 0)})
    assert found["right"] == 1.0
    assert found["wrong"] < 0.2


@pytest.fixture
def run(tmp_path):
    torch.manual_seed(0)
    modules = {"text": t2i.CharCnnRnn("short", 8, 16, (8, 8)), "image": ImageEncoder(16, 4, 16)}
    save_weights(tmp_path / "text.safetensors", modules)
    return tmp_path, modules


@pytest.mark.parametrize(("objective", "by_cosine"), [("contrastive", True), ("sje", False)])
def test_the_scorer_is_the_runs_own_and_compares_as_it_was_trained(run, objective, by_cosine):
    folder, modules = run
    config = TrainConfig(size=16, text=TextOptions(width=8, channels=(8, 8), dim=16, objective=objective))
    joint = JointEmbedding.load(folder, config.text, 16, CPU)
    ids = torch.from_numpy(t2i.encode(["a red flower", "a blue one"]))
    images = network_input(np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), np.uint8))
    texts, pictures = modules["text"](ids), modules["image"].eval()(images)
    if by_cosine:
        texts, pictures = texts / texts.norm(dim=1, keepdim=True), pictures / pictures.norm(dim=1, keepdim=True)
    torch.testing.assert_close(joint.embed_captions(ids), texts.detach())
    torch.testing.assert_close(joint.embed_images(images), pictures.detach())


def test_the_scorer_of_smaller_images_reads_larger_ones_averaged(run):
    folder, modules = run
    options = TextOptions(width=8, channels=(8, 8), dim=16, objective="contrastive")
    joint = JointEmbedding.load(folder, options, 32, CPU)
    images = torch.rand(2, 3, 16, 16) * 2 - 1
    large = images.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    expected = torch.nn.functional.normalize(modules["image"].eval()(images), dim=1)
    torch.testing.assert_close(joint.embed_images(large), expected.detach())


def without_image(folder):
    save_weights(folder / "text.safetensors", {"text": t2i.CharCnnRnn("short", 8, 16, (8, 8))})


def of_another_size(folder):
    modules = {"text": t2i.CharCnnRnn("short", 8, 16, (8, 8)), "image": ImageEncoder(32, 4, 16)}
    save_weights(folder / "text.safetensors", modules)


def of_another_width(folder):
    modules = {"text": t2i.CharCnnRnn("short", 12, 16, (8, 8)), "image": ImageEncoder(16, 4, 16)}
    save_weights(folder / "text.safetensors", modules)


UNFIT = {
    "learned with the GAN": (lambda f: (f / "text.safetensors").unlink(), ConfigError, "has no joint embedding"),
    "no image side": (without_image, ConfigError, "no image side that reads pixels"),
    "another size": (of_another_size, ConfigError, "reads images of 32 px; the model generates 16 px"),
    "another width": (of_another_width, CheckpointError, "made with other sizes"),
    "damaged": (
        lambda f: (f / "text.safetensors").write_bytes(b"nothing"),
        CheckpointError,
        "not a readable safetensors",
    ),
    "half an image side": (
        lambda f: save_file({"image.trunk.0.weight": torch.zeros(4, 3, 4, 4)}, f / "text.safetensors"),
        ConfigError,
        "no image side",
    ),
}


@pytest.mark.parametrize("name", UNFIT)
def test_a_run_that_cannot_score_is_one_clear_line(run, name):
    spoil, kind, message = UNFIT[name]
    spoil(run[0])
    with pytest.raises(kind, match=message) as error:
        JointEmbedding.load(run[0], CONFIG.text, 16, CPU)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("real", "images", "passes"),
    [
        (0.01, 1000, False),
        (0.019, 1000, False),
        (0.02, 1000, True),
        (0.05, 20, False),
        (0.08, 20, True),
        (1, 1, True),
        (float("nan"), 1000, False),
    ],
)
def test_a_scorer_at_chance_on_real_images_is_refused(real, images, passes):
    """Three standard errors above 1%: 1.94% of 1,000 images, 7.7% of 20."""
    refused = pytest.raises(ScorerError, match=f"fails on real images: .* of {images}, chance is 1.0%")
    with contextlib.nullcontext() if passes else refused:
        check_scorer(real, images)
