"""The style encoder: it inverts the generator, is verified rightly, and its commands refuse what they cannot use."""

import json
import re
import shutil

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

import t2i
from helpers import call
from t2i import runtime
from t2i.config.options import StyleConfig, TextOptions, TrainConfig
from t2i.config.records import to_json
from t2i.errors import CheckpointError, ConfigError, DataError
from t2i.metrics import style as verification
from t2i.models.encoders import StyleEncoder, blurred
from t2i.pipeline import Pipeline
from t2i.style import StyleReader
from t2i.training import losses
from t2i.training import style as training
from t2i.weights import save_weights

pytestmark = pytest.mark.usefixtures("one_thread")
CONFIG = TrainConfig(
    size=16, generator_width=8, noise_dim=4, projection_dim=8, text=TextOptions(width=8, channels=(8, 8), dim=16)
)
TINY = ("--steps", 3, "--batch", 4, "--width", 4, "--log-every", 1, "--device", "cpu", "--precision", "float32")
RED, BLUE = "a flower with red petals", "a flower with blue petals"


@pytest.fixture(scope="module")
def untrained(tmp_path_factory, tiny_blossoms):
    """A run folder with a random generator, whose batch statistics are those of its own pictures."""
    folder = tmp_path_factory.mktemp("run")
    torch.manual_seed(0)
    generator, encoder = t2i.Generator(16, 8, 4, 16, 8), t2i.CharCnnRnn("short", 8, 16, (8, 8))
    for _ in range(20):
        generator(torch.randn(64, 4), torch.randn(64, 16))
    with torch.no_grad():  # vivid pictures, and texts that make a difference
        generator.to_rgb.weight.mul_(30)
        encoder.head.weight.mul_(1000)
    save_weights(folder / "model.safetensors", {"generator": generator, "text": encoder})
    (folder / "config.json").write_text(to_json(CONFIG))
    facts = {"fingerprint": tiny_blossoms.fingerprint, "path": str(tiny_blossoms.path), "images": 150}
    (folder / "data.json").write_text(json.dumps(facts))
    return folder


@pytest.fixture(scope="module")
def run(untrained, tmp_path_factory):
    """The same with a style encoder of three steps, made by the command; and what that printed."""
    folder = tmp_path_factory.mktemp("styled") / "run"
    shutil.copytree(untrained, folder)
    return folder, call("t2i-train", "style", "--model", folder, *TINY)


@pytest.fixture(scope="module")
def pipe(run):
    return Pipeline.from_pretrained(run[0])


@pytest.mark.parametrize(("size", "noise_dim"), [(16, 4), (32, 100), (64, 100)])
def test_the_encoder_reads_a_noise_vector_from_each_picture(size, noise_dim):
    assert StyleEncoder(size, 4, noise_dim)(torch.zeros(3, 3, size, size)).shape == (3, noise_dim)


def test_the_encoder_refuses_a_size_that_is_no_power_of_two():
    with pytest.raises(ConfigError, match="power of two"):
        StyleEncoder(48)


def test_the_loss_is_the_squared_distance_a_dimension():
    read, noise = torch.tensor([[1.0, 2.0], [0.0, 0.0]]), torch.tensor([[0.0, 0.0], [3.0, 4.0]])
    assert losses.style_loss(read, noise).item() == pytest.approx((5 + 25) / 2 / 2)


def test_blurring_keeps_the_average_and_drops_a_checkerboard():
    board = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(8, 8).expand(1, 3, 16, 16)
    assert blurred(board).abs().max() < 1e-6
    assert torch.allclose(blurred(torch.full((1, 3, 16, 16), 0.3)), torch.tensor(0.3))


def test_the_encoder_learns_to_invert_a_tiny_generator(untrained):
    step_of = toy(untrained, steps=25, batch=32)
    step_of.texts = torch.randn(20, 16, generator=torch.Generator().manual_seed(1))
    cosines = [float(step_of(step)["cosine"]) for step in range(25)]
    assert cosines[0] < 0.3
    assert min(cosines[-5:]) > 0.8


