"""Every Triton kernel compiled for an A100 and an H100, without either: no spills, work for all of it, grids that exist."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="Triton comes with torch's builds for Linux")
MULTIPROCESSORS = 132  # of an H100
GRID = (2**31 - 1, 65_535, 65_535)


@pytest.mark.timeout(600)
def test_kernels_compile_for_real_gpus_without_spilling_and_within_the_grids_limits():
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    script = Path(__file__).with_name("ahead_of_time.py")
    done = subprocess.run([sys.executable, script, "80", "90"], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert {one["architecture"] for one in found} == {80, 90}
    for one in found:
        assert one["local"] == one["stack"] == 0, one
        assert one["reg"] <= 128, one
        assert not one["floats"], one  # Inductor passes Python's numbers as float64: they must be constexpr
        assert math.prod(one["grid"]) >= MULTIPROCESSORS, one
        assert all(size <= most for size, most in zip(one["grid"], GRID, strict=False)), one
