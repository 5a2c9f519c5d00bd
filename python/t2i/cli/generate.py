"""`t2i-generate`: images of captions, style transfer tables, interpolations and arithmetic."""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from t2i import console
from t2i.cli.arguments import ANIMATION_SUFFIXES, IMAGE_SUFFIXES, Generate
from t2i.cli.parsing import parse
from t2i.config.ignored import no_effect
from t2i.config.presets import EXAMPLE
from t2i.errors import ConfigError
from t2i.files import shell_path

EXAMPLES = 3  # training captions that are shown where the model does not know a word
MOST_PIXELS = 178_956_970  # half a gigabyte; Pillow refuses to open an image of more
STYLE_SUFFIXES = (*IMAGE_SUFFIXES, *ANIMATION_SUFFIXES, ".bmp", ".tif", ".tiff", ".avif", ".heic")


def run_generate(arguments: Sequence[str]) -> None:
    """Generate what the flags ask for."""
    config = _without_captions_in_style(parse(Generate, arguments, "t2i-generate"))
    mode = _mode(config)
    _check(config, mode)
    _check_size(config, mode)
    if warning := _ignored_flags(config, mode):
        console.say(warning)
    pipe = _load(config)
    _say_unread(config, pipe)
    if mode == "--style":
        _style_table(config, pipe)
    elif mode in ("--interpolate-text", "--interpolate-noise"):
        _strips(config, pipe)
    else:
        _grid(config, pipe)
    print(config.out)


def _ignored_flags(config: Generate, mode: str) -> str | None:
    """Warn of flags that were given and have no effect on what is generated; None where all have one."""
    without_effect = {
        "": (["steps"], "without --interpolate-text or --interpolate-noise"),
        "--arithmetic": (["steps"], "with --arithmetic"),
        "--style": (["count", "seed", "steps"], "with --style: the noise is that of the style images"),
    }
    names, reason = without_effect.get(mode, ([], ""))
    return no_effect(config, names, reason)


def _say_unread(config: Generate, pipe: Any) -> None:
    """Warn of what the model does not know of the captions, and show how its training captions read."""
    from t2i.data.examples import examples_of_run

    warnings = pipe.unread([*config.captions, *(config.interpolate_text or ()), *(config.arithmetic or ())])
    for warning in warnings:
        console.say(warning)
    known = [] if not warnings or _is_onnx(config) else examples_of_run(pipe.folder, EXAMPLES)
    if known:
        console.say(f"training captions of this model: {', '.join(map(repr, known))}")


def _without_captions_in_style(config: Generate) -> Generate:
    """Separate the captions of `--style a.jpg b.jpg "a caption"` from the images; the first word always is an image."""
    images = [word for place, word in enumerate(config.style) if place == 0 or _names_an_image(word)]
    captions = [word for place, word in enumerate(config.style) if place and not _names_an_image(word)]
    return dataclasses.replace(config, style=tuple(images), captions=(*config.captions, *captions))


def _names_an_image(word: str) -> bool:
    return Path(word).suffix.lower() in STYLE_SUFFIXES or os.path.isfile(word)  # False for a caption longer than a name


def _mode(config: Generate) -> str:
    """Name the flag that says what is generated; empty for plain captions."""
    values = {
        "--style": config.style,
        "--interpolate-text": config.interpolate_text,
        "--interpolate-noise": config.interpolate_noise,
        "--arithmetic": config.arithmetic,
    }
    given = [flag for flag, value in values.items() if value]
    if len(given) > 1:
        raise ConfigError(f"{' and '.join(given)} exclude each other")
    return given[0] if given else ""


def _check(config: Generate, mode: str) -> None:
    """Raise ConfigError for arguments that do not go together, before anything is loaded."""
    brings_captions = mode in ("--interpolate-text", "--arithmetic")
    if brings_captions and config.captions:
        raise ConfigError(f"{mode} has its own captions; remove {config.captions[0][:60]!r}")
    if not config.captions and not brings_captions:
        raise ConfigError(f'a caption is missing: t2i-generate --model {shell_path(config.model)} "{EXAMPLE}"')
    animated = mode in ("--interpolate-text", "--interpolate-noise")
    suffix = Path(config.out).suffix.lower()
    if suffix not in IMAGE_SUFFIXES and not (animated and suffix in ANIMATION_SUFFIXES):
        raise ConfigError(f"--out must end in .png, .jpg or .webp{' or .gif' if animated else ''}, got {config.out}")
    if Path(config.out).is_dir():
        raise ConfigError(f"--out must name a file, and {config.out} is a folder; add a name, as in pictures.png")
    if config.truncation is not None and (mode or _is_onnx(config)):
        raise ConfigError("--truncation goes with plain captions and a run folder")
    if mode and _is_onnx(config):
        raise ConfigError(f"an .onnx file takes plain captions only: {mode} needs the run folder it was exported from")
    if config.device not in ("cpu", "auto") and _is_onnx(config):
        raise ConfigError(
            f"an .onnx file runs on the CPU: --device {config.device} needs the run folder it was exported from"
        )


