"""t2i-bench: rows whose answers were compared, ratios that mean what they say, and rivals that compute what we compute."""

import json
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import t2i
from helpers import ROOT, TINY, call, load_script
from t2i import prepare
from t2i.bench import rows as bench_rows
from t2i.bench import timing
from t2i.bench import timing as bench
from t2i.models.paper import Discriminator, Generator
from t2i.training.graph import WARM
from t2i.weights import read_tensors, serialise

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def rivals():
    found = timing.rivals(None)
    assert {"tokenizer", "loader", "step", "prepare"} <= set(found)
    return found


def test_the_ratio_is_how_much_less_time_we_take_for_as_much(monkeypatch):
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(time, "perf_counter", lambda: clock.now)

    def spend(seconds):
        def run():
            clock.now += seconds

        return run

    found = timing.row("x", "things", 100, spend(2.0), spend(3.0), 4, rival_amount=10)
    assert found.own == 50  # 100 in 2 s
    assert found.rival == pytest.approx(10 / 3)
    assert found.ratios == pytest.approx([15.0] * 4)  # 50 against 3.33 a second
    assert found.record({})["n"] == 4


def test_the_first_round_of_each_warms_up_and_is_not_counted():
    calls = []
    own, rival = timing.alternate(lambda: calls.append("own"), lambda: calls.append("rival"), 3)
    assert calls == ["own", "rival"] * 4
    assert (len(own), len(rival)) == (3, 3)


def test_the_usual_networks_compute_what_ours_compute(rivals, one_thread):
    torch.manual_seed(0)
    generator, discriminator = Generator(width=8), Discriminator(width=8)
    step = rivals["step"].UsualStep(generator, discriminator)
    noise, text = torch.randn(4, 100), torch.randn(4, 1024)
    drawn = generator(noise, text)
    torch.testing.assert_close(step.generator(noise, text), drawn, rtol=1e-4, atol=1e-5)
    scores = torch.sigmoid(discriminator(drawn, text))
    torch.testing.assert_close(step.discriminator(drawn, text), scores, rtol=1e-4, atol=1e-5)


def test_rows_of_the_data_path_beat_their_rivals_and_agree_with_them(rivals, tmp_path):
    """Not by how much: that is no test's business on a machine that others use."""
    from PIL import Image

    files = []
    for number in range(12):
        files.append(tmp_path / f"{number}.jpg")
        shade = np.linspace(0, 255, 320 * 240, dtype=np.uint8).reshape(240, 320)
        Image.fromarray(np.stack([shade, np.roll(shade, 9 * number), shade[::-1]], axis=2)).save(files[-1], quality=95)
    rows = {each.name: each for each in bench_rows.data_rows(None, rivals, 1, files)}
    assert list(rows) == ["tokenize", "tokenize_ngrams", "one_hot", "fill", "prepare"]
    assert rows["tokenize"].ratios[0] > 10
    assert rows["fill"].ratios[0] > 10


@pytest.mark.timeout(300)
def test_the_command_prints_a_table_and_a_json_object_a_row(tmp_path):
    code, out, _ = call("t2i-bench", "data", "--rounds", 1, "--json")
    assert code == 0
    lines = out.splitlines()
    assert max(map(len, lines[:4])) <= 80
    rows = [json.loads(line) for line in lines if line.startswith("{")]
    wanted = {"name", "self", "rival", "unit", "ratio", "n", "spread", "device", "commit", "versions"}
    assert [row["name"] for row in rows] == ["tokenize", "tokenize_ngrams", "one_hot", "fill"]
    assert all(wanted <= set(row) for row in rows)
    assert rows[0]["versions"]["t2i"] == t2i.__version__


