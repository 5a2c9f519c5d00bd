"""What a text encoder learns from: batches, loss, optimizer and learning rate of each objective; the loop is in `text.py`.

* `JointObjective`: an image and a caption of each of a batch of distinct classes. DS-SJE as published, or a contrastive loss.
* `ClassContrastiveObjective`: images at random, several captions of each averaged, half of the target spread over the class.
* `Distillation`: the embeddings that another text encoder gives the same captions.

Source: Reed et al. CVPR 2016 (DS-SJE): U(-0.08, 0.08) weights, RMSprop 7e-4, x 0.98 an epoch, batches of 40 classes. The others
are not in the paper; their settings were measured on Oxford-102 (`docs/paper.md`).
"""

import copy
import itertools
import math
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from t2i import runtime
from t2i.config.options import JointOptions, TextConfig, TrainConfig
from t2i.config.records import text_options, text_size
from t2i.data.dataset import PackedDataset
from t2i.data.loader import Loader
from t2i.data.sampler import Sampler
from t2i.models.build import image_encoder
from t2i.models.encoders import FeatureEncoder, WhitenedEncoder
from t2i.models.image_features import frozen_features
from t2i.text.build import text_encoder
from t2i.text.inputs import CaptionInputs, train_rows
from t2i.text.pretrained import load_text
from t2i.text.protocol import TextEncoder
from t2i.text.table import caption_table
from t2i.training.losses import class_contrastive_loss, contrastive_loss, joint_embedding_loss
from t2i.training.optim import ema_rate, update_ema
from t2i.weights import load_weights

Config = TrainConfig | TextConfig
WARM_UP = 50  # steps of AdamW
CLIP = 1.0  # largest gradient of a student
STUDENT_EMA = 0.99


