"""`--report-to`: what a run writes down, shown in TensorBoard or Weights & Biases as well.

Trackers are sent what metrics.jsonl and samples/ hold: the run's own record stays the reference, a tracker cannot change a
step, and `t2i-eval` reports by appending a line.

* tensorboard: event files in the run folder, `tensorboard --logdir RUN`.
* wandb: recorded offline where nobody is logged in or WANDB_MODE says so; `wandb sync` sends it later.
"""

import dataclasses
import hashlib
import json
import math
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from t2i.config.options import TrainConfig
from t2i.errors import CheckpointError
from t2i.extras import require
from t2i.pretrained.folder import data_metadata, plain_file

GROUPS = dict.fromkeys(("matching", "mismatched", "fake"), "scores")  # of D, for the three kinds of pair
GROUPS |= dict.fromkeys(("d_loss", "g_loss", "feature_loss", "feature_g_loss", "text_fit", "contrastive"), "losses")
GROUPS |= dict.fromkeys(("alignment", "diversity", "feature_diversity", "moments", "recovery"), "losses")


class Tracker(Protocol):
    """Where metrics and images are shown."""

    def metrics(self, phase: str, step: int, values: Mapping[str, float]) -> None:
        """Show the values of a step; phases count their own steps."""

    def image(self, step: int, path: Path) -> None:
        """Show the grid of a step."""

    def close(self) -> None:
        """Write down what is left."""


class TensorBoard:
    """Event files under `folder/tensorboard`, a phase a folder; a resumed GAN makes its steps beyond `start` again."""

    def __init__(self, folder: Path, start: int) -> None:
        self.folder, self.start = folder / "tensorboard", start
        self._writers: dict[str, Any] = {}

    def _writer(self, phase: str) -> Any:
        if phase not in self._writers:
            from torch.utils.tensorboard import SummaryWriter

            again = self.start + 1 if self.start and phase in ("gan", "evaluation") else None
            self._writers[phase] = SummaryWriter(self.folder / phase, purge_step=again)
        return self._writers[phase]

    def metrics(self, phase: str, step: int, values: Mapping[str, float]) -> None:
        """Write scalars."""
        for name, value in values.items():
            self._writer(phase).add_scalar(name, value, step)

    def image(self, step: int, path: Path) -> None:
        """Write an image."""
        pixels = np.asarray(Image.open(path).convert("RGB"))
        self._writer("gan").add_image("samples", pixels, step, dataformats="HWC")

    def close(self) -> None:
        """Flush the files."""
        for writer in self._writers.values():
            writer.close()


class WeightsAndBiases:
    """A run of the project "t2i", the same one after a resume."""

    def __init__(self, folder: Path, config: TrainConfig) -> None:
        wandb = require("wandb", "--report-to wandb", "wandb")
        mode = os.environ.get("WANDB_MODE")
        if mode is None and not wandb.login(anonymous="never", prompt=False):
            mode = "offline"
            print(
                f"not logged in to wandb: recording offline; upload later with: wandb sync {folder}/wandb/offline-run-*",
                file=sys.stderr,
            )
        self._wandb = wandb
        self._run = wandb.init(
            project="t2i",
            name=folder.name,
            dir=str(folder),
            mode=mode,
            resume="allow",
            id=hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:12],
            config=dataclasses.asdict(config),
            settings=wandb.Settings(console="off", silent=True),
        )
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")

    def metrics(self, phase: str, step: int, values: Mapping[str, float]) -> None:
        """Log scalars."""
        self._run.log({"step": step, **values})

    def image(self, step: int, path: Path) -> None:
        """Log an image."""
        self._run.log({"step": step, "samples": self._wandb.Image(str(path))})

    def close(self) -> None:
        """End the run."""
        self._run.finish()


def check(config: TrainConfig) -> None:
    """Refuse a tracker that is not installed before anything is trained: ConfigError."""
    for name in config.trackers:
        require(name, f"--report-to {name}", name)


class Reports:
    """The trackers of a run, sent what has been written since: a context around the loop.

    Args:
        config: Names the trackers; without any, nothing happens.
        folder: The run folder.
        start: Steps already done: what was reported before.
        writes: False in a process that leaves the run folder to another.
    """

    def __init__(self, config: TrainConfig, folder: Path, start: int = 0, writes: bool = True) -> None:
        self.folder, self.trackers = folder, list[Tracker]()
        if not writes:
            return
        for name in config.trackers:
            self.trackers.append(
                TensorBoard(folder, start) if name == "tensorboard" else WeightsAndBiases(folder, config)
            )
        self._read = _size(self._metrics) if start else 0
        self._shown = set(self._grids()) if start else set()

    @property
    def _metrics(self) -> Path:
        return self.folder / "metrics.jsonl"

    def _grids(self) -> list[Path]:
        return sorted((self.folder / "samples").glob("step-*.png"))

    def update(self) -> None:
        """Report new lines and new grids."""
        if not self.trackers:
            return
        if _size(self._metrics) > self._read:
            with open(self._metrics, "rb") as file:
                file.seek(self._read)
                lines = file.read().splitlines(keepends=True)
            for line in lines:
                if line.endswith(b"\n"):
                    self._read += len(line)
                    record = json.loads(line)
                    for tracker in self.trackers:
                        tracker.metrics(record["phase"], record["step"], named(record))
        for path in self._grids():
            if path not in self._shown:
                self._shown.add(path)
                for tracker in self.trackers:
                    tracker.image(int(path.stem.removeprefix("step-")), path)

    def __enter__(self) -> "Reports":
        return self

    def __exit__(self, *exception: object) -> None:
        try:
            self.update()
        finally:
            for tracker in self.trackers:
                tracker.close()


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def named(record: Mapping[str, Any]) -> dict[str, float]:
    """Name the numbers of a line so that a tracker groups them: losses/, scores/, speed/, text/, style/, eval/."""
    phase, out = record["phase"], {}
    for name, value in record.items():
        if name in ("phase", "step") or not isinstance(value, (int, float)) or not math.isfinite(value):
            continue
        group = phase
        if phase == "gan":
            group = GROUPS.get(name, "speed" if "second" in name else "gan")
        out[f"{group}/{name}"] = float(value)
    return out


def evaluated(folder: Path, config: TrainConfig, figures: Mapping[str, Any]) -> None:
    """Write what t2i-eval measured into metrics.jsonl, at the step that the model has, and report it.

    Args:
        folder: The run folder; nothing is written into a folder without metrics.jsonl, and where that file cannot be
            written, a line on stderr says so and that is all.
        config: Of the run; names the trackers.
        figures: Of `t2i.metrics.images`; those with a finite "value" are reported.
    """
    if not (folder / "metrics.jsonl").exists():  # a model that was saved for others
        return
    given = {name: found["value"] for name, found in figures.items() if isinstance(found, dict) and "value" in found}
    values = {name: value for name, value in given.items() if value is not None and math.isfinite(value)}
    step = data_metadata(folder).get("steps", 0)
    reports = None
    try:
        plain_file(folder, "metrics.jsonl")
        if config.trackers:
            reports = Reports(config, folder, start=max(step, 1))
        with open(folder / "metrics.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps({"phase": "eval", "step": step, **values}) + "\n")
    except (OSError, CheckpointError) as error:
        reason = getattr(error, "strerror", None) or error
        print(f"the figures were not written to {folder / 'metrics.jsonl'}: {reason}", file=sys.stderr)
    finally:
        if reports is not None:
            with reports:
                pass
