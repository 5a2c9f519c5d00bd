"""Our kernels against torch.compile of their definitions, in the whole step: what does not win here is to be deleted.

    python benches/python/kernels.py --device cuda [--batch 64 512] [--rounds 20]

One JSON line a batch size: the ratio of the step with `--kernels reference` to the step with `--kernels triton`, both compiled
and captured, in turn. A CPU can only run the definitions (Triton's interpreter is no measure of speed).
"""

import argparse
import dataclasses
import json
import statistics

import torch

from t2i import runtime
from t2i.bench import rows, timing
from t2i.config.presets import preset
from t2i.training.step import GanStep
from t2i.training.text_source import FrozenText


def made(kernels: str, batch: int, device: torch.device) -> GanStep:
    torch.manual_seed(0)
    config = dataclasses.replace(preset("fast"), batch=batch, kernels=kernels)
    table = torch.randn(200, 1024, generator=torch.Generator().manual_seed(0)).to(device)
    return GanStep(config, FrozenText(table, None), device, runtime.pick_precision("auto", device))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--batch", type=int, nargs="+", default=[64, 512])
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    device = runtime.pick_device(options.device)
    for size in options.batch:
        batch = rows.random_batch(size, device, 200)
        steps = {kernels: made(kernels, size, device) for kernels in ("triton", "reference")}
        counts = dict.fromkeys(steps, 0)
        losses = {}

        def run(kernels: str, batch=batch, steps=steps, counts=counts, losses=losses) -> None:
            for _ in range(20):
                losses[kernels] = steps[kernels](batch, counts[kernels])
                counts[kernels] += 1

        own, rival = timing.alternate(
            lambda run=run: run("triton"), lambda run=run: run("reference"), options.rounds, device
        )
        apart = abs(float(losses["triton"]["d_loss"]) - float(losses["reference"]["d_loss"]))
        ratios = [b / a for a, b in zip(own, rival, strict=True)]
        row = {"name": f"kernels in the step, batch {size}", "ratio": statistics.median(ratios), "n": options.rounds}
        row |= {"spread": [min(ratios), max(ratios)], "self": 20 * size / statistics.median(own), "unit": "pictures/s"}
        print(json.dumps(row | {"loss_apart": apart} | timing.environment(device)), flush=True)


if __name__ == "__main__":
    main()
