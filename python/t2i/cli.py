"""The commands: flags to settings, settings to a function, errors to one line and exit code 2.

Torch is imported only after the flags were read, so that `--help` and a mistyped flag answer at once.
"""

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from t2i import config as settings
from t2i.config import TrainConfig
from t2i.errors import ConfigError, T2IError

Positional = tyro.conf.Positional
EXAMPLE = "a flower with five red petals and a yellow centre"


@dataclass(frozen=True)
class Prepare:
    """Turn a folder of captioned pictures into a packed data set for t2i-train."""

    kind: Positional[Literal["folder", "oxford102", "cub", "blossoms"]]
    """folder: pictures with metadata.jsonl (file_name, text) or a .txt of captions beside each, class = subfolder;
    oxford102, cub: the official layouts; blossoms: drawn by the program (no source)."""
    source: Positional[str] = ""
    """The folder, as it was unpacked."""
    out: str = "data/pack"
    """Where the packed data set goes."""
    size: int = 76
    """Side of the stored pictures in pixels: 76 for training at 64 (the paper), 38 for 32, 152 for 128."""
    fit: Literal["stretch", "crop"] = "stretch"
    """stretch ignores the aspect ratio (the paper); crop cuts the longer side off."""
    boxes: bool = False
    """cub: crop each picture to its bounding box first."""
    images: int = 6000
    """blossoms: how many to draw."""
    seed: int = 0
    """blossoms: which ones."""
    max_pixels: int = 100_000_000
    """Larger pictures are refused before they are decoded."""
    force: bool = False
    """Replace a packed data set that is there."""


@dataclass(frozen=True)
class Generate:
    """Draw sentences with a trained model."""

    captions: Positional[tuple[str, ...]]
    """What to draw, a sentence each, in quotes."""
    model: str
    """Run folder of t2i-train."""
    out: str = "pictures.png"
    """The grid, one row a sentence (.png, .jpg, .webp)."""
    count: int = 8
    """Pictures of each sentence."""
    seed: int = 0
    """Chooses the noise; picture i of every sentence shares it."""
    side: int = 128
    """Pixels each picture is shown at."""
    device: str = "cpu"
    """cpu, cuda or cuda:N."""


@dataclass(frozen=True)
class EvaluateImages:
    """Measure a model's pictures: do they show what captions of held-out classes name? (blossoms)"""

    model: str
    """Run folder of t2i-train."""
    captions: int = 200
    """Captions of held-out classes."""
    seed: int = 0
    """Chooses captions and noise."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    json: bool = False
    """Print the figures as one JSON object, last."""


def _guarded(name: str, command: Callable[[Sequence[str]], None]) -> None:
    """Run a command; a user's error is one line on stderr and exit code 2, a stop on request 130."""
    try:
        command(sys.argv[1:])
    except T2IError as error:
        stopped = type(error).__name__ == "Stopped"
        print(f"{name}: {'' if stopped else 'error: '}{error}", file=sys.stderr)
        sys.exit(130 if stopped else 2)
    except KeyboardInterrupt:
        sys.exit(130)


def prepare() -> None:
    """t2i-prepare: pack a folder of captioned pictures."""
    _guarded("t2i-prepare", _prepare)


def train() -> None:
    """t2i-train: train a model, or go on training it."""
    _guarded("t2i-train", _train)


def generate() -> None:
    """t2i-generate: draw sentences."""
    _guarded("t2i-generate", _generate)


def evaluate() -> None:
    """t2i-eval: measure a model."""
    _guarded("t2i-eval", _evaluate)


def _prepare(arguments: Sequence[str]) -> None:
    config = tyro.cli(Prepare, args=arguments, prog="t2i-prepare")
    from t2i import prepare as preparing

    out = Path(config.out)
    if config.kind == "blossoms":
        report = preparing.blossoms(out, images=config.images, size=config.size, seed=config.seed, force=config.force)
    elif not config.source:
        raise ConfigError(f"which folder? t2i-prepare {config.kind} FOLDER --out DIR")
    else:
        report = preparing.pack(
            config.kind, Path(config.source), out, size=config.size, fit=config.fit, boxes=config.boxes,
            max_pixels=config.max_pixels, force=config.force,
        )  # fmt: skip
    print(report.summary())
    print(f"packed into {out}; next: t2i-train --data {out} --preset flowers")


def _preset_of(arguments: Sequence[str]) -> TrainConfig:
    """Find --preset before the other flags are read: it sets their defaults."""
    for position, argument in enumerate(arguments):
        if argument == "--preset" and position + 1 < len(arguments):
            return settings.preset(arguments[position + 1])
        if argument.startswith("--preset="):
            return settings.preset(argument.partition("=")[2])
    return settings.preset("blossoms")


def _train(arguments: Sequence[str]) -> None:
    default = _preset_of(arguments)
    config = tyro.cli(TrainConfig, args=arguments, prog="t2i-train", default=default)
    if config.data is None and config.preset != "blossoms":
        raise ConfigError(f"--preset {config.preset} needs --data: a folder that t2i-prepare wrote")
    from t2i.data import PackedDataset
    from t2i.prepare import embedded_blossoms
    from t2i.training import gan

    config, folder = gan.with_defaults(config)
    data = PackedDataset(config.data if config.data else embedded_blossoms(config.size, folder))
    gan.train(config, data, folder)
    sentence = data.captions_of(int(data.split("train")[0]))[0].replace('"', "'") if config.data else EXAMPLE
    print(f"The model is in {folder}, pictures of its progress in {folder / 'samples'}. Now try:", file=sys.stderr)
    print(f't2i-generate --model {folder} "{sentence}" --out picture.png')


def _generate(arguments: Sequence[str]) -> None:
    config = tyro.cli(Generate, args=arguments, prog="t2i-generate")
    if not config.captions:
        raise ConfigError(f'say what to draw: t2i-generate --model {config.model} "{EXAMPLE}"')
    if Path(config.out).suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp"):
        raise ConfigError(f"--out must end in .png, .jpg or .webp, got {config.out}")
    if config.side < 8:
        raise ConfigError(f"--side must be at least 8, got {config.side}")
    from t2i import pictures
    from t2i.pipeline import Pipeline

    pipe = Pipeline.from_pretrained(config.model, config.device)
    drawn = pictures.to_uint8(pipe(config.captions, count=config.count, seed=config.seed).tensor)
    rows = drawn.reshape(len(config.captions), config.count, *drawn.shape[1:])
    pictures.save(pictures.grid(rows, config.captions, side=config.side), Path(config.out))
    print(config.out)


def _evaluate(arguments: Sequence[str]) -> None:
    if not arguments or arguments[0] not in ("images", "-h", "--help"):
        raise ConfigError("what to measure? t2i-eval images --model RUN")
    config = tyro.cli(EvaluateImages, args=arguments[1:] if arguments[0] == "images" else arguments, prog="t2i-eval images")
    from t2i.metrics.captions import caption_accuracy_of_run

    result = caption_accuracy_of_run(
        Path(config.model), captions=config.captions, seed=config.seed, device=config.device
    )
    print(result.table())
    if config.json:
        print(json.dumps(result.figures))
