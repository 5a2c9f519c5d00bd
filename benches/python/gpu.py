"""Everything that wants a CUDA device, in pieces of under ten minutes: tests, benches, and 600 epochs of `fast` and `paper`.

    make gpu DATA=data/oxford102 FEATURES=inception.safetensors TEXT=runs/text OUT=results

The same command again goes on where the last piece ended; it exits with 75 while there is more to do, with 0 at the end. A
training that a piece's end interrupts writes a checkpoint and resumes. `--minutes 0` does everything at once.

DATA is a packed data set (t2i-prepare), FEATURES the feature network of FID-768, TEXT a run of t2i-train text; without
TEXT, each run trains its own text encoder first. OUT gathers what is to be taken away: figures.jsonl (a JSON object a line),
table.md, logs, grids, and the weights in bfloat16, in files of at most 24 MB (`--join OUT/fast model.safetensors` puts them
together). Checkpoints lie in WORK. Needs Python with t2i, pytest for the tests, and this repository's files; no git: where
there is none, T2I_COMMIT says which commit this is.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("tests", "benches", "fast", "paper")
TESTS = ("ops/test_kernels", "ops/test_norm_act", "training/test_speed_paths", "training/test_gpu")
MORE = 75  # exit code while there is more to do (EX_TEMPFAIL)
STOPPING = 40  # seconds that a training has to write its checkpoint
LEAST = 30  # seconds under which nothing is started
PART_BYTES = 24_000_000


@dataclass
class Run:
    """One piece: where its results go and how long it has."""

    options: argparse.Namespace
    deadline: float

    def __post_init__(self) -> None:
        self.out, self.work = self.options.out.resolve(), (self.options.work or self.options.out / "work").resolve()
        self.work.mkdir(parents=True, exist_ok=True)
        self.out.mkdir(parents=True, exist_ok=True)
        (self.out / "figures.jsonl").touch()
        self.state_file = self.work / "state.json"
        known = json.loads(self.state_file.read_text()) if self.state_file.exists() else {}
        self.done: dict[str, int] = known.get("done", {})  # exit codes
        self.seconds: dict[str, float] = known.get("seconds", {})  # of each training so far

    def left(self) -> float:
        """Say how many seconds are left."""
        return self.deadline - time.monotonic()

    def save(self) -> None:
        """Write down what is done, for the next piece."""
        self.state_file.write_text(json.dumps({"done": self.done, "seconds": self.seconds}))

    def note(self, record: dict) -> None:
        """Add a line to figures.jsonl."""
        record["date"] = time.strftime("%Y-%m-%d")
        with open(self.out / "figures.jsonl", "a") as file:
            file.write(json.dumps(record) + "\n")
        print(json.dumps(record)[:600], flush=True)

    def call(self, words: list[str], log: str, stopping: float = 0) -> tuple[int | None, float, str]:
        """Run a command with its output in a log; at the deadline it is asked to end.

        Returns:
            Exit code (None where it was asked to end), seconds, output.
        """
        start, asked = time.perf_counter(), False
        path = self.out / log
        with open(path, "a") as file:
            at = file.tell()
            process = subprocess.Popen(words, stdout=file, stderr=subprocess.STDOUT, cwd=ROOT)
            try:
                process.wait(None if self.left() == float("inf") else max(1.0, self.left() - stopping))
            except subprocess.TimeoutExpired:
                asked = True
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(max(10.0, stopping))
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
        text = path.read_bytes()[at:].decode(errors="replace")
        return None if asked else process.returncode, time.perf_counter() - start, text


Task = Callable[[], int | None]  # exit code; None where it is to be gone on with in the next piece


def command(name: str, *words: object) -> list[str]:
    """Call a command of this installation."""
    return [sys.executable, "-c", f"from t2i.cli.main import {name}; {name}()", *map(str, words)]


def test(run: Run, name: str) -> int | None:
    """Run the tests of one file."""
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--timeout=500", f"tests/{name}.py"]
    code, seconds, text = run.call(words, f"tests-{Path(name).name}.log")
    if code is not None:
        run.note({"what": name, "exit": code, "seconds": seconds, "last": text.strip().splitlines()[-1:]})
    return code


def bench(run: Run, batch: int) -> int | None:
    """Time steps and generation at one batch size."""
    options = run.options
    words = command(
        "bench", "step", "generate", "--device", options.device, "--batch", batch, "--rounds", options.rounds, "--json"
    )
    code, _, text = run.call(words, f"bench-{batch}.log")
    if code is not None:
        rows = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
        run.note({"what": "bench", "batch": batch, "exit": code, "rows": rows})
    return code


def train(run: Run, preset: str, leg: int) -> int | None:
    """Train up to the end of a leg."""
    options, folder = run.options, run.work / preset
    epochs = options.epochs * leg // options.legs
    text = ["--text.encoder", options.text] if options.text else []
    words = command(
        "train",
        "--data",
        options.data,
        "--preset",
        preset,
        "--out",
        folder,
        "--epochs",
        epochs,
        "--device",
        options.device,
        "--sample-every",
        5000,
        "--checkpoint-every",
        5000,
        "--log-every",
        200,
        *text,
        *options.extra,
    )
    code, seconds, _ = run.call(words, f"train-{preset}.log", STOPPING)
    run.seconds[preset] = run.seconds.get(preset, 0.0) + seconds
    if code:
        run.note({"what": "training", "preset": preset, "epochs": epochs, "exit": code})
    return code


def evaluate(run: Run, preset: str, leg: int) -> int | None:
    """Measure a trained leg, and gather its weights and its grid."""
    options, folder = run.options, run.work / preset
    epochs = options.epochs * leg // options.legs
    features = ["--features", options.features] if options.features else []
    words = command("evaluate", "images", "--model", folder, "--count", options.count, "--json", *features)
    code, _, text = run.call(words, f"eval-{preset}-{epochs}.log")
    if code is None:
        return None
    metrics = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    speeds = sorted(line["images_per_second"] for line in metrics if line.get("phase") == "gan")
    lines = [line for line in text.splitlines() if line.startswith("{")]
    run.note(
        {
            "what": "training",
            "preset": preset,
            "epochs": epochs,
            "exit": code,
            "in_all": run.seconds.get(preset),
            "images_per_second": speeds[len(speeds) // 2] if speeds else None,
            "figures": json.loads(lines[-1]) if code == 0 and lines else None,
        }
    )
    for image in sorted((folder / "samples").glob("*.png"))[-1:]:
        shutil.copy(image, run.out / f"{preset}.png")
    kept = run.out / preset
    kept.mkdir(exist_ok=True)
    for name in ("metrics.jsonl", "config.json", "data.json"):
        if (folder / name).exists():
            shutil.copy(folder / name, kept / name)
    split(folder / "model.safetensors", kept)
    return code


def split(model: Path, folder: Path, most: int = PART_BYTES) -> list[Path]:
    """Write a model's weights in bfloat16, in files of at most `most` bytes of weights (a larger tensor has its own)."""
    import torch

    from t2i.weights import read_tensors, serialise

    parts: list[dict[str, torch.Tensor]] = [{}]
    size = 0
    for name, tensor in sorted(read_tensors(model).items()):  # the library lists them in any order
        small = tensor.bfloat16() if tensor.is_floating_point() else tensor
        if parts[-1] and size + small.nbytes > most:
            parts.append({})
            size = 0
        parts[-1][name] = small
        size += small.nbytes
    for old in folder.glob("model-*-of-*.safetensors"):
        old.unlink()
    paths = [folder / f"model-{n:03}-of-{len(parts):03}.safetensors" for n in range(1, len(parts) + 1)]
    for path, part in zip(paths, parts, strict=True):
        path.write_bytes(serialise(part))
    return paths