def toy(folder, **changes):
    config = StyleConfig(model="", **({"batch": 64, "width": 8, "learning_rate": 1e-2, "blur": 0.0} | changes))
    return training.StyleStep(config, Pipeline.from_pretrained(folder), torch.device("cpu"), torch.float32)


def test_the_precision_it_began_with_is_recorded_for_the_resume(untrained, tmp_path, monkeypatch):
    folder = shutil.copytree(untrained, tmp_path / "run")
    found = []
    for faster in (False, True):  # two timings of one machine may differ
        monkeypatch.setattr(runtime, "_bfloat16_is_faster", lambda faster=faster: faster)
        code, _, err = call("t2i-train", "style", "--model", folder, *TINY, "--precision", "auto")
        assert code == 0, err
        found.append((folder / "style.json").read_bytes())
    assert found[0] == found[1]
    assert json.loads(found[0])["settings"]["precision"] == "float32"


def test_the_generator_stays_as_it_is(untrained):
    step_of = toy(untrained, steps=2)
    step_of.texts = torch.randn(5, 16)
    before = [tensor.clone() for tensor in step_of.generator.state_dict().values()]
    learned = step_of.encoder.head.weight.clone()
    step_of(0)
    assert all(map(torch.equal, before, step_of.generator.state_dict().values()))
    assert not torch.equal(learned, step_of.encoder.head.weight)


def test_draws_depend_on_the_step_alone_and_blur_on_its_flag(untrained):
    step_of = toy(untrained, steps=9, batch=6, blur=0.0)
    step_of.texts = torch.randn(5, 16)
    noise, clean = step_of.sample(3)
    assert all(map(torch.equal, step_of.sample(3), (noise, clean)))
    assert not torch.equal(step_of.sample(4)[0], noise)
    hidden = toy(untrained, steps=9, batch=6, blur=1.0, noise=0.0)
    hidden.texts = step_of.texts
    torch.testing.assert_close(hidden.sample(3)[1], blurred(clean))


@pytest.mark.parametrize(("part", "largest"), [(0.0, {1.0}), (1.0, {0.5, 1.0})])  # 1 where a text met itself
def test_interpolated_texts_are_midpoints(untrained, part, largest):
    step_of = toy(untrained, steps=9, batch=50, interpolated=part)
    step_of.texts = torch.eye(16)
    seen = []
    step_of.generator = lambda noise, texts: seen.append(texts) or torch.zeros(50, 3, 16, 16)
    step_of.sample(0)
    assert set(seen[0].amax(dim=1).tolist()) == largest
    assert torch.equal(seen[0].sum(dim=1), torch.ones(50))


def test_a_perfect_encoder_is_found_perfect_and_a_blind_one_at_chance(run, monkeypatch):
    """The measure itself: S that answers with the true background, and S that answers with noise."""
    pipe = Pipeline.from_pretrained(run[0])
    _ = pipe.style_reader

    class Border(torch.nn.Module):
        def forward(self, images):
            ring = torch.cat([images[:, :, 0].flatten(2), images[:, :, :, 0].flatten(2)], dim=2)
            return torch.cat([ring.mean(2), torch.ones(len(images), 1)], dim=1)

    class Blind(torch.nn.Module):
        def forward(self, images):
            return torch.randn(len(images), 4, generator=torch.Generator().manual_seed(len(images)))

    areas = {}
    for name, encoder in (("border", Border()), ("blind", Blind())):
        pipe._style = StyleReader(encoder, False)
        monkeypatch.setattr(verification.Pipeline, "from_pretrained", lambda *a: pipe)
        found = verification.style_of_run(run[0], pairs=100, images=40).figures["roc_area"]
        areas[name] = found["background"]["style"]
        assert 0.3 < found["background"]["text"] < 0.7
    assert areas["border"] > 0.8
    assert 0.35 < areas["blind"] < 0.65


