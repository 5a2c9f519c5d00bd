"""The joint embedding: train a text encoder by matching captions with images.

Each step takes one image and one caption of each of a batch of distinct classes, embeds both, and lowers a loss that is
least where every image scores its own text highest and every text its own image. The text encoder is then frozen and the
GAN conditions on it. The image side is a small network trained with it, from pixels, or frozen ImageNet features
(`--image-features`).

Source: Reed et al. CVPR 2016 (DS-SJE): U(-0.08, 0.08) weights, RMSprop 7e-4, x 0.98 an epoch, batches of 40 classes.
"""

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from t2i import console, runtime
from t2i.config.options import TextConfig, TrainConfig
from t2i.config.records import text_settings
from t2i.data.dataset import PackedDataset, record_dataset
from t2i.data.loader import Loader
from t2i.data.sampler import Sampler
from t2i.errors import CheckpointError, ConfigError, Stopped
from t2i.files import write_atomically
from t2i.locks import RunLock
from t2i.models.build import image_encoder
from t2i.models.encoders import FeatureEncoder
from t2i.models.image_features import picture_features
from t2i.text.build import text_encoder
from t2i.training.checkpoint import MISSING, Checkpoints
from t2i.training.guard import NonFiniteGuard
from t2i.training.loop import Loop
from t2i.training.losses import contrastive_loss, joint_embedding_loss
from t2i.training.optim import set_learning_rate
from t2i.training.resume import check_record
from t2i.weights import read_tensors, save_weights

WARMUP_STEPS = 30  # of the contrastive objective


class Pairs:
    """Image and caption of each of a batch of distinct classes, as the two encoders read them.

    Args:
        config: `config.text` says which image side, and how many.
        data: Images and captions.
        device: Where they go.
    """

    def __init__(self, config: TrainConfig | TextConfig, data: PackedDataset, device: torch.device) -> None:
        options, frozen = config.text, config.text.image_features != "joint"
        self.data, self.device = data, device
        self.classes = len(np.unique(data.classes[data.split("train")])) if data.class_names else None
        self.batch = options.batch if self.classes is None else min(options.batch, self.classes)
        self.sampler = Sampler(
            data,
            batch=self.batch,
            seed=config.seed,
            crop=min(config.size, data.image_size) if frozen else config.size,
            flip=config.flip,
            distinct_classes=self.classes is not None,
        )
        self.loader = Loader(self.sampler, device, batch=self.batch, crop=config.size, characters=True)
        self.features = picture_features(data, options.image_features, device) if frozen else None  # (N, 2, D)

    @property
    def epoch_steps(self) -> int:
        """Steps of an epoch: as many as there are training classes."""
        return self.classes or max(1, self.sampler.images // self.batch)

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        """Read a step's captions (B, 201) uint8, and images (B, 3, S, S) or their features (B, D)."""
        if self.features is None:
            batch = self.loader.batch(step)
            assert batch.caption_ids is not None
            return batch.caption_ids[:, 0], batch.images
        plan = self.sampler.plan(step)
        ids = torch.from_numpy(self.data.read_captions(plan.caption[:, 0]))
        rows, mirrored = (torch.from_numpy(np.array(part, np.int64)) for part in (plan.image, plan.flip))
        return ids.to(self.device), self.features[rows, mirrored].to(self.device)


class TextStep:
    """One update of both sides of the joint embedding.

    Args:
        config: `config.text` says how; the size and the seed are the run's.
        device: Where the encoders live.
        precision: Of products and convolutions.
        steps: Steps in all, for the schedule.
        epoch_steps: Steps of an epoch, likewise.
    """

    def __init__(
        self,
        config: TrainConfig | TextConfig,
        device: torch.device,
        precision: torch.dtype,
        steps: int,
        epoch_steps: int,
    ) -> None:
        self.options, self.device, self.precision = config.text, device, precision
        self.steps, self.epoch_steps = steps, epoch_steps
        torch.manual_seed(config.seed)
        text, image = text_encoder(self.options), image_encoder(self.options, config.size)
        if self.options.objective == "sje":
            text.initialise()
            for weight in image.parameters() if isinstance(image, FeatureEncoder) else ():
                nn.init.uniform_(weight, -0.08, 0.08)
        self.text = text.to(device).train()
        self.image = image.to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        self.loss = joint_embedding_loss if self.options.objective == "sje" else contrastive_loss
        parameters = list(itertools.chain(self.text.parameters(), self.image.parameters()))
        rate = self.options.learning_rate
        self.optimizer: torch.optim.Optimizer
        if self.options.objective == "sje":
            self.optimizer = torch.optim.RMSprop(parameters, lr=rate, alpha=0.99, foreach=True)
        else:
            self.optimizer = torch.optim.Adam(parameters, lr=rate, fused=True)
        self.guard = NonFiniteGuard([self.text, self.image], device)

    def modules(self) -> dict[str, nn.Module]:
        """Name both sides, for files."""
        return {"text": self.text, "image": self.image}

    def learning_rate(self, step: int) -> float:
        """Learning rate at `step` (from 0): x decay an epoch; contrastive also warms up, and falls in the second half."""
        rate = self.options.learning_rate * self.options.decay ** (step // self.epoch_steps)
        if self.options.objective == "contrastive":
            rate *= min(1.0, (step + 1) / WARMUP_STEPS, 2 * (1 - step / self.steps))
        return max(rate, 1e-8)

    def __call__(self, step: int, captions: Tensor, seen: Tensor) -> dict[str, Tensor]:
        """Update both sides.

        Args:
            step: From 0.
            captions: (B, 201) uint8.
            seen: (B, 3, S, S) images or (B, D) features, row by row of the same classes.

        Returns:
            The loss, and the part of images whose own text scores highest.
        """
        set_learning_rate(self.optimizer, self.learning_rate(step))
        self.guard.begin()
        with runtime.autocast(self.device, self.precision):
            texts, images = self.text(captions), self.image(seen)
        loss = self.loss(images, texts)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.guard.step(self.optimizer, loss)
        self.guard.end()
        own = (images.detach() @ texts.detach().T).argmax(dim=1) == torch.arange(len(texts), device=self.device)
        return {"loss": loss.detach(), "top1": own.float().mean()}


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
    pairs = Pairs(config, data, device)
    steps = config.text.steps or config.text.epochs * pairs.epoch_steps
    update = TextStep(config, device, precision, steps, pairs.epoch_steps)
    loop = Loop(
        "text",
        folder,
        Checkpoints(folder / "text", update.modules(), {"optimizer": update.optimizer}),
        update.guard,
        config,
        steps=steps,
        batch=pairs.batch,
        metadata=metadata,
        rate_flag=f"{config.text.flags}learning-rate",
    )
    with loop:
        for step in loop.steps_left():
            with loop.reading(step):
                captions, seen = pairs(step)
            loop.record(step, update(step, captions, seen))
            loop.save_if_due()
        save_weights(weights, update.modules())
        if loop.stop.asked:
            raise Stopped("stopped after the text encoder; the same command goes on from there")
    return weights


def _is_whole(path: Path) -> bool:
    """Say whether a weight file is there and not damaged; a damaged one is named on stderr."""
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
    if config.text.image_features == "joint":
        data.require_size(config.size)
    if config.threads:
        torch.set_num_threads(config.threads)
    with RunLock(folder):
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
