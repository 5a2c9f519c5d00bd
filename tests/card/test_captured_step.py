"""The whole step as a CUDA graph, on a device that computes nothing: real PyTorch, Triton, Inductor and capture, no values.

What it shows: the step is compiled and recorded, nothing in it waits for the host, all state lies on the device, and how many
kernels a step launches. What it cannot: numbers, times, cuDNN's choices. One sample runs with the suite; `make card` runs all.
"""

import json
from pathlib import Path

import pytest

from null import FULL, run, step

full = pytest.mark.skipif(not FULL, reason="make card runs it: compiling takes minutes")
pytestmark = pytest.mark.timeout(3600)
# Launches of a recorded step. Seen on 2026-11-26 with torch 2.15 (docs/method.md), and a few to spare for other versions.
BUDGETS = [
    pytest.param({"preset": "fast", "batch": 64, "compile": "off"}, 800, id="fast"),
    pytest.param({"preset": "fast", "batch": 64, "compile": "on"}, 330, id="fast compiled", marks=full),
    pytest.param({"preset": "fast", "batch": 512, "compile": "on"}, 350, id="fast compiled, 512", marks=full),
    pytest.param({"preset": "paper", "batch": 64, "compile": "on"}, 420, id="paper compiled", marks=full),
    pytest.param({"preset": "flowers", "batch": 64, "compile": "on"}, 420, id="flowers compiled", marks=full),
    pytest.param({"preset": "blossoms", "batch": 32, "compile": "on"}, 420, id="blossoms compiled", marks=full),
    pytest.param(
        {"preset": "fast", "batch": 64, "compile": "on", "deterministic": True}, 340, id="deterministic", marks=full
    ),
]


@pytest.mark.parametrize(("changes", "budget"), BUDGETS)
def test_a_step_is_recorded_whole_and_replayed(changes, budget):
    found = step(**changes)
    assert found["captured"]
    recorded, last = found["steps"][3], found["steps"][-1]
    assert [one["violations"] for one in found["steps"]] == [[]] * 6
    assert 0 < recorded["captured"] <= budget, recorded["kinds"]
    assert (last["replays"], last["captured"], last["waits"]) == (1, 0, {})
    assert last["launches"] <= 20  # the inputs' copies and the noise
    assert found["off_device"] == []
    if changes["compile"] == "on":
        assert found["warnings"] == []  # nothing fell back
        assert found["graphs"] >= 7  # G, D and G's update, forward and backward, and the EMA


def test_what_a_recording_forbids_is_refused_and_the_step_runs_as_it_is():
    found = json.loads(run(Path(__file__).with_name("null_controls.py")).splitlines()[-1])
    assert found.pop("good") == {"replayed": True, "fell_back": False, "violations": [], "error": None}
    assert len(found) == 5
    for name, said in found.items():
        assert (said["replayed"], said["fell_back"], said["error"]) == (False, True, None), name