def test_transfer_draws_each_caption_in_the_style_of_each_picture(pipe):
    styles = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    drawn = pipe.transfer_style(styles, [RED, BLUE])
    assert drawn.tensor.shape == (6, 3, 16, 16)
    assert len(drawn.images) == 6
    assert torch.equal(drawn.tensor, pipe.transfer_style(styles, [RED, BLUE]).tensor)
    alone = pipe.transfer_style(styles[2:], BLUE)
    torch.testing.assert_close(
        drawn.tensor[5:], alone.tensor, rtol=0, atol=1e-4
    )  # one picture is another batch: another order of sums
    noise = F.normalize(pipe.read_style(styles)) * 2  # the root of Z = 4
    torch.testing.assert_close(drawn.tensor[0::2], pipe.draw(noise, pipe.embed([RED] * 3)), rtol=0, atol=1e-4)


def test_transfer_takes_pictures_paths_and_tensors_alike(pipe, tmp_path):
    array = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    picture = Image.fromarray(array)
    picture.save(tmp_path / "style.png")
    tensor = torch.from_numpy(array).permute(2, 0, 1)[None] / 127.5 - 1
    first, *others = (
        pipe.transfer_style(style, RED).tensor
        for style in (tensor, picture, [picture], tmp_path / "style.png", [str(tmp_path / "style.png")])
    )
    for other in others:
        torch.testing.assert_close(first, other)


def test_photographs_are_read_blurred_and_drawn_pictures_as_they_are(pipe):
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1
    readings = torch.stack([pipe.style(blurred(images, side)) for side in (4, 5, 6, 7, 8)])
    torch.testing.assert_close(pipe.read_style(images), readings.mean(dim=0))
    torch.testing.assert_close(pipe.read_style(images, generated=True), pipe.style(images))


@pytest.mark.parametrize(
    ("styles", "error", "message"),
    [
        ([], ConfigError, "at least one image"),
        ("nowhere.png", DataError, "no such image: nowhere.png"),
        (torch.zeros(1, 3, 32, 32), ConfigError, r"\(n, 3, 16, 16\), got \(1, 3, 32, 32\)"),
        (torch.zeros(0, 3, 16, 16), ConfigError, r"got \(0, 3, 16, 16\)"),
        (torch.zeros(1, 3, 16, 16, dtype=torch.uint8), ConfigError, r"numbers in \[-1, 1\], got torch\.uint8"),
        (torch.full((1, 3, 16, 16), float("nan")), ConfigError, "got NaN or infinity"),
        (np.zeros((1, 16, 16, 3), np.uint8), ConfigError, "a path or an image of Pillow, got ndarray"),
        (5, ConfigError, "a path or an image of Pillow, got int"),
    ],
)
def test_style_pictures_that_cannot_be_used_are_refused(pipe, styles, error, message):
    with pytest.raises(error, match=message):
        pipe.transfer_style(styles, RED)


@pytest.mark.parametrize("read", ["read_style", "style_noise"])
def test_images_are_read_in_any_precision_and_refused_as_whole_numbers(pipe, read):
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1
    expected = getattr(pipe, read)(images)
    torch.testing.assert_close(getattr(pipe, read)(images.double()), expected)
    with pytest.raises(ConfigError, match=r"got torch\.uint8"):
        getattr(pipe, read)((images * 127).to(torch.uint8))


