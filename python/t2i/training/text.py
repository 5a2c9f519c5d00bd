"""Train a text encoder, by matching captions with images or by imitating another encoder: the step, the loop, its run folder.

What is learned from, and how it is compared, is in `text_objectives.py`. The encoder is then frozen, and the GAN
conditions on it.
"""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from t2i import console, runtime
from t2i.config.options import TextConfig, TrainConfig
from t2i.config.records import text_settings
from t2i.config.text import JointOptions
from t2i.data.dataset import PackedDataset, record_dataset
from t2i.errors import CheckpointError, ConfigError, Stopped
from t2i.files import write_atomically
from t2i.locks import RunLock
from t2i.text.coverage import coverage_warning
from t2i.text.pretrained import with_kind, with_teacher
from t2i.training.checkpoint import MISSING, Checkpoints
from t2i.training.guard import NonFiniteGuard
from t2i.training.loop import Loop
from t2i.training.optim import set_learning_rate
from t2i.training.resume import check_record, resolve_precision
from t2i.training.text_objectives import Objective, objective_of
from t2i.training.warm_start import warm_start_text
from t2i.weights import read_tensors, save_weights

MIN_STEPS = 300  # below which `max_epochs` ends no training


class TextStep:
    """One update of a text encoder, and of what learns with it.

    Args:
        objective: What is learned from.
        device: Where it lives.
        precision: Of products and convolutions.
        steps: Steps in all, for the schedule.
        seed: Of dropout.
    """

    def __init__(
        self, objective: Objective, device: torch.device, precision: torch.dtype, steps: int, seed: int
    ) -> None:
        self.objective, self.device, self.precision = objective, device, precision
        self.steps, self.seed = steps, seed
        self.guard = NonFiniteGuard([objective.text, objective.image], device)
        for module in [*self.kept().values(), *objective.learning.values()]:
            module.train(any(weight.requires_grad for weight in module.parameters()))

    def kept(self) -> dict[str, nn.Module]:
        """Name both sides of the joint embedding, for the file that is kept."""
        return {"text": self.objective.text, "image": self.objective.image}

    def __call__(self, step: int, batch: tuple[Tensor, ...]) -> dict[str, Tensor]:
        """Update; `batch` is what the objective read for `step` (from 0)."""
        objective = self.objective
        set_learning_rate(objective.optimizer, objective.rate(step, self.steps))
        self.guard.begin()
        dropout = runtime.seeded(self.device, self.seed, step, "dropout")
        with dropout, runtime.autocast(self.device, self.precision):
            loss, measure = objective.loss(batch)
        objective.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if objective.clip is not None:
            nn.utils.clip_grad_norm_(objective.optimizer.param_groups[0]["params"], objective.clip)
        self.guard.step(objective.optimizer, loss)
        self.guard.end()
        objective.end(step)
        return {"loss": loss.detach(), objective.measure: measure.detach()}


def train_text(config: TrainConfig | TextConfig, data: PackedDataset, folder: Path) -> Path:
    """Train the joint embedding inside a run folder, or return its weights where that is done already.

    Args:
        config: `config.text` says how; size, seed, device and precision are the run's.
        data: Images and captions.
        folder: The run folder; `text.safetensors` (modules `text` and `image`) and `text.json` are written there.

    Returns:
        The weights.

    Raises:
        ConfigError: the image features cannot be had.
        Diverged: losses or gradients were not finite in many steps in a row.
        Stopped: SIGINT or SIGTERM came; a checkpoint was written.
    """
    weights = folder / "text.safetensors"
    if _is_whole(weights):
        return weights
    device = runtime.pick_device(config.device)
    precision = runtime.pick_precision(config.precision, device)
    metadata = text_metadata(config, data)
    write_atomically(folder / "text.json", (json.dumps(metadata, indent=2) + "\n").encode())
    objective = objective_of(config, data, device)
    warning = coverage_warning(data, objective.text)
    if warning is not None:
        console.say(warning)
    init = getattr(config, "init", "")
    if init and not config.text.teacher:
        console.say(warm_start_text(init, config.text.kind, {"text": objective.text, "image": objective.image}))
    steps = steps_for(config.text, objective.epoch)
    update = TextStep(objective, device, precision, steps, config.seed)
    loop = Loop(
        "text",
        folder,
        Checkpoints(folder / "text", {**update.kept(), **objective.learning}, {"optimizer": objective.optimizer}),
        update.guard,
        config,
        steps=steps,
        batch=objective.batch,
        metadata=metadata,
        rate_flag=f"{config.text.flags}learning-rate",
    )
    with loop:
        for step in loop.steps_left():
            with loop.reading(step):
                batch = objective.read(step)
            loop.record(step, update(step, batch))
            loop.save_if_due()
        save_weights(weights, update.kept())
        if loop.stop.asked:
            raise Stopped("stopped after the text encoder; run the same command to resume")
    return weights


def steps_for(options: JointOptions, epoch: int) -> int:
    """Count the steps of a joint embedding whose epoch has `epoch` steps: `steps` or `epochs`, at most `max_epochs`."""
    steps = options.steps or options.epochs * epoch
    return min(steps, max(MIN_STEPS, options.max_epochs * epoch)) if options.max_epochs else steps


def _is_whole(path: Path) -> bool:
    """Return whether a weight file is there and not damaged; a damaged one is named on stderr."""
    if not path.exists():
        return False
    try:
        read_tensors(path)
    except CheckpointError as error:
        if isinstance(error.__cause__, OSError) and error.__cause__.errno not in MISSING:
            raise  # it may be read tomorrow
        console.say(f"training the text encoder again: {error}")
        return False
    return True


def run(config: TextConfig, data: PackedDataset) -> Path:
    """Train, or resume training, a joint embedding in a run folder of its own: `t2i-train text`.

    Args:
        config: The settings; written to text.json.
        data: Images and captions.

    Returns:
        The run folder: text.safetensors, text.json, data.json.

    Raises:
        ConfigError: the folder has a text encoder of other settings or other data, or the settings do not fit the data.
        Stopped: SIGINT or SIGTERM came; a checkpoint was written.
    """
    folder = Path(config.out)
    config = with_teacher(with_kind(config, data))
    if config.text.image_features == "joint":
        data.require_size(config.size)
    runtime.use_threads(config.threads)
    with RunLock(folder):
        config = resolve_precision(config, folder / "text.json", runtime.pick_device(config.device))
        if (folder / "config.json").exists():
            raise ConfigError(
                f"{folder} is the run of a GAN, which has a text encoder of its own; choose another --out"
            )
        check_text(config, data, folder)
        record_dataset(folder, data)
        train_text(config, data, folder)
    return folder


def text_metadata(config: TrainConfig | TextConfig, data: PackedDataset) -> dict[str, Any]:
    """List all that a joint embedding depends on: settings and data."""
    return {"settings": text_settings(config), "data": data.fingerprint}


def check_text(config: TrainConfig | TextConfig, data: PackedDataset, folder: Path) -> None:
    """Compare with the text encoder that the folder has; --force drops one of other settings or other data."""
    check_record(folder / "text.json", text_metadata(config, data), config.force)