class Objective(Protocol):
    """What the loop asks of an objective."""

    text: TextEncoder  # as it is kept
    image: nn.Module
    learning: dict[str, nn.Module]  # what checkpoints hold beside these
    optimizer: torch.optim.Optimizer
    batch: int  # images or captions a step
    epoch: int  # steps of an epoch
    clip: float | None  # largest norm of the gradient
    measure: str  # what the second number of `loss` is called

    def rate(self, step: int, steps: int) -> float:
        """Learning rate of a step."""
        ...

    def read(self, step: int) -> tuple[Tensor, ...]:
        """Read a step's batch, which another process may have damaged."""
        ...

    def loss(self, batch: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        """Compute the loss, and how often an image's own text is the nearest; for a student, the mean cosine.

        Dropout draws from torch's own generators, which `TextStep` seeds for each step.
        """
        ...

    def end(self, step: int) -> None:
        """Do what follows an update."""
        ...


def class_count(data: PackedDataset) -> int | None:
    """Count the training classes; None where the data has no classes."""
    return len(np.unique(data.classes[data.split("train")])) if data.class_names else None


class TrainingFeatures:
    """Frozen features of the training images, found by the images' rows in the pack.

    Args:
        config: The network is `config.text.image_features`.
        data: The data set.
        device: Where they are computed; they are kept on the CPU.
    """

    def __init__(self, config: Config, data: PackedDataset, device: torch.device) -> None:
        precision = runtime.pick_precision(config.precision, device)
        self.rows = data.split("train")  # ascending
        text = config.text
        self.values = frozen_features(  # (M, V, D)
            data, self.rows, text.image_features, device, precision, size=text.feature_size
        )

    def of(self, images: NDArray[Any], mirrored: NDArray[Any] | None = None) -> Tensor:
        """Look up features (B, D) of images, given by their rows in the pack (B,), mirrored where asked for (B,)."""
        places = torch.from_numpy(np.searchsorted(self.rows, images))
        if mirrored is None:
            return self.values[places, 0]
        return self.values[places, torch.from_numpy(np.array(mirrored, np.int64)) % self.values.shape[1]]


class JointObjective:
    """An image and a caption of each of a batch of distinct classes; `sje` or `contrastive`."""

    clip: float | None = None
    measure = "top1"

    def __init__(self, config: Config, data: PackedDataset, device: torch.device) -> None:
        options, classes = config.text, class_count(data)
        self.options, self.device = options, device
        self.batch = options.batch if classes is None else min(options.batch, classes)
        frozen = options.image_features != "joint"
        self.sampler = Sampler(
            data,
            batch=self.batch,
            seed=config.seed,
            crop=min(config.size, data.image_size) if frozen else config.size,
            flip=config.flip,
            distinct_classes=classes is not None,
            mismatched=classes == 1,  # which it cannot learn from; otherwise it has no use for mismatched pairs
        )
        self.epoch = classes or max(1, self.sampler.images // self.batch)
        self.features: TrainingFeatures | None = None
        if frozen:
            self.features = TrainingFeatures(config, data, device)
        self.loader = None if frozen else Loader(self.sampler, device, batch=self.batch, crop=config.size)
        torch.manual_seed(config.seed)
        text, image = text_encoder(options), image_encoder(options, config.size)
        if options.objective == "sje":
            getattr(text, "initialise")()  # noqa: B009 (the options let no other kind through)
            for weight in image.parameters() if isinstance(image, FeatureEncoder) else ():
                nn.init.uniform_(weight, -0.08, 0.08)
        self.inputs = CaptionInputs(text, data, device)
        self.inputs.fit(text, train_rows(data))
        self.text: TextEncoder = text.to(device)
        self.image: nn.Module = image.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.learning: dict[str, nn.Module] = {}
        parameters = list(itertools.chain(self.text.parameters(), self.image.parameters()))
        self.optimizer: torch.optim.Optimizer
        if options.objective == "sje":
            self.optimizer = torch.optim.RMSprop(parameters, lr=options.learning_rate, alpha=0.99, foreach=True)
        else:
            self.optimizer = torch.optim.Adam(parameters, lr=options.learning_rate, fused=True)
        self.compare = joint_embedding_loss if options.objective == "sje" else contrastive_loss

    def rate(self, step: int, steps: int) -> float:
        """Decay by epochs; the contrastive one warms up, and its second half cools down."""
        decayed = self.options.learning_rate * self.options.decay ** (step // self.epoch)
        if self.options.objective == "contrastive":
            decayed *= min(1.0, (step + 1) / 30, 2 * (1 - step / steps))
        return max(decayed, 1e-8)

    def read(self, step: int) -> tuple[Tensor, ...]:
        """Read captions (B, L), and images (B, 3, S, S) or their features (B, D)."""
        plan = self.sampler.plan(step)
        tokens = self.inputs(plan.caption[:, 0])
        if self.loader is not None:
            return tokens, self.loader.batch(step).images
        assert self.features is not None
        return tokens, self.features.of(plan.image, plan.flip).to(self.device)

    def loss(self, batch: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        """Compare every image with every caption."""
        texts, images = self.text(batch[0]), self.image(batch[1])
        own = (images @ texts.T).argmax(dim=1) == torch.arange(self.batch, device=self.device)
        return self.compare(images, texts), own.float().mean()

    def end(self, step: int) -> None:
        """Nothing follows."""


class ClassContrastiveObjective:
    """Images at random, the mean of several captions of each, and a target that knows classes."""

    clip: float | None = None
    measure = "top1"

    def __init__(self, config: Config, data: PackedDataset, device: torch.device) -> None:
        options = config.text
        self.options, self.device = options, device
        frozen = options.image_features != "joint"
        train = data.split("train")
        self.batch = min(options.batch, len(train))
        self.sampler = Sampler(
            data,
            batch=self.batch,
            seed=config.seed,
            crop=min(config.size, data.image_size) if frozen else config.size,
            flip=config.flip,
            class_uniform=False,
            mismatched=False,
            captions_per_image=options.captions,
        )
        self.epoch = max(1, self.sampler.images // self.batch)
        self.groups = torch.from_numpy(data.groups())
        self.features: TrainingFeatures | None = None
        if frozen:
            self.features = TrainingFeatures(config, data, device)
        self.loader = None
        if not frozen:
            self.loader = Loader(
                self.sampler, device, batch=self.batch, crop=config.size, captions_per_image=options.captions
            )
        torch.manual_seed(config.seed)
        text, image = text_encoder(options), image_encoder(options, config.size)
        if self.features is not None and isinstance(image, WhitenedEncoder):
            image.fit(self.features.values[:, 0])
        self.inputs = CaptionInputs(text, data, device)
        self.inputs.fit(text, train_rows(data))
        self.text: TextEncoder = text.to(device)
        self.image: nn.Module = image.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.learning: dict[str, nn.Module] = {}
        self.optimizer: torch.optim.Optimizer = torch.optim.AdamW(
            [*self.text.parameters(), *self.image.parameters()],
            lr=options.learning_rate,
            weight_decay=options.weight_decay,
            fused=True,
        )

    def rate(self, step: int, steps: int) -> float:
        """Warm up, then fall as a cosine."""
        return warm_cosine(self.options.learning_rate, step, steps)

    def read(self, step: int) -> tuple[Tensor, ...]:
        """Read captions (B * K, L), images (B, 3, S, S) or their features (B, D), and groups (B,)."""
        plan = self.sampler.plan(step)
        tokens = self.inputs(plan.caption.reshape(-1))
        groups = self.groups[torch.from_numpy(np.array(plan.image, np.int64))].to(self.device)
        if self.loader is not None:
            return tokens, self.loader.batch(step).images, groups
        assert self.features is not None
        return tokens, self.features.of(plan.image).to(self.device), groups

    def loss(self, batch: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        """Compare every image with the mean caption of every image."""
        tokens, seen, groups = batch
        texts = F.normalize(self.text(tokens), dim=1).unflatten(0, (self.batch, -1)).mean(dim=1)  # (B, T)
        images = self.image(seen)
        own = (images @ texts.T).argmax(dim=1) == torch.arange(self.batch, device=self.device)
        return class_contrastive_loss(images, texts, groups), own.float().mean()

    def end(self, step: int) -> None:
        """Nothing follows."""


class Distillation:
    """A student learns to embed captions as its teacher does, and takes the teacher's image side over."""

    clip: float | None = CLIP
    measure = "cosine"

    def __init__(self, config: Config, data: PackedDataset, device: torch.device) -> None:
        options, folder = config.text, Path(config.text.teacher)
        self.options, self.device, self.seed, self.batch = options, device, config.seed, options.batch
        taught = text_options(folder)
        path = folder / "text.safetensors"
        precision = runtime.pick_precision(config.precision, device)
        self.table = caption_table(load_text(path, taught).to(device), data, device, precision)
        self.rows = train_rows(data)
        self.epoch = max(1, len(self.rows) // self.batch)
        torch.manual_seed(config.seed)
        student = text_encoder(options)
        image = image_encoder(taught, text_size(folder))
        load_weights(path, {"image": image})
        self.image: nn.Module = image.requires_grad_(False).to(device)
        self.inputs = CaptionInputs(student, data, device)
        self.inputs.fit(student, self.rows)
        self.student = student.to(device)
        self.text: TextEncoder = copy.deepcopy(self.student).requires_grad_(False).eval()
        self.learning: dict[str, nn.Module] = {"student": self.student}
        self.optimizer: torch.optim.Optimizer = torch.optim.AdamW(
            self.student.parameters(), lr=options.learning_rate, weight_decay=options.weight_decay, fused=True
        )

    def rate(self, step: int, steps: int) -> float:
        """Warm up, then fall as a cosine."""
        return warm_cosine(self.options.learning_rate, step, steps)

    def read(self, step: int) -> tuple[Tensor, ...]:
        """Read captions (B, L) and the teacher's embeddings of them (B, T)."""
        sampled = torch.randint(
            len(self.rows), (self.batch,), generator=runtime.generator(torch.device("cpu"), self.seed, step, "captions")
        )
        rows = self.rows[sampled.numpy()]
        return self.inputs(rows), self.table[torch.from_numpy(rows).to(self.device)]

    def loss(self, batch: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        """Compare directions: 1 - cos."""
        cosine = F.cosine_similarity(self.student(batch[0]), batch[1], dim=1).mean()
        return 1 - cosine, cosine.detach()

    def end(self, step: int) -> None:
        """Move the average that is kept."""
        update_ema(self.text, self.student, ema_rate(STUDENT_EMA, step))


def warm_cosine(rate: float, step: int, steps: int, warm_up: int = WARM_UP) -> float:
    """Learning rate at `step` (from 0) of `steps`: linear over `warm_up` steps, and times half a cosine, down to 0."""
    return rate * min(1.0, (step + 1) / warm_up) * (1 + math.cos(math.pi * step / steps)) / 2


def objective_of(config: Config, data: PackedDataset, device: torch.device) -> Objective:
    """Make the objective that the settings ask for.

    Raises:
        ConfigError: the image features or the teacher cannot be had.
        CheckpointError: the teacher's files are damaged.
    """
    options: JointOptions = config.text
    if options.teacher:
        return Distillation(config, data, device)
    if options.objective == "class-contrastive":
        return ClassContrastiveObjective(config, data, device)
    return JointObjective(config, data, device)