def test_a_style_encoder_of_another_model_is_refused(run, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(run[0], folder)
    other = t2i.Generator(16, 8, 4, 16, 8)
    save_weights(folder / "model.safetensors", {"generator": other, "text": t2i.CharCnnRnn("short", 8, 16, (8, 8))})
    with pytest.raises(CheckpointError, match=r"has changed since .* --force"):
        _ = Pipeline.from_pretrained(folder).style


def test_the_command_trains_writes_and_says_what_to_try(run):
    folder, (code, out, err) = run
    assert code == 0, err
    assert {"style.safetensors", "style.json", "metrics.jsonl"} <= {path.name for path in folder.iterdir()}
    assert out.startswith(f"t2i-generate --model {folder} --style IMAGE ")
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [(line["phase"], line["step"]) for line in lines] == [("style", 1), ("style", 2), ("style", 3)]


def test_resuming_ends_with_the_same_bytes(run, untrained, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    plain = training.StyleStep.__call__

    def interrupted(self, step):
        if step == 2:
            raise KeyboardInterrupt
        return plain(self, step)

    command = ("t2i-train", "style", "--model", untrained, "--out", folder, *TINY, "--checkpoint-every", 1)
    monkeypatch.setattr(training.StyleStep, "__call__", interrupted)
    assert call(*command)[0] == 130
    assert not (folder / "style.safetensors").exists()
    calls = []
    monkeypatch.setattr(training.StyleStep, "__call__", lambda self, step: calls.append(step) or plain(self, step))
    assert call(*command)[0] == 0
    assert calls == [2]
    assert (folder / "style.safetensors").read_bytes() == (run[0] / "style.safetensors").read_bytes()
    assert call("t2i-generate", "--model", folder, RED, "--out", tmp_path / "a.png", "--count", 1)[0] == 0


def test_other_settings_need_force(run, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(run[0], folder)
    code, _, err = call("t2i-train", "style", "--model", folder, *TINY, "--width", 8)
    assert code == 2
    assert "width: 4 -> 8" in err
    assert "--force" in err
    assert call("t2i-train", "style", "--model", folder, *TINY, "--width", 8, "--force")[0] == 0
    assert Pipeline.from_pretrained(folder).style.trunk[0].out_channels == 8


def test_a_style_encoder_without_its_checkpoints_is_replaced_by_force_alone(run, tmp_path):
    for number, recorded in enumerate([True, False]):  # freed disk space; a record that did not come along either
        folder = shutil.copytree(run[0], tmp_path / str(number))
        shutil.rmtree(folder / "style")
        if not recorded:
            (folder / "style.json").unlink()
        before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name[0] != "."}
        command = ("t2i-train", "style", "--model", folder, *TINY)
        code, _, err = call(*command)
        assert code == 2
        assert f"{folder} holds a style encoder but no checkpoint of it" in err
        assert {path: path.read_bytes() for path in before} == before
        assert call(*command, "--force")[0] == 0
        assert (folder / "style.safetensors").read_bytes() == before[folder / "style.safetensors"]  # the same settings


def test_generate_draws_the_table_of_styles_and_sentences(run, tmp_path):
    for name in ("a.png", "b.jpg"):
        Image.new("RGB", (40, 30), (200, 30, 30)).save(tmp_path / name)
    out = tmp_path / "table.png"
    styles = ("--style", tmp_path / "a.png", tmp_path / "b.jpg")
    for words in ((*styles, RED, BLUE, "a white one"), (RED, BLUE, "a white one", *styles)):
        code, _, err = call("t2i-generate", "--model", run[0], "--out", out, "--side", 40, *words)
        assert code == 0, err
        with Image.open(out) as picture:
            width, height = picture.size
        assert 4 * 40 < width < 6 * 40 + 40  # a style and three sentences across
        assert 2 * 40 < height < 2 * 40 + 180  # two styles down


def test_eval_style_prints_a_table_and_one_json_object(run, tmp_path):
    command = ("t2i-eval", "style", "--model", run[0], "--pairs", 40, "--images", 40, "--device", "cpu")
    code, out, err = call(*command, "--json", "--out", tmp_path / "roc.png")
    assert code == 0, err
    figures = json.loads(out.splitlines()[-1])
    assert set(figures["roc_area"]) == {"background", "place", "whole style"}
    for row in figures["roc_area"].values():
        assert 0 <= row["style"] <= 1
        assert 0 <= row["text"] <= 1
        assert f"{row['style']:.3f}" in out
    assert -1 <= figures["cosine"]["as_generated"] <= 1
    assert {"images", "captions", "pairs", "split", "size", "seed", "data"} <= set(figures["protocol"])
    assert figures["protocol"]["split"] == "test"
    with Image.open(tmp_path / "roc.png") as picture:
        assert picture.size[0] > 300
    assert call(*command, "--json", "--out", tmp_path / "roc.png")[1] == out


def test_eval_style_clusters_the_border_of_photographs(run, tmp_path):
    rng = np.random.default_rng(0)
    for number in range(24):
        flower = tmp_path / "pictures" / "ab"[number % 2]
        flower.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (24, 24, 3), np.uint8)).save(flower / f"{number}.png")
        (flower / f"{number}.txt").write_text(f"flower {number}\n")
    pack = tmp_path / "pack"
    assert call("t2i-prepare", "folder", tmp_path / "pictures", "--out", pack, "--size", 19)[0] == 0
    command = ("t2i-eval", "style", "--model", run[0], "--data", pack, "--pairs", 20, "--out", tmp_path / "a.png")
    code, out, err = call(*command, "--json", "--device", "cpu")
    assert code == 0, err
    figures = json.loads(out.splitlines()[-1])
    assert set(figures["roc_area"]) == {"background"}
    assert figures["protocol"]["clusters"] == 2  # ten pictures a cluster


