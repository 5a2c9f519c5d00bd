"""The training loop on tiny networks: resuming to the bit, signals, refusals, and updates that are not finite."""

import dataclasses
import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch

import t2i
from helpers import tiny_config as config
from t2i.config.records import from_json
from t2i.data.loader import Loader
from t2i.errors import Stopped
from t2i.training import gan, losses
from t2i.training.progress import Progress, StopSignal
from t2i.training.step import GanStep
from t2i.weights import read_tensors

pytestmark = pytest.mark.usefixtures("one_thread")


def run(config, data, folder):
    gan.train(dataclasses.replace(config, out=str(folder)), data, folder)
    return (folder / "model.safetensors").read_bytes()


@pytest.fixture(scope="module", params=["end-to-end", "joint"])
def unbroken(request, tiny_blossoms, tmp_path_factory):
    """A run of six steps: its settings, its folder and the weights that it ends with."""
    chosen = config(text={"encoder": request.param}, alignment_weight=0.2 if request.param == "joint" else 0.0)
    folder = tmp_path_factory.mktemp(request.param)
    return chosen, folder, run(chosen, tiny_blossoms, folder)


def test_a_run_folder_holds_what_it_promises(unbroken, tiny_blossoms):
    chosen, folder, _ = unbroken
    assert from_json(folder / "config.json") == dataclasses.replace(chosen, out=str(folder))
    assert (folder / "samples" / "step-0000006.png").exists()
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    gan_lines = [line for line in lines if line["phase"] == "gan"]
    assert [line["step"] for line in gan_lines] == [1, 2, 3, 4, 5, 6]
    assert all(np.isfinite(line[name]) for line in gan_lines for name in ("d_loss", "g_loss", "images_per_second"))
    assert json.loads((folder / "data.json").read_text())["fingerprint"] == tiny_blossoms.fingerprint
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["step-00000006"]
    assert not list(folder.rglob("*partial*"))


def test_three_steps_and_three_more_are_six_to_the_bit(unbroken, tiny_blossoms, tmp_path):
    chosen, _, expected = unbroken
    assert run(dataclasses.replace(chosen, steps=3), tiny_blossoms, tmp_path) != expected
    assert run(chosen, tiny_blossoms, tmp_path) == expected


class CrashError(Exception):
    """Stands for a crash."""


def test_a_crash_resumes_from_the_last_checkpoint_to_the_same_bits(unbroken, tiny_blossoms, tmp_path, monkeypatch):
    chosen, _, expected = unbroken
    chosen = dataclasses.replace(chosen, checkpoint_every=2)
    calls, real = [], GanStep.__call__

    def crash(self, batch, step):
        calls.append(step)
        if step == 5 and calls.count(5) == 1:
            raise CrashError
        return real(self, batch, step)

    monkeypatch.setattr(GanStep, "__call__", crash)
    with pytest.raises(CrashError):
        run(chosen, tiny_blossoms, tmp_path)
    assert run(chosen, tiny_blossoms, tmp_path) == expected
    assert calls == [0, 1, 2, 3, 4, 5, 4, 5]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_after_the_step_with_a_checkpoint_and_resumes_to_the_same_bits(
    unbroken, tiny_blossoms, tmp_path, monkeypatch, number
):
    chosen, _, expected = unbroken
    real, before = GanStep.__call__, signal.getsignal(number)

    def signalled(self, batch, step):
        if step == 2:
            os.kill(os.getpid(), number)
        return real(self, batch, step)

    with monkeypatch.context() as patch:
        patch.setattr(GanStep, "__call__", signalled)
        with pytest.raises(Stopped, match="stopped after step 3 of 6; run the same command to resume"):
            run(chosen, tiny_blossoms, tmp_path)
    assert signal.getsignal(number) is before
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000003"]
    assert run(chosen, tiny_blossoms, tmp_path) == expected


def test_the_text_encoder_too_stops_and_resumes_to_the_same_bits(tiny_blossoms, tmp_path, monkeypatch):
    chosen = config(text={"encoder": "joint", "steps": 6}, steps=1)
    expected = run(chosen, tiny_blossoms, tmp_path / "unbroken")
    real = Loader.batch

    def signalled(self, step):
        if step == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(self, step)

    with monkeypatch.context() as patch:
        patch.setattr(Loader, "batch", signalled)
        with pytest.raises(Stopped, match=r"stopped after step 4 of \d+ of the text encoder; run the same command"):
            run(chosen, tiny_blossoms, tmp_path / "stopped")
    assert run(chosen, tiny_blossoms, tmp_path / "stopped") == expected


