"""The GAN: one step, and the loop around it.

A step updates the discriminator on three kinds of pair (real+matching, real+mismatched, fake+matching), then the
generator on its verdict about fakes, from real texts and from interpolated ones. Order D then G, one to one, on the same
texts. `GanStep` is the mathematics; `train` opens, resumes, and writes down what happened.

Source: Reed et al. 2016, Algorithm 1 and section 4.3; the released program's order and weights.
"""

import copy
import dataclasses
import json
import math
import sys
from pathlib import Path
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from t2i import config as settings
from t2i import losses, pictures, runtime
from t2i.checkpoint import Checkpoints, RunLock, load_weights, save_weights, write_atomically
from t2i.config import TrainConfig
from t2i.data import Batch, Loader, PackedDataset, Sampler
from t2i.embeddings import caption_table, encoder_file, holds_encoder, load_text, read_table, settle, text_encoder
from t2i.encoders import CharCnnRnn, ImageEncoder
from t2i.errors import ConfigError
from t2i.networks import Discriminator, Generator
from t2i.optim import adam, halved, set_learning_rate, update_average
from t2i.training.guard import Guard
from t2i.training.progress import Progress, Stopped, StopSignal
from t2i.training.rescue import rescued
from t2i.training.stages import Stages
from t2i.training.text import train_text


class TextSource(Protocol):
    """Where a batch's text embeddings come from."""

    encoder: CharCnnRnn | None
    learned: bool

    def __call__(self, rows: Tensor, ids: Tensor | None) -> Tensor:
        """Embed (B, K) caption rows, or their characters (B, K, 201), averaged over K: (B, T)."""
        ...


class FrozenText:
    """Embeddings computed once: a table (M, T) with a row a caption."""

    learned = False

    def __init__(self, table: Tensor, encoder: CharCnnRnn | None) -> None:
        self.table, self.encoder = table, encoder

    def __call__(self, rows: Tensor, ids: Tensor | None) -> Tensor:
        """Look (B, K) rows up and average: (B, T)."""
        return self.table[rows].mean(dim=1)


class LearnedText:
    """Embeddings of an encoder that learns with the GAN."""

    learned = True

    def __init__(self, encoder: CharCnnRnn) -> None:
        self.encoder: CharCnnRnn | None = encoder

    def __call__(self, rows: Tensor, ids: Tensor | None) -> Tensor:
        """Encode characters (B, K, 201) and average: (B, T)."""
        assert self.encoder is not None
        assert ids is not None
        count, captions, length = ids.shape
        embedded: Tensor = self.encoder(ids.reshape(-1, length))
        return embedded.view(count, captions, -1).mean(dim=1)


def generator(config: TrainConfig) -> Generator:
    """Make the generator that the settings describe, with random weights."""
    return Generator(config.size, config.generator_width, config.noise_dim, config.text.dim, config.projection_dim)


def discriminator(config: TrainConfig) -> Discriminator:
    """Make the discriminator that the settings describe, with random weights."""
    return Discriminator(
        config.size,
        config.discriminator_width,
        config.text.dim,
        config.projection_dim,
        config.discriminator_text_norm,
        config.discriminator_late_activation,
    )


