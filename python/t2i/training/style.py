"""The style encoder: learn to read from a picture the noise that it was drawn from, the generator frozen.

Each step draws noise and captions, lets the generator make pictures of them, and asks S for the noise back:
||z - S(G(z, phi(t)))||^2. S never sees a photograph.

Source: Reed et al. 2016, section 4.4 and equation 6.
Differs: part of the pictures is blurred and made noisy before S sees it (`--blur 0` is the paper's). S can read the
noise from traces that only the generator leaves; photographs have none of them and are read through the same blur.
"""

import dataclasses
import json
import math
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from t2i import runtime
from t2i.config.options import StyleConfig
from t2i.data.dataset import PackedDataset, dataset_of_run
from t2i.errors import ConfigError, Stopped
from t2i.files import write_atomically
from t2i.locks import RunLock
from t2i.models.encoders import StyleEncoder, blurred
from t2i.pipeline import Pipeline
from t2i.pretrained.folder import model_hash
from t2i.text.table import caption_table
from t2i.training import losses
from t2i.training.checkpoint import Checkpoints
from t2i.training.guard import NonFiniteGuard
from t2i.training.optim import adam, set_learning_rate
from t2i.training.progress import Progress, StopSignal
from t2i.weights import save_weights

RUNTIME_ONLY = {
    "model",
    "out",
    "device",
    "threads",
    "log_every",
    "checkpoint_every",
    "force",
    "data",
}  # make no other encoder


class StyleStep:
    """One update of the style encoder.

    Args:
        config: Sizes, learning rate, blur.
        pipe: The frozen generator.
        device: Where all of them live.
        precision: Of products and convolutions.
    """

    def __init__(self, config: StyleConfig, pipe: Pipeline, device: torch.device, precision: torch.dtype) -> None:
        self.config, self.device, self.precision = config, device, precision
        self.texts = torch.empty(0, pipe.config.text.dim)  # (M, T) embeddings that texts are drawn from
        self.generator = pipe.generator.requires_grad_(False).to(memory_format=torch.channels_last)
        torch.manual_seed(config.seed)
        encoder = StyleEncoder(pipe.config.size, config.width, pipe.config.noise_dim)
        self.encoder = encoder.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.guard = NonFiniteGuard([self.encoder], device)
        self.adam = adam(self.encoder.parameters(), config.learning_rate, config.beta1, config.beta2)

    def draw(self, step: int) -> tuple[Tensor, Tensor]:
        """Draw noise (B, Z) and pictures of it (B, 3, S, S): a pure function of the step."""
        config = self.config
        noise = runtime.noise((config.batch, self.encoder.noise_dim), self.device, config.seed, step, "style")
        draws = runtime.generator(self.device, config.seed, step, "style captions")
        row, other = torch.randint(len(self.texts), (2, config.batch), generator=draws, device=self.device)
        between = torch.rand(config.batch, generator=draws, device=self.device) < config.interpolated
        texts = torch.where(between[:, None], (self.texts[row] + self.texts[other]) / 2, self.texts[row])
        with torch.no_grad():
            pictures = self.generator(noise, texts).float()
        hidden = torch.rand(config.batch, 1, 1, 1, generator=draws, device=self.device) < config.blur
        grain = config.noise * torch.randn(pictures.shape, generator=draws, device=self.device)
        return noise, torch.where(hidden, blurred(pictures) + grain, pictures)

    def __call__(self, step: int) -> dict[str, Tensor]:
        """Update the encoder; returns the loss (1 where nothing is read, 0 at best) and the mean cosine of S and z."""
        rest = 1 - step / self.config.steps
        set_learning_rate(self.adam, self.config.learning_rate * min(1.0, 2 * rest))
        self.guard.begin()
        with runtime.autocast(self.device, self.precision):
            noise, pictures = self.draw(step)
            read = self.encoder(pictures.contiguous(memory_format=torch.channels_last))
        loss = losses.style_loss(read, noise)
        self.adam.zero_grad(set_to_none=True)
        loss.backward()
        self.guard.step(self.adam, loss)
        self.guard.end()
        return {"loss": loss.detach(), "cosine": F.cosine_similarity(read.detach(), noise).mean()}


