"""Everything that wants a CUDA device, in one command: tests, benches, and 600 epochs of `paper` and of `fast`.

    make gpu DATA=data/oxford102 FEATURES=inception.safetensors TEXT=runs/text

DATA is a packed data set (t2i-prepare), FEATURES the feature network of FID-768, TEXT a run of t2i-train text; without
TEXT, each run trains its own text encoder first. What was measured goes to OUT/figures.jsonl (a JSON object a line), logs and
grids beside it. Parts: --only tests benches paper fast.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("tests", "benches", "fast", "paper")


def call(words: list[str], log: Path, environment: dict[str, str] | None = None) -> tuple[int, float, str]:
    """Run a command with its output in a log: exit code, seconds, output."""
    start = time.perf_counter()
    with open(log, "w") as file:
        code = subprocess.run(words, stdout=file, stderr=subprocess.STDOUT, env=environment, cwd=ROOT).returncode
    return code, time.perf_counter() - start, log.read_text(errors="replace")


def command(name: str, *words: object) -> list[str]:
    """Call a command of this installation."""
    return [sys.executable, "-c", f"from t2i.cli.main import {name}; {name}()", *map(str, words)]


def tests(out: Path, note) -> None:
    names = ("ops/test_kernels", "ops/test_norm_act", "training/test_speed_paths", "training/test_gpu")
    files = [f"tests/{name}.py" for name in names]
    code, seconds, text = call([sys.executable, "-m", "pytest", "-q", "--timeout=900", *files], out / "tests.log")
    note({"what": "tests", "exit": code, "seconds": seconds, "last": text.strip().splitlines()[-1:]})


def benches(out: Path, note, options: argparse.Namespace) -> None:
    for batch in (64, 512):
        log = out / f"bench-{batch}.log"
        words = command(
            "bench",
            "step",
            "generate",
            "--device",
            options.device,
            "--batch",
            batch,
            "--rounds",
            options.rounds,
            "--json",
        )
        code, _, text = call(words, log)
        rows = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
        note({"what": "bench", "batch": batch, "exit": code, "rows": rows})
    # Our own kernels against what torch.compile makes of their definitions, in the whole step, in turn.
    code, _, text = call(
        [sys.executable, str(ROOT / "benches/python/kernels.py"), "--device", options.device], out / "kernels.log"
    )
    rows = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    note({"what": "kernels", "exit": code, "rows": rows})


def training(preset: str, out: Path, note, options: argparse.Namespace) -> None:
    """Train in legs, each ending with a measurement; the training's own time is the sum of the legs'."""
    run, total = out / f"run-{preset}", 0.0
    text = ["--text.encoder", options.text] if options.text else []
    for leg in range(1, options.legs + 1):
        epochs = options.epochs * leg // options.legs
        words = command(
            "train", "--data", options.data, "--preset", preset, "--out", run, "--epochs", epochs, "--device", options.device,
            "--sample-every", 5000, "--checkpoint-every", 5000, "--log-every", 200, *text, *options.extra,
        )  # fmt: skip
        code, seconds, _ = call(words, out / f"train-{preset}-{epochs}.log")
        total += seconds
        metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()] if code == 0 else []
        speeds = [line["images_per_second"] for line in metrics if line.get("phase") == "gan"]
        record = {
            "what": "training",
            "preset": preset,
            "epochs": epochs,
            "exit": code,
            "seconds": seconds,
            "in_all": total,
        }
        record |= {"images_per_second": sorted(speeds)[len(speeds) // 2] if speeds else None}
        if code == 0:
            measured = ["--features", options.features] if options.features else []
            code, _, text_ = call(
                command("evaluate", "images", "--model", run, "--count", options.count, "--json", *measured),
                out / f"eval-{preset}-{epochs}.log",
            )
            lines = [line for line in text_.splitlines() if line.startswith("{")]
            record["figures"] = json.loads(lines[-1]) if code == 0 and lines else None
        note(record)
        if record["exit"]:
            return
    for picture in sorted((run / "samples").glob("*.png"))[-1:]:
        shutil.copy(picture, out / f"{preset}.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="packed data set to train on")
    parser.add_argument("--features", help="feature network of FID-768, a .safetensors")
    parser.add_argument("--text", help="run of t2i-train text")
    parser.add_argument("--out", type=Path, default=Path("runs/gpu"))
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--epochs", type=int, default=600)
    parser.add_argument("--legs", type=int, default=4, help="measurements along each run")
    parser.add_argument("--count", type=int, default=1155, help="pictures of a measurement")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--device", default="cuda", help="cpu tries the command itself, on a tiny set")
    parser.add_argument("--extra", nargs=argparse.REMAINDER, default=[], help="further flags of t2i-train, last")
    options = parser.parse_args()
    if not options.data and {"paper", "fast"} & set(options.only):
        parser.error("--data is needed to train: a folder that t2i-prepare wrote")
    out = options.out.resolve()
    for name in ("data", "features", "text"):  # commands run in the repository
        if getattr(options, name):
            setattr(options, name, str(Path(getattr(options, name)).resolve()))
    out.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    failed = []

    def note(record: dict) -> None:
        record["date"] = time.strftime("%Y-%m-%d")
        with open(out / "figures.jsonl", "a") as file:
            file.write(json.dumps(record) + "\n")
        print(json.dumps(record)[:600], flush=True)
        if record["exit"]:
            failed.append(record["what"])

    for part in options.only:
        if part == "tests":
            tests(out, note)
        elif part == "benches":
            benches(out, note, options)
        else:
            training(part, out, note, options)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}; the logs are in {out}")


if __name__ == "__main__":
    main()
