"""The paper in miniature: GAN, GAN-CLS, GAN-INT and GAN-INT-CLS on blossoms, one budget, several seeds.

    python benches/python/paper.py [--steps 3000] [--seeds 3] [--runs runs/paper] [--write docs/paper.md]

Every variant trains from the same frozen text encoder of its seed, without what this project adds (no alignment with
the joint embedding, no noise recovery), and is measured on new wordings of training classes and of held-out classes.
Finished runs are not trained again, so a stopped ablation goes on with the same command. Prints the table in Markdown;
--write puts it between the markers of a file, and the pictures beside it.
"""

import argparse
import dataclasses
import os
import shutil
import statistics
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # two of these may share a machine

import numpy as np
from PIL import Image

from t2i.blossoms.pack import embedded_blossoms
from t2i.config.options import TrainConfig
from t2i.config.presets import preset
from t2i.data.dataset import PackedDataset
from t2i.images import save_image, to_uint8
from t2i.metrics.captions import caption_accuracy_of_run
from t2i.pipeline import Pipeline
from t2i.plots import grids
from t2i.training import gan

VARIANTS = {"GAN": (0.0, 0.0), "GAN-CLS": (0.5, 0.0), "GAN-INT": (0.0, 1.0), "GAN-INT-CLS": (0.5, 1.0)}
SENTENCES = (
    "a flower with five red petals and a yellow centre",
    "six round blue petals around a brown middle",
    "a white flower with a black heart and pointed petals",
    "this flower has narrow pink petals and a green centre",
)
BEGIN, END = "<!-- ablation: written by benches/python/paper.py -->", "<!-- /ablation -->"


def settings_of(variant: str, seed: int, steps: int, threads: int, folder: Path) -> TrainConfig:
    """Make the settings of one run: the blossoms preset, without what is not in the paper."""
    mismatch, interpolation = VARIANTS[variant]
    base = preset("blossoms")
    text = dataclasses.replace(
        base.text, kind="char-cnn-rnn", objective="contrastive", dim=256, steps=650, learning_rate=2e-3, decay=1.0
    )
    return dataclasses.replace(
        base,
        text=text,
        seed=seed,
        steps=steps,
        threads=threads,
        mismatch_weight=mismatch,
        interpolation_weight=interpolation,
        alignment_weight=0.0,
        recovery_weight=0.0,
        out=str(folder),
        sample_every=steps,
        checkpoint_every=steps,
    )


def train(variants: Sequence[str], seeds: Sequence[int], steps: int, threads: int, runs: Path) -> dict[str, list[Path]]:
    """Train what is not there yet; returns the run folders of each variant."""
    data = PackedDataset(embedded_blossoms(preset("blossoms").size, runs))
    folders: dict[str, list[Path]] = {variant: [] for variant in variants}
    for seed in seeds:
        shared: Path | None = None
        for variant in variants:
            folder = runs / f"{variant}-{seed}"
            folder.mkdir(parents=True, exist_ok=True)
            if shared is not None and not (folder / "text.safetensors").exists():
                shutil.copy(shared, folder / "text.safetensors")
            gan.train(settings_of(variant, seed, steps, threads, folder), data, folder)
            shared = folder / "text.safetensors"
            folders[variant].append(folder)
    return folders


def measure(folder: Path, captions: int) -> dict[str, float]:
    """Measure one run: petal and centre colour on seen and held-out classes."""
    measured = {}
    for where, seen in (("seen", True), ("held out", False)):
        rows = caption_accuracy_of_run(folder, captions=captions, seed=7, device="cpu", seen=seen).figures["accuracy"]
        for name in ("petal_colour", "centre_colour"):
            measured[f"{name.split('_')[0]}, {where}"] = rows["generated"][name]
    pipe = Pipeline.from_pretrained(folder)
    drawn = pipe(SENTENCES, count=16, seed=3).tensor.reshape(len(SENTENCES), 16, -1)
    measured["variation"] = float(drawn.std(dim=1).mean())
    return measured


def table(results: dict[str, list[dict[str, float]]], steps: int, batch: int, captions: int) -> str:
    """Lay means and spreads over seeds out as Markdown."""
    names = list(next(iter(results.values()))[0])
    lines = ["| variant | " + " | ".join(names) + " |", "| --- " * (len(names) + 1) + "|"]
    for variant, rows in results.items():
        cells = []
        for name in names:
            values = [row[name] for row in rows]
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            form = "{:.3f} ± {:.3f}" if name == "variation" else "{:.1%} ± {:.1%}"
            cells.append(form.format(statistics.mean(values), spread))
        lines.append(f"| {variant} | " + " | ".join(cells) + " |")
    seeds = len(next(iter(results.values())))
    lines.append(
        f"\n{steps} steps of {batch} at 32 px, {seeds} seeds (mean ± standard deviation), {captions} captions each of training "
        "and of held-out classes in new wordings, one picture a caption; variation is the standard deviation of pixels (-1..1) "
        "over 16 noises of one sentence."
    )
    return "\n".join(lines)


def picture(folders: dict[str, list[Path]]) -> Image.Image:
    """Draw four sentences with each variant's first seed."""
    rows, labels = [], []
    for variant, runs in folders.items():
        drawn = to_uint8(Pipeline.from_pretrained(runs[0])(SENTENCES, count=6, seed=3).tensor)
        rows.append(drawn.reshape(len(SENTENCES), 6, *drawn.shape[1:]))
        labels += [f"{variant}: {sentence}" for sentence in SENTENCES]
    return grids.grid(np.concatenate(rows), labels, side=64)


def main() -> None:
    """Train, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--captions", type=int, default=432)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--runs", type=Path, default=Path("runs/paper"))
    parser.add_argument(
        "--write", type=Path, help="Markdown file with the markers; the picture goes to images/ beside it"
    )
    options = parser.parse_args()
    folders = train(list(VARIANTS), range(options.seeds), options.steps, options.threads, options.runs)
    results = {variant: [measure(folder, options.captions) for folder in runs] for variant, runs in folders.items()}
    text = table(results, options.steps, preset("blossoms").batch, options.captions)
    print(text)
    if options.write:
        before, _, rest = options.write.read_text().partition(BEGIN)
        _, _, after = rest.partition(END)
        options.write.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")
        sheet = picture(folders).quantize(256)
        save_image(sheet, options.write.parent / "images" / "paper.png")


if __name__ == "__main__":
    main()
