"""The GAN: open a run, resume it, step, and write down what happened. The mathematics of a step is in `step.py`."""

import contextlib
import dataclasses
import json
import math
import sys
from pathlib import Path

import torch
from torch import Tensor, nn

from t2i import runtime
from t2i.config.options import TrainConfig
from t2i.config.records import to_json
from t2i.data.dataset import PackedDataset
from t2i.data.device_loader import make_loader
from t2i.data.sampler import Sampler
from t2i.distributed import ALONE, Ranks
from t2i.errors import ConfigError, Stopped
from t2i.files import write_atomically
from t2i.images import save_image, to_uint8
from t2i.locks import RunLock
from t2i.models.encoders import ImageEncoder
from t2i.plots import grids
from t2i.text.build import text_encoder
from t2i.text.coverage import ambiguity_warning, coverage_warning
from t2i.text.pretrained import encoder_file, holds_encoder, load_text, resolve_text_options, with_teacher
from t2i.text.table import caption_table, read_table
from t2i.training import report
from t2i.training.checkpoint import Checkpoints
from t2i.training.optim import halving_schedule
from t2i.training.progress import Progress, StopSignal
from t2i.training.rescue import rescued
from t2i.training.resume import check_resume, facts_of
from t2i.training.step import GanStep
from t2i.training.text import begin_text, train_text
from t2i.training.text_source import FrozenText, LearnedText, TextSource
from t2i.training.watch import Watch
from t2i.weights import fingerprint, load_weights, save_weights


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
    alignment_encoder = None
    if config.alignment_weight:
        alignment_encoder = ImageEncoder(config.size, options.image_width, options.dim)
        load_weights(path, {"image": alignment_encoder})
        alignment_encoder = alignment_encoder.requires_grad_(False).eval().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return FrozenText(caption_table(encoder, data, device, precision), encoder), alignment_encoder


