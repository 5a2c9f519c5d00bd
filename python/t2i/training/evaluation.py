"""`--eval-every`, `--keep best`: a run that is evaluated while it trains, without changing a step of it.

Each evaluation is a line of metrics.jsonl (phase "evaluation") and a line on the terminal; the figures are those of
`metrics.live`. The best model so far is kept in best.safetensors: a later one takes its place where its distances to real
images (kid + kid_pixels) are smaller, its R-precision is not lower by more than a standard error, and copies are no more than
2% above those of real images. Replayed after a kill, evaluations decide as they did.
"""

import json
import math
from pathlib import Path

import torch
from torch import nn

from t2i import console, runtime
from t2i.config.options import TrainConfig
from t2i.data.dataset import PackedDataset
from t2i.errors import CheckpointError, ConfigError
from t2i.files import read_json, write_atomically
from t2i.metrics.live import LiveFigures, Values
from t2i.metrics.scoring import MIN_IMAGES
from t2i.metrics.verdict import distance, too_many_copies, verdict, warnings
from t2i.pipeline import Pipeline
from t2i.training.progress import read_phase
from t2i.training.scorer import independent_scorer
from t2i.training.steps import Step
from t2i.weights import read_tensors, save_weights

PHASE = "evaluation"
IMAGES = 500
BEST, BEST_FIGURES = "best.safetensors", "best.json"
NEEDED = ("step", "kid", "kid_pixels", "copies", "copies_real")  # figures that the best is chosen by


def check_evaluation(config: TrainConfig, data: PackedDataset) -> None:
    """Refuse --eval-every before anything is trained where the data have too few images for its figures: ConfigError."""
    images = len(data.split("train"))
    if config.eval_every and images < MIN_IMAGES:
        raise ConfigError(
            f"--eval-every needs at least {MIN_IMAGES} training images, {data.path} has {images}: leave it out"
        )


class Evaluation:
    """Evaluate a GAN's moving average every so often.

    Args:
        config: Of the run; `eval_every` and `keep`.
        data: The data set.
        folder: The run folder.
        device: Where the networks are.
        precision: Of the products.
    """

    def __init__(
        self, config: TrainConfig, data: PackedDataset, folder: Path, device: torch.device, precision: torch.dtype
    ) -> None:
        self.config, self.folder, self.precision = config, folder, precision
        split = "test" if len(data.split("test")) > MIN_IMAGES else "train"
        self.count = min(IMAGES, len(data.split(split)))
        scorer = independent_scorer(data, config.size, config.seed, folder / "scorer", device, precision)
        self.figures = LiveFigures(data, split, scorer, self.count, config.seed)
        self.warned: set[str] = set()
        self.best = self._read_best()

    def _read_best(self) -> Values | None:
        """Read what was kept; nothing where it is damaged."""
        try:
            record: Values = read_json(self.folder / BEST_FIGURES)
            read_tensors(self.folder / BEST, require_checksum=True)
            best = {name: float(value) for name, value in record.items()}
            return best if all(math.isfinite(best[name]) for name in NEEDED) else None
        except (OSError, ValueError, TypeError, AttributeError, KeyError, CheckpointError):
            return None

    def __call__(self, gan: Step, step: int) -> Values:
        """Measure the model of a step, say what was found, and keep the model if it is the best so far."""
        model = gan.ema if self.config.ema else gan.generator
        networks = [model] if gan.text.encoder is None else [model, gan.text.encoder]
        modes = [network.training for network in networks]
        pipe = Pipeline(model, gan.text.encoder, self.config, self.folder)  # puts them in the mode of use
        with runtime.autocast(gan.device, self.precision):
            values = self.figures(pipe, None if gan.text.learned else lambda rows: gan.text(rows[:, None], None))
        for network, mode in zip(networks, modes, strict=True):
            network.train(mode)
        if self.config.keep == "best" and self._is_better(step, values):
            self.best = {"step": float(step), **values}
            save_weights(self.folder / BEST, model_networks(gan, self.config))
            write_atomically(self.folder / BEST_FIGURES, (json.dumps(self.best, indent=2) + "\n").encode())
        for cause, line in warnings(values).items():
            if cause not in self.warned:
                self.warned.add(cause)
                console.say(f"warning: step {step}: {line}")
        return values

    def _is_better(self, step: int, values: Values) -> bool:
        """Decide whether a model replaces the best one so far; see the module."""
        best = self.best
        if best is None:
            return True
        if step <= best["step"]:
            return step == best["step"]  # this run, again after a kill
        if too_many_copies(values) and not too_many_copies(best):
            return False
        if "r_precision" in values and "r_precision" in best:
            rate = best["r_precision"]
            if values["r_precision"] < rate - (rate * (1 - rate) / self.count) ** 0.5:
                return False
        return distance(values) < distance(best)

    def verdict(self) -> list[str]:
        """Describe what the run has reached, one finding per line."""
        history = read_phase(self.folder / "metrics.jsonl", PHASE)
        return verdict(history, self.count) if history else []

    def kept(self) -> list[str]:
        """Return which step the model of the run folder is of, where that is not the last."""
        return [] if self.model() is None or not self.best else [f"the model is that of step {self.best['step']:.0f}"]

    def model(self) -> Path | None:
        """Return the weights that are kept as the best; None where the last ones are."""
        best = self.folder / BEST
        return best if self.config.keep == "best" and self.best is not None and best.exists() else None


def model_networks(gan: Step, config: TrainConfig) -> dict[str, nn.Module]:
    """List what a model folder holds: the generator, or its moving average, and the text encoder."""
    networks: dict[str, nn.Module] = {"generator": gan.ema if config.ema else gan.generator}
    if gan.text.encoder is not None:
        networks["text"] = gan.text.encoder
    return networks
