"""The class-contrastive recipe and distillation: their losses by hand, their runs, and every kind of encoder to the image."""

import dataclasses
import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from t2i import runtime
from t2i.config.options import JointOptions, TextConfig, TextOptions, TrainConfig
from t2i.config.records import text_options
from t2i.errors import ConfigError, Stopped
from t2i.metrics.zero_shot import zero_shot_of_run
from t2i.models import image_features
from t2i.models.efficientnet import STAGES, EfficientNetLite0
from t2i.models.encoders import ImageEncoder, WhitenedEncoder
from t2i.pipeline import Pipeline
from t2i.text.build import text_encoder
from t2i.training import gan, loop
from t2i.training import text as training
from t2i.training.losses import class_contrastive_loss
from t2i.training.text_objectives import warm_cosine
from t2i.weights import read_tensors

pytestmark = pytest.mark.usefixtures("one_thread")
RECIPE = JointOptions(
    kind="ngrams",
    buckets=(512, 256),
    objective="class-contrastive",
    dim=16,
    image_width=8,
    batch=16,
    captions=3,
    steps=6,
    learning_rate=5e-3,
)
CONFIG = TextConfig(size=16, precision="float32", text=RECIPE, log_every=1, checkpoint_every=3)


def config(folder, **text):
    return dataclasses.replace(CONFIG, out=str(folder), text=dataclasses.replace(RECIPE, **text))


@pytest.fixture(scope="module")
def teacher(tiny_blossoms, tmp_path_factory):
    return training.run(config(tmp_path_factory.mktemp("teacher") / "run"), tiny_blossoms)


def gan_settings(folder, **changes):
    """A small GAN whose generator learns from the joint embedding as well, of the size of the recipe's images."""
    plain = {
        "size": 16,
        "batch": 4,
        "steps": 2,
        "generator_width": 8,
        "discriminator_width": 8,
        "noise_dim": 4,
        "projection_dim": 8,
        "precision": "float32",
        "threads": 1,
        "captions_per_image": 1,
        "alignment_weight": 0.5,
    }
    return TrainConfig(out=str(folder), **(plain | changes))


