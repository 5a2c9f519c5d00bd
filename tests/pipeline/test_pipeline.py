"""The trained model as one object."""

import dataclasses
import json
import shutil

import pytest
import torch

import t2i
from t2i import runtime
from t2i.config.records import from_json, to_json
from t2i.pipeline import Pipeline

pytestmark = pytest.mark.usefixtures("one_thread")

RED, BLUE = "a flower with red petals", "a flower with blue petals"


@pytest.fixture(scope="module")
def run(tiny_run):
    return tiny_run


def with_setting(folder, **changes):
    config = from_json(folder / "config.json")
    (folder / "config.json").write_text(to_json(dataclasses.replace(config, **changes)))


@pytest.fixture(scope="module")
def pipe(run):
    return Pipeline.from_pretrained(run)


def test_it_draws_count_pictures_of_each_caption_in_order(pipe):
    drawn = pipe([RED, BLUE], count=3)
    assert len(drawn.images) == 6
    assert all(image.size == (16, 16) and image.mode == "RGB" for image in drawn.images)
    assert drawn.tensor.shape == (6, 3, 16, 16)
    assert drawn.tensor.abs().max() <= 1
    alone = pipe([BLUE], count=3)
    torch.testing.assert_close(drawn.tensor[3:], alone.tensor)


def test_one_sentence_needs_no_list(pipe):
    assert torch.equal(pipe(RED).tensor, pipe([RED]).tensor)


def test_the_picture_is_the_generators_of_the_seeds_noise_and_the_captions_embedding(pipe, run):
    noise = runtime.noise((2, 8), torch.device("cpu"), 5, 0, "generate")
    text = pipe.encoder(torch.from_numpy(t2i.encode([RED])))
    expected = pipe.generator(noise, text.expand(2, -1))
    torch.testing.assert_close(pipe(RED, count=2, seed=5).tensor, expected.detach())


def test_the_same_seed_draws_the_same_and_another_seed_something_else(pipe, run):
    first = pipe(RED, seed=1).tensor
    assert torch.equal(Pipeline.from_pretrained(str(run))(RED, seed=1).tensor, first)
    assert not torch.equal(pipe(RED, seed=2).tensor, first)


def test_noise_is_shared_across_captions_and_differs_within_one(pipe):
    seen = []
    hook = pipe.generator.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    pipe([RED, BLUE], count=2)
    hook.remove()
    noise = seen[0]
    assert torch.equal(noise[:2], noise[2:])
    assert not torch.equal(noise[0], noise[1])


def test_a_larger_count_keeps_the_first_pictures_noise(pipe):
    assert not torch.equal(*pipe(RED, count=2).tensor)


def test_drawing_does_not_change_the_model(pipe):
    before = {name: value.clone() for name, value in pipe.generator.state_dict().items()}
    pipe([RED] * 4, count=4)
    assert all(torch.equal(value, before[name]) for name, value in pipe.generator.state_dict().items())


@pytest.mark.parametrize(
    ("captions", "options", "says"),
    [
        ("", {}, "a caption is empty"),
        ([RED, " \n"], {}, "a caption is empty"),
        (RED, {"count": 0}, "count must be at least 1, got 0"),
        (RED, {"count": 2.5}, "count must be a whole number, got 2.5"),
        (b"abc", {}, "a caption must be a text .str., got bytes"),
        ([1], {}, "a caption must be a text .str., got int"),
        (None, {}, "a caption must be a text .str., got NoneType"),
    ],
)
def test_what_cannot_be_drawn_is_refused(pipe, captions, options, says):
    with pytest.raises(t2i.ConfigError, match=says):
        pipe(captions, **options)


@pytest.mark.parametrize("caption", ["x" * 10_000, "\U0001f33b", "\ud83c", "\x00", "A RED FLOWER"])
def test_any_other_caption_draws_something_finite(pipe, caption):
    assert torch.isfinite(pipe(caption).tensor).all()


def test_capitals_do_not_matter(pipe):
    assert torch.equal(pipe(RED.upper()).tensor, pipe(RED).tensor)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda f: (f / "config.json").unlink(), r"it has no config\.json"),
        (lambda f: (f / "model.safetensors").unlink(), r"no model\.safetensors yet"),
        (lambda f: (f / "model.safetensors").write_bytes(b"\x80\x04."), "not a readable safetensors file"),  # a pickle
        (lambda f: (f / "config.json").write_text("[]"), "cannot be read as the settings"),
        (
            lambda f: with_setting(f, noise_dim=9),
            r"generator\.project\.weight must be \(17, .*\), got \(16, .*\)",
        ),
        (
            lambda f: with_setting(f, size=32),
            r"generator\.",
        ),
    ],
)
def test_a_run_folder_that_cannot_be_loaded_says_why(run, tmp_path, change, says):
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((run / name).read_bytes())
    change(tmp_path)
    with pytest.raises(t2i.CheckpointError, match=says) as caught:
        Pipeline.from_pretrained(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("record", "says"),
    [
        ({"interpolation_loss": 0.5}, r"has folder format 1, this t2i reads 2: .*older t2i.*train the model again"),
        ({"format": 1}, r"has folder format 1, .*train the model again"),
        ({"format": 3}, r"has folder format 3, .*update t2i"),
        ({"format": "x" * 900}, "has folder format xxx"),
        ({"format": None}, "has folder format None"),
    ],
)
def test_a_folder_of_another_version_is_refused_with_what_to_do(run, tmp_path, record, says):
    """Version 1 had no field; its layers were seed, grow, shrink and picture."""
    shutil.copytree(run, tmp_path / "run")
    path = tmp_path / "run" / "config.json"
    fields = json.loads(path.read_text())
    assert fields.pop("format") == 2
    path.write_text(json.dumps(record | {k: v for k, v in fields.items() if k not in record}))
    with pytest.raises(t2i.CheckpointError, match=says) as caught:
        Pipeline.from_pretrained(tmp_path / "run")
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < len(str(path)) + 200


def test_a_folder_that_is_not_there_says_what_makes_one(tmp_path):
    with pytest.raises(t2i.CheckpointError, match="t2i-train makes one"):
        Pipeline.from_pretrained(tmp_path / "none")
