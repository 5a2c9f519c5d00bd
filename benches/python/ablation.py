"""The preset `modern` with one part taken out, or added, at a time: equal steps, one text encoder, several seeds.

    t2i-train text --data PACK --preset modern --out runs/text
    python benches/python/ablation.py --data PACK --text runs/text --features inception.safetensors \
        [--parts base fusion] [--seeds 0 1] [--steps 600] [--batch 16] [--device auto]

Each part and seed is a run folder under --runs, evaluated into its `figures.json`; what is there already is not made again,
and an interrupted training resumes, so a stopped ablation goes on with the same command, and two commands with different
--parts can share the work. R-precision is by judge.py. Prints a table in Markdown of all that --runs holds.
"""

import argparse
import contextlib
import dataclasses
import json
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from judge import SAMPLE_SEED, judge_images
from torch import Tensor

from t2i import runtime
from t2i.config.options import TrainConfig
from t2i.config.presets import preset
from t2i.data.dataset import PackedDataset
from t2i.metrics.images import images_of_pipeline
from t2i.metrics.inception import FeatureNetwork
from t2i.metrics.scoring import sample_images
from t2i.models.modern import ModernGenerator
from t2i.pipeline import Pipeline
from t2i.training import gan, modern_step
from t2i.training.augment import NONE


@contextlib.contextmanager
def _text_in_the_first_layer_alone() -> Iterator[None]:
    whole = ModernGenerator.condition

    def without_text(self: ModernGenerator, joined: Tensor) -> Tensor:
        noise, text = joined.split([joined.shape[1] - self.text.out_features, self.text.out_features], dim=1)
        return whole(self, torch.cat([noise, torch.zeros_like(text)], dim=1))

    with mock.patch.object(ModernGenerator, "condition", without_text):
        yield


def _without_augmentation() -> AbstractContextManager[Any]:
    return mock.patch.object(modern_step, "Augmentation", return_value=NONE)


@dataclasses.dataclass(frozen=True)
class Part:
    """What is taken out or added: settings that change, and code that is replaced while the run trains and is evaluated."""

    says: str
    changes: dict[str, Any] = dataclasses.field(default_factory=dict)
    patch: Callable[[], AbstractContextManager[Any]] = contextlib.nullcontext


PARTS = {
    "base": Part("`modern`"),
    "features": Part(
        "without the feature discriminator",
        {"feature_weight": 0.0, "feature_diversity_weight": 0.0, "pixel_weight": 0.5},
    ),
    "pixels": Part("with the pixel discriminator", {"pixel_weight": 0.5}),
    "augmentation": Part("without augmentation", patch=_without_augmentation),
    "fusion": Part("text in the first layer alone", patch=_text_in_the_first_layer_alone),
    "ramp": Part("with a text that comes in over 200 steps", {"condition_ramp": 200}),
    "diversity": Part("without the diversity loss", {"diversity_weight": 0.0}),
    "directions": Part("without the loss on the features' directions", {"feature_diversity_weight": 0.0}),
    "moments": Part("without the pixel moments", {"moment_weight": 0.0}),
    "size": Part("images not enlarged before the frozen features", {"feature_size": 0}),
    "mixing": Part("without mixed texts", {"text_mixing": 0.0}),
}
COLUMNS = {
    "fid_768": ("FID-768", "{:.3f}"),
    "kid_768": ("KID x 1000", "{:.2f}"),
    "kid_pixels": ("KID of 16-px pixels x 1000", "{:.0f}"),
    "caption": ("R-precision, caption", "{:.1%}"),
    "captions": ("all captions", "{:.1%}"),
    "diversity_features": ("diversity, features", "{:.3f}"),
    "diversity_pixels": ("diversity, pixels", "{:.3f}"),
    "copies": ("copies", "{:.1%}"),
}
SCALE = {"kid_768": 1000.0, "kid_pixels": 1000.0}