def train_style(config: StyleConfig) -> Path:
    """Train, or go on training, the style encoder of a run.

    Args:
        config: The settings; written to style.json beside style.safetensors.

    Returns:
        The run folder that holds both.

    Raises:
        CheckpointError: the model is missing or damaged.
        ConfigError: the folder has a style encoder of other settings, or of another model.
        Stopped: SIGINT or SIGTERM came; a checkpoint was written.
    """
    run = Path(config.model)
    folder = Path(config.out) if config.out else run
    device = runtime.pick_device(config.device)
    precision = runtime.pick_precision(config.precision, device)
    if config.threads:
        torch.set_num_threads(config.threads)
    pipe = Pipeline.from_pretrained(run, str(device))
    if pipe.encoder is None:
        raise ConfigError(
            f"{run} has no text encoder; the style encoder learns from pictures of captions: train on one"
        )
    data = dataset_of_run(run, config.data)
    with RunLock(folder):
        if folder.resolve() != run.resolve():
            _copy_run(run, folder)
        facts = _facts(config, run, data)
        _begin(config, folder, facts)
        step_of = StyleStep(config, pipe, device, precision)
        checkpoints = Checkpoints(folder / "style", {"style": step_of.encoder}, {"adam": step_of.adam})
        start, damaged = checkpoints.restore(facts)
        for line in damaged:
            print(line, file=sys.stderr)
        if start < config.steps:
            offsets, images = data.caption_offsets, data.split("train")
            rows = np.concatenate([np.arange(offsets[image], offsets[image + 1]) for image in images])
            step_of.texts = caption_table(pipe.encoder, data, device, precision)[torch.from_numpy(rows).to(device)]
            _loop(config, folder, step_of, checkpoints, start, facts)
        save_weights(folder / "style.safetensors", {"style": step_of.encoder})
    return folder


def _copy_run(run: Path, folder: Path) -> None:
    """Make `folder` a run of its own: what draws, and what it was trained on."""
    for name in ("config.json", "data.json", "model.safetensors"):
        source, target = run / name, folder / name
        if not source.exists():
            continue
        if not target.exists():
            write_atomically(target, source.read_bytes())
        elif target.read_bytes() != source.read_bytes():
            raise ConfigError(f"{folder} holds another run than {run}; choose another --out")


def _facts(config: StyleConfig, run: Path, data: PackedDataset) -> dict[str, Any]:
    """Say all that the encoder depends on."""
    kept = {key: value for key, value in dataclasses.asdict(config).items() if key not in RUNTIME_ONLY}
    return {"settings": kept, "model_sha256": model_hash(run), "data": data.fingerprint}


def _begin(config: StyleConfig, folder: Path, facts: dict[str, Any]) -> None:
    """Write style.json, or compare with the one that is there; --force drops what other settings made."""
    path = folder / "style.json"
    if path.exists():
        try:
            before = json.loads(path.read_text(encoding="utf-8"))
            old, kept = before["settings"], facts["settings"]
            changed = [f"{key}: {old.get(key)} -> {value}" for key, value in kept.items() if old.get(key) != value]
            changed += ["the model has been trained further"] * (before["model_sha256"] != facts["model_sha256"])
            changed += ["the data set is another"] * (before.get("data", facts["data"]) != facts["data"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            changed = ["style.json is damaged"]
        if changed and not config.force:
            what = "; ".join(changed)
            raise ConfigError(f"{folder} has a style encoder of other making ({what}); --force begins anew")
        if changed:
            shutil.rmtree(folder / "style", ignore_errors=True)
            (folder / "style.safetensors").unlink(missing_ok=True)
    write_atomically(path, (json.dumps(facts, indent=2) + "\n").encode())


def _loop(
    config: StyleConfig, folder: Path, style: StyleStep, checkpoints: Checkpoints, start: int, facts: dict[str, Any]
) -> None:
    progress = Progress(folder / "metrics.jsonl", "style", start, config.steps, config.batch)
    style.encoder.train()
    with StopSignal() as stop:
        for step in range(start, config.steps):
            measured = style(step)
            progress.advance()
            done = step + 1
            log = done % config.log_every == 0 or done == config.steps
            if log or style.device.type == "cpu":
                skipped = style.guard.check(done, checkpoints.newest())
            if log:
                values = {name: float(value) for name, value in measured.items()}
                values = {name: value for name, value in values.items() if math.isfinite(value)}
                progress.log(done, values | ({"skipped": skipped} if skipped else {}))
            if stop.asked or done % config.checkpoint_every == 0 or done == config.steps:
                checkpoints.save(done, facts)
                if stop.asked and done < config.steps:
                    progress.close()
                    raise Stopped(f"stopped after step {done} of {config.steps}; the same command goes on from there")
    progress.close()
