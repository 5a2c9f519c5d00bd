"""The style encoder: read from a generated image the noise it was generated from, the generator frozen.

Each step draws noise and captions, generates images of them, and trains S to return the noise: ||z - S(G(z, phi(t)))||^2.
S never sees a photograph.

Source: Reed et al. 2016, section 4.4 and equation 6.
Differs: part of the images is blurred and noised before S sees it (`--blur 0` is the paper's). S can read the noise from
traces that only the generator leaves; photographs have none of them and are read through the same blur.
"""

import json
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from t2i import runtime
from t2i.config.options import StyleConfig
from t2i.config.records import model_settings
from t2i.data.dataset import PackedDataset, dataset_of_run
from t2i.errors import CheckpointError, ConfigError
from t2i.files import is_file, write_atomically
from t2i.locks import RunLock
from t2i.models.build import style_encoder
from t2i.models.encoders import blurred
from t2i.pipeline import Pipeline
from t2i.pretrained.folder import model_hash
from t2i.text.inputs import train_rows
from t2i.text.table import caption_table
from t2i.training import losses
from t2i.training.checkpoint import Checkpoints
from t2i.training.guard import NonFiniteGuard
from t2i.training.loop import Loop
from t2i.training.optim import adam, set_learning_rate
from t2i.training.resume import check_record, check_replaces, resolve_precision
from t2i.weights import save_weights


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
        self.texts = torch.empty(0, pipe.config.text.dim)  # (M, T) embeddings that texts are sampled from
        self.generator = pipe.generator.requires_grad_(False).to(memory_format=torch.channels_last)
        torch.manual_seed(config.seed)
        encoder = style_encoder(pipe.config, config.width).train()
        self.encoder = encoder.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.guard = NonFiniteGuard([self.encoder], device)
        self.adam = adam(self.encoder.parameters(), config.learning_rate, config.beta1, config.beta2)

    def sample(self, step: int) -> tuple[Tensor, Tensor]:
        """Draw noise (B, Z) and generate images of it (B, 3, S, S): a pure function of the step."""
        config = self.config
        noise = runtime.noise((config.batch, self.encoder.noise_dim), self.device, config.seed, step, "style")
        draws = runtime.generator(self.device, config.seed, step, "style captions")
        row, other = torch.randint(len(self.texts), (2, config.batch), generator=draws, device=self.device)
        between = torch.rand(config.batch, generator=draws, device=self.device) < config.interpolated
        texts = torch.where(between[:, None], (self.texts[row] + self.texts[other]) / 2, self.texts[row])
        with torch.no_grad():
            images = self.generator(noise, texts).float()
        blur = torch.rand(config.batch, 1, 1, 1, generator=draws, device=self.device) < config.blur
        grain = config.noise * torch.randn(images.shape, generator=draws, device=self.device)
        return noise, torch.where(blur, blurred(images) + grain, images)

    def __call__(self, step: int) -> dict[str, Tensor]:
        """Update the encoder; returns the loss (1 where nothing is read, 0 at best) and the mean cosine of S and z."""
        rest = 1 - step / self.config.steps
        set_learning_rate(self.adam, self.config.learning_rate * min(1.0, 2 * rest))
        self.guard.begin()
        with runtime.autocast(self.device, self.precision):
            noise, images = self.sample(step)
            read = self.encoder(images.contiguous(memory_format=torch.channels_last))
        loss = losses.style_loss(read, noise)
        self.adam.zero_grad(set_to_none=True)
        loss.backward()
        self.guard.step(self.adam, loss)
        self.guard.end()
        return {"loss": loss.detach(), "cosine": F.cosine_similarity(read.detach(), noise).mean()}


def train_style(config: StyleConfig) -> Path:
    """Train, or resume training, the style encoder of a run.

    Args:
        config: The settings; written to style.json beside style.safetensors.

    Returns:
        The run folder that holds both.

    Raises:
        CheckpointError: the model is missing or damaged.
        ConfigError: the folder has a style encoder of other settings, of another model, or without its checkpoints.
        Diverged: losses or gradients were not finite in many steps in a row.
        Stopped: SIGINT or SIGTERM came; a checkpoint was written.
    """
    run = Path(config.model)
    folder = Path(config.out) if config.out else run
    device = runtime.pick_device(config.device)
    runtime.use_threads(config.threads)
    model = model_hash(run) if is_file(run / "model.safetensors", CheckpointError) else ""  # before it is read
    pipe = Pipeline.from_pretrained(run, str(device))
    if pipe.encoder is None:
        raise ConfigError(f"{run} has no text encoder, and the style encoder is trained on images of captions")
    data = dataset_of_run(run, config.data)
    with RunLock(folder):
        if folder.resolve() != run.resolve():
            _copy_run(run, folder)
        config = resolve_precision(config, folder / "style.json", device)
        precision = runtime.pick_precision(config.precision, device)
        metadata = style_metadata(config, folder, data)
        if metadata["model_sha256"] != model:
            raise CheckpointError(
                f"the model of {run} changed while it was read: wait for its training, and start again"
            )
        check_record(folder / "style.json", metadata, config.force)
        check_replaces(folder / "style.safetensors", "a style encoder", folder / "style", config.force)
        write_atomically(folder / "style.json", (json.dumps(metadata, indent=2) + "\n").encode())
        update = StyleStep(config, pipe, device, precision)
        loop = Loop(
            "style",
            folder,
            Checkpoints(folder / "style", {"style": update.encoder}, {"adam": update.adam}),
            update.guard,
            config,
            steps=config.steps,
            batch=config.batch,
            metadata=metadata,
        )
        if loop.steps_left():
            update.texts = caption_table(pipe.encoder, data, device, precision)[
                torch.from_numpy(train_rows(data)).to(device)
            ]
        with loop:
            for step in loop.steps_left():
                loop.record(step, update(step))
                loop.save_if_due()
            save_weights(folder / "style.safetensors", {"style": update.encoder})
    return folder


def _copy_run(run: Path, folder: Path) -> None:
    """Make `folder` a run of its own: the model, and what it was trained on."""
    for name in ("config.json", "data.json", "model.safetensors"):
        source, target = run / name, folder / name
        if not source.exists():
            continue
        if not target.exists():
            write_atomically(target, source.read_bytes())
        elif target.read_bytes() != source.read_bytes():
            raise ConfigError(f"{folder} holds another run than {run}; choose another --out")


def style_metadata(config: StyleConfig, run: Path, data: PackedDataset) -> dict[str, Any]:
    """List all that a style encoder depends on: settings, the model and the data."""
    return {"settings": model_settings(config), "model_sha256": model_hash(run), "data": data.fingerprint}