def settings_of(part: str, seed: int, folder: Path, args: argparse.Namespace) -> TrainConfig:
    """Make the settings of one run: the preset modern with one part changed."""
    base = preset("modern")
    return dataclasses.replace(
        base,
        text=dataclasses.replace(base.text, encoder=args.text),
        data=args.data,
        seed=seed,
        steps=args.steps,
        batch=args.batch,
        threads=args.threads,
        device=args.device,
        compile=args.compile,
        out=str(folder),
        sample_every=args.steps,
        **PARTS[part].changes,
    )


def evaluate(folder: Path, data: PackedDataset, args: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Measure one run and, by the same measures, real images: {"generated": figures, "real": figures}."""
    pipe = Pipeline.from_pretrained(folder, str(runtime.pick_device(args.device)))
    sample = sample_images(pipe, data, "test", args.count, SAMPLE_SEED)
    measures = {"split": "test", "count": args.count, "features": args.features, "seed": SAMPLE_SEED}
    found = images_of_pipeline(pipe, data, sample=sample, **measures).figures
    judged = judge_images(sample, data, FeatureNetwork.load(args.features).to(pipe.device))
    measured = [name for name in COLUMNS if name in found]
    return {
        "generated": {name: found[name]["value"] * SCALE.get(name, 1.0) for name in measured} | judged["generated"],
        "real": {name: found[name]["real"] * SCALE.get(name, 1.0) for name in measured} | judged["real"],
    }


def table(results: dict[str, list[dict[str, float]]], real: dict[str, float]) -> str:
    """Lay the mean of the seeds out, with the least and the most where there are several."""
    heads = [f"{name} (real {form.format(real[key])})" for key, (name, form) in COLUMNS.items()]
    lines = ["| | n | " + " | ".join(heads) + " |", "| --- " * (len(heads) + 2) + "|"]
    for part, rows in results.items():
        cells = []
        for key, (_, form) in COLUMNS.items():
            values = [row[key] for row in rows]
            cell = form.format(statistics.mean(values))
            if len(values) > 1:
                cell += f" ({form.format(min(values))} .. {form.format(max(values))})"
            cells.append(cell)
        lines.append(f"| {PARTS[part].says} | {len(rows)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def collect(runs: Path) -> tuple[dict[str, list[dict[str, float]]], dict[str, float]]:
    """Read the figures of all runs that are evaluated, and those of real images."""
    results: dict[str, list[dict[str, float]]] = {}
    real: dict[str, float] = {}
    for part in PARTS:
        files = sorted(runs.glob(f"{part}-*/figures.json"))
        found = [json.loads(file.read_text()) for file in files]
        if found:
            results[part], real = [each["generated"] for each in found], found[0]["real"]
    return results, real


def main(arguments: Sequence[str] | None = None) -> None:
    """Train and evaluate what is not there yet, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="packed data set with held-out classes")
    parser.add_argument("--text", required=True, help="run of t2i-train text, which all share")
    parser.add_argument("--features", required=True, help="feature network of FID-768, a .safetensors")
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS), help="one at a time")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--count", type=int, default=400, help="images generated by each")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--compile", choices=["auto", "on", "off"], default="off")
    parser.add_argument("--runs", type=Path, default=Path("runs/ablation"))
    args = parser.parse_args(arguments)
    data = PackedDataset(args.data)
    for seed in args.seeds:
        for part in args.parts:
            folder = args.runs / f"{part}-{seed}"
            if (folder / "figures.json").exists():
                continue
            with PARTS[part].patch():
                gan.train(settings_of(part, seed, folder, args), data, folder)
                found = evaluate(folder, data, args)
            (folder / "figures.json").write_text(json.dumps(found, indent=2) + "\n")
            print(json.dumps({"part": part, "seed": seed} | found["generated"]), flush=True)
    print(table(*collect(args.runs)))


if __name__ == "__main__":
    main()
