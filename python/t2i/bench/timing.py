"""t2i-bench: how fast the parts are, beside what a user would use instead, on the same input, alternately.

* A row alternates rival and self, `rounds` times after one round that warms up, and reports the median of each, the median of
  the ratios and their spread: a machine that is busy for a while slows both.
* Answers are compared after the timing; a row whose answers differ is an error, not a result.
* Rivals are not part of the package: they stand in the repository's `benches/rivals`, found beside the package or by
  `--rivals`. Without them only our own figures are given.
* Beside each row stands its roofline: operations or bytes that cannot be avoided, and the time they take at the speed of
  memory or of matrix products, measured in the same run.
"""

import importlib.util
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from t2i import _native, runtime
from t2i.errors import ConfigError

Run = Callable[[], Any]


@dataclass
class Row:
    """One line of the table."""

    name: str
    own: float  # units a second
    unit: str
    rival: float | None = None  # units a second
    ratios: list[float] = field(default_factory=list)
    rounds: int = 0
    floor: float | None = None  # units a second that the roofline allows
    note: str = ""
    byte_floor: float | None = None  # units a second that the memory's speed allows
    memory: int = 0  # bytes: the GPU's peak, or on a CPU the process's

    def record(self, known: dict[str, Any]) -> dict[str, Any]:
        """Return the row as a JSON object."""
        spread = [round(min(self.ratios), 3), round(max(self.ratios), 3)] if self.ratios else None
        return {
            "name": self.name,
            "self": self.own,
            "rival": self.rival,
            "unit": self.unit,
            "ratio": round(statistics.median(self.ratios), 3) if self.ratios else None,
            "n": self.rounds,
            "spread": spread,
            "roofline": self.floor,
            "roofline_bytes": self.byte_floor,
            "note": self.note,
            "peak_memory": self.memory,
            **known,
        }

    def line(self) -> str:
        """Return the row as a line of the table."""
        rival = f"{_short(self.rival):>8}" if self.rival else f"{'':>8}"
        ratio = ""
        if self.ratios:
            ratio = f"{statistics.median(self.ratios):.2f} x ({min(self.ratios):.2f} .. {max(self.ratios):.2f})"
        floor = f"{self.own / self.floor:.0%} of floor" if self.floor else ""
        return f"{self.name:<11}{_short(self.own):>8}{rival}  {self.unit:<9} {ratio:<23} {floor}".rstrip()


def _short(value: float) -> str:
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g} {letter}"
    return f"{value:.3g}"


def alternate(own: Run, rival: Run | None, rounds: int, device: torch.device | None = None) -> tuple[list[float], ...]:
    """Run both in turn, once to warm up and then `rounds` times: seconds of each round, own and rival's."""
    taken: tuple[list[float], list[float]] = ([], [])
    for turn in range(rounds + 1):
        for run, times in zip((own, rival), taken, strict=True):
            if run is None:
                continue
            if device is not None and device.type == "cuda":
                torch.cuda.synchronize(device)
            start = time.perf_counter()
            run()
            if device is not None and device.type == "cuda":
                torch.cuda.synchronize(device)
            if turn:
                times.append(time.perf_counter() - start)
    return taken


def row(
    name: str,
    unit: str,
    amount: float,
    own: Run,
    rival: Run | None,
    rounds: int,
    *,
    rival_amount: float | None = None,
    floor: float | None = None,
    device: torch.device | None = None,
    note: str = "",
) -> Row:
    """Time one row.

    Args:
        name: Of the row.
        unit: What is counted.
        amount: Units that `own` processes per call.
        own: Ours.
        rival: The other; None where it cannot be had.
        rounds: Timed calls of each.
        rival_amount: Units that `rival` processes per call, where fewer.
        floor: Units a second that the roofline allows.
        device: Synchronised, where it is a GPU.
        note: Remark on the row.
    """
    on_gpu = device is not None and device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(device)
    mine, theirs = alternate(own, rival, rounds, device)
    memory = torch.cuda.max_memory_allocated(device) if on_gpu else runtime.peak_memory()
    scale = (rival_amount or amount) / amount
    ratios = [other / (ours * scale) for ours, other in zip(mine, theirs, strict=False)]
    slower = (rival_amount or amount) / statistics.median(theirs) if theirs else None
    return Row(name, amount / statistics.median(mine), unit, slower, ratios, rounds, floor, note, memory=memory)


