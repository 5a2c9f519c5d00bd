"""The commands: flags to settings, settings to a function, errors to one line and exit code 2.

Torch is imported only after the flags were read, so that `--help` and a mistyped flag answer at once.
"""

import dataclasses
import json
import os
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from t2i import config as settings
from t2i import flags
from t2i.commands import (
    Bench,
    Demo,
    EvaluateImages,
    EvaluateStyle,
    EvaluateText,
    Export,
    FromFile,
    Generate,
    Merge,
    Plot,
    Prepare,
    TrainFlags,
)
from t2i.config import StyleConfig, TextConfig, TrainConfig
from t2i.config_file import over, read_toml, to_toml
from t2i.errors import ConfigError, T2IError

EXAMPLE = "a flower with five red petals and a yellow centre"
PICTURES = (".png", ".jpg", ".jpeg", ".webp")
FILMS = (".gif", ".webp")
SHARED = ("preset", "size", "text")  # what a joint embedding by itself takes from a preset


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
    except BrokenPipeError:  # whoever read the output has left: t2i-train --help | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python would complain on its way out
        sys.exit(1)


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


def demo() -> None:
    """t2i-demo: draw in the browser."""
    _guarded("t2i-demo", _demo)


def bench() -> None:
    """t2i-bench: time the parts."""
    _guarded("t2i-bench", _bench)


def export() -> None:
    """t2i-export: write a model as ONNX."""
    _guarded("t2i-export", _export)


def _bench(arguments: Sequence[str]) -> None:
    config, _ = flags.read(Bench, arguments, "t2i-bench")
    from t2i import bench as timing
    from t2i.bench_rows import measure

    rows, known = measure(
        config.what, data=config.data, model=config.model, device=config.device, rounds=config.rounds,
        batch=config.batch, folder=config.rivals, threads=config.threads, pictures=config.pictures,
    )  # fmt: skip
    print(timing.report(rows, known, config.json))


def _prepare(arguments: Sequence[str]) -> None:
    if arguments and arguments[0] == "merge":
        _merge(arguments[1:])
        return
    config, _ = flags.read(Prepare, arguments, "t2i-prepare")
    from t2i import prepare as preparing

    out = Path(config.out)
    if config.kind == "blossoms":
        report = preparing.blossoms(out, images=config.images, size=config.size, seed=config.seed, force=config.force)
    elif not config.source:
        raise ConfigError(f"which folder? t2i-prepare {config.kind} FOLDER --out DIR")
    else:
        report = preparing.pack(
            config.kind, Path(config.source), out, size=config.size, fit=config.fit, boxes=config.boxes,
            max_pixels=config.max_pixels, force=config.force, shard=config.shard, shard_images=config.shard_images,
        )  # fmt: skip
    print(report.summary())
    if report.missing:
        print(
            f"{report.missing} shards of {out} are left to other parts; t2i-prepare merge joins parts of other folders"
        )
        return
    print(f"packed into {out}; next: t2i-train --data {out} --preset flowers")


def _merge(arguments: Sequence[str]) -> None:
    config, _ = flags.read(Merge, arguments, "t2i-prepare merge")
    from t2i import prepare as preparing

    report = preparing.merge([Path(part) for part in config.parts], Path(config.out), config.force)
    print(report.summary())
    print(f"packed into {config.out}; next: t2i-train --data {config.out} --preset flowers")


