"""`t2i-train`: train a GAN, a text encoder or a style encoder, or plot a run."""

import dataclasses
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from t2i import console
from t2i.cli.arguments import IMAGE_SUFFIXES, FromFile, Plot, TrainFlags
from t2i.cli.next_step import caption_to_try
from t2i.cli.parsing import parse, parse_with, peek
from t2i.config.fields import over
from t2i.config.options import StyleConfig, TextConfig, TrainConfig
from t2i.config.presets import EXAMPLE, PRESETS, preset
from t2i.config.toml import read_toml, to_toml
from t2i.errors import ConfigError
from t2i.files import shell_path

T = TypeVar("T", TextConfig, TrainConfig, StyleConfig)
U = TypeVar("U", bound=FromFile)
OFFLINE = ("blossoms", "drawings")  # presets that need no --data
SHARED = ("preset", "size", "text")  # what t2i-train text takes from a preset


def _settings(kind: type[T], also: type[U], arguments: Sequence[str], prog: str) -> tuple[T, U]:
    """Read a training's settings: flags over the file of --config over the preset. --print-config ends here."""
    path, name = peek(arguments, "--config", "--preset")
    file = read_toml(Path(path), kind) if path else {}
    default = getattr(kind, "preset", "")  # of the dataclass; the training of a style encoder has no presets
    base = _of_preset(kind, name or file.get("preset") or default) if default else {}
    config, flags = parse_with(kind, also, arguments, prog, defaults=over(file, base))
    if flags.print_config:
        print(to_toml(config), end="")
        sys.exit(0)
    console.tolerate()  # a closed pipe or terminal does not end a training
    return config, flags


def _of_preset(kind: type, name: str) -> dict[str, Any]:
    """List the values of a preset that a training takes."""
    values = dataclasses.asdict(preset(name))
    if kind is TextConfig:
        values = {name: values[name] for name in SHARED}
        del values["text"]["encoder"]
    return values


def run_train(arguments: Sequence[str]) -> None:
    """Train what the first word names; a GAN without one."""
    kinds = {"gan": _train_gan, "text": _train_text, "style": _train_style}
    if any(argument.split("=")[0] == "--plot" for argument in arguments):
        _plot(arguments)
        return
    named = bool(arguments) and arguments[0] in kinds
    train = kinds[arguments[0]] if named else _train_gan
    try:
        train(arguments[1:] if named else arguments)
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        reason = str(error).strip().partition("\n")[0][:200] or "MemoryError"
        raise ConfigError(
            f"out of memory ({reason}); lower --batch, --size or the widths and dimensions of the networks"
        ) from error


def _is_out_of_memory(error: Exception) -> bool:
    """Tell a failed allocation (of Python, of torch on a CPU, or of a GPU) from other errors."""
    found = str(error)  # on a CPU and on Apple's GPU torch raises a plain RuntimeError
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or "DefaultCPUAllocator: " in found
        or "MPS backend out of memory" in found
    )


def _plot(arguments: Sequence[str]) -> None:
    config = parse(Plot, arguments, "t2i-train")
    from t2i.images import save_image
    from t2i.plots import curves

    out = Path(config.out) if config.out else Path(config.plot) / "curves.png"
    if out.suffix.lower() not in IMAGE_SUFFIXES:
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
    config, _ = _settings(TextConfig, FromFile, arguments, "t2i-train text")
    from t2i.blossoms.pack import embedded_blossoms
    from t2i.data.dataset import PackedDataset
    from t2i.training import text as training

    data = PackedDataset(config.data if config.data else embedded_blossoms(config.size, Path(config.out)))
    folder = shell_path(training.run(config, data))
    print(f"The text encoder is in {Path(config.out) / 'text.safetensors'}. Now try:", file=sys.stderr)
    print(f"t2i-eval text --model {folder}")
    print(_training_with(config, folder))


def _training_with(config: TextConfig, folder: str) -> str:
    """Return the command that trains a GAN with the text encoder just trained: its preset, its size."""
    name = config.preset if config.data or config.preset in OFFLINE else "drawings"
    command = ["t2i-train"]
    if config.data:
        command += ["--data", shell_path(config.data)]
    if name != TrainConfig().preset:
        command += ["--preset", name]
    if config.size != PRESETS[name].size:
        command += ["--size", str(config.size)]
    if PRESETS[name].alignment_weight and config.text.image_features != "joint":
        command += ["--alignment-weight", "0"]  # it scores pixels, and this encoder's image side reads frozen features
    return " ".join([*command, "--text.encoder", folder])


def _train_style(arguments: Sequence[str]) -> None:
    _in_one_process("t2i-train style")
    config, _ = _settings(StyleConfig, FromFile, arguments, "t2i-train style")
    from t2i.data.examples import examples_of_run
    from t2i.training.style import train_style

    folder = train_style(config)
    print(f"The style encoder is in {folder / 'style.safetensors'}. Now try:", file=sys.stderr)
    caption = caption_to_try(examples_of_run(folder, 1))
    print(f"t2i-generate --model {shell_path(folder)} --style IMAGE {caption} --out picture.png")


def _train_gan(arguments: Sequence[str]) -> None:
    config, flags = _settings(TrainConfig, TrainFlags, arguments, "t2i-train")
    if config.data is None and config.preset not in OFFLINE:
        raise ConfigError(f"--preset {config.preset} needs --data: a folder that t2i-prepare wrote")
    from t2i import distributed, runtime
    from t2i.blossoms.pack import embedded_blossoms
    from t2i.data.dataset import PackedDataset
    from t2i.training import gan

    runtime.keep_freed_memory()
    config, folder = gan.with_defaults(config)
    with distributed.join(config.device) as ranks:
        with ranks.main_process_first():
            data = PackedDataset(config.data if config.data else embedded_blossoms(config.size, folder))
        if flags.dry_run:
            ranks.write(_dry_run, config, data, folder)
            return
        gan.train(config, data, folder, ranks)
    ranks.write(_say_what_next, config, data, folder)
    distributed.leave(ranks)


def _dry_run(config: TrainConfig, data: Any, folder: Path) -> None:
    from t2i.training.dry_run import dry_run

    print(dry_run(config, data, folder))


def _say_what_next(config: TrainConfig, data: Any, folder: Path) -> None:
    """End a training with the command to try next."""
    from t2i.data.examples import first_captions

    captions = first_captions(data) if config.data else [EXAMPLE]
    print(f"The model is in {folder}, generated images in {folder / 'samples'}. Now try:", file=sys.stderr)
    print(f"t2i-generate --model {shell_path(folder)} {caption_to_try(captions)} --out picture.png")
