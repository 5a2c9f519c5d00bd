"""The commands: flags to settings, settings to a function, errors to one line and exit code 2.

Torch is imported only after the flags were read, so that `--help` and a mistyped flag answer at once.
"""

import io
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import get_args

from t2i import console
from t2i.blossoms.pack import pack_blossoms
from t2i.cli.arguments import Bench, Demo, Export, Kind, Merge, Prepare
from t2i.cli.evaluate import run_evaluate
from t2i.cli.generate import run_generate
from t2i.cli.next_step import caption_to_try, packed_message
from t2i.cli.parsing import parse
from t2i.cli.train import run_train
from t2i.errors import ConfigError, T2IError
from t2i.files import shell_path


def _guarded(name: str, command: Callable[[Sequence[str]], None]) -> None:
    """Run a command; a user's error is one line on stderr and exit code 2, a stop on request 130."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a console code page, LC_ALL=C: what it cannot say is escaped
            stream.reconfigure(errors="backslashreplace")
    sys.stderr = console.errors()
    if sys.platform == "darwin":
        # What Apple's GPU lacks runs on the CPU, and torch says so; read when torch is imported.
        os.environ.setdefault("PYTORCH_ENABLE_MPS_FALLBACK", "1")
    try:
        command(sys.argv[1:])
    except T2IError as error:
        stopped = type(error).__name__ == "Stopped"
        print(f"{name}: {'' if stopped else 'error: '}{error}", file=sys.stderr)
        sys.exit(130 if stopped else 2)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # the reader has closed the pipe: t2i-train --help | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python would complain as it exits
        sys.exit(1)


def prepare() -> None:
    """t2i-prepare: convert captioned images to a packed data set."""
    _guarded("t2i-prepare", _prepare)


def train() -> None:
    """t2i-train: train a model, or resume its training."""
    _guarded("t2i-train", run_train)


def generate() -> None:
    """t2i-generate: generate images of captions."""
    _guarded("t2i-generate", run_generate)


def evaluate() -> None:
    """t2i-eval: measure a model."""
    _guarded("t2i-eval", run_evaluate)


def demo() -> None:
    """t2i-demo: generate images in the browser."""
    _guarded("t2i-demo", _demo)


def bench() -> None:
    """t2i-bench: benchmark t2i against alternatives."""
    _guarded("t2i-bench", _bench)


def export() -> None:
    """t2i-export: export a model to ONNX."""
    _guarded("t2i-export", _export)


def _bench(arguments: Sequence[str]) -> None:
    config = parse(Bench, arguments, "t2i-bench")
    from t2i.bench import timing
    from t2i.bench.rows import measure

    rows, known = measure(
        config.what,
        data=config.data,
        model=config.model,
        device=config.device,
        rounds=config.rounds,
        batch=config.batch,
        folder=config.rivals,
        threads=config.threads,
        pictures=config.pictures,
    )
    print(timing.report(rows, known, config.json))


def _prepare(arguments: Sequence[str]) -> None:
    if arguments and arguments[0] == "merge":
        _merge(arguments[1:])
        return
    if arguments and arguments[0] not in get_args(Kind) and os.access(arguments[0], os.F_OK):
        raise ConfigError(
            f"the format of {arguments[0]} is missing: t2i-prepare folder {shell_path(arguments[0])} --out DIR for images "
            f"with captions beside them; the other formats are {', '.join(get_args(Kind)[1:])}"
        )
    config = parse(Prepare, arguments, "t2i-prepare")
    from t2i import prepare as preparing

    out = Path(config.out)
    if config.kind == "blossoms":
        count = _count(config.images)
        report = pack_blossoms(
            out,
            images=count,
            size=config.size,
            seed=config.seed,
            force=config.force,
            language=config.language,
        )
    elif not config.source:
        raise ConfigError(f"the source is missing: t2i-prepare {config.kind} FOLDER --out DIR")
    else:
        options = preparing.SourceOptions(
            image_column=config.image_column,
            caption_column=config.caption_column,
            images=None if config.images is None else Path(config.images),
            captions=config.captions,
            boxes=config.boxes,
            zip_names=config.zip_names,
            follow_links=config.follow_links,
        )
        report = preparing.pack(
            config.kind,
            Path(config.source),
            out,
            size=config.size,
            fit=config.fit,
            options=options,
            classes=not config.no_classes,
            max_pixels=config.max_pixels,
            force=config.force,
            shard=config.shard,
            shard_images=config.shard_images,
        )
    print(report.summary())
    if report.missing:
        print(
            f"{report.missing} shards of {out} are missing: prepare the other parts; t2i-prepare merge joins parts in "
            "other folders"
        )
        return
    print(packed_message(out))


def _count(images: str | None) -> int:
    try:
        return 6000 if images is None else int(images)
    except ValueError:
        raise ConfigError(f"--images must be a whole number for blossoms, got {images}") from None


def _merge(arguments: Sequence[str]) -> None:
    config = parse(Merge, arguments, "t2i-prepare merge")
    from t2i import prepare as preparing

    report = preparing.merge([Path(part) for part in config.parts], Path(config.out), config.force)
    print(report.summary())
    print(packed_message(Path(config.out)))


def _export(arguments: Sequence[str]) -> None:
    config = parse(Export, arguments, "t2i-export")
    from t2i.data.examples import examples_of_run
    from t2i.export.onnx import export as write
    from t2i.pipeline import Pipeline

    pipe = Pipeline.from_pretrained(config.model)
    print(write(pipe, Path(config.out), config.precision, config.ids).summary())
    caption = caption_to_try(examples_of_run(pipe.folder, 1))
    print(f"next: t2i-generate --model {shell_path(config.out)} {caption} --out picture.png")


def _demo(arguments: Sequence[str]) -> None:
    config = parse(Demo, arguments, "t2i-demo")
    from t2i.demo.app import Server
    from t2i.pipeline import Pipeline

    server = Server(Pipeline.from_pretrained(config.model, config.device), config.host, config.port)
    print(f"serving on {server.url} (press Ctrl-C to stop)", flush=True)
    server.run()
