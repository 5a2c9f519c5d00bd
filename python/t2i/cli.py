"""The commands: flags to settings, settings to a function, errors to one line and exit code 2.

Torch is imported only after the flags were read, so that `--help` and a mistyped flag answer at once.
"""

import json
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import tyro

from t2i import config as settings
from t2i.commands import EvaluateImages, Generate, Prepare
from t2i.config import TrainConfig
from t2i.errors import ConfigError, T2IError

EXAMPLE = "a flower with five red petals and a yellow centre"


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
    sentence = data.captions_of(int(data.split("train")[0]))[0] if config.data else EXAMPLE
    quoted = shlex.quote(sentence) if re.search(r'["$`!\\]', sentence) else f'"{sentence}"'  # what a shell leaves alone
    print(f"The model is in {folder}, pictures of its progress in {folder / 'samples'}. Now try:", file=sys.stderr)
    print(f"t2i-generate --model {shlex.quote(str(folder))} {quoted} --out picture.png")


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


def _chosen(arguments: Sequence[str], kinds: dict[str, Callable[[Sequence[str]], None]], question: str) -> None:
    """Run the command that the first word names."""
    if not arguments or arguments[0] not in kinds:
        raise ConfigError(f"{question} One of: {', '.join(kinds)}")
    kinds[arguments[0]](arguments[1:])


def _evaluate(arguments: Sequence[str]) -> None:
    if arguments and arguments[0] in ("-h", "--help"):
        print("usage: t2i-eval {images} [flags]; t2i-eval images --help shows the flags")
        return
    _chosen(arguments, {"images": _evaluate_images}, "what to measure?")


def _evaluate_images(arguments: Sequence[str]) -> None:
    config = tyro.cli(EvaluateImages, args=arguments, prog="t2i-eval images")
    from t2i.metrics.captions import caption_accuracy_of_run

    result = caption_accuracy_of_run(
        Path(config.model), captions=config.captions, seed=config.seed, device=config.device
    )
    print(result.table())
    if config.json:
        print(json.dumps(result.figures))