class GanStep:
    """One update of the discriminator and one of the generator.

    Args:
        config: Weights of the losses, widths, learning rates.
        text: Where text embeddings come from; a learned encoder is updated with the discriminator, whose matching score
            is what tells texts apart, and the generator takes its embeddings as given.
        device: Where the networks live.
        precision: Of products and convolutions.
        judge: Image side of the joint embedding, frozen, where `config.alignment_weight` asks for it.
    """

    def __init__(
        self,
        config: TrainConfig,
        text: TextSource,
        device: torch.device,
        precision: torch.dtype,
        judge: ImageEncoder | None = None,
    ) -> None:
        self.config, self.text, self.device, self.precision, self.judge = config, text, device, precision, judge
        layout = torch.channels_last
        self.generator = generator(config).to(device, memory_format=layout)  # type: ignore[call-overload]
        self.discriminator = discriminator(config).to(device, memory_format=layout)  # type: ignore[call-overload]
        self.average = copy.deepcopy(self.generator).requires_grad_(False).eval()
        self.stages = Stages(config.realism_steps, config.realism_goal).to(device) if config.stages else None
        self.recovery: nn.Linear | None = None
        if config.recovery_weight:
            self.recovery = nn.Linear(self.discriminator.score.weight[0].numel(), config.noise_dim).to(device)
        learned = list(text.encoder.parameters()) if text.learned and text.encoder is not None else []
        generating = [*self.generator.parameters(), *(self.recovery.parameters() if self.recovery else ())]
        self.generator_adam = adam(generating, config.learning_rate, config.beta1, config.beta2)
        self.discriminator_adam = adam(
            [*self.discriminator.parameters(), *learned], config.learning_rate, config.beta1, config.beta2
        )
        kept = [self.generator, self.discriminator, *([] if self.stages is None else [self.stages])]
        self.guard = Guard(kept, device)

    def modules(self) -> dict[str, nn.Module]:
        """Name everything that learns or is kept, for checkpoints."""
        named: dict[str, nn.Module] = {
            "generator": self.generator,
            "discriminator": self.discriminator,
            "average": self.average,
        }
        if self.text.learned and self.text.encoder is not None:
            named["text"] = self.text.encoder
        if self.stages is not None:
            named["stages"] = self.stages
        if self.recovery is not None:
            named["recovery"] = self.recovery
        return named

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Name the optimizers, for checkpoints."""
        return {"generator_adam": self.generator_adam, "discriminator_adam": self.discriminator_adam}

    def set_learning_rate(self, learning_rate: float) -> None:
        """Set both networks' learning rate."""
        set_learning_rate(self.generator_adam, learning_rate)
        set_learning_rate(self.discriminator_adam, learning_rate)

    def _noise(self, rows: int, step: int, purpose: str) -> Tensor:
        return runtime.noise((rows, self.config.noise_dim), self.device, self.config.seed, step, purpose)

    def __call__(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """Update both networks and the average; returns losses and the mean score of each kind of pair, on the device.

        An update whose loss or gradient is not finite is skipped and counted (`guard`).
        """
        self.guard.begin()
        with runtime.autocast(self.device, self.precision):
            text = self.text(batch.captions, batch.caption_ids)  # (B, T)
            given = text.detach()
            texts = given
            if self.config.interpolation_loss:
                between = losses.interpolate(given, batch.interpolation_partner, batch.interpolation_weight)
                texts = torch.cat([given, between])  # (1.5 B, T)
            count = len(given)
            noise = self._noise(len(texts), step, "generator")
            if self.config.reuse_fakes:
                drawn = self.generator(noise, texts)
                fakes = drawn[:count].detach()
            else:
                with torch.no_grad():
                    fakes = self.generator(self._noise(count, step, "discriminator"), given)
            weight = self.config.mismatch_weight if self.stages is None or self.stages.matching(step) else 0.0
            measured = self.update_discriminator(batch, text, fakes, weight)
            if self.stages is not None:
                self.stages.observe(step, measured["matching"], measured["fake"])
            if not self.config.reuse_fakes:
                drawn = self.generator(noise, texts)
            measured |= self.update_generator(drawn, noise, texts, count, batch.classes)
        self.guard.end()
        update_average(self.average, self.generator, self.config.ema, step)
        return measured

    def update_discriminator(
        self, batch: Batch, text: Tensor, fakes: Tensor, mismatch_weight: float
    ) -> dict[str, Tensor]:
        """Learn to tell the three kinds of pair apart: each in its own pass, with its own batch statistics."""
        net, config = self.discriminator, self.config
        real = net.features(batch.images)
        matching = net.judge(real, text)
        mismatched = None
        if mismatch_weight:
            if config.mismatch == "image":
                assert batch.mismatched_images is not None
                mismatched = net(batch.mismatched_images, text)
            else:
                other = self.text(batch.mismatched_captions, batch.mismatched_caption_ids)
                mismatched = net.judge(real, other)
        fake = net(fakes, text)
        loss = losses.discriminator_loss(matching, mismatched, fake, mismatch_weight)
        self.discriminator_adam.zero_grad(set_to_none=True)
        loss.backward()
        self.guard.step(self.discriminator_adam, loss)
        scores = {"matching": matching, "fake": fake} | ({} if mismatched is None else {"mismatched": mismatched})
        return {"d_loss": loss.detach()} | {k: torch.sigmoid(v.detach()).mean() for k, v in scores.items()}

    def update_generator(
        self, drawn: Tensor, noise: Tensor, texts: Tensor, count: int, classes: Tensor
    ) -> dict[str, Tensor]:
        """Learn to pass: one discriminator pass over fakes of real texts (the first `count`) and interpolated ones."""
        for weight in self.discriminator.parameters():  # their gradients would be computed and thrown away
            weight.requires_grad_(False)
        features = self.discriminator.features(drawn)
        scores = self.discriminator.judge(features, texts)
        between = scores[count:] if len(texts) > count else None
        loss = losses.generator_loss(scores[:count], between, self.config.interpolation_loss)
        measured = {"g_loss": loss.detach()}
        if self.judge is not None:
            alignment = losses.contrastive_loss(self.judge(drawn[:count]), texts[:count], classes=classes)
            loss = loss + self.config.alignment_weight * alignment
            measured["alignment"] = alignment.detach()
        if self.recovery is not None:
            recovery = F.mse_loss(self.recovery(features.flatten(1)).float(), noise)
            loss = loss + self.config.recovery_weight * recovery
            measured["recovery"] = recovery.detach()
        self.generator_adam.zero_grad(set_to_none=True)
        loss.backward()
        self.guard.step(self.generator_adam, loss)
        for weight in self.discriminator.parameters():
            weight.requires_grad_(True)
        return measured


def prepare_text(
    config: TrainConfig, data: PackedDataset, folder: Path, device: torch.device, precision: torch.dtype
) -> tuple[TextSource, ImageEncoder | None]:
    """Make the text side the settings ask for: learned, joint (trained first), or frozen from a file."""
    options = config.text
    if options.encoder == "end-to-end":
        torch.manual_seed(config.seed)
        return LearnedText(text_encoder(options).to(device)), None
    path = train_text(config, data, folder) if options.encoder == "joint" else encoder_file(options.encoder)
    if not holds_encoder(path):
        if config.alignment_weight:
            raise ConfigError(f"{path} holds embeddings and no image side to judge pictures: add --alignment-weight 0")
        return FrozenText(read_table(path, data).to(device), None), None
    encoder = load_text(path, options).to(device)
    judge = None
    if config.alignment_weight:
        judge = ImageEncoder(config.size, options.image_width, options.dim)
        load_weights(path, {"image": judge})
        judge = judge.requires_grad_(False).eval().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return FrozenText(caption_table(encoder, data, device, precision), encoder), judge


def check_resume(config: TrainConfig, folder: Path, data: PackedDataset) -> None:
    """Refuse to go on in a run folder that was made with other settings or other data, showing what differs."""
    path = folder / "config.json"
    if not path.exists() or config.force:
        return
    changed = settings.differences(settings.from_json(path), config)
    record = folder / "data.json"
    if record.exists():
        before = json.loads(record.read_text())["fingerprint"]
        if before != data.fingerprint:
            changed.append(f"data set: {before[:12]} -> {data.fingerprint[:12]}")
    if changed:
        raise ConfigError(
            f"{folder} holds a run with other settings ({'; '.join(changed)}); choose another --out or add --force"
        )


def sample_texts(data: PackedDataset, source: TextSource, rows: int) -> tuple[list[str], Tensor, Tensor]:
    """Choose captions to watch, unseen ones where the data has a test split: texts, rows (n, 1), characters (n, 1, 201)."""
    images = data.split("test")
    if len(images) == 0:
        images = data.split("train")
    chosen = images[:: max(1, len(images) // rows)][:rows]
    captions = torch.from_numpy(data.caption_offsets[chosen])
    ids = torch.from_numpy(data.read_captions(captions.numpy()))
    return [data.captions_of(int(image))[0] for image in chosen], captions[:, None], ids[:, None]


def train(config: TrainConfig, data: PackedDataset, folder: Path) -> None:
    """Train, or go on training, in a run folder.

    Args:
        config: The settings; written to `folder/config.json`.
        data: Pictures and captions.
        folder: Made where it does not exist.

    Raises:
        ConfigError: settings that do not fit the data or the run found in the folder.
        Stopped: SIGINT or SIGTERM came; a checkpoint was written.
    """
    if config.size > data.image_size:
        raise ConfigError(
            f"--size {config.size} is larger than the pictures of {data.path} ({data.image_size} px); "
            f"prepare them with --size {config.size * 76 // 64} or more"
        )
    device = runtime.pick_device(config.device)
    precision = runtime.pick_precision(config.precision, device)
    if config.threads:
        torch.set_num_threads(config.threads)
    with RunLock(folder):
        config = dataclasses.replace(config, text=settle(config.text, data))
        check_resume(config, folder, data)
        sampler = Sampler(
            data,
            batch=config.batch,
            seed=config.seed,
            crop=config.size,
            crop_low=min(config.crop_low, data.image_size - config.size),
            flip=config.flip,
            captions_per_image=config.captions_per_image,
            interpolation=config.interpolation,
            interpolation_weight=config.interpolation_weight,
        )
        write_atomically(folder / "config.json", settings.to_json(config).encode())
        facts = {"fingerprint": data.fingerprint, "path": str(data.path), "images": data.images}
        write_atomically(folder / "data.json", (json.dumps(facts, indent=2) + "\n").encode())
        source, judge = prepare_text(config, data, folder, device, precision)
        torch.manual_seed(config.seed)
        step_of = GanStep(config, source, device, precision, judge)
        _loop(config, data, folder, sampler, step_of)


def _loop(config: TrainConfig, data: PackedDataset, folder: Path, sampler: Sampler, gan: GanStep) -> None:
    epoch_steps = max(1, sampler.images // config.batch)
    steps = config.steps or config.epochs * epoch_steps
    loader = Loader(
        sampler,
        gan.device,
        batch=config.batch,
        crop=config.size,
        captions_per_image=config.captions_per_image,
        mismatched_images=bool(config.mismatch_weight) and config.mismatch == "image",
        characters=gan.text.learned,
    )
    checkpoints = Checkpoints(folder, gan.modules(), gan.optimizers())
    facts = {"data": data.fingerprint}
    start, damaged = checkpoints.restore()
    for line in damaged:
        print(line, file=sys.stderr)
    progress = Progress(folder / "metrics.jsonl", "gan", start, steps, config.batch)
    watched = sample_texts(data, gan.text, rows=8)
    model: dict[str, nn.Module] = {"generator": gan.average if config.ema else gan.generator}
    if gan.text.encoder is not None:
        model["text"] = gan.text.encoder
    with StopSignal() as stop:
        for step in range(start, steps):
            gan.set_learning_rate(halved(config.learning_rate, step, epoch_steps, config.halve_every))
            with rescued(step, lambda: checkpoints.save(step, facts)):  # noqa: B023 (called at once, if at all)
                batch = loader.batch(step)
            measured = gan(batch, step)
            progress.advance()
            done = step + 1
            log = done % config.log_every == 0 or done == steps
            if log or gan.device.type == "cpu":  # on a GPU, reading the counters would wait for every step
                skipped = gan.guard.check(done, checkpoints.newest())
            if log:
                values = {name: float(value) for name, value in measured.items()}
                values = {name: value for name, value in values.items() if math.isfinite(value)}
                progress.log(done, values | ({"skipped": skipped} if skipped else {}))
            if done % config.sample_every == 0 or done == steps:
                _draw_samples(config, gan, watched, folder / "samples" / f"step-{done:07d}.png")
            if stop.asked or done % config.checkpoint_every == 0 or done == steps:
                checkpoints.save(done, facts)
                save_weights(folder / "model.safetensors", model)
                if stop.asked and done < steps:
                    progress.close()
                    raise Stopped(f"stopped after step {done} of {steps}; the same command goes on from there")
    progress.close()
    if not (folder / "model.safetensors").exists():
        save_weights(folder / "model.safetensors", model)


@torch.no_grad()
def _draw_samples(
    config: TrainConfig, gan: GanStep, watched: tuple[list[str], Tensor, Tensor], path: Path, columns: int = 8
) -> None:
    captions, rows, ids = watched
    with runtime.autocast(gan.device, gan.precision):
        text = gan.text(rows.to(gan.device), ids.to(gan.device))  # (n, T)
        noise = runtime.noise((columns, config.noise_dim), gan.device, config.seed, 0, "samples")
        drawn = gan.average(noise.repeat(len(text), 1), text.repeat_interleave(columns, dim=0))
    shown = pictures.to_uint8(drawn).reshape(len(text), columns, config.size, config.size, 3)
    pictures.save(pictures.grid(shown, captions, side=max(64, config.size)), path)


def with_defaults(config: TrainConfig) -> tuple[TrainConfig, Path]:
    """Settle the run folder: --out, or runs/PRESET."""
    folder = Path(config.out) if config.out else Path("runs") / config.preset
    return dataclasses.replace(config, out=str(folder)), folder