def picture(folder):
    Image.new("RGB", (20, 20)).save(folder / "a.png")
    return folder / "a.png"


def not_a_picture(folder):
    (folder / "notes.jpg").write_text("not a picture")
    return folder / "notes.jpg"


CASES = {
    "a style picture that is none": (
        lambda run, bare, t: ["t2i-generate", "--model", run, "--style", not_a_picture(t), RED],
        r"notes\.jpg is not an image that can be read",
    ),
    "a style picture that is missing": (
        lambda run, bare, t: ["t2i-generate", "--model", run, "--style", "none.jpg", RED],
        r"no such image: none\.jpg",
    ),
    "a style without a sentence": (
        lambda run, bare, t: ["t2i-generate", "--model", run, "--style", "a.jpg", "b.jpg"],
        "a caption is missing",
    ),
    "no style encoder": (
        lambda run, bare, t: ["t2i-generate", "--model", bare, "--style", picture(t), RED],
        "train it first: t2i-train style --model ",
    ),
    "nothing to evaluate": (
        lambda run, bare, t: ["t2i-eval", "style", "--model", bare],
        "train it first: t2i-train style --model ",
    ),
    "no run to train on": (lambda run, bare, t: ["t2i-train", "style", "--model", t / "none"], "no such run folder"),
    "no data": (
        lambda run, bare, t: ["t2i-train", "style", "--model", bare, "--data", t / "none"],
        "no such folder: .*none",
    ),
    "a curve that cannot be written": (
        lambda run, bare, t: ["t2i-eval", "style", "--model", run, "--out", "curves.txt"],
        "--out must end in",
    ),
    "too few pairs": (lambda run, bare, t: ["t2i-eval", "style", "--model", run, "--pairs", 1], "at least 2"),
    "a part that is none": (lambda run, bare, t: ["t2i-train", "style", "--model", bare, "--blur", 2], "0..1"),
}


@pytest.mark.parametrize("case", CASES)
def test_wrong_input_is_one_clear_line_and_exit_code_2(case, run, untrained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make, message = CASES[case]
    code, _, err = call(*make(run[0], untrained, tmp_path))
    assert code == 2
    assert len(err.splitlines()) == 1
    assert re.search(message, err)


def test_a_data_set_that_has_gone_or_changed_is_named(run, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(run[0], folder)
    facts = json.loads((folder / "data.json").read_text())
    for changed, message in (({"path": "gone"}, "no such folder: gone"), ({"fingerprint": "0"}, "has changed since")):
        (folder / "data.json").write_text(json.dumps(facts | changed))
        code, _, err = call("t2i-eval", "style", "--model", folder)
        assert code == 2
        assert message in err
        assert "--data DIR" in err
