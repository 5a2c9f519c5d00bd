"""The watchdogs warn about a run that learns nothing, once a cause, and leave a run that learns alone."""

import dataclasses

import pytest
import torch

from helpers import tiny_config as config
from t2i.models.build import generator
from t2i.training import gan, step
from t2i.training.watch import EARLY, LINES, Watch

pytestmark = pytest.mark.usefixtures("one_thread")

HEALTHY = {"matching": 0.6, "mismatched": 0.5, "fake": 0.4}
SURE = {"matching": 0.999, "mismatched": 0.002, "fake": 0.001}
LOST = {"matching": 0.501, "mismatched": 0.5, "fake": 0.499}


def warnings_of(lines):
    said = []
    watch = Watch(said.append)
    for done, values in enumerate(lines):
        watch.scores(done, values)
    return said


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ([SURE] * LINES, "right about every pair"),
        ([LOST] * LINES, "separated no pairs"),
        ([{"matching": 0.999, "fake": 0.001}] * LINES, "right about every pair"),  # no mismatched pairs
    ],
)
def test_a_discriminator_that_teaches_nothing_is_named_once(lines, says):
    (line,) = warnings_of(lines * 3)
    assert line.startswith("warning: the discriminator")
    assert says in line
    assert f"step {LINES - 1}" in line
    assert "\n" not in line


@pytest.mark.parametrize(
    "lines",
    [
        [HEALTHY] * 100,
        [*[SURE] * (LINES - 1), HEALTHY] * 5,  # it recovers
        [SURE, LOST] * 50,
        [SURE | {"mismatched": 0.5}] * 100,  # it still learns what matches
        [LOST | {"mismatched": 0.45}] * 100,
        [{}] * 100,  # nothing was finite
    ],
)
def test_a_discriminator_that_learns_is_left_alone(lines):
    assert warnings_of(lines) == []


def speeds_of(speeds):
    said = []
    watch = Watch(said.append)
    for done, speed in enumerate(speeds):
        watch.speed(done, speed)
    return said


def test_a_run_whose_speed_has_halved_says_so_once():
    (line,) = speeds_of([500, 520, 510, *[200] * 12])
    assert line.startswith("warning: 200 images a second at step 7, after 520 before: other programs use this machine")
    assert "--threads 1" in line


@pytest.mark.parametrize(
    "speeds", [[500] * 20, [500, 200, 500, 200] * 5, [500, *[270] * 20], [200] * 5 + [500] * 5, [0.0] * 9]
)
def test_a_run_that_is_slow_for_a_moment_is_left_alone(speeds):
    assert speeds_of(speeds) == []


def drawn(by_text, by_noise, seed=0):
    """Pictures (8 texts, 8 noises, 3, 4, 4) whose pixels vary so much with each."""
    rng = torch.Generator().manual_seed(seed)
    text, noise = torch.randn(8, 1, 3, 4, 4, generator=rng), torch.randn(1, 8, 3, 4, 4, generator=rng)
    return by_text * text + by_noise * noise


@pytest.mark.parametrize(
    ("by_text", "by_noise", "says"),
    [
        (0.3, 0.3, []),
        (0.3, 0.001, ["every noise gives the same image"]),
        (0.001, 0.3, ["every sentence gives the same image"]),
        (0.001, 0.001, ["every noise gives the same image", "every sentence gives the same image"]),
    ],
)
def test_pictures_that_ignore_noise_or_sentence_are_named_after_two_looks(by_text, by_noise, says):
    said = []
    watch = Watch(said.append)
    for done in (EARLY - 2, EARLY - 1, EARLY):  # an untrained generator draws gray: it has one look of these three
        watch.images(done, drawn(by_text, by_noise))
    assert said == []
    for done in (300, 400):
        watch.images(done, drawn(by_text, by_noise))
    assert len(said) == len(says)
    for line, expected in zip(said, says, strict=True):
        assert expected in line
        assert "step 300" in line


def test_one_text_or_one_noise_has_nothing_to_compare():
    said = []
    watch = Watch(said.append)
    for _ in range(5):
        watch.images(1000, torch.zeros(1, 1, 3, 4, 4))
    assert said == []


def test_a_run_whose_generator_draws_one_picture_says_so_and_goes_on(tiny_blossoms, tmp_path, capsys, monkeypatch):
    """A generator whose last layer is zero draws gray for every noise and sentence."""
    real = generator

    def gray(config):
        made = real(config)
        for weight in made.to_rgb.parameters():
            torch.nn.init.zeros_(weight)
        return made

    monkeypatch.setattr(step, "generator", gray)
    monkeypatch.setattr("t2i.training.watch.EARLY", 0)
    settings = dataclasses.replace(config(steps=3, sample_every=1, learning_rate=1e-9), out=str(tmp_path))
    gan.train(settings, tiny_blossoms, tmp_path)
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning:")]
    assert ["every noise" in lines[0], "every sentence" in lines[1], len(lines)] == [True, True, 2]
    assert (tmp_path / "model.safetensors").exists()
