"""The whole step as a CUDA graph, on a device that computes nothing: real PyTorch, Triton, Inductor and capture, no values.

What it shows: the step is compiled and recorded, nothing in it waits for the host, all state lies on the device, and how many
kernels a step launches. What it cannot: numbers, times, cuDNN's choices. One sample runs with the suite; `make card` runs all.
"""

import json
import math
from pathlib import Path

import pytest

from helpers import ROOT, TINY
from null import FULL, run, step
from t2i.blossoms.pack import pack_blossoms
from t2i.training.graph import WARM

full = pytest.mark.skipif(not FULL, reason="make card runs it: compiling takes minutes")
pytestmark = pytest.mark.timeout(3600)
# Launches of a recorded step: a few more than docs/method.md shows.
BUDGETS = [
    pytest.param({"preset": "fast", "batch": 64, "compile": "off"}, 760, id="fast"),
    pytest.param({"preset": "fast", "batch": 64, "compile": "off", "deterministic": True}, 760, id="exact", marks=full),
    pytest.param({"preset": "paper", "batch": 64, "compile": "off"}, 860, id="paper", marks=full),
    pytest.param({"preset": "flowers", "batch": 64, "compile": "off"}, 885, id="flowers", marks=full),
    pytest.param({"preset": "blossoms", "batch": 32, "compile": "off"}, 780, id="blossoms", marks=full),
    pytest.param({"preset": "fast", "batch": 64, "compile": "on"}, 328, id="fast compiled", marks=full),
    pytest.param({"preset": "fast", "batch": 512, "compile": "on"}, 340, id="fast compiled, 512", marks=full),
    pytest.param({"preset": "paper", "batch": 64, "compile": "on"}, 380, id="paper compiled", marks=full),
    pytest.param({"preset": "flowers", "batch": 64, "compile": "on"}, 355, id="flowers compiled", marks=full),
    pytest.param({"preset": "blossoms", "batch": 32, "compile": "on"}, 325, id="blossoms compiled", marks=full),
    pytest.param({"preset": "drawings", "compile": "off"}, 1185, id="drawings"),
    pytest.param({"preset": "drawings", "compile": "on"}, 458, id="drawings compiled", marks=full),
    pytest.param({"preset": "modern", "compile": "off"}, 2520, id="modern", marks=full),
    pytest.param({"preset": "modern", "compile": "on"}, 1105, id="modern compiled", marks=full),
]

BYTES = {("fast", 64): 1.3, ("fast", 512): 6.55}  # GB of element-wise kernels, likewise


@pytest.mark.parametrize(("changes", "budget"), BUDGETS)
def test_a_step_is_recorded_whole_and_replayed(changes, budget):
    found = step(**changes)
    assert found["captured"]
    recorded, last = found["steps"][3], found["steps"][-1]
    assert [one["violations"] for one in found["steps"]] == [[]] * 6
    assert 0 < recorded["captured"] <= budget, recorded["kinds"]
    assert (last["replays"], last["captured"], last["waits"]) == (1, 0, {})
    assert last["launches"] <= 30  # the inputs' copies and the noise; modern: which texts, too
    assert found["off_device"] == []
    if changes["compile"] == "on":
        assert found["warnings"] == []  # nothing fell back
        assert found["gigabytes"] <= BYTES.get((changes["preset"], changes.get("batch")), math.inf)
        assert found["graphs"] >= 7  # G, D and G's update, forward and backward, and the EMA


def test_what_a_recording_forbids_is_refused_and_the_step_runs_as_it_is():
    found = json.loads(run(Path(__file__).with_name("null_controls.py")).splitlines()[-1])
    assert found.pop("good") == {"replayed": True, "fell_back": False, "violations": [], "error": None}
    assert len(found) == 5
    for name, said in found.items():
        assert (said["replayed"], said["fell_back"], said["error"]) == (False, True, None), name


def test_the_tests_that_make_gpu_runs_give_kernels_tensors_of_the_card():
    """On a machine with a card Triton is not interpreted, and some gave it tensors of the CPU."""
    files = [str(ROOT / "tests" / name) for name in ("ops/test_kernels.py", "training/test_speed_paths.py")]
    said = run(Path(__file__).with_name("null_tests.py"), *files, "-k", "crop or triton")
    found = json.loads(said.splitlines()[-1])
    assert found["launches"] >= 2
    assert found["on_the_card"]


def test_a_training_records_its_step_and_goes_on_from_its_checkpoint(tmp_path):
    pack_blossoms(tmp_path / "pack", images=40, size=19, show_progress=False)
    flags = [{"cpu": "cuda", "float32": "bfloat16"}.get(flag, flag) for flag in TINY]
    flags += [
        "--text.kind",
        "char-cnn-rnn",
        "--compile",
        "off",
        "--data",
        str(tmp_path / "pack"),
        "--out",
        str(tmp_path / "run"),
    ]
    for steps, replayed in ((WARM + 5, 5), (2 * WARM + 8, 3)):  # the second starts from the first's end
        said = run(Path(__file__).with_name("null_train.py"), *flags, "--steps", str(steps))
        assert json.loads(said.splitlines()[-1]) == {"exit": 0, "replayed": replayed}
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 2 * WARM + 9))