def sample_texts(data: PackedDataset, source: TextSource, rows: int) -> tuple[list[str], Tensor, Tensor]:
    """Choose captions to watch, unseen ones where the data has a test split: texts, rows (n, 1), characters (n, 1, 201)."""
    images = data.split("test")
    if len(images) == 0:
        images = data.split("train")
    chosen = images[:: max(1, len(images) // rows)][:rows]
    captions = torch.from_numpy(data.caption_offsets[chosen])
    ids = torch.from_numpy(data.read_captions(captions.numpy()))
    return [data.captions_of(int(image))[0] for image in chosen], captions[:, None], ids[:, None]


def train(config: TrainConfig, data: PackedDataset, folder: Path, ranks: Ranks = ALONE) -> None:
    """Train, or go on training, in a run folder.

    Args:
        config: The settings; written to `folder/config.json`.
        data: Pictures and captions.
        folder: Made where it does not exist.
        ranks: The processes that train together; all call this, and see the same folder.

    Raises:
        ConfigError: settings that do not fit the data, the run found in the folder or the number of processes.
        PeerLost: another process has ended.
        Stopped: SIGINT or SIGTERM came; a checkpoint was written.
    """
    if config.size > data.image_size:
        raise ConfigError(
            f"--size {config.size} is larger than the pictures of {data.path} ({data.image_size} px); "
            f"prepare them with --size {config.size * 76 // 64} or more"
        )
    rows = ranks.rows(config.batch)
    device = runtime.pick_device(ranks.device(config.device))
    precision = runtime.pick_precision(config.precision, device)
    if config.threads:
        torch.set_num_threads(config.threads)
    if config.deterministic and device.type == "cuda":
        runtime.make_deterministic()
    report.check(config)
    with ranks.write(RunLock, folder) or contextlib.nullcontext():
        config = with_teacher(dataclasses.replace(config, text=resolve_text_options(config.text, data)))
        ranks.assert_same({"settings": to_json(config), "data": data.fingerprint})
        check_resume(config, folder, data)
        if config.text.encoder == "joint":
            begin_text(config, data, folder)
        sampler = Sampler(
            data,
            batch=config.batch,
            seed=config.seed,
            crop=config.size,
            crop_low=min(config.crop_low, data.image_size - config.size),
            flip=config.flip,
            captions_per_image=config.captions_per_image,
            interpolation=config.interpolation,
            interpolation_weight=config.interpolation_coefficient,
            rank=ranks.rank,
            world=ranks.world,
        )
        with ranks.main_process_first():  # the others find the text encoder, and its embeddings, ready
            ranks.write(write_atomically, folder / "config.json", to_json(config).encode())
            facts = {"fingerprint": data.fingerprint, "path": str(data.path), "images": data.images}
            ranks.write(write_atomically, folder / "data.json", (json.dumps(facts, indent=2) + "\n").encode())
            source, alignment_encoder = prepare_text(config, data, folder, device, precision)
        unsaid = None if config.text.encoder == "joint" else source.encoder
        for warning in (ambiguity_warning(sampler), None if unsaid is None else coverage_warning(data, unsaid)):
            if warning is not None:
                ranks.write(print, warning, file=sys.stderr)
        torch.manual_seed(config.seed)
        step_of = GanStep(config, source, device, precision, alignment_encoder, ranks)
        _loop(config, data, folder, sampler, step_of, rows)


def _loop(config: TrainConfig, data: PackedDataset, folder: Path, sampler: Sampler, gan: GanStep, rows: int) -> None:
    ranks = gan.ranks
    epoch_steps = max(1, sampler.images // config.batch)
    steps = config.steps or config.epochs * epoch_steps
    loader = make_loader(
        config.loader, sampler, gan.device, batch=rows, crop=config.size, captions_per_image=config.captions_per_image,
        mismatched_images=bool(config.mismatch_weight) and config.mismatch == "image", characters=gan.text.learned,
        kernels=config.kernels,
    )  # fmt: skip
    checkpoints = Checkpoints(folder, gan.modules(), gan.optimizers())
    facts = facts_of(config, data, folder)
    with ranks.main_process_first():
        start, damaged = checkpoints.restore(None if config.force else facts)
    for line in damaged:
        ranks.write(print, line, file=sys.stderr)
    ranks.assert_same({"the state they start from": fingerprint(gan.modules(), start)})
    progress = Progress(folder / "metrics.jsonl", "gan", start, steps, config.batch, ranks.is_main)
    watched = sample_texts(data, gan.text, rows=8)
    model: dict[str, nn.Module] = {"generator": gan.ema if config.ema else gan.generator}
    if gan.text.encoder is not None:
        model["text"] = gan.text.encoder
    watch = Watch()
    with StopSignal() as stop, report.Reports(config, folder, start, ranks.is_main) as reports:
        for step in range(start, steps):
            gan.set_learning_rate(halving_schedule(config.learning_rate, step, epoch_steps, config.halve_every))
            with rescued(step, lambda: ranks.write(checkpoints.save, step, facts)):  # noqa: B023 (called at once, if at all)
                batch = loader.batch(step)
            measured = gan(batch, step)
            progress.advance()
            done = step + 1
            log = done % config.log_every == 0 or done == steps
            if log or gan.device.type == "cpu":  # on a GPU, reading the counters would wait for every step
                skipped = gan.guard.check(done, checkpoints.newest())
            if log:
                values = {name: float(value) for name, value in ranks.mean(measured).items()}
                values = {name: value for name, value in values.items() if math.isfinite(value)}
                progress.log(done, values | ({"skipped": skipped} if skipped else {}))
                ranks.write(watch.scores, done, values)
            if done % config.sample_every == 0 or done == steps:
                drawn = ranks.write(_draw_samples, config, gan, watched, folder / "samples" / f"step-{done:07d}.png")
                if drawn is not None:
                    watch.pictures(done, drawn)
            if log:
                reports.update()
            stopping = ranks.any(stop.asked)
            if stopping or done % config.checkpoint_every == 0 or done == steps:
                ranks.write(checkpoints.save, done, facts)
                ranks.write(save_weights, folder / "model.safetensors", model)
                if stopping and done < steps:
                    progress.close()
                    raise Stopped(f"stopped after step {done} of {steps}; the same command goes on from there")
    progress.close()
    if start >= steps:  # a kill may have come between the last checkpoint and its model
        ranks.write(save_weights, folder / "model.safetensors", model)


@torch.no_grad()
def _draw_samples(
    config: TrainConfig, gan: GanStep, watched: tuple[list[str], Tensor, Tensor], path: Path, columns: int = 8
) -> Tensor:
    """Write the grid of watched sentences, and return its pictures (n, columns, 3, S, S)."""
    captions, rows, ids = watched
    with runtime.autocast(gan.device, gan.precision):
        text = gan.text(rows.to(gan.device), ids.to(gan.device))  # (n, T)
        noise = runtime.noise((columns, config.noise_dim), gan.device, config.seed, 0, "samples")
        drawn: Tensor = gan.ema(noise.repeat(len(text), 1), text.repeat_interleave(columns, dim=0))
    shown = to_uint8(drawn).reshape(len(text), columns, config.size, config.size, 3)
    save_image(grids.grid(shown, captions, side=max(64, config.size)), path)
    return drawn.float().view(len(text), columns, *drawn.shape[1:])


def with_defaults(config: TrainConfig) -> tuple[TrainConfig, Path]:
    """Settle the run folder: --out, or runs/PRESET."""
    folder = Path(config.out) if config.out else Path("runs") / config.preset
    return dataclasses.replace(config, out=str(folder)), folder
