"""Threads and precision: measured once, kept in the run, and the same when it resumes."""

import dataclasses
import os

import pytest
import torch

from helpers import call, tiny_config
from t2i import runtime
from t2i.config.records import from_json, to_json
from t2i.distributed import Ranks
from t2i.errors import ConfigError
from t2i.training import machine
from t2i.training.gan import train
from t2i.training.machine import AnyText, candidates, fastest_threads, resolve_machine, step_timer


@pytest.fixture(autouse=True)
def restore_threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def clock(seconds):
    """A timer whose n-th time with so many threads is the n-th of a list, or always the same."""
    asked = []

    def timed(threads):
        asked.append(threads)
        found = seconds[threads]
        return found[(asked.count(threads) - 1) % len(found)] if isinstance(found, list) else found

    return timed, asked


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ({1: 0.10, 2: 0.06}, 2),
        ({1: 0.10, 2: 0.30}, 1),  # another program holds a core
        ({1: 0.10, 2: 0.097}, 1),  # no gain worth a core
        ({1: [0.10, 0.10, 0.10], 2: [0.06, 0.5, 0.06]}, 2),  # one disturbed measurement
        ({1: 0.40, 4: 0.20, 7: 0.12, 8: 0.35}, 7),
    ],
)
def test_the_fastest_number_of_threads_is_taken(seconds, expected):
    timed, asked = clock(seconds)
    assert fastest_threads(timed, sorted(seconds)) == expected
    assert len(asked) == machine.ROUNDS * len(seconds)


def test_long_steps_are_timed_once():
    timed, asked = clock({1: 7.0, 2: 4.0})
    assert fastest_threads(timed, [1, 2]) == 2
    assert asked == [1, 2]


def test_one_core_is_not_timed():
    assert candidates(1) == [1]
    assert candidates(2) == [1, 2]
    assert candidates(16) == [1, 8, 15, 16]
    assert fastest_threads(lambda threads: pytest.fail("timed"), [1]) == 1


def test_random_embeddings_are_made_where_the_batch_is():
    rows = torch.zeros(4, 2, dtype=torch.int64, device="meta")  # a dry run of a GPU has them there
    assert AnyText(8)(rows, None).device == rows.device


@pytest.mark.parametrize("preset", ["paper", "modern"])
def test_a_timed_step_leaves_the_random_state_alone(preset):
    options = {} if preset == "paper" else {"network": "modern", "interpolation_weight": 0.0, "pixel_size": 16}
    text = {"encoder": "joint"} if preset == "modern" else {}
    before = torch.get_rng_state()
    timed = step_timer(tiny_config(text=text, **options))
    assert timed(1) > 0
    assert timed(1) > 0
    assert torch.equal(torch.get_rng_state(), before)


def test_what_was_measured_is_kept_for_the_resume(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "fastest_threads", lambda seconds, numbers: 1)
    open_settings = dataclasses.replace(tiny_config(), precision="auto", threads=0)
    first = resolve_machine(open_settings, tmp_path)
    assert first.threads == 1
    assert first.precision in ("float32", "bfloat16")
    (tmp_path / "config.json").write_text(to_json(first))
    monkeypatch.setattr(machine, "fastest_threads", lambda seconds, numbers: pytest.fail("measured again"))
    other = torch.bfloat16 if first.precision == "float32" else torch.float32
    monkeypatch.setattr(runtime, "pick_precision", lambda name, device: other)  # another machine, or another mood
    assert resolve_machine(open_settings, tmp_path) == first


def test_several_processes_take_the_number_they_were_started_with(tmp_path, monkeypatch):
    """Timed numbers could differ, and the processes' settings with them."""
    monkeypatch.setattr(machine, "fastest_threads", lambda seconds, numbers: pytest.fail("timed"))
    ranks = Ranks(rank=1, local=1, world=2)
    monkeypatch.setattr(Ranks, "any", lambda self, flag: flag)
    torch.set_num_threads(2)
    assert resolve_machine(dataclasses.replace(tiny_config(), threads=0), tmp_path, ranks).threads == 2


def test_another_number_of_threads_on_resume_is_said(tmp_path, capsys):
    (tmp_path / "config.json").write_text(to_json(tiny_config(threads=1)))
    resolve_machine(tiny_config(threads=1), tmp_path)
    assert capsys.readouterr().err == ""
    resolve_machine(tiny_config(threads=2), tmp_path)
    (line,) = capsys.readouterr().err.splitlines()
    assert "began with --threads 1 and resumes with 2" in line


@pytest.mark.parametrize(
    "words",
    [
        ["t2i-train", "--size", 16, "--threads", 100_000],
        ["t2i-train", "text", "--size", 16, "--threads", 100_000],
        ["t2i-train", "style", "--model", "{run}", "--threads", 100_000],
        ["t2i-bench", "--threads", 100_000],
        ["t2i-bench", "--threads", -1],
    ],
)
def test_more_threads_than_a_process_starts_are_refused_in_one_line(
    words, tiny_run, tiny_blossoms_folder, tmp_path, monkeypatch
):
    monkeypatch.setattr(torch, "set_num_threads", lambda count: pytest.fail(f"{count} threads"))
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    monkeypatch.chdir(tmp_path)
    words = [str(word).format(run=tiny_run) for word in words]
    code, _, err = call(*words, "--data", tiny_blossoms_folder, "--device", "cpu")
    assert code == 2
    assert f"--threads {words[words.index('--threads') + 1]}: this machine has 3 cores; choose 1 to 256" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(("cores", "count"), [(2, 256), (300, 300)])
def test_a_run_of_a_larger_machine_resumes_with_its_number_of_threads(monkeypatch, cores, count):
    asked = []
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    runtime.use_threads(count)
    runtime.use_threads(0)
    with pytest.raises(ConfigError, match=f"choose 1 to {count}"):
        runtime.use_threads(count + 1)
    assert asked == [count]


def test_a_run_records_what_it_computes_with(tiny_blossoms, tmp_path):
    train(dataclasses.replace(tiny_config(), precision="auto", steps=1), tiny_blossoms, tmp_path)
    kept = from_json(tmp_path / "config.json")
    assert kept.threads >= 1
    assert kept.precision == str(runtime.pick_precision("auto", torch.device("cpu"))).removeprefix("torch.")


@pytest.mark.parametrize(("bfloat16", "expected"), [(0.5, torch.bfloat16), (2.0, torch.float32)])
def test_bfloat16_is_taken_where_it_is_faster(monkeypatch, bfloat16, expected):
    class Ticking:
        """A clock that a product moves on by its cost."""

        now = 0.0

        def perf_counter(self):
            return Ticking.now

    real = torch.Tensor.__matmul__

    def product(one, two):
        Ticking.now += bfloat16 if one.dtype is torch.bfloat16 else 1.0
        return real(one[:1], two[:, :1])

    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    monkeypatch.setattr(torch.Tensor, "__matmul__", product)
    monkeypatch.setattr(runtime, "time", Ticking())
    runtime._bfloat16_is_faster.cache_clear()
    try:
        assert runtime.pick_precision("auto", torch.device("cpu")) is expected
    finally:
        runtime._bfloat16_is_faster.cache_clear()