def losses(run):
    return [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_the_loss_is_cross_entropy_against_half_own_and_half_class():
    torch.manual_seed(0)
    images, texts, classes = torch.randn(5, 4), torch.randn(5, 4), [3, 3, 1, 3, 2]
    unit, said = ([row / row.norm() for row in rows] for rows in (images, texts))
    total = 0.0
    for side in ("image", "text"):
        for i in range(5):
            scores = [float((unit[i] @ said[j] if side == "image" else unit[j] @ said[i]) / 0.1) for j in range(5)]
            log_sum = float(torch.tensor(scores).logsumexp(0))
            same = [j for j in range(5) if classes[j] == classes[i]]
            target = [0.5 * (j == i) + 0.5 * (j in same) / len(same) for j in range(5)]
            total += sum(t * (log_sum - s) for t, s in zip(target, scores, strict=True)) / 5 / 2
    assert float(class_contrastive_loss(images, texts, torch.tensor(classes))) == pytest.approx(total, rel=1e-5)


def test_without_classes_the_loss_is_the_plain_contrastive_one():
    images, texts = torch.randn(6, 4), F.normalize(torch.randn(6, 4), dim=1)
    scores = F.normalize(images, dim=1) @ texts.T / 0.1
    own = torch.arange(6)
    expected = (F.cross_entropy(scores, own) + F.cross_entropy(scores.T, own)) / 2
    torch.testing.assert_close(class_contrastive_loss(images, texts, own), expected)


def test_the_learning_rate_warms_up_and_falls_as_a_cosine():
    assert warm_cosine(1.0, 0, 800) == pytest.approx(1 / 50)
    assert warm_cosine(1.0, 400, 800) == pytest.approx(0.5)
    assert warm_cosine(1.0, 799, 800) < 1e-5


def test_components_of_the_training_features_have_variance_one_and_are_uncorrelated():
    torch.manual_seed(0)
    features = torch.randn(500, 12) @ torch.randn(12, 12) + 3
    encoder = WhitenedEncoder(12, 8, components=5)
    encoder.fit(features)
    white = (features - encoder.mean) @ encoder.components
    torch.testing.assert_close(white.mean(dim=0), torch.zeros(5), atol=1e-4, rtol=0)
    torch.testing.assert_close(white.T @ white / 500, torch.eye(5), atol=0.01, rtol=0)


def test_features_of_the_stages_are_mean_and_deviation_of_each_last_map():
    torch.manual_seed(0)
    net = EfficientNetLite0().eval()
    images = torch.rand(1, 3, 224, 224) * 2 - 1
    maps, ends = [], np.cumsum([stage[0] for stage in STAGES]) - 1
    net.stem.register_forward_hook(lambda *call: maps.append(call[-1]))
    for end in ends:
        net.blocks[end].register_forward_hook(lambda *call: maps.append(call[-1]))
    with torch.no_grad():
        found = net.stages(images)[0]
    expected = [
        torch.stack([statistic(channel) for channel in each[0]])
        for each in maps
        for statistic in (torch.mean, torch.std)
    ]
    assert [len(part) for part in expected[::2]] == [32, 16, 24, 40, 80, 112, 192, 320]
    torch.testing.assert_close(found, torch.cat(expected), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", ["ngrams", "char-cnn-rnn", "char-cnn-rnn-bytes"])
def test_every_kind_learns_by_the_recipe(kind, tiny_blossoms, tmp_path):
    run = training.run(
        config(tmp_path / kind, kind=kind, width=8, channels=(8, 8), steps=40, learning_rate=2e-2), tiny_blossoms
    )
    found = losses(run)
    assert np.mean(found[-5:]) < np.mean(found[:5]) - 0.05


def test_a_training_that_was_stopped_goes_on_in_the_precision_it_began_with(tiny_blossoms, tmp_path, monkeypatch):
    """Two timings of one machine may differ."""
    chosen = dataclasses.replace(config(tmp_path / "run"), precision="auto")
    save = loop.Loop.save_if_due

    def stopping(self):
        self.stop.asked = self.done == 3
        save(self)

    with monkeypatch.context() as patch:
        patch.setattr(runtime, "_bfloat16_is_faster", lambda: False)
        patch.setattr(loop.Loop, "save_if_due", stopping)
        with pytest.raises(Stopped):
            training.run(chosen, tiny_blossoms)
    monkeypatch.setattr(runtime, "_bfloat16_is_faster", lambda: True)
    training.run(chosen, tiny_blossoms)
    assert json.loads((tmp_path / "run" / "text.json").read_text())["settings"]["precision"] == "float32"
    training.run(config(tmp_path / "unbroken"), tiny_blossoms)
    one, two = (read_tensors(tmp_path / name / "text.safetensors") for name in ("unbroken", "run"))
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("objective", ["class-contrastive", "contrastive", "distillation"])
def test_a_run_that_was_stopped_ends_with_the_bits_of_one_that_was_not(
    objective, teacher, tiny_blossoms, tmp_path, monkeypatch
):
    changes = {"teacher": str(teacher)} if objective == "distillation" else {"objective": objective}
    assert RECIPE.kind == "ngrams"
    assert RECIPE.dropout > 0  # what is left out in a step must not depend on the steps before
    record = loop.Loop.record

    def stopping(self, step, measured):
        values = record(self, step, measured)
        self.stop.asked = step == 2
        return values

    training.run(config(tmp_path / "unbroken", **changes), tiny_blossoms)
    with monkeypatch.context() as patch:
        patch.setattr(loop.Loop, "record", stopping)
        with pytest.raises(Stopped):
            training.run(config(tmp_path / "run", **changes), tiny_blossoms)
    training.run(config(tmp_path / "run", **changes), tiny_blossoms)
    one, two = (read_tensors(tmp_path / name / "text.safetensors") for name in ("unbroken", "run"))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_frozen_features_are_whitened_on_the_training_images(
    tiny_blossoms, tiny_blossoms_folder, tmp_path, monkeypatch
):
    class Colours(torch.nn.Module):
        def forward(self, images):
            small = F.adaptive_avg_pool2d(images, 20).flatten(1)  # 1,200 numbers
            return torch.cat([small, images.flatten(2).std(dim=2).repeat(1, 144)], dim=1)  # 1,632

    monkeypatch.setattr(image_features, "network", lambda kind: Colours())
    try:
        run = training.run(
            config(tmp_path / "run", image_features="efficientnet-lite0-stages", steps=30), tiny_blossoms
        )
    finally:
        for file in tiny_blossoms_folder.glob("image-features-*"):
            file.unlink()
    tensors = read_tensors(run / "text.safetensors")
    assert tensors["image.components"].shape == (1632, 200)
    assert np.mean(losses(run)[-5:]) < losses(run)[0]


def test_a_student_imitates_its_teacher_and_keeps_its_image_side(teacher, tiny_blossoms, tmp_path):
    folder = tmp_path / "student"
    options = {"kind": "char-cnn-rnn-bytes", "width": 16, "channels": (16, 16), "teacher": str(teacher), "steps": 60}
    run = training.run(config(folder, **options, dim=999, learning_rate=1e-2), tiny_blossoms)
    cosines = [json.loads(line)["cosine"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert np.mean(cosines[-10:]) > np.mean(cosines[:10]) + 0.1
    mine, its = read_tensors(run / "text.safetensors"), read_tensors(teacher / "text.safetensors")
    images = [name for name in its if name.startswith("image.")]
    assert images
    assert all(torch.equal(mine[name], its[name]) for name in images)
    assert (text_options(run).dim, text_options(run).kind) == (16, "char-cnn-rnn-bytes")
    assert (
        zero_shot_of_run(run, split="all", data=str(tiny_blossoms.path)).figures["protocol"]["compared_by"] == "cosine"
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"size": 32}, "its image side reads 16 px, --size is 32"), ({"teacher": "nowhere"}, "no text.safetensors there")],
)
def test_a_teacher_that_does_not_fit_is_refused(changes, message, teacher, tiny_blossoms, tmp_path):
    text = dataclasses.replace(RECIPE, teacher=changes.get("teacher", str(teacher)))
    with pytest.raises(ConfigError, match=message):
        training.run(
            dataclasses.replace(CONFIG, out=str(tmp_path), text=text, size=changes.get("size", 16)), tiny_blossoms
        )


def test_a_bag_of_ngrams_learns_with_the_gan(tiny_blossoms, tmp_path):
    text = TextOptions(encoder="end-to-end", kind="ngrams", buckets=(512, 256), objective="class-contrastive", dim=16)
    settings = gan_settings(tmp_path, captions_per_image=2, alignment_weight=0.0, text=text)
    gan.train(settings, tiny_blossoms, tmp_path)
    torch.manual_seed(0)
    before, after = text_encoder(text).vectors, Pipeline.from_pretrained(tmp_path).encoder
    seen = after.idf > 0
    changed = (after.vectors != before).any(dim=1)
    assert changed.any()
    assert not changed[~seen].any()  # nothing teaches what no caption says


@pytest.mark.parametrize("kind", ["ngrams", "char-cnn-rnn-bytes"])
def test_a_gan_on_any_encoder_is_saved_and_loaded_to_the_bit(kind, tiny_blossoms, tmp_path):
    text = TextOptions(**dataclasses.asdict(dataclasses.replace(RECIPE, kind=kind, width=8, channels=(8, 8), steps=2)))
    gan.train(gan_settings(tmp_path / "run", text=text), tiny_blossoms, tmp_path / "run")
    pipe = Pipeline.from_pretrained(tmp_path / "run")
    sentences = ["a red flower", "一朵红花 🌸"]
    drawn = pipe(sentences).tensor
    loaded = Pipeline.from_pretrained(pipe.save_pretrained(tmp_path / "saved"))
    assert torch.equal(loaded(sentences).tensor, drawn)
    assert loaded.encoder.digest() == pipe.encoder.digest()
    assert not torch.equal(drawn[0], drawn[1])


def test_an_image_side_of_fewer_pixels_than_the_generator_has_is_trained_and_taken_over(blossoms, tmp_path):
    run, text = tmp_path / "own", TextOptions(**dataclasses.asdict(dataclasses.replace(RECIPE, image_size=16)))
    gan.train(gan_settings(run, size=32, steps=1, text=text), blossoms, run)
    trunk = [name for name in read_tensors(run / "text.safetensors") if name.startswith("image.trunk")]
    assert ImageEncoder.load(run / "text.safetensors", 16, 32).size == 16
    assert len([name for name in trunk if name.endswith("running_mean")]) == 2
    other = tmp_path / "other"
    gan.train(gan_settings(other, size=32, steps=1, text=TextOptions(encoder=str(run))), blossoms, other)
