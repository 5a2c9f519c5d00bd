"""Where the time of a step goes, before and after: the usual step, ours of the same mathematics, and the preset `fast`.

    python benches/python/profile_step.py [--device cpu] [--batch 64] [--threads 1]

Prints, for each, the operations that take the most of the device's time, after a step that warms up.
"""

import argparse
import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from t2i import runtime
from t2i.bench import rows as bench_rows
from t2i.bench import timing
from t2i.config.presets import preset
from t2i.training.step import GanStep
from t2i.training.text_source import FrozenText


def show(name: str, step: Callable[[int], object], device: torch.device) -> None:
    step(0)
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if device.type == "cuda" else [])
    with profile(activities=activities) as seen:
        step(1)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
    key = "self_device_time_total" if device.type == "cuda" else "self_cpu_time_total"
    rows = sorted(seen.key_averages(), key=lambda each: getattr(each, key), reverse=True)
    total = sum(getattr(each, key) for each in rows)
    print(f"\n{name}: {total / 1e3:.0f} ms")
    for each in rows[:8]:
        print(
            f"  {getattr(each, key) / total:6.1%}  {getattr(each, key) / 1e3:8.1f} ms  {each.count:5d} x  {each.key[:60]}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--threads", type=int, default=0)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    device = runtime.pick_device(options.device)
    rival = timing.rivals(str(Path(__file__).parents[1] / "rivals"))["step"]
    table = torch.randn(200, 1024, generator=torch.Generator().manual_seed(0)).to(device)
    batch = bench_rows.random_batch(options.batch, device, 200)
    text, other = table[batch.captions[:, 0]], table[batch.mismatched_captions[:, 0]]
    for name, fast in (("same mathematics, float32", False), ("preset fast", True)):
        config = dataclasses.replace(
            preset("fast"),
            batch=options.batch,
            reuse_fakes=fast,
            compile="auto" if fast else "off",
            cuda_graph=False,
        )
        torch.manual_seed(0)
        precision = runtime.pick_precision("auto", device) if fast else torch.float32
        gan = GanStep(config, FrozenText(table, None), device, precision)
        if not fast:
            usual = rival.UsualStep(gan.generator, gan.discriminator)
            noise = torch.randn(2, options.batch, config.noise_dim, device=device)
            show("the usual step", lambda _: usual(batch.images, other, text, *noise), device)  # noqa: B023
        show(name, lambda step: gan(batch, step), device)  # noqa: B023
    print(timing.environment(device), file=sys.stderr)


if __name__ == "__main__":
    main()
