"""The null device of `../shared/nullcard`, built for the torch of this Python; tests skip where it cannot be."""

import functools
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch

from helpers import ROOT

TOOLS = ROOT.parent / "shared" / "nullcard"
FULL = bool(os.environ.get("T2I_CARD"))  # `make card`: everything, not a sample
# What Triton's launcher asks for besides what the null device has.
MORE = """
int cudaStreamIsCapturing(void *, int *);
int cuStreamIsCapturing(void *stream, int *status) { return cudaStreamIsCapturing(stream, status); }
int cuCtxSetLimit(int limit, unsigned long value) { return 0; }
int cuTensorMapEncodeIm2col() { return 0; }
"""


def missing() -> str | None:
    """Say what keeps the null device from being built here."""
    if not (TOOLS / "build_null.sh").exists():
        return "../shared/nullcard is not there"
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        return "the null device is for Linux on x86-64"
    if shutil.which("gcc") is None:
        return "the null device is built with gcc, which is not there"
    if torch.version.cuda is None:
        return "this torch is built without CUDA"
    if torch.cuda.is_available():
        return "this machine has a real GPU: make gpu"
    return None


@functools.cache
def build() -> Path:
    """Build the null device, once a session; skips the test where that is not possible."""
    reason = missing()
    if reason is not None:
        pytest.skip(f"{reason}; the captured step was not tried")
    out = Path(os.environ.get("NULLCARD") or tempfile.mkdtemp(prefix="nullcard-"))
    environment = Path(torch.__file__).parents[4]  # of lib/python3.x/site-packages/torch/__init__.py
    subprocess.run(["bash", TOOLS / "build_null.sh", environment, out], check=True, capture_output=True)
    (out / "more.c").write_text(MORE)
    words = ["gcc", "-w", "-fPIC", "-shared", "-o", "libmore.so", "more.c", "-L.", "-l:libnullcuda.so"]
    subprocess.run(words, check=True, cwd=out)
    return out


def run(script: Path, *arguments: str) -> str:
    """Run a Python file on the null device, with caches of its own (what is computed there is nonsense): its output."""
    out = build()
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"} | {
        "NULLCARD": str(out),
        "LD_PRELOAD": f"{out}/libnullcuda.so {out}/libmore.so",
        "LD_LIBRARY_PATH": str(out),
        "TRITON_LIBCUDA_PATH": str(out),
        "TORCHINDUCTOR_BENCHMARK_KERNEL": "1",
        "OMP_NUM_THREADS": "1",
        "TORCHINDUCTOR_COMPILE_THREADS": "1",
        "TORCHINDUCTOR_FX_GRAPH_CACHE": "0",
        "TORCHINDUCTOR_AUTOGRAD_CACHE": "0",
        "PYTORCH_NVML_BASED_CUDA_CHECK": "0",
        "XDG_CACHE_HOME": f"{out}/cache",
        "TORCHINDUCTOR_CACHE_DIR": f"{out}/cache/inductor",
        "TRITON_CACHE_DIR": f"{out}/cache/triton",
        "PYTHONPATH": os.pathsep.join([str(TOOLS / "site"), str(ROOT / "python"), os.environ.get("PYTHONPATH", "")]),
    }
    done = subprocess.run([sys.executable, script, *arguments], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def step(**changes) -> dict:
    """Run six steps of a preset there: see `null_step.py`."""
    said = run(Path(__file__).with_name("null_step.py"), json.dumps(changes))
    return json.loads([line for line in said.splitlines() if line.startswith("{")][-1])
