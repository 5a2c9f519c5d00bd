"""The joint embedding as a command of its own: training, image features, embeddings from files, zero-shot figures."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from t2i.cli import main
from t2i.config.options import JointOptions, TextConfig, TextOptions, TrainConfig
from t2i.errors import CheckpointError, ConfigError, DataError
from t2i.metrics.zero_shot import average_precision, class_means, top1, zero_shot_of_run
from t2i.models import image_features
from t2i.models.image_features import frozen_features
from t2i.pipeline import Pipeline
from t2i.text import table as embeddings
from t2i.training import gan
from t2i.training import text as training
from t2i.training.text_objectives import TrainingFeatures
from t2i.weights import read_tensors

pytestmark = pytest.mark.usefixtures("one_thread")
SMALL = JointOptions(width=8, channels=(8, 8), dim=16, image_width=8, batch=8, steps=3)
CONFIG = TextConfig(size=16, precision="float32", text=SMALL, log_every=1)


def config(folder, **changes):
    text = dataclasses.replace(SMALL, **changes.pop("text", {}))
    return dataclasses.replace(CONFIG, out=str(folder), text=text, **changes)


def gan_config(encoder, **changes):
    return TrainConfig(
        size=16,
        batch=4,
        steps=2,
        generator_width=8,
        discriminator_width=8,
        noise_dim=4,
        projection_dim=8,
        precision="float32",
        threads=1,
        captions_per_image=1,
        text=TextOptions(encoder=str(encoder)),
        **changes,
    )


@pytest.fixture(scope="module")
def run(tiny_blossoms, tmp_path_factory):
    return training.run(config(tmp_path_factory.mktemp("run") / "text"), tiny_blossoms)


@pytest.fixture
def frozen(monkeypatch, tiny_blossoms_folder):
    """A feature network without weights to install: the mean colour, and the picture in 20 x 20, in 1,280 numbers."""

    class Colour(torch.nn.Module):
        def forward(self, images):
            small = torch.nn.functional.adaptive_avg_pool2d(images, 20).flatten(1)
            return torch.cat([images.mean(dim=(2, 3)), small, torch.zeros(len(images), 77)], dim=1)

    calls = []
    monkeypatch.setattr(image_features, "network", lambda kind: calls.append(kind) or Colour())
    yield calls
    for file in tiny_blossoms_folder.glob("image-features-*"):
        file.unlink()


# ---- training


def test_a_run_folder_holds_both_encoders_and_says_how_they_were_made(run, tiny_blossoms):
    tensors = read_tensors(run / "text.safetensors")
    assert {name.split(".")[0] for name in tensors} == {"text", "image"}
    record = json.loads((run / "text.json").read_text())
    assert record["data"] == tiny_blossoms.fingerprint
    assert record["settings"]["text"]["width"] == 8
    losses = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in losses] == [1, 2, 3]


def test_the_command_and_the_function_make_the_same_bits(run, tiny_blossoms_folder, tmp_path, monkeypatch, capsys):
    flags = "--size 16 --precision float32 --width 8 --channels 8 8 --dim 16 --image-width 8 --batch 8 --steps 3"
    out = tmp_path / "again"
    monkeypatch.setattr(
        "sys.argv", ["t2i-train", "text", "--data", str(tiny_blossoms_folder), "--out", str(out), *flags.split()]
    )
    main.train()
    assert (out / "text.safetensors").read_bytes() == (run / "text.safetensors").read_bytes()
    assert f"t2i-eval text --model {out}" in capsys.readouterr().out


def test_the_paper_preset_is_the_papers_objective():
    text = TextConfig().text
    assert (text.objective, text.batch, text.learning_rate, text.decay, text.epochs) == ("sje", 40, 7e-4, 0.98, 200)
    assert (text.dim, text.variant) == (1024, "short")


@pytest.mark.parametrize(
    ("changes", "epoch", "steps"),
    [
        ({"steps": 1800, "max_epochs": 50}, 37, 1800),  # 4,800 images
        ({"steps": 1800, "max_epochs": 50}, 8, 400),  # 1,138 images
        ({"steps": 1800, "max_epochs": 50}, 1, 300),  # few images still have the least
        ({"steps": 100, "max_epochs": 50}, 1, 100),  # which lengthens nothing
        ({"steps": 1800}, 1, 1800),
        ({"steps": None, "epochs": 200, "max_epochs": 50}, 10, 500),
        ({"steps": None, "epochs": 200}, 10, 2000),
    ],
)
def test_few_images_have_fewer_steps(changes, epoch, steps):
    assert training.steps_for(dataclasses.replace(SMALL, **changes), epoch) == steps


def test_training_ends_after_the_most_epochs(tiny_blossoms, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "MIN_STEPS", 1)
    images = len(tiny_blossoms.split("train"))
    few = {"objective": "class-contrastive", "kind": "ngrams", "batch": images // 2, "max_epochs": 2, "steps": 9}
    folder = training.run(config(tmp_path, text=few), tiny_blossoms)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"text": {"width": 12}}, r"width: 8 -> 12.*--force"),
        ({"seed": 1}, r"seed: 0 -> 1.*--force"),
        ({"text": {"objective": "contrastive"}}, r"objective: sje -> contrastive"),
        ({"size": 32}, r"--size 32 is larger than the images of .* \(19 px\)"),
    ],
)
def test_other_settings_in_the_same_folder_are_refused_with_the_difference(run, tiny_blossoms, change, says):
    before = (run / "text.safetensors").read_bytes()
    with pytest.raises(ConfigError, match=says):
        training.run(config(run, **change), tiny_blossoms)
    assert (run / "text.safetensors").read_bytes() == before


def test_force_begins_anew(tiny_blossoms, tmp_path):
    first = (training.run(config(tmp_path), tiny_blossoms) / "text.safetensors").read_bytes()
    training.run(config(tmp_path, text={"dim": 24}, force=True), tiny_blossoms)
    assert (tmp_path / "text.safetensors").read_bytes() != first
    assert json.loads((tmp_path / "text.json").read_text())["settings"]["text"]["dim"] == 24


def test_the_folder_of_a_gan_is_refused(tiny_blossoms, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"run of a GAN.*another --out"):
        training.run(config(tmp_path), tiny_blossoms)


def test_an_encoder_learns_to_match_pictures_with_frozen_features(tiny_blossoms, tmp_path, frozen):
    changed = {"image_features": "efficientnet-lite0", "steps": 200, "learning_rate": 2e-3, "objective": "contrastive"}
    folder = training.run(
        config(tmp_path, text={**changed, "width": 32, "batch": 16, "feature_size": 64}), tiny_blossoms
    )
    rows = [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert sum(rows[-10:]) < 0.8 * sum(rows[:10])
    assert frozen == ["efficientnet-lite0"]
    result = zero_shot_of_run(folder, device="cpu", split="train")
    assert result.figures["protocol"]["image_features"] == "efficientnet-lite0"
    assert result.figures["protocol"]["image_size"] == 64
    assert "image features efficientnet-lite0 at 64 px" in result.table()
    assert result.figures["top1"] > 3 / result.figures["protocol"]["classes"]


def test_features_of_a_picture_and_its_mirror_image_are_computed_once(tiny_blossoms, frozen, monkeypatch):
    rows, device = np.array([1, 4, 5, 8]), torch.device("cpu")
    first = frozen_features(tiny_blossoms, rows, "efficientnet-lite0", device)
    assert first.shape == (4, 2, 1280)
    mean = torch.from_numpy(tiny_blossoms.read_images([5])).float().div(127.5).sub(1).mean(dim=(1, 2))
    torch.testing.assert_close(first[2, :, :3], mean.repeat(2, 1), atol=2e-2, rtol=0)
    again = frozen_features(tiny_blossoms, rows, "efficientnet-lite0", device)
    assert torch.equal(first, again)
    assert frozen == ["efficientnet-lite0"]  # once
    others = frozen_features(tiny_blossoms, rows + 1, "efficientnet-lite0", device)
    assert torch.equal(others[1], first[2])  # image 5
    assert frozen == ["efficientnet-lite0"] * 2


@pytest.mark.parametrize(("settings", "size"), [({}, 224), ({"feature_size": 96}, 96)])
def test_frozen_features_are_of_images_of_the_size_that_is_set(
    tiny_blossoms, tmp_path, frozen, monkeypatch, settings, size
):
    seen, colour = set(), image_features.network("")
    colour.register_forward_pre_hook(lambda net, given: seen.add(tuple(given[0].shape[1:])))
    monkeypatch.setattr(image_features, "network", lambda kind: colour)
    chosen = {"image_features": "efficientnet-lite0", "steps": 1, "objective": "contrastive"} | settings
    made = training.run(config(tmp_path, text=chosen, precision="float32"), tiny_blossoms)
    assert seen == {(3, size, size)}
    seen.clear()
    zero_shot_of_run(made, device="cpu", split="all")
    assert seen == {(3, size, size)}


def test_training_finds_the_features_of_an_image_by_its_row_in_the_pack(tiny_blossoms, tmp_path, frozen):
    settings = config(tmp_path, text={"image_features": "efficientnet-lite0"}, precision="float32")
    features = TrainingFeatures(settings, tiny_blossoms, torch.device("cpu"))
    train = tiny_blossoms.split("train")
    assert train[-1] >= len(train)  # held-out images lie between
    images, mirrored = train[[-1, 3]], np.array([0, 1])
    expected = frozen_features(tiny_blossoms, np.sort(images), "efficientnet-lite0", torch.device("cpu"))
    assert torch.equal(features.of(images, mirrored), torch.stack([expected[1, 0], expected[0, 1]]))


# ---- a GAN on an encoder of another run, and on embeddings of a file


def test_a_gan_takes_the_settings_of_the_encoder_from_its_run(run, tiny_blossoms, tmp_path):
    gan.train(gan_config(run), tiny_blossoms, tmp_path)
    kept_config = json.loads((tmp_path / "config.json").read_text())["text"]
    assert (kept_config["encoder"], kept_config["width"], kept_config["dim"]) == (str(run), 8, 16)
    given, mine = read_tensors(run / "text.safetensors"), read_tensors(tmp_path / "model.safetensors")
    assert torch.equal(given["text.head.weight"], mine["text.head.weight"])
    assert Pipeline.from_pretrained(tmp_path)("a red flower").tensor.shape == (1, 3, 16, 16)


def test_captions_are_embedded_once_for_all_runs_on_the_same_encoder(run, tiny_blossoms, tmp_path, monkeypatch):
    gan.train(gan_config(run), tiny_blossoms, tmp_path / "one")
    monkeypatch.setattr(embeddings, "embed_captions", lambda *_: pytest.fail("embedded again"))
    gan.train(gan_config(run), tiny_blossoms, tmp_path / "two")
    one, two = (read_tensors(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("form", ["embeddings.npy", "embeddings.safetensors"])
def test_a_gan_learns_from_embeddings_of_a_file(tiny_blossoms, tmp_path, form, monkeypatch, capsys):
    counts = np.diff(tiny_blossoms.caption_offsets)
    table = np.random.default_rng(0).standard_normal((len(tiny_blossoms), counts[0], 12)).astype(np.float32)
    path = tmp_path / form
    if form.endswith("npy"):
        np.save(path, table)
    else:
        save_file({"embeddings": torch.from_numpy(table)}, path)
    assert torch.equal(embeddings.read_table(path, tiny_blossoms)[counts[0] * 3 + 1], torch.from_numpy(table[3, 1]))
    out = tmp_path / "run"
    gan.train(gan_config(path), tiny_blossoms, out)
    assert json.loads((out / "config.json").read_text())["text"]["dim"] == 12
    pipe = Pipeline.from_pretrained(out)
    assert pipe.draw(torch.zeros(2, 4), torch.from_numpy(table[0, :2])).shape == (2, 3, 16, 16)
    monkeypatch.setattr("sys.argv", ["t2i-generate", "--model", str(out), "a red flower"])
    capsys.readouterr()  # the training's progress
    with pytest.raises(SystemExit) as stop:
        main.generate()
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "has no text encoder" in line


BAD = {
    "of the wrong number of pictures": (lambda n, k: np.zeros((n + 1, k, 4), np.float32), r"needs \(150, \d+, T\)"),
    "of the wrong number of captions": (lambda n, k: np.zeros((n, k + 1, 4), np.float32), r"needs \(150, \d+, T\)"),
    "flat": (lambda n, k: np.zeros((n * k, 4), np.float32), r"holds embeddings \(\d+, 4\)"),
    "of no width": (lambda n, k: np.zeros((n, k, 0), np.float32), r"needs \(150, \d+, T\)"),
    "of whole numbers": (lambda n, k: np.zeros((n, k, 4), np.int32), r"floating-point embeddings .*, got int32"),
    "of objects": (lambda n, k: np.full((n, k, 4), None), r"not a readable \.npy of numbers"),
    "with NaN": (lambda n, k: np.full((n, k, 4), np.nan, np.float32), r"NaN or infinity"),
}


@pytest.mark.parametrize("name", BAD)
def test_embeddings_that_do_not_fit_are_refused_in_one_line(tiny_blossoms, tmp_path, name):
    make, says = BAD[name]
    path = tmp_path / "bad.npy"
    np.save(path, make(len(tiny_blossoms), int(np.diff(tiny_blossoms.caption_offsets)[0])), allow_pickle=True)
    with pytest.raises((ConfigError, DataError), match=says) as error:
        gan.train(gan_config(path), tiny_blossoms, tmp_path / "run")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda p: p / "nowhere", r"no such file, and neither joint nor end-to-end"),
        (lambda p: p, r"the folder has no text\.safetensors"),
        (
            lambda p: (p / "a.pickle").write_bytes(b"x") and p / "a.pickle",
            r"expected a run folder, a \.safetensors or a \.npy",
        ),
        (lambda p: (p / "a.safetensors").write_bytes(b"x") and p / "a.safetensors", r"not a readable safetensors"),
    ],
)
def test_what_is_no_encoder_is_refused_in_one_line(tiny_blossoms, tmp_path, make, says):
    with pytest.raises((ConfigError, CheckpointError), match=says):
        gan.train(gan_config(make(tmp_path)), tiny_blossoms, tmp_path / "run")


def test_a_judge_of_pictures_needs_an_image_side_that_reads_pixels(tiny_blossoms, tmp_path):
    path = tmp_path / "a.npy"
    counts = np.diff(tiny_blossoms.caption_offsets)
    np.save(path, np.zeros((len(tiny_blossoms), counts[0], 4), np.float32))
    with pytest.raises(ConfigError, match=r"--alignment-weight 0"):
        gan.train(gan_config(path, alignment_weight=0.5), tiny_blossoms, tmp_path / "run")


# ---- zero-shot figures


def test_zero_shot_figures_of_a_case_done_by_hand():
    labels = np.array([3, 3, 7, 7, 7])
    captions = torch.tensor([[1.0, 0], [3, 0], [0, 2], [0, 4], [0, 0]])
    classes, means = class_means(captions, np.array([3, 3, 7, 7, 7]), by_cosine=False)
    assert classes.tolist() == [3, 7]
    torch.testing.assert_close(means, torch.tensor([[2.0, 0], [0, 2]]))
    pictures = torch.tensor([[5.0, 1], [2, 3], [1, 4], [4, 2], [0, 1]])
    scores = pictures @ means.T  # best class by picture: 3 7 7 3 7; right: yes no yes no yes
    assert top1(scores, classes, labels) == pytest.approx((3 / 5, (1 / 2 + 2 / 3) / 2))
    # text 3 ranks pictures 0 3 1 2 4: of class 3 are the 1st and 3rd; text 7 ranks 2 1 3 0 4: 7 3 7 3 7
    assert average_precision(scores, classes, labels, 1) == pytest.approx((1 + 1) / 2)
    assert average_precision(scores, classes, labels, 2) == pytest.approx((1 / 2 + 1 / 2) / 2)
    assert average_precision(scores, classes, labels, 3) == pytest.approx((2 / 3 + 2 / 3) / 2)
    with pytest.raises(ConfigError, match=r"AP@6 needs at least 6 images of the split, there are 5"):
        average_precision(scores, classes, labels, 6)


def test_by_cosine_the_length_of_a_caption_counts_for_nothing():
    _, means = class_means(torch.tensor([[100.0, 0], [0, 1]]), np.array([0, 0]), by_cosine=True)
    torch.testing.assert_close(means, torch.full((1, 2), 0.5**0.5))


def test_eval_text_prints_a_table_and_json(run, tiny_blossoms_folder, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["t2i-eval", "text", "--model", str(run), "--split", "all", "--json"])
    main.evaluate()
    *table, last = capsys.readouterr().out.strip().splitlines()
    assert table[0].startswith("top-1")
    figures = json.loads(last)
    assert set(figures["average_precision"]) == {"1", "5", "10", "50"}
    assert figures["protocol"]["images"] == 150


def test_too_few_images_for_ap_50_leave_it_out_and_say_why(run, tiny_blossoms):
    few = len(tiny_blossoms.split("test"))
    assert 10 <= few < 50
    found = zero_shot_of_run(run, device="cpu")
    assert set(found.figures["average_precision"]) == {"1", "5", "10"}
    assert found.figures["not_measured"].keys() == {"AP@50"}
    assert (
        f"not measured: AP@50: it needs 50 images, and the test split of {tiny_blossoms.path} has {few}"
        in found.table()
    )


def test_a_single_class_cannot_be_told_from_anything(run, tiny_blossoms_folder, monkeypatch):
    from t2i.data.dataset import PackedDataset

    monkeypatch.setattr(PackedDataset, "split", lambda self, name: np.flatnonzero(self.classes == self.classes[0]))
    with pytest.raises(ConfigError, match=r"at least two classes; the test split of .* has 1"):
        zero_shot_of_run(run, device="cpu")


def test_a_folder_without_a_joint_embedding_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"no joint embedding.*t2i-train text makes one"):
        zero_shot_of_run(tmp_path)