def test_without_rivals_our_own_figures_are_given(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(bench, "__file__", str(tmp_path / "a" / "b" / "bench.py"))
    assert timing.rivals(None) == {}
    found = bench_rows._tokenize(None, 1)
    assert (found.rival, found.ratios) == (None, [])
    assert found.own > 0


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("data", "--rivals", "nowhere"), "--rivals nowhere: no such folder"),
        (("data", "--rounds", "0"), "--rounds must be at least 1"),
        (("data", "--data", "nowhere"), "no such folder: nowhere"),
        (("data", "--pictures", "."), "has no JPEG files"),
        (("step", "--device", "tpu"), "--device must be"),
    ],
)
def test_what_cannot_be_timed_is_one_line(words, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = call("t2i-bench", *words)
    assert code == 2
    assert says in err
    assert len(err.strip().splitlines()) == 1


@pytest.mark.timeout(300)
def test_the_one_command_for_the_card_trains_measures_and_writes_down(tmp_path):
    """On a CPU, in miniature: what `make gpu` runs on a card, but for the card."""
    from PIL import Image

    for number in range(32):
        folder = tmp_path / "pictures" / ("test" if number % 2 else "train") / f"class {number % 4}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (24, 24), (8 * number, 90, 200 - 5 * number)).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(f"a picture of number {number}\n")
    prepare.pack("folder", tmp_path / "pictures", tmp_path / "pack", size=19, show_progress=False)
    words = [*TINY[2:], "--sample-every", "2"]
    done = subprocess.run(
        [
            sys.executable,
            str(ROOT / "benches" / "python" / "gpu.py"),
            "--only",
            "fast",
            "--device",
            "cpu",
            "--data",
            str(tmp_path / "pack"),
            "--out",
            str(tmp_path),
            "--epochs",
            "1",
            "--legs",
            "1",
            "--count",
            "12",
            "--extra",
            *words,
        ],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (record,) = [json.loads(line) for line in (tmp_path / "figures.jsonl").read_text().splitlines()]
    assert (record["preset"], record["epochs"], record["exit"]) == ("fast", 1, 0)
    assert record["figures"]["diversity_pixels"]["protocol"]["generated"] == 12
    assert (tmp_path / "fast.png").exists()
    assert "| fast, 1 epochs" in (tmp_path / "table.md").read_text()
    kept = gpu_command()
    kept.join(tmp_path / "fast", tmp_path / "joined.safetensors")
    joined, whole = (
        read_tensors(path) for path in (tmp_path / "joined.safetensors", tmp_path / "work/fast/model.safetensors")
    )
    assert {name: t.shape for name, t in joined.items()} == {name: t.shape for name, t in whole.items()}


def gpu_command():
    """Import `benches/python/gpu.py`."""
    return load_script("benches/python/gpu.py")


def test_the_table_of_the_card_gives_both_shares_of_the_roofline(tmp_path):
    module = gpu_command()
    found = {
        "name": "step_fast",
        "n": 20,
        "self": 900.0,
        "unit": "images",
        "roofline": 3000.0,
        "roofline_bytes": 1200.0,
    }
    plain = {"name": "fill", "n": 20, "self": 5.0, "unit": "images", "roofline": None, "roofline_bytes": None}
    record = {"what": "bench", "batch": 64, "exit": 0, "rows": [found, plain]}
    (tmp_path / "figures.jsonl").write_text(json.dumps(record) + "\n")
    module.write_table(SimpleNamespace(out=tmp_path))
    table = (tmp_path / "table.md").read_text()
    assert "| 900 images/s, 30% of the roofline by operations, 75% of the roofline by bytes |" in table
    assert "| 5 images/s |" in table


def test_the_speed_of_copying_counts_what_is_read_and_what_is_written(monkeypatch):
    monkeypatch.setattr(timing, "_timed", lambda run: run() or 0.5)
    assert timing.copy_speed(torch.device("cpu"), size=1000) == 4000


def test_weights_are_split_in_bfloat16_and_put_together_again(tmp_path):
    command, (first, second) = gpu_command(), (torch.randn(1000, 10), torch.randn(300))
    tensors = {"a": first, "b": second, "count": torch.tensor(7)}
    (tmp_path / "model.safetensors").write_bytes(serialise(tensors))
    paths = command.split(tmp_path / "model.safetensors", tmp_path, most=20_000)
    assert [path.name for path in paths] == ["model-001-of-002.safetensors", "model-002-of-002.safetensors"]
    assert sum(path.stat().st_size for path in paths) < 0.7 * (tmp_path / "model.safetensors").stat().st_size
    command.join(tmp_path, tmp_path / "joined.safetensors")
    found = read_tensors(tmp_path / "joined.safetensors")
    assert found["count"] == 7
    for name in ("a", "b"):
        torch.testing.assert_close(found[name], tensors[name], rtol=2**-8, atol=0)


def test_the_command_for_the_card_says_when_there_is_more_and_goes_on_there(tmp_path, monkeypatch):
    command = gpu_command()
    options = SimpleNamespace(out=tmp_path, work=None, minutes=9.0, only=["tests"])
    ran = []

    def test(run, name):
        ran.append(name)
        run.deadline -= 260
        return None if len(ran) == 2 else 0

    monkeypatch.setattr(command, "test", test)
    assert command.piece(command.Run(options, time.monotonic() + 540)) == command.MORE  # the second was interrupted
    assert command.piece(command.Run(options, time.monotonic() + 540)) == command.MORE  # no time is left for the last
    assert command.piece(command.Run(options, time.monotonic() + 540)) == 0
    assert ran == [command.TESTS[number] for number in (0, 1, 1, 2, 3)]


def test_the_table_says_the_share_of_the_roofline_by_operations_and_by_bytes(tmp_path):
    command = gpu_command()
    row = {"name": "step_fast", "self": 5e3, "unit": "images", "n": 20, "roofline": 2e4, "roofline_bytes": 1e4}
    record = {"what": "bench", "batch": 512, "exit": 0, "rows": [row, row | {"roofline_bytes": None}]}
    (tmp_path / "figures.jsonl").write_text(json.dumps(record) + "\n")
    command.write_table(command.Run(SimpleNamespace(out=tmp_path, work=None), time.monotonic()))
    first, second = (tmp_path / "table.md").read_text().splitlines()[2:4]
    assert "| 5,000 images/s, 25% of the roofline by operations, 50% of the roofline by bytes |" in first
    assert second.endswith("| 5,000 images/s, 25% of the roofline by operations |")


def test_a_command_that_runs_into_the_end_of_a_piece_is_asked_to_end(tmp_path):
    command = gpu_command()
    run = command.Run(SimpleNamespace(out=tmp_path, work=None), time.monotonic())
    code, _, text = run.call([sys.executable, "-c", "import signal; print('begun', flush=True); signal.pause()"], "log")
    assert (code, "begun" in text) == (None, True)


def test_the_commit_is_known_from_a_wheel_too(tmp_path, monkeypatch):
    assert len(timing.commit()) >= 7  # of this checkout
    monkeypatch.setattr(timing, "__file__", str(tmp_path / "site-packages/t2i/bench/timing.py"))
    monkeypatch.delenv("T2I_COMMIT", raising=False)
    assert timing.commit() == "unknown"
    (tmp_path / "site-packages/t2i").mkdir(parents=True)
    (tmp_path / "site-packages/t2i/commit.txt").write_text("0123abc\n")
    assert timing.commit() == "0123abc"
    monkeypatch.setenv("T2I_COMMIT", "4567def")
    assert timing.commit() == "4567def"


def test_a_step_that_is_recorded_is_recorded_before_it_is_timed(monkeypatch):
    """The rounds timed the recording: two calls came before them, and the fourth records."""
    calls, timed = [], []

    class Step:
        captured = object()

        def __init__(self, *_):
            pass

        def __call__(self, batch, step):
            calls.append(step)
            return {"d_loss": torch.zeros(()), "g_loss": torch.zeros(())}

    monkeypatch.setattr(bench_rows, "GanStep", Step)
    monkeypatch.setattr(bench_rows, "product_speed", lambda *_: 1.0)
    monkeypatch.setattr(bench_rows, "copy_speed", lambda *_: 1e9)

    def timing_row(name, unit, *_, **__):
        timed.append(len(calls))
        return timing.Row(name, 1.0, unit)

    monkeypatch.setattr(bench_rows, "row", timing_row)
    found = bench_rows._step("step_fast", None, 3, 4, CPU)
    assert timed == [WARM + 1]
    once, each = bench_rows.STEP_BYTES["step_fast"]
    assert found.byte_floor == pytest.approx(1e9 / (once / 4 + each))