def test_a_second_signal_ends_the_process_at_once():
    stubborn = (
        "import os, signal, sys; from t2i.training.progress import StopSignal\n"
        "with StopSignal() as stop:\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    assert stop.asked\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    print('still here')\n"
    )
    done = subprocess.run([sys.executable, "-c", stubborn], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (-signal.SIGTERM, "")


def test_outside_the_main_thread_signals_are_left_alone():
    from threading import Thread

    before, asked = signal.getsignal(signal.SIGTERM), []

    def enter():
        with StopSignal() as stop:
            asked.append(stop.asked)

    thread = Thread(target=enter)
    thread.start()
    thread.join()
    assert asked == [False]
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_damaged_newest_checkpoint_falls_back_and_ends_with_the_same_bits(unbroken, tiny_blossoms, tmp_path, capsys):
    chosen, _, expected = unbroken
    run(dataclasses.replace(chosen, steps=4, checkpoint_every=2), tiny_blossoms, tmp_path)
    newest = tmp_path / "checkpoints" / "step-00000004" / "state.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1])
    assert run(dataclasses.replace(chosen, checkpoint_every=2), tiny_blossoms, tmp_path) == expected
    assert "skipped a damaged checkpoint" in capsys.readouterr().err


def test_a_damaged_text_encoder_is_trained_again_to_the_same_bits(tiny_blossoms, tmp_path, capsys):
    chosen = config(text={"encoder": "joint"}, steps=2)
    expected = run(chosen, tiny_blossoms, tmp_path)
    path = tmp_path / "text.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-100] + bytes(100))
    assert run(chosen, tiny_blossoms, tmp_path) == expected
    assert path.read_bytes() == whole
    assert "training the text encoder again" in capsys.readouterr().err


def test_lines_of_metrics_that_are_made_again_are_dropped_with_the_half_line_of_a_crash(tmp_path):
    path = tmp_path / "metrics.jsonl"
    lines = [("text", 1), ("text", 2), ("gan", 1), ("gan", 2), ("gan", 3)]
    path.write_text("".join(f'{{"phase": "{phase}", "step": {step}}}\n' for phase, step in lines) + '{"phase": "ga')
    progress = Progress(path, "gan", 1, 5, 8)
    progress.log(2, {"g_loss": 1.0})
    progress.close()
    records = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(record["phase"], record["step"]) for record in records] == [*lines[:3], ("gan", 2)]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"generator_width": 16}, "generator_width: 8 -> 16"),
        ({"seed": 1}, "seed: 0 -> 1"),
        ({"text": {"dim": 32}}, "text.dim: 16 -> 32"),
        ({"batch": 16, "ema": 0.0}, "batch: 8 -> 16; ema: 0.9 -> 0.0"),
    ],
)
def test_other_settings_are_refused_in_the_same_folder_with_the_difference(unbroken, tiny_blossoms, change, says):
    chosen, folder, expected = unbroken
    if "text" in change:
        change = {"text": dataclasses.replace(chosen.text, **change["text"])}
    with pytest.raises(t2i.ConfigError, match="choose another --out or add --force") as caught:
        run(dataclasses.replace(chosen, **change), tiny_blossoms, folder)
    assert says in str(caught.value)
    assert (folder / "model.safetensors").read_bytes() == expected


def test_other_data_is_refused_in_the_same_folder(unbroken, blossoms):
    chosen, folder, _ = unbroken
    with pytest.raises(t2i.ConfigError, match="data set: "):
        run(chosen, blossoms, folder)


def test_force_goes_on_with_other_settings(tiny_blossoms, tmp_path):
    run(config(steps=2), tiny_blossoms, tmp_path)
    run(config(steps=4, learning_rate=1e-3, force=True), tiny_blossoms, tmp_path)
    steps = [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3, 4]


def spoiled(loss, calls, spoil):
    """A loss that is replaced by `spoil(loss)` in the given calls, counted from 0."""
    count = iter(range(10**9))

    def call(*arguments):
        value = loss(*arguments)
        return spoil(value) if next(count) in calls else value

    return call


SPOILS = {"NaN": lambda loss: loss * float("nan"), "infinity": lambda loss: loss + float("inf")}
LOSSES = ["discriminator_loss", "generator_loss"]


@pytest.mark.parametrize("kind", SPOILS)
@pytest.mark.parametrize("name", LOSSES)
def test_an_update_that_is_not_finite_is_skipped_and_counted(tiny_blossoms, tmp_path, monkeypatch, name, kind):
    monkeypatch.setattr(losses, name, spoiled(getattr(losses, name), {1, 3}, SPOILS[kind]))
    run(config(steps=5), tiny_blossoms, tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row.get("skipped", 0) for row in rows] == [0, 1, 1, 2, 2]
    for path in tmp_path.rglob("*.safetensors"):
        assert all(torch.isfinite(tensor.float()).all() for tensor in read_tensors(path).values()), path


def test_ten_skipped_steps_in_a_row_stop_the_run_and_name_the_last_good_checkpoint(
    tiny_blossoms, tmp_path, monkeypatch
):
    monkeypatch.setattr(losses, "generator_loss", spoiled(losses.generator_loss, range(4, 99), SPOILS["NaN"]))
    with pytest.raises(
        t2i.T2IError, match=r"in 10 steps in a row, up to step 14; .*step-00000003; lower --learning-rate"
    ):
        run(config(steps=40, checkpoint_every=3), tiny_blossoms, tmp_path)


def test_pictures_larger_than_the_pack_are_refused_with_the_size_to_prepare(tiny_blossoms, tmp_path):
    with pytest.raises(
        t2i.ConfigError,
        match=r"--size 32 is larger .*\(19 px\); choose a smaller one, or prepare them with --size 38 or more",
    ):
        run(config(size=32), tiny_blossoms, tmp_path)


def test_learning_learns(tiny_blossoms, tmp_path):
    """Fifty steps are enough for the discriminator to rank real pairs above fakes: no sign is the wrong way round.

    The mean over steps 31 to 50, since single steps scatter: 0.06 to 0.19 with six seeds.
    """
    run(config(steps=50, log_every=1, mismatch="text", learning_rate=2e-3), tiny_blossoms, tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    gaps = [line["matching"] - line["fake"] for line in lines if "matching" in line][30:]
    assert len(gaps) == 20
    assert sum(gaps) / len(gaps) > 0.03
