"""Joint embedding: teach the text encoder what captions say, by matching them with pictures.

Each step takes one picture and one caption of each of a batch of distinct classes, embeds both, and asks that every
picture lies nearest to its own text and the reverse. The text encoder is then frozen and the GAN conditions on it. The image
side is a small network learned with it, from pixels, or frozen ImageNet features (`--image-features`).

Source: Reed et al. CVPR 2016 (DS-SJE): U(-0.08, 0.08) weights, RMSprop 7e-4, x 0.98 an epoch, batches of 40 classes.
"""

import dataclasses
import itertools
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from t2i import runtime
from t2i.config.options import JointOptions, TextConfig, TrainConfig
from t2i.data.dataset import PackedDataset
from t2i.data.loader import Loader
from t2i.data.sampler import Sampler
from t2i.errors import CheckpointError, ConfigError, Stopped
from t2i.files import write_atomically
from t2i.locks import RunLock
from t2i.models.build import image_encoder
from t2i.models.encoders import FeatureEncoder
from t2i.models.image_features import picture_features
from t2i.text.build import text_encoder
from t2i.text.coverage import coverage_warning
from t2i.training.checkpoint import Checkpoints
from t2i.training.guard import NonFiniteGuard
from t2i.training.losses import contrastive_loss, joint_embedding_loss
from t2i.training.optim import set_learning_rate
from t2i.training.progress import Progress, StopSignal
from t2i.training.rescue import rescued
from t2i.weights import read_tensors, save_weights


class Pairs:
    """Picture and caption of each of a batch of distinct classes, as the two encoders read them.

    Args:
        config: `config.text` says which image side, and how many.
        data: Pictures and captions.
        device: Where they go.
    """

    def __init__(self, config: TrainConfig | TextConfig, data: PackedDataset, device: torch.device) -> None:
        options, frozen = config.text, config.text.image_features != "joint"
        self.data, self.device = data, device
        self.classes = len(np.unique(data.classes[data.split("train")])) if data.class_names else None
        self.batch = options.batch if self.classes is None else min(options.batch, self.classes)
        self.sampler = Sampler(
            data, batch=self.batch, seed=config.seed, crop=min(config.size, data.image_size) if frozen else config.size,
            flip=config.flip, distinct_classes=self.classes is not None,
        )  # fmt: skip
        self.loader = Loader(self.sampler, device, batch=self.batch, crop=config.size, characters=True)
        self.features = picture_features(data, options.image_features, device) if frozen else None  # (N, 2, D)

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        """Read a step's captions (B, 201) uint8, and pictures (B, 3, S, S) or their features (B, D)."""
        if self.features is None:
            drawn = self.loader.batch(step)
            assert drawn.caption_ids is not None
            return drawn.caption_ids[:, 0], drawn.images
        plan = self.sampler.plan(step)
        ids = torch.from_numpy(self.data.read_captions(plan.caption[:, 0]))
        rows, mirrored = (torch.from_numpy(np.array(part, np.int64)) for part in (plan.image, plan.flip))
        return ids.to(self.device), self.features[rows, mirrored].to(self.device)


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
    warning = coverage_warning(data)
    if warning is not None:
        print(warning, file=sys.stderr)
    pairs = Pairs(config, data, device)
    epoch_steps = pairs.classes or max(1, pairs.sampler.images // pairs.batch)
    steps = options.steps or options.epochs * epoch_steps
    torch.manual_seed(config.seed)
    text, image = text_encoder(options), image_encoder(options, config.size)
    if options.objective == "sje":
        text.initialise()
        for weight in image.parameters() if isinstance(image, FeatureEncoder) else ():
            nn.init.uniform_(weight, -0.08, 0.08)
    text, image = text.to(device), image.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    parameters = list(itertools.chain(text.parameters(), image.parameters()))
    optimizer: torch.optim.Optimizer
    if options.objective == "sje":
        optimizer = torch.optim.RMSprop(parameters, lr=options.learning_rate, alpha=0.99, foreach=True)
    else:
        optimizer = torch.optim.Adam(parameters, lr=options.learning_rate, fused=True)
    checkpoints = Checkpoints(folder / "text", {"text": text, "image": image}, {"optimizer": optimizer})
    facts = _facts(config, data)
    start, damaged = checkpoints.restore(None if config.force else facts)
    for line in damaged:
        print(line, file=sys.stderr)
    progress = Progress(folder / "metrics.jsonl", "text", start, steps, pairs.batch)
    joint = joint_embedding_loss if options.objective == "sje" else contrastive_loss
    image.train()
    guard = NonFiniteGuard([text, image], device)
    with StopSignal() as stop:
        for step in range(start, steps):
            decayed = options.learning_rate * options.decay ** (step // epoch_steps)
            if options.objective == "contrastive":
                decayed *= min(1.0, (step + 1) / 30, 2 * (1 - step / steps))  # warms up; the second half cools down
            set_learning_rate(optimizer, max(decayed, 1e-8))
            with rescued(step, lambda: checkpoints.save(step, facts)):  # noqa: B023 (called at once, if at all)
                captions, seen = pairs(step)
            guard.begin()
            with runtime.autocast(device, precision):
                texts, images = text(captions), image(seen)
            loss = joint(images, texts)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            guard.step(optimizer, loss)
            guard.end()
            progress.advance()
            done = step + 1
            log = done % config.log_every == 0 or done == steps
            if log or device.type == "cpu":
                skipped = guard.check(done, checkpoints.newest(), f"{options.flags}learning-rate")
            if log:
                own = (images @ texts.T).argmax(dim=1) == torch.arange(pairs.batch, device=device)
                values = {"loss": float(loss.detach()), "top1": float(own.float().mean())}
                values = {name: value for name, value in values.items() if np.isfinite(value)}
                progress.log(done, values | ({"skipped": skipped} if skipped else {}))
            if stop.asked or (done % config.checkpoint_every == 0 and done < steps):
                checkpoints.save(done, facts)
                if stop.asked:
                    progress.close()
                    raise Stopped(f"stopped after step {done} of the text encoder; the same command goes on from there")
        save_weights(final, {"text": text, "image": image})
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