def _check_size(config: Generate, mode: str) -> None:
    """Raise ConfigError for an image that is too large for its format or the memory, before anything is generated."""
    from t2i.images import check_format
    from t2i.plots import grids

    captions, animated = len(config.captions), Path(config.out).suffix.lower() in ANIMATION_SUFFIXES
    if mode == "--style":
        size = grids.table_size(len(config.style), captions, config.side)
    elif mode in ("--interpolate-text", "--interpolate-noise"):
        strips = (captions or 1) * config.count  # of the text: one pair
        size = (
            grids.animation_size(strips, config.side)
            if animated
            else grids.grid_size(strips, config.steps, config.side)
        )
    else:
        size = grids.grid_size(4 if config.arithmetic else captions, config.count, config.side)
    check_format(Path(config.out), *size)
    if size[0] * size[1] > MOST_PIXELS:
        raise ConfigError(
            f"{config.out} would have {size[0]:,} x {size[1]:,} pixels; at most {MOST_PIXELS:,} in all are written: choose "
            "smaller or fewer images (--side, --count)"
        )


def _is_onnx(config: Generate) -> bool:
    return config.model.lower().endswith(".onnx")


def _load(config: Generate) -> Any:
    if _is_onnx(config):
        from t2i.export.onnx_pipeline import OnnxPipeline

        return OnnxPipeline(Path(config.model))
    from t2i.pipeline import Pipeline

    return Pipeline.from_pretrained(config.model, config.device)


def _in_rows(images: Any, rows: int) -> Any:
    """Split images (n, H, W, 3) into rows: (rows, n / rows, H, W, 3)."""
    return images.reshape(rows, -1, *images.shape[1:])


def _grid(config: Generate, pipe: Any) -> None:
    """Generate a row for each caption, or for A, B, C and A - B + C."""
    from t2i.images import save_image, to_uint8
    from t2i.plots import grids

    if config.arithmetic:
        labels = [f"{name}: {text}" for name, text in zip("ABC", config.arithmetic, strict=True)] + ["A - B + C"]
        weights = [(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, -1, 1)]
        output = pipe.arithmetic(config.arithmetic, weights, count=config.count, seed=config.seed)
    else:
        labels = list(config.captions)
        truncation = {} if config.truncation is None else {"truncation": config.truncation}
        output = pipe(config.captions, count=config.count, seed=config.seed, **truncation)
    rows = _in_rows(to_uint8(output.tensor), len(labels))
    save_image(grids.grid(rows, labels, side=config.side), Path(config.out))


def _style_table(config: Generate, pipe: Any) -> None:
    """Generate the table: style images down, captions across."""
    from t2i.images import save_image, to_uint8
    from t2i.plots import grids
    from t2i.prepare.style_images import read_style_images

    styles = read_style_images(config.style, pipe.config.size)
    images = to_uint8(pipe.transfer_style(styles, config.captions).tensor)
    sheet = grids.table(to_uint8(styles), config.captions, _in_rows(images, len(config.style)), side=config.side)
    save_image(sheet, Path(config.out))


def _strips(config: Generate, pipe: Any) -> None:
    """Generate strips from one caption, or one noise vector, to another; or an animation of them."""
    import numpy as np

    from t2i.images import save_image, to_uint8
    from t2i.plots import grids

    strips, labels = [], []
    ends = [config.interpolate_text] if config.interpolate_text else [(caption,) for caption in config.captions]
    for captions in ends:
        over = "text" if config.interpolate_text else "noise"
        output = pipe.interpolate(captions, over, steps=config.steps, count=config.count, seed=config.seed)
        strips.append(_in_rows(to_uint8(output.tensor), config.count))
        labels += [" ... ".join(captions), *[""] * (config.count - 1)]
    together = np.concatenate(strips)
    if Path(config.out).suffix.lower() in ANIMATION_SUFFIXES:
        grids.save_animation(together, Path(config.out), side=config.side)
    else:
        save_image(grids.grid(together, labels, side=config.side), Path(config.out))