def join(folder: Path, model: Path) -> None:
    """Put the files of `split` together again, in float32."""
    from t2i.weights import read_tensors, serialise

    tensors = {}
    for path in sorted(folder.glob("model-*-of-*.safetensors")):
        tensors |= {name: t.float() if t.is_floating_point() else t for name, t in read_tensors(path).items()}
    if not tensors:
        sys.exit(f"{folder} holds no model-001-of-N.safetensors")
    model.write_bytes(serialise(tensors))


def write_table(run: Run) -> None:
    """Sum up figures.jsonl in one table: speed, its share of the roofline, and measures after equal time."""
    records = [json.loads(line) for line in (run.out / "figures.jsonl").read_text().splitlines()]
    lines, known = ["| what | figure |", "| --- | --- |"], {}
    for record in records:
        for row in record.get("rows", []):
            known = {name: row.get(name) for name in ("device", "commit", "versions")}
            share = "".join(
                f", {row['self'] / row[key]:.0%} of the roofline by {what}"
                for key, what in (("roofline", "operations"), ("roofline_bytes", "bytes"))
                if row.get(key)
            )
            memory = f", peak {row['peak_memory'] / 2**30:.1f} GiB" if row.get("peak_memory") else ""
            what = f"{row['name']}, batch {record['batch']}, n = {row['n']}"
            lines.append(f"| {what} | {row['self']:,.0f} {row['unit']}/s{share}{memory} |")
        if record["what"] == "training" and record.get("figures"):
            values = {n: v["value"] for n, v in record["figures"].items() if isinstance(v, dict) and "value" in v}
            said = ", ".join(f"{name} {value:.4g}" for name, value in values.items() if isinstance(value, float))
            spent = f"{record['in_all'] / 60:.0f} min" if record.get("in_all") else "?"
            lines.append(f"| {record['preset']}, {record['epochs']} epochs, {spent} | {said} |")
        if record["exit"]:
            lines.append(f"| {record['what']} | FAILED with {record['exit']} |")
    lines.append(f"| device, commit, versions | {json.dumps(known) if known else 'no bench was run'} |")
    (run.out / "table.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


def tasks(run: Run) -> dict[str, Task]:
    """List everything that is asked for, in order, by name."""
    found: dict[str, Task] = {}
    for part in run.options.only:
        if part == "tests":
            found |= {f"tests {name}": lambda name=name: test(run, name) for name in TESTS}
        elif part == "benches":
            found |= {f"bench {batch}": lambda batch=batch: bench(run, batch) for batch in (64, 512)}
        else:
            for leg in range(1, run.options.legs + 1):
                found[f"train {part} {leg}"] = lambda part=part, leg=leg: train(run, part, leg)
                found[f"evaluate {part} {leg}"] = lambda part=part, leg=leg: evaluate(run, part, leg)
    return found


def piece(run: Run) -> int:
    """Do what fits into a piece: 0 where all is done, 75 where there is more, 1 where something failed."""
    for name, task in tasks(run).items():
        if name in run.done:
            continue
        if any(code and other.split()[:2] == ["train", name.split()[1]] for other, code in run.done.items()):
            continue  # a later leg of a training that failed
        if run.left() < LEAST:
            print("more to do: run the same command again")
            return MORE
        fresh = run.left() > 0.9 * run.options.minutes * 60
        code = task()
        if code is None and (name.startswith("train") or not fresh):
            run.save()
            print(f"{name}: to be gone on with; run the same command again")
            return MORE
        run.done[name] = 124 if code is None else code  # a whole piece was not enough
        run.save()
    write_table(run)
    failed = [name for name, code in run.done.items() if code]
    if failed:
        print(f"failed: {', '.join(failed)}; the logs are in {run.out}", file=sys.stderr)
    return bool(failed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="packed data set to train on")
    parser.add_argument("--features", help="feature network of FID-768, a .safetensors")
    parser.add_argument("--text", help="run of t2i-train text")
    parser.add_argument("--out", type=Path, default=Path("runs/gpu"), help="what is to be taken away")
    parser.add_argument("--work", type=Path, help="checkpoints and what is done; OUT/work")
    parser.add_argument("--minutes", type=float, default=9.0, help="of a piece; 0 is no limit")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--epochs", type=int, default=600)
    parser.add_argument("--legs", type=int, default=4, help="measurements along each run")
    parser.add_argument("--count", type=int, default=1155, help="images of a measurement")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--device", default="cuda", help="cpu tries the command itself, on a tiny set")
    parser.add_argument(
        "--join", nargs=2, type=Path, metavar=("FOLDER", "MODEL"), help="only put split weights together"
    )
    parser.add_argument("--extra", nargs=argparse.REMAINDER, default=[], help="further flags of t2i-train, last")
    options = parser.parse_args()
    if options.join:
        join(*options.join)
        return
    if not options.data and {"paper", "fast"} & set(options.only):
        parser.error("--data is needed to train: a folder that t2i-prepare wrote")
    for name in ("data", "features", "text"):  # commands run in the repository
        if getattr(options, name):
            setattr(options, name, str(Path(getattr(options, name)).resolve()))
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    seconds = options.minutes * 60 or float("inf")
    sys.exit(piece(Run(options, time.monotonic() + seconds)))


if __name__ == "__main__":
    main()
