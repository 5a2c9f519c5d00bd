"""The GAN: open a run, resume it, and step; what a step computes is in `step.py`, what lies between two in `loop.py`."""

import contextlib
import dataclasses
from pathlib import Path

import torch

from t2i import console, runtime
from t2i.config.ignored import ignored_settings
from t2i.config.options import TrainConfig
from t2i.config.records import to_json
from t2i.data.dataset import PackedDataset, record_dataset
from t2i.data.device_loader import DeviceLoader, make_loader
from t2i.data.loader import Loader
from t2i.data.sampler import Sampler, sampler_from
from t2i.distributed import ALONE, Ranks
from t2i.files import write_atomically
from t2i.locks import RunLock
from t2i.text.coverage import ambiguity_warning, coverage_warning
from t2i.text.pretrained import resolve_text
from t2i.training import report
from t2i.training.checkpoint import Checkpoints, has_checkpoint
from t2i.training.evaluation import PHASE, Evaluation, check_evaluation, model_networks
from t2i.training.loop import Loop, step_counts
from t2i.training.machine import resolve_machine
from t2i.training.optim import halving_schedule
from t2i.training.prepare_text import prepare_text
from t2i.training.resume import check_resume, gan_metadata
from t2i.training.samples import SampleGrid
from t2i.training.steps import Step, make_step
from t2i.training.text import check_text
from t2i.training.text_source import TextSource
from t2i.training.warm_start import load_source, warm_start, with_init
from t2i.training.watch import Watch
from t2i.weights import fingerprint, save_weights


def train(config: TrainConfig, data: PackedDataset, folder: Path, ranks: Ranks = ALONE) -> None:
    """Train, or resume training, in a run folder.

    Args:
        config: The settings; written to `folder/config.json`.
        data: Images and captions.
        folder: Made where it does not exist.
        ranks: The processes that train together; all call this, and see the same folder.

    Raises:
        ConfigError: settings that do not fit the data, the run found in the folder or the number of processes.
        Diverged: losses or gradients were not finite in many steps in a row.
        PeerLost: another process has ended.
        Stopped: SIGINT or SIGTERM came; a checkpoint was written.
    """
    data.require_size(config.size)
    ranks.rows(config.batch)  # refuses a batch that cannot be shared out
    device = runtime.pick_device(ranks.device(config.device))
    if config.deterministic and device.type == "cuda":
        runtime.make_deterministic()
    report.check(config)
    check_evaluation(config, data)
    with ranks.write(RunLock, folder) or contextlib.nullcontext():
        config = resolve_machine(with_init(resolve_text(config, data), folder), folder, ranks)
        precision = runtime.pick_precision(config.precision, device)
        ranks.assert_same({"settings": to_json(config), "data": data.fingerprint})
        check_resume(config, folder, data)
        if config.text.encoder == "joint":
            check_text(config, data, folder)
        # Before anything is trained: it may be refused.
        initial = load_source(config) if config.init and not has_checkpoint(folder) else None
        runtime.allow_tf32(precision)  # after the last that settles the device, which takes it back
        sampler = sampler_from(config, data, ranks)
        with ranks.main_process_first():  # the others find the text encoder, and its embeddings, ready
            ranks.write(write_atomically, folder / "config.json", to_json(config).encode())
            ranks.write(record_dataset, folder, data)
            source, alignment_encoder = prepare_text(config, data, folder, device, precision)
            evaluation = ranks.write(Evaluation, config, data, folder, device, precision) if config.eval_every else None
        for line in _warnings(config, data, sampler, source):
            ranks.write(console.say, line)
        torch.manual_seed(config.seed)
        gan = make_step(config, source, device, precision, alignment_encoder, ranks, data)
        if initial is not None:
            for line in warm_start(gan, initial):
                ranks.write(console.say, line)
        _train_gan(gan, data, folder, sampler, evaluation)


def _warnings(config: TrainConfig, data: PackedDataset, sampler: Sampler, source: TextSource) -> list[str]:
    """Say what of the settings, the data and the captions the training takes no notice of."""
    found = [*ignored_settings(config), ambiguity_warning(sampler)]
    if config.text.encoder != "joint" and source.encoder is not None:  # of a joint one, its own training has said so
        found.append(coverage_warning(data, source.encoder))
    return [line for line in found if line is not None]


def _loader(gan: Step, sampler: Sampler) -> Loader | DeviceLoader:
    config = gan.config
    return make_loader(
        config.loader,
        sampler,
        gan.device,
        batch=gan.ranks.rows(config.batch),
        crop=config.size,
        captions_per_image=config.captions_per_image,
        mismatched_images=bool(config.mismatch_weight) and config.mismatch == "image",
        characters=gan.text.learned,
        kernels=config.kernels,
    )


def _train_gan(
    gan: Step, data: PackedDataset, folder: Path, sampler: Sampler, evaluation: Evaluation | None = None
) -> None:
    """Resume, and take the steps that are left; process 0 evaluates the model on the way, where that is asked for."""
    config, ranks = gan.config, gan.ranks
    loader = _loader(gan, sampler)
    steps, epoch_steps = step_counts(config, sampler.images)
    loop = Loop(
        "gan",
        folder,
        Checkpoints(folder, gan.modules(), gan.optimizers()),
        gan.guard,
        config,
        steps=steps,
        batch=config.batch,
        metadata=gan_metadata(config, data, folder),
        ranks=ranks,
    )
    ranks.assert_same({"the state they start from": fingerprint(gan.modules(), loop.start)})
    samples, watch = SampleGrid(gan, data, folder), Watch()
    if evaluation is not None and not loop.start:
        evaluation.best = None  # of a run that --force has replaced

    def save_model() -> None:
        best = None if evaluation is None else evaluation.model()
        if best is None:
            save_weights(folder / "model.safetensors", model_networks(gan, config))
        else:
            write_atomically(folder / "model.safetensors", best.read_bytes())

    def evaluate() -> None:
        if evaluation is not None:
            loop.progress.append(PHASE, loop.done, evaluation(gan, loop.done))
            loop.progress.say(f"step {loop.done}: {'; '.join(evaluation.verdict())}")

    with loop, report.Reports(config, folder, loop.start, ranks.is_main) as reports:
        for step in loop.steps_left():
            gan.set_learning_rate(halving_schedule(config.learning_rate, step, epoch_steps, config.halve_every))
            with loop.reading(step):
                batch = loader.batch(step)
            values = loop.record(step, gan(batch, step))
            if values:
                watch.speed(loop.done, loop.progress.speed)
            if config.pixel_weight:  # otherwise the generator does not learn from what is scored
                ranks.write(watch.scores, loop.done, values)
            if loop.due(config.sample_every):
                watch.images(loop.done, ranks.write(samples, loop.done))
            if config.eval_every and loop.due(config.eval_every):
                evaluate()
            if loop.due(config.log_every):
                reports.update()
            loop.save_if_due(save_model)
        if not loop.steps_left():  # a kill may have come between the last checkpoint and its model
            ranks.write(save_model)
    for line in () if evaluation is None else [*evaluation.verdict(), *evaluation.kept()]:
        console.say(line)


def with_defaults(config: TrainConfig) -> tuple[TrainConfig, Path]:
    """Resolve the run folder: --out, or runs/PRESET."""
    folder = Path(config.out) if config.out else Path("runs") / config.preset
    return dataclasses.replace(config, out=str(folder)), folder