def _training(kind: type, arguments: Sequence[str], prog: str, preset: str, prefixes: bool = True) -> tuple[Any, Any]:
    """Read a training's settings: flags over the file of --config over the preset. --print-config ends here."""
    file = flags.value_of(arguments, "--config")
    named = read_toml(Path(file), kind) if file else {}
    known = {field.name for field in dataclasses.fields(kind)}
    base: dict[str, Any] = {}
    if "preset" in known:
        chosen = settings.preset(flags.value_of(arguments, "--preset") or named.get("preset") or preset)
        base = {
            name: value for name, value in dataclasses.asdict(chosen).items() if kind is TrainConfig or name in SHARED
        }
        base["text"] = {name: value for name, value in base["text"].items() if kind is TrainConfig or name != "encoder"}
    also = TrainFlags if kind is TrainConfig else FromFile
    config, wanted = flags.read(kind, arguments, prog, defaults=over(named, base), also=also, prefixes=prefixes)
    if wanted.print_config:
        print(to_toml(config), end="")
        sys.exit(0)
    return config, wanted


def _train(arguments: Sequence[str]) -> None:
    kinds = {"gan": _train_gan, "text": _train_text, "style": _train_style}
    if any(argument.split("=")[0] == "--plot" for argument in arguments):
        return _plot(arguments)
    if arguments and arguments[0] in kinds:
        kinds[arguments[0]](arguments[1:])
    else:
        _train_gan(arguments)


def _plot(arguments: Sequence[str]) -> None:
    config, _ = flags.read(Plot, arguments, "t2i-train")
    from t2i import curves, pictures

    out = Path(config.out) if config.out else Path(config.plot) / "curves.png"
    if out.suffix.lower() not in PICTURES:
        raise ConfigError(f"--out must end in .png, .jpg or .webp, got {config.out}")
    folder = Path(config.plot)
    pictures.save(curves.curves_picture(curves.read_metrics(folder), folder.resolve().name), out)
    print(out)


def _in_one_process(command: str) -> None:
    """Refuse what torchrun has started several times."""
    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise ConfigError(f"{command} trains in one process: start it without torchrun (t2i-train alone takes several)")


def _train_text(arguments: Sequence[str]) -> None:
    _in_one_process("t2i-train text")
    config, _ = _training(TextConfig, arguments, "t2i-train text", "paper", prefixes=False)
    from t2i.data import PackedDataset
    from t2i.prepare import embedded_blossoms
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
    from t2i.data import PackedDataset
    from t2i.prepare import embedded_blossoms
    from t2i.training import gan

    config, folder = gan.with_defaults(config)
    with distributed.join(config.device) as ranks:
        with ranks.first():
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


def _generate(arguments: Sequence[str]) -> None:
    config, _ = flags.read(Generate, _one_a_flag(arguments), "t2i-generate")
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
    from t2i import pictures
    from t2i.pipeline import Pipeline

    pipe: Any
    if config.model.lower().endswith(".onnx"):
        from t2i.exported import Exported

        if chosen:
            raise ConfigError(f"an .onnx draws sentences only: {chosen[0]} needs the run folder it was made of")
        pipe = Exported(Path(config.model))
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
        rows = _in_rows(pictures.to_uint8(drawn.tensor), len(labels))
        pictures.save(pictures.grid(rows, labels, side=config.side), Path(config.out))
    print(config.out)


def _in_rows(drawn: Any, rows: int) -> Any:
    """Cut pictures (n, H, W, 3) into rows: (rows, n / rows, H, W, 3)."""
    return drawn.reshape(rows, -1, *drawn.shape[1:])


def _draw_styles(config: Generate, pipe: Any) -> None:
    """Draw the table: style pictures down, sentences across."""
    from t2i import pictures

    styles = pictures.read_pictures(config.style, pipe.config.size)
    drawn = pictures.to_uint8(pipe.transfer_style(styles, config.captions).tensor)
    sheet = pictures.table(
        pictures.to_uint8(styles), config.captions, _in_rows(drawn, len(config.style)), side=config.side
    )
    pictures.save(sheet, Path(config.out))


