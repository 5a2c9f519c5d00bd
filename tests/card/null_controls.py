"""Negative controls on the null device: what a capture forbids is refused there, and the step then runs as it is."""

import ctypes
import json
import os
import tempfile
from pathlib import Path

import torch

from t2i.training.graph import Captured

NULL = ctypes.CDLL(os.path.join(os.environ["NULLCARD"], "libnullcuda.so"))
DEVICE = torch.device("cuda")


def good(inputs):
    return {"y": inputs["x"] * 2}


def waits(inputs):
    return {"y": torch.tensor(float(inputs["x"].sum()), device=DEVICE)}


def copies_from_pageable_memory(inputs):
    return {"y": inputs["x"] + torch.ones(4).to(DEVICE, non_blocking=True)}


def works_on_another_stream(inputs):
    with torch.cuda.stream(torch.cuda.Stream()):
        return {"y": inputs["x"] * 3}


def forks_and_does_not_join(inputs):
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        return {"y": inputs["x"] * 3}


def depends_on_values(inputs):
    return {"y": inputs["x"][inputs["x"] > 0]}


def violations() -> list[str]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "report.txt"
        NULL.nullcuda_report(str(path).encode())
        lines = path.read_text(errors="replace").splitlines()
    return [line.split("\t")[1] for line in lines if line.startswith("VIOLATION")]


def main() -> None:
    """Try each five times; print, by name, whether it was replayed, and what was forbidden."""
    found = {}
    tried = (
        good,
        waits,
        copies_from_pageable_memory,
        works_on_another_stream,
        forks_and_does_not_join,
        depends_on_values,
    )
    for function in tried:
        NULL.nullcuda_reset()
        captured = Captured(function, DEVICE)
        error = None
        try:
            for _ in range(6):
                captured({"x": torch.ones(4, device=DEVICE)})
        except Exception as caught:
            error = repr(caught)[:200]
        found[function.__name__] = {
            "replayed": captured.graph is not None,
            "fell_back": captured.failed,
            "violations": violations(),
            "error": error,
        }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
