"""`t2i-generate`: draw sentences, style transfer tables, interpolations and arithmetic."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from t2i.cli import parsing
from t2i.cli.arguments import EXAMPLE, FILMS, PICTURES, Generate
from t2i.errors import ConfigError


def _one_a_flag(arguments: Sequence[str]) -> list[str]:
    """Write `--style a.jpg b.jpg "a sentence"` as `--style a.jpg --style b.jpg "a sentence"`, which tyro can read."""
    out: list[str] = []
    taking = False  # words after --style are its pictures as long as they look like files; the first always is
    for argument in arguments:
        if taking and not argument.startswith("-") and (out[-1] == "--style" or _names_a_picture(argument)):
            out += [argument] if out[-1] == "--style" else ["--style", argument]
        else:
            taking = argument == "--style"
            out.append(argument)
    return out


def _names_a_picture(word: str) -> bool:
    endings = (*PICTURES, *FILMS, ".bmp", ".tif", ".tiff", ".avif", ".heic")
    return Path(word).suffix.lower() in endings or (len(word) < 200 and Path(word).is_file())


def run_generate(arguments: Sequence[str]) -> None:
    """Draw what the flags ask for."""
    config, _ = parsing.read(Generate, _one_a_flag(arguments), "t2i-generate")
    ways = {
        "--style": config.style, "--interpolate-text": config.interpolate_text,
        "--interpolate-noise": config.interpolate_noise, "--arithmetic": config.arithmetic,
    }  # fmt: skip
    chosen = [flag for flag, value in ways.items() if value]
    complete = bool(config.interpolate_text or config.arithmetic)  # these bring their sentences along
    if len(chosen) > 1:
        raise ConfigError(f"{' and '.join(chosen)} exclude each other")
    if complete and config.captions:
        raise ConfigError(f"{chosen[0]} brings its own sentences; {config.captions[0][:60]!r} is one too many")
    if not config.captions and not complete:
        raise ConfigError(f'say what to draw: t2i-generate --model {config.model} "{EXAMPLE}"')
    film = bool(config.interpolate_text or config.interpolate_noise)
    ending = Path(config.out).suffix.lower()
    if ending not in PICTURES and not (film and ending in FILMS):
        raise ConfigError(f"--out must end in .png, .jpg or .webp{' or .gif' if film else ''}, got {config.out}")
    if config.truncation is not None and (chosen or config.model.lower().endswith(".onnx")):
        raise ConfigError("--truncation goes with plain sentences and a run folder")
    if config.side < 8:
        raise ConfigError(f"--side must be at least 8, got {config.side}")
    from t2i.images import save_image, to_uint8
    from t2i.pipeline import Pipeline
    from t2i.plots import grids

    pipe: Any
    if config.model.lower().endswith(".onnx"):
        from t2i.export.onnx_pipeline import OnnxPipeline

        if chosen:
            raise ConfigError(f"an .onnx draws sentences only: {chosen[0]} needs the run folder it was made of")
        pipe = OnnxPipeline(Path(config.model))
    else:
        pipe = Pipeline.from_pretrained(config.model, config.device)
    if config.style:
        _draw_styles(config, pipe)
    elif film:
        _draw_strips(config, pipe)
    else:
        if config.arithmetic:
            labels = [f"{name}: {text}" for name, text in zip("ABC", config.arithmetic, strict=True)] + ["A - B + C"]
            weights = [(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, -1, 1)]
            drawn = pipe.arithmetic(config.arithmetic, weights, count=config.count, seed=config.seed)
        else:
            labels = list(config.captions)
            cut = {} if config.truncation is None else {"truncation": config.truncation}
            drawn = pipe(config.captions, count=config.count, seed=config.seed, **cut)
        rows = _in_rows(to_uint8(drawn.tensor), len(labels))
        save_image(grids.grid(rows, labels, side=config.side), Path(config.out))
    print(config.out)


def _in_rows(drawn: Any, rows: int) -> Any:
    """Cut pictures (n, H, W, 3) into rows: (rows, n / rows, H, W, 3)."""
    return drawn.reshape(rows, -1, *drawn.shape[1:])


def _draw_styles(config: Generate, pipe: Any) -> None:
    """Draw the table: style images down, sentences across."""
    from t2i.images import save_image, to_uint8
    from t2i.plots import grids
    from t2i.prepare.style_images import read_pictures

    styles = read_pictures(config.style, pipe.config.size)
    drawn = to_uint8(pipe.transfer_style(styles, config.captions).tensor)
    sheet = grids.table(to_uint8(styles), config.captions, _in_rows(drawn, len(config.style)), side=config.side)
    save_image(sheet, Path(config.out))


def _draw_strips(config: Generate, pipe: Any) -> None:
    """Draw strips from one sentence, or one noise, to another; or the film of them."""
    import numpy as np

    from t2i.images import save_image, to_uint8
    from t2i.plots import grids

    strips, labels = [], []
    ends = [config.interpolate_text] if config.interpolate_text else [(caption,) for caption in config.captions]
    for captions in ends:
        over = "text" if config.interpolate_text else "noise"
        drawn = pipe.interpolate(captions, over, steps=config.steps, count=config.count, seed=config.seed)
        strips.append(_in_rows(to_uint8(drawn.tensor), config.count))
        labels += [" ... ".join(captions), *[""] * (config.count - 1)]
    together = np.concatenate(strips)
    if Path(config.out).suffix.lower() in FILMS:
        grids.save_animation(together, Path(config.out), side=config.side)
    else:
        save_image(grids.grid(together, labels, side=config.side), Path(config.out))