def _draw_strips(config: Generate, pipe: Any) -> None:
    """Draw strips from one sentence, or one noise, to another; or the film of them."""
    import numpy as np

    from t2i import pictures

    strips, labels = [], []
    ends = [config.interpolate_text] if config.interpolate_text else [(caption,) for caption in config.captions]
    for captions in ends:
        over = "text" if config.interpolate_text else "noise"
        drawn = pipe.interpolate(captions, over, steps=config.steps, count=config.count, seed=config.seed)
        strips.append(_in_rows(pictures.to_uint8(drawn.tensor), config.count))
        labels += [" ... ".join(captions), *[""] * (config.count - 1)]
    together = np.concatenate(strips)
    if Path(config.out).suffix.lower() in FILMS:
        pictures.save_animation(together, Path(config.out), side=config.side)
    else:
        pictures.save(pictures.grid(together, labels, side=config.side), Path(config.out))


def _chosen(arguments: Sequence[str], kinds: dict[str, Callable[[Sequence[str]], None]], question: str) -> None:
    """Run the command that the first word names."""
    if not arguments or arguments[0] not in kinds:
        raise ConfigError(f"{question} One of: {', '.join(kinds)}")
    kinds[arguments[0]](arguments[1:])


def _evaluate(arguments: Sequence[str]) -> None:
    if arguments and arguments[0] in ("-h", "--help"):
        print("usage: t2i-eval {images,text,style} [flags]; t2i-eval images --help shows the flags")
        return
    _chosen(
        arguments, {"images": _evaluate_images, "text": _evaluate_text, "style": _evaluate_style}, "what to measure?"
    )


def _evaluate_images(arguments: Sequence[str]) -> None:
    config, _ = flags.read(EvaluateImages, arguments, "t2i-eval images")
    from t2i.config import from_json
    from t2i.metrics.images import images_of_run
    from t2i.training.report import evaluated

    result = images_of_run(
        Path(config.model), data=config.data, split=config.split, count=config.count, features=config.features,
        captions=config.captions, seed=config.seed, device=config.device, batch=config.batch, full=config.full,
    )  # fmt: skip
    print(result.table())
    evaluated(Path(config.model), from_json(Path(config.model) / "config.json"), result.figures)
    if config.json:
        print(json.dumps(result.figures))


def _evaluate_text(arguments: Sequence[str]) -> None:
    config, _ = flags.read(EvaluateText, arguments, "t2i-eval text")
    from t2i.metrics.zero_shot import zero_shot_of_run

    result = zero_shot_of_run(Path(config.model), data=config.data, split=config.split, device=config.device)
    print(result.table())
    if config.json:
        print(json.dumps(result.figures))


def _evaluate_style(arguments: Sequence[str]) -> None:
    config, _ = flags.read(EvaluateStyle, arguments, "t2i-eval style")
    out = Path(config.out) if config.out else Path(config.model) / "style-roc.png"
    if out.suffix.lower() not in PICTURES:
        raise ConfigError(f"--out must end in .png, .jpg or .webp, got {config.out}")
    from t2i.metrics import style

    result = style.style_of_run(
        Path(config.model), data=config.data, images=config.images, pairs=config.pairs, clusters=config.clusters,
        seed=config.seed, device=config.device,
    )  # fmt: skip
    style.save_picture(result, out)
    print(result.table())
    print(f"curves: {out}")
    if config.json:
        print(json.dumps(result.figures))


def _export(arguments: Sequence[str]) -> None:
    config, _ = flags.read(Export, arguments, "t2i-export")
    from t2i.export import export as write
    from t2i.pipeline import Pipeline

    print(write(Pipeline.from_pretrained(config.model), Path(config.out), config.precision, config.ids).summary())
    print(f'next: t2i-generate --model {shlex.quote(config.out)} "{EXAMPLE}" --out picture.png')


def _demo(arguments: Sequence[str]) -> None:
    config, _ = flags.read(Demo, arguments, "t2i-demo")
    from t2i.demo import Server
    from t2i.pipeline import Pipeline

    server = Server(Pipeline.from_pretrained(config.model, config.device), config.host, config.port)
    print(f"drawing on {server.url} (Ctrl-C ends it)", flush=True)
    server.run()
