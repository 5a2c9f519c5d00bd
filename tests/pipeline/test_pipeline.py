"""The trained model as one object."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch

import t2i
from t2i import pipeline, runtime
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
        (RED, {"count": True}, "count must be a whole number, got True"),
        (RED, {"count": 10**12}, r"1,000,000,000,000 images of 16 px need .* GB are free: ask for fewer"),
        (RED, {"count": 2**70}, "images of 16 px need"),
        (RED, {"seed": None}, "seed must be a whole number, got None"),
        (RED, {"seed": "1"}, "seed must be a whole number, got '1'"),
        (RED, {"seed": 1.5}, "seed must be a whole number, got 1.5"),
        (RED, {"truncation": "1"}, "truncation must be above 0"),
        (RED, {"truncation": [1]}, "truncation must be above 0"),
        (RED, {"truncation": 10**400}, "truncation must be above 0"),
        (b"abc", {}, "a caption must be a text .str., got bytes"),
        ([1], {}, "a caption must be a text .str., got int"),
        (None, {}, "a caption must be a text .str., got NoneType"),
    ],
)
def test_what_cannot_be_drawn_is_refused(pipe, captions, options, says):
    with pytest.raises(t2i.ConfigError, match=says):
        pipe(captions, **options)


@pytest.mark.parametrize("seed", [-1, 2**63, 2**200])
def test_any_whole_number_is_a_seed_and_numpys_are_the_same(pipe, seed):
    assert torch.isfinite(pipe(RED, seed=seed).tensor).all()
    assert torch.equal(pipe(RED, seed=np.int64(3), count=np.int32(2)).tensor, pipe(RED, seed=3, count=2).tensor)


NOISE, TEXT = torch.ones(2, 8), torch.ones(2, 16)


@pytest.mark.parametrize(
    ("noise", "text", "says"),
    [
        (NOISE[0], TEXT, r"noise must be a tensor of numbers \(n, 8\), got \(8,\)"),
        (torch.ones(2, 9), TEXT, r"noise must be .* got \(2, 9\)"),
        (NOISE, torch.ones(2, 15), r"text must be a tensor of numbers \(n, 16\), got \(2, 15\)"),
        (NOISE[:1], TEXT, "a row for each image, got 1 and 2 rows"),
        (NOISE.tolist(), TEXT, "noise must be .* got list"),
        (NOISE, None, "text must be .* got NoneType"),
        (NOISE * torch.nan, TEXT, "noise holds NaN or infinity"),
        (NOISE, TEXT.double() * 1e300, "text holds NaN or infinity, or what torch.float32 cannot hold"),
        (NOISE.to(torch.complex64), TEXT, "noise must be a tensor of numbers"),
        (NOISE.to_sparse(), TEXT, "noise must be a tensor of numbers"),
        (NOISE.to("meta"), TEXT, "noise must be a tensor of numbers"),
    ],
)
def test_noise_and_text_that_the_generator_does_not_take_are_refused_in_one_line(pipe, noise, text, says):
    with pytest.raises(t2i.ConfigError, match=says) as caught:
        pipe.draw(noise, text)
    assert "\n" not in str(caught.value)


def test_noise_and_text_of_any_type_of_number_are_drawn_from(pipe):
    expected = pipe.draw(NOISE, TEXT)
    for kind in (torch.float64, torch.float16, torch.int64):
        assert torch.equal(pipe.draw(NOISE.to(kind), TEXT.to(kind)), expected)
    assert not pipe.draw(NOISE.clone().requires_grad_(), TEXT).requires_grad


@pytest.mark.parametrize("kind", [torch.float64, torch.bfloat16])
def test_a_model_in_another_precision_draws_float32(run, kind):
    pipe = Pipeline.from_pretrained(run)
    expected = pipe(RED).tensor
    pipe.generator.to(kind)
    pipe.encoder.to(kind)
    drawn = pipe(RED).tensor
    assert drawn.dtype == torch.float32
    torch.testing.assert_close(drawn, expected, atol=0.2 if kind is torch.bfloat16 else 1e-4, rtol=0)


def test_many_images_are_drawn_in_parts(pipe, monkeypatch):
    expected, seen = pipe([RED, BLUE], count=5).tensor, []
    monkeypatch.setattr(pipeline, "PIXELS", 3 * 16 * 16)
    hook = pipe.generator.register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    drawn = pipe([RED, BLUE], count=5).tensor
    hook.remove()
    assert seen == [3, 3, 3, 1]
    torch.testing.assert_close(drawn, expected)


def test_no_caption_gives_no_image_and_an_iterator_is_read_once(pipe):
    assert pipe([]).tensor.shape == (0, 3, 16, 16)
    assert torch.equal(
        pipe.interpolate(iter([RED, BLUE]), steps=3).tensor, pipe.interpolate([RED, BLUE], steps=3).tensor
    )
    assert torch.equal(pipe.interpolate(RED, "noise", steps=3).tensor, pipe.interpolate([RED], "noise", steps=3).tensor)


def test_weights_of_a_sum_that_lead_beyond_float32_are_refused(pipe):
    for weight in (1e38, 10**400):
        with pytest.raises(t2i.ConfigError, match=r"NaN or infinity|all finite"):
            pipe.arithmetic([RED], [[weight]])


def test_what_of_one_sentence_is_not_read_is_said_of_the_sentence(pipe):
    odd = "a \U0001f33b flower"
    assert pipe.unread(odd) == pipe.unread([odd])
    with pytest.raises(t2i.ConfigError, match="a caption must be a text"):
        pipe.unread([5])


@pytest.mark.parametrize("device", [None, 5.5, ["cpu"], "cpu:x"])
def test_what_is_no_device_is_refused_in_one_line(run, device):
    with pytest.raises(t2i.ConfigError, match="--device must be auto") as caught:
        Pipeline.from_pretrained(run, device)
    assert "\n" not in str(caught.value)


def test_a_name_that_no_file_system_takes_is_one_line():
    with pytest.raises(t2i.CheckpointError, match="cannot be read: File name too long"):
        Pipeline.from_pretrained("a" * 5000)


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