def rivals(folder: str | None) -> dict[str, ModuleType]:
    """Load the rivals of the repository: name -> module; empty where there are none.

    Raises:
        ConfigError: `folder` was named and has none.
    """
    places = [Path(folder)] if folder else [Path("benches/rivals"), Path(__file__).parents[3] / "benches" / "rivals"]
    found = next((place for place in places if (place / "__init__.py").is_file()), None)
    if found is None:
        if folder:
            raise ConfigError(f"--rivals {folder}: no such folder of rivals; the repository's is benches/rivals")
        return {}
    package = "t2i_rivals"
    modules: dict[str, ModuleType] = {}
    for file in [found / "__init__.py", *sorted(found.glob("[a-z]*.py"))]:
        name = package if file.stem == "__init__" else f"{package}.{file.stem}"
        spec = importlib.util.spec_from_file_location(name, file, submodule_search_locations=[str(found)])
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
        if file.stem != "__init__":
            modules[file.stem] = module
    return modules


def commit() -> str:
    """Return the commit: the checkout's; else T2I_COMMIT; else commit.txt, which the release writes into its wheels."""
    root, package = Path(__file__).parents[3], Path(__file__).parents[1]
    if (root / "Cargo.toml").exists():
        words = ["git", "-C", str(root), "rev-parse", "--short", "HEAD"]
        try:
            asked = subprocess.run(words, capture_output=True, text=True, timeout=10)
        except (OSError, subprocess.SubprocessError):
            asked = None
        if asked is not None and asked.returncode == 0:
            return asked.stdout.strip()
    written = package / "commit.txt"
    return os.environ.get("T2I_COMMIT") or (written.read_text().strip() if written.exists() else "unknown")


def environment(device: torch.device) -> dict[str, Any]:
    """Describe the device and the versions of a measurement."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    versions = {"t2i": _native.__version__, "torch": torch.__version__, "numpy": np.__version__}
    return {"device": name, "commit": commit(), "versions": {**versions, "python": sys.version.split()[0]}}


def memory_speed() -> float:
    """Measure bytes a second that one core writes: the better of three."""
    block = np.empty(64 << 20, np.uint8)
    block.fill(1)
    best = min(_timed(lambda: block.fill(0)) for _ in range(3))
    return block.nbytes / best


def copy_speed(device: torch.device, size: int = 2**30) -> float:
    """Measure bytes a second that `device` reads and writes when it copies `size` bytes: the better of three."""
    one = torch.zeros(size, dtype=torch.uint8, device=device)
    other = torch.empty_like(one)

    def copy() -> None:
        other.copy_(one)
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    copy()
    return 2 * size / min(_timed(copy) for _ in range(3))


def product_speed(device: torch.device, dtype: torch.dtype) -> float:
    """Measure operations a second of a large matrix product on `device`: the better of three."""
    side = 4096 if device.type == "cuda" else 1536
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))

    def product() -> None:
        torch.mm(a, b)
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    product()
    return 2 * side**3 / min(_timed(product) for _ in range(3))


def _timed(run: Run) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def report(rows: Sequence[Row], known: dict[str, Any], as_json: bool) -> str:
    """Lay the rows out as a table, and with `as_json` as a JSON object a line behind it."""
    head = f"{'':<11}{'t2i':>8}{'rival':>8}  {'a second':<9} ratio (least .. most)"
    versions = ", ".join(f"{name} {version}" for name, version in known["versions"].items())
    memory = f"; peak memory {max((each.memory for each in rows), default=0) / 2**20:,.0f} MiB, rivals included"
    lines = [head, *(each.line() for each in rows), f"{known['device']}; commit {known['commit']}; {versions}{memory}"]
    if as_json:
        lines += [json.dumps(each.record(known)) for each in rows]
    return "\n".join(lines)
