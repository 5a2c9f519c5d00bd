"""`t2i-train`: train a GAN, a text encoder or a style encoder, or plot a run."""

import dataclasses
import os
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from t2i import console
from t2i.cli import parsing
from t2i.cli.arguments import EXAMPLE, PICTURES, FromFile, Plot, TrainFlags
from t2i.config import presets
from t2i.config.options import StyleConfig, TextConfig, TrainConfig
from t2i.config.toml import over, read_toml, to_toml
from t2i.errors import ConfigError

SHARED = ("preset", "size", "text")  # what a joint embedding by itself takes from a preset


def _training(kind: type, arguments: Sequence[str], prog: str, preset: str, prefixes: bool = True) -> tuple[Any, Any]:
    """Read a training's settings: flags over the file of --config over the preset. --print-config ends here."""
    file = parsing.value_of(arguments, "--config")
    named = read_toml(Path(file), kind) if file else {}
    known = {field.name for field in dataclasses.fields(kind)}
    base: dict[str, Any] = {}
    if "preset" in known:
        chosen = presets.preset(parsing.value_of(arguments, "--preset") or named.get("preset") or preset)
        base = {
            name: value for name, value in dataclasses.asdict(chosen).items() if kind is TrainConfig or name in SHARED
        }
        base["text"] = {name: value for name, value in base["text"].items() if kind is TrainConfig or name != "encoder"}
    also = TrainFlags if kind is TrainConfig else FromFile
    config, wanted = parsing.read(kind, arguments, prog, defaults=over(named, base), also=also, prefixes=prefixes)
    if wanted.print_config:
        print(to_toml(config), end="")
        sys.exit(0)
    console.tolerate()  # whoever reads along may leave: that ends no training
    return config, wanted


def run_train(arguments: Sequence[str]) -> None:
    """Train what the first word names; a GAN without one."""
    kinds = {"gan": _train_gan, "text": _train_text, "style": _train_style}
    if any(argument.split("=")[0] == "--plot" for argument in arguments):
        return _plot(arguments)
    if arguments and arguments[0] in kinds:
        kinds[arguments[0]](arguments[1:])
    else:
        _train_gan(arguments)


def _plot(arguments: Sequence[str]) -> None:
    config, _ = parsing.read(Plot, arguments, "t2i-train")
    from t2i.images import save_image
    from t2i.plots import curves

    out = Path(config.out) if config.out else Path(config.plot) / "curves.png"
    if out.suffix.lower() not in PICTURES:
        raise ConfigError(f"--out must end in .png, .jpg or .webp, got {config.out}")
    folder = Path(config.plot)
    save_image(curves.curves_picture(curves.read_metrics(folder), folder.resolve().name), out)
    print(out)


def _in_one_process(command: str) -> None:
    """Refuse what torchrun has started several times."""
    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise ConfigError(f"{command} trains in one process: start it without torchrun (t2i-train alone takes several)")


def _train_text(arguments: Sequence[str]) -> None:
    _in_one_process("t2i-train text")
    config, _ = _training(TextConfig, arguments, "t2i-train text", "paper", prefixes=False)
    from t2i.blossoms.pack import embedded_blossoms
    from t2i.data.dataset import PackedDataset
    from t2i.training import text as training

    data = PackedDataset(config.data if config.data else embedded_blossoms(config.size, Path(config.out)))
    folder = shlex.quote(str(training.run(config, data)))
    print(f"The text encoder is in {Path(config.out) / 'text.safetensors'}. Now try:", file=sys.stderr)
    print(f"t2i-eval text --model {folder}")
    print(
        f"t2i-train{f' --data {shlex.quote(config.data)} --preset flowers' if config.data else ''} --text.encoder {folder}"
    )


def _train_style(arguments: Sequence[str]) -> None:
    _in_one_process("t2i-train style")
    config, _ = _training(StyleConfig, arguments, "t2i-train style", "")
    from t2i.training.style import train_style

    folder = train_style(config)
    print(f"The style encoder is in {folder / 'style.safetensors'}. Now try:", file=sys.stderr)
    print(f't2i-generate --model {shlex.quote(str(folder))} --style PICTURE "{EXAMPLE}" --out picture.png')


def _train_gan(arguments: Sequence[str]) -> None:
    config, wanted = _training(TrainConfig, arguments, "t2i-train", "blossoms")
    if config.data is None and config.preset != "blossoms":
        raise ConfigError(f"--preset {config.preset} needs --data: a folder that t2i-prepare wrote")
    from t2i import distributed
    from t2i.blossoms.pack import embedded_blossoms
    from t2i.data.dataset import PackedDataset
    from t2i.training import gan

    config, folder = gan.with_defaults(config)
    with distributed.join(config.device) as ranks:
        with ranks.main_process_first():
            data = PackedDataset(config.data if config.data else embedded_blossoms(config.size, folder))
        if wanted.dry_run:
            return ranks.write(_dry_run, config, data, folder)
        gan.train(config, data, folder, ranks)
    ranks.write(_say_what_next, config, data, folder)


def _dry_run(config: TrainConfig, data: Any, folder: Path) -> None:
    from t2i.training.dry_run import dry_run

    print(dry_run(config, data, folder))


def _say_what_next(config: TrainConfig, data: Any, folder: Path) -> None:
    """End a training with the command to try next."""
    sentence = data.captions_of(int(data.split("train")[0]))[0] if config.data else EXAMPLE
    quoted = shlex.quote(sentence) if re.search(r'["$`!\\]', sentence) else f'"{sentence}"'  # what a shell leaves alone
    print(f"The model is in {folder}, pictures of its progress in {folder / 'samples'}. Now try:", file=sys.stderr)
    print(f"t2i-generate --model {shlex.quote(str(folder))} {quoted} --out picture.png")
