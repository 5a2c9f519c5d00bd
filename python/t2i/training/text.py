"""Train a text encoder, by matching captions with images or by imitating another encoder: the loop, and its run folder.

What is learned from, and how it is compared, is in `text_objectives.py`. The encoder is then frozen, and the GAN
conditions on it.
"""

import dataclasses
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from t2i import runtime
from t2i.config.options import JointOptions, TextConfig, TrainConfig
from t2i.data.dataset import PackedDataset
from t2i.errors import CheckpointError, ConfigError, Stopped
from t2i.files import write_atomically
from t2i.locks import RunLock
from t2i.text.coverage import coverage_warning
from t2i.text.pretrained import with_teacher
from t2i.training.checkpoint import Checkpoints
from t2i.training.guard import NonFiniteGuard
from t2i.training.optim import set_learning_rate
from t2i.training.progress import Progress, StopSignal
from t2i.training.rescue import rescued
from t2i.training.text_objectives import objective_of
from t2i.weights import read_tensors, save_weights


def train_text(config: TrainConfig | TextConfig, data: PackedDataset, folder: Path) -> Path:
    """Train the joint embedding inside a run folder, or load it where that is done already.

    Args:
        config: `config.text` says how; size, seed, device and precision are the run's.
        data: Pictures and captions.
        folder: The run folder; `text.safetensors` (modules `text` and `image`) and `text.json` are written there.

    Returns:
        The weights.

    Raises:
        ConfigError: the image features cannot be had.
        Diverged: losses or gradients were not finite in many steps in a row.
        Stopped: SIGINT or SIGTERM came; a checkpoint was written.
    """
    final = folder / "text.safetensors"
    if final.exists():
        try:
            read_tensors(final)
        except CheckpointError as error:
            print(f"training the text encoder again: {error}", file=sys.stderr)
        else:
            return final
    options = config.text
    device = runtime.pick_device(config.device)
    precision = runtime.pick_precision(config.precision, device)
    write_atomically(folder / "text.json", (json.dumps(_facts(config, data), indent=2) + "\n").encode())
    objective = objective_of(config, data, device)
    warning = coverage_warning(data, objective.text)
    if warning is not None:
        print(warning, file=sys.stderr)
    steps = options.steps or options.epochs * objective.epoch
    kept = {"text": objective.text, "image": objective.image}
    checkpoints = Checkpoints(folder / "text", {**kept, **objective.learning}, {"optimizer": objective.optimizer})
    facts = _facts(config, data)
    start, damaged = checkpoints.restore(None if config.force else facts)
    for line in damaged:
        print(line, file=sys.stderr)
    progress = Progress(folder / "metrics.jsonl", "text", start, steps, objective.batch)
    for module in {**kept, **objective.learning}.values():
        module.train(any(weight.requires_grad for weight in module.parameters()))
    guard = NonFiniteGuard([objective.text, objective.image], device)
    with StopSignal() as stop:
        for step in range(start, steps):
            set_learning_rate(objective.optimizer, objective.rate(step, steps))
            with rescued(step, lambda: checkpoints.save(step, facts)):  # noqa: B023 (called at once, if at all)
                batch = objective.read(step)
            guard.begin()
            with runtime.autocast(device, precision):
                loss, measure = objective.loss(batch, step)
            objective.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            if objective.clip is not None:
                nn.utils.clip_grad_norm_(objective.optimizer.param_groups[0]["params"], objective.clip)
            guard.step(objective.optimizer, loss)
            guard.end()
            objective.end(step)
            progress.advance()
            done = step + 1
            log = done % config.log_every == 0 or done == steps
            if log or device.type == "cpu":
                skipped = guard.check(done, checkpoints.newest(), f"{options.flags}learning-rate")
            if log:
                values = {"loss": float(loss.detach()), objective.measure: float(measure)}
                values = {name: value for name, value in values.items() if np.isfinite(value)}
                progress.log(done, values | ({"skipped": skipped} if skipped else {}))
            if stop.asked or (done % config.checkpoint_every == 0 and done < steps):
                checkpoints.save(done, facts)
                if stop.asked:
                    progress.close()
                    raise Stopped(f"stopped after step {done} of the text encoder; the same command goes on from there")
        save_weights(final, kept)
        progress.close()
        if stop.asked:  # while it wrote
            raise Stopped("stopped after the text encoder; the same command goes on from there")
    return final


def run(config: TextConfig, data: PackedDataset) -> Path:
    """Train, or go on training, a joint embedding in a run folder of its own: `t2i-train text`.

    Args:
        config: The settings; written to text.json.
        data: Pictures and captions.

    Returns:
        The run folder: text.safetensors, text.json, data.json.

    Raises:
        ConfigError: the folder has a text encoder of other settings or other data, or the settings do not fit the data.
        Stopped: SIGINT or SIGTERM came; a checkpoint was written.
    """
    folder = Path(config.out)
    config = with_teacher(config)
    if config.text.image_features == "joint" and config.size > data.image_size:
        raise ConfigError(
            f"--size {config.size} is larger than the pictures of {data.path} ({data.image_size} px); "
            f"choose a smaller one, or prepare them with --size {config.size * 76 // 64} or more"
        )
    if config.threads:
        torch.set_num_threads(config.threads)
    with RunLock(folder):
        if (folder / "config.json").exists():
            raise ConfigError(
                f"{folder} is the run of a GAN, which has a text encoder of its own; choose another --out"
            )
        begin_text(config, data, folder)
        facts = {"fingerprint": data.fingerprint, "path": str(data.path), "images": data.images}
        write_atomically(folder / "data.json", (json.dumps(facts, indent=2) + "\n").encode())
        train_text(config, data, folder)
    return folder


def _facts(config: TrainConfig | TextConfig, data: PackedDataset) -> dict[str, Any]:
    """Say all that the encoder depends on."""
    text = {field.name: getattr(config.text, field.name) for field in dataclasses.fields(JointOptions)}
    names = ("size", "flip", "seed", "precision")
    kept: dict[str, Any] = {name: getattr(config, name) for name in names} | {"text": text}
    return {"settings": kept, "data": data.fingerprint}


def begin_text(config: TrainConfig | TextConfig, data: PackedDataset, folder: Path) -> None:
    """Compare with the text.json that is there; --force drops what other settings made."""
    path, facts = folder / "text.json", _facts(config, data)
    if not path.exists():
        return
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
        old, new = ({**each["settings"], **each["settings"]["text"], "data": each["data"][:12], "text": None}
                    for each in (before, json.loads(json.dumps(facts))))  # fmt: skip
        changed = [f"{key}: {old.get(key)} -> {value}" for key, value in new.items() if old.get(key) != value]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        changed = ["text.json is damaged"]
    if changed and not config.force:
        raise ConfigError(f"{folder} has a text encoder of other making ({'; '.join(changed)}); --force begins anew")
    if changed:
        shutil.rmtree(folder / "text", ignore_errors=True)
        (folder / "text.safetensors").unlink(missing_ok=True)
