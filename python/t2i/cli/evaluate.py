"""`t2i-eval`: measure a model."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from t2i.cli.arguments import IMAGE_SUFFIXES, EvaluateImages, EvaluateStyle, EvaluateText
from t2i.cli.parsing import parse
from t2i.errors import ConfigError, T2IError


def as_json(figures: Any) -> str:
    """Write figures as one line of JSON, which has no NaN and no infinity: they become null."""

    def finite(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: finite(each) for key, each in value.items()}
        if isinstance(value, (list, tuple)):
            return [finite(each) for each in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return json.dumps(finite(figures), allow_nan=False)


def run_evaluate(arguments: Sequence[str]) -> None:
    """Run the measure that the first word names."""
    kinds: Mapping[str, Callable[[Sequence[str]], None]] = {
        "images": _evaluate_images,
        "text": _evaluate_text,
        "style": _evaluate_style,
    }
    if arguments and arguments[0] in ("-h", "--help"):
        print("usage: t2i-eval {images,text,style} [flags]; t2i-eval images --help shows the flags")
        return
    if not arguments or arguments[0] not in kinds:
        raise ConfigError(f"choose what to measure: {', '.join(kinds)}")
    kinds[arguments[0]](arguments[1:])


def _evaluate_images(arguments: Sequence[str]) -> None:
    config = parse(EvaluateImages, arguments, "t2i-eval images")
    from t2i.config.records import from_json
    from t2i.metrics.images import images_of_run
    from t2i.training.report import evaluated

    run = Path(config.model)
    result = images_of_run(
        run,
        data=config.data,
        split=config.split,
        count=config.count,
        features=config.features,
        scorer=config.scorer,
        captions=config.captions,
        seed=config.seed,
        device=config.device,
        batch=config.batch,
        full=config.full,
        language=config.language,
    )
    print(result.table())
    evaluated(run, from_json(run / "config.json"), result.figures)
    if config.json:
        print(as_json(result.figures))


def _evaluate_text(arguments: Sequence[str]) -> None:
    config = parse(EvaluateText, arguments, "t2i-eval text")
    from t2i.metrics.zero_shot import zero_shot_of_run

    result = zero_shot_of_run(Path(config.model), data=config.data, split=config.split, device=config.device)
    print(result.table())
    if config.json:
        print(as_json(result.figures))


def _evaluate_style(arguments: Sequence[str]) -> None:
    config = parse(EvaluateStyle, arguments, "t2i-eval style")
    out = Path(config.out) if config.out else Path(config.model) / "style-roc.png"
    if out.suffix.lower() not in IMAGE_SUFFIXES:
        raise ConfigError(f"--out must end in .png, .jpg or .webp, got {config.out}")
    if out.is_dir():
        raise ConfigError(f"--out must name a file, and {out} is a folder; add a name, as in roc.png")
    from t2i.images import save_image
    from t2i.metrics import style
    from t2i.plots.canvas import require_matplotlib
    from t2i.plots.roc import roc_picture

    require_matplotlib("t2i-eval style")
    result = style.style_of_run(
        Path(config.model),
        data=config.data,
        images=config.images,
        pairs=config.pairs,
        clusters=config.clusters,
        seed=config.seed,
        device=config.device,
    )
    print(result.table())  # first: a file that cannot be written is no reason to lose the figures
    failed = None
    try:
        save_image(roc_picture(result.curves), out)
        print(f"curves: {out}")
    except T2IError as error:
        failed = error
    if config.json:
        print(as_json(result.figures))
    if failed is not None:
        raise failed
