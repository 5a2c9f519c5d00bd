"""Describe a training without running it: sizes, memory, work, and an image of the discriminator's first batch.

Everything is measured on one real step of four rows, and scaled to the batch.
"""

import dataclasses
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from t2i import runtime
from t2i.config.options import TrainConfig
from t2i.data.dataset import PackedDataset
from t2i.data.loader import Loader
from t2i.data.sampler import sampler_from
from t2i.images import save_image, to_uint8
from t2i.models.build import image_encoder
from t2i.plots import grids
from t2i.text.build import text_encoder
from t2i.text.pretrained import resolve_text
from t2i.text.protocol import TextEncoder
from t2i.training import report
from t2i.training.evaluation import check_evaluation
from t2i.training.loop import step_counts
from t2i.training.machine import AnyText
from t2i.training.prepare_text import learned_text
from t2i.training.steps import Step, make_step

ROWS = 4  # of the step that is measured: the smallest batch
SHOWN = 8  # rows of the batch in the image
LAYERS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.Linear)
SHOWN_LAYERS = {"generator": LAYERS, "discriminator": LAYERS, "feature_discriminator": (nn.Conv2d,)}
LEARNED = {  # networks of a step that are listed with their parameters, beside those of the text
    "generator": "generator",
    "discriminator": "discriminator",
    "feature_discriminator": "feature discriminator",
    "recovery": "noise reader",
    "text_head": "text head",
}


def dry_run(config: TrainConfig, data: PackedDataset, folder: Path) -> str:
    """Describe a training, and show its first batch in `folder`/dry-run.png.

    Args:
        config: The settings; checked as a training would.
        data: Images and captions.
        folder: The run folder; nothing else is written there.

    Raises:
        ConfigError, DataError: as the training would.
    """
    device = runtime.pick_device(config.device)
    data.require_size(config.size)
    report.check(config)
    check_evaluation(config, data)
    config = resolve_text(config, data)
    sampler = sampler_from(config, data)
    steps, _ = step_counts(config, sampler.images)
    path = folder / "dry-run.png"
    save_image(_batch_image(config, data), path)
    step, shapes, flops, saved = _measured(config, data, device)
    passes = steps * config.batch / sampler.images
    work = flops * config.batch / ROWS
    lines = [
        f"data        {data.path}: {sampler.images:,} images of {data.image_size} px to train on, {data.captions:,} captions",
        f"run         {steps:,} steps of {config.batch} images, {passes:,.1f} passes over them",
        "",
        *_networks(step),
        "",
        "shapes      of one image, from noise and text to a score",
        *shapes,
        "",
        *_memory(step, saved * config.batch / ROWS),
        f"work        {_flop(work)} a step, {_flop(work * steps)} the run, without the text encoder's own",
        "",
        f"first batch {path}: the discriminator's input",
    ]
    return "\n".join(lines)


def _measured(config: TrainConfig, data: PackedDataset, device: torch.device) -> tuple[Step, list[str], float, float]:
    """Take one step of a few rows: the step, the shapes, its operations, and the bytes saved for backward."""
    small = dataclasses.replace(config, batch=ROWS, sync_batch_norm=False, compile="off", cuda_graph=False)
    precision = runtime.pick_precision(config.precision, device)
    learned = config.text.encoder == "end-to-end"
    text = learned_text(text_encoder(config.text), data, device) if learned else AnyText(config.text.dim)
    alignment_encoder = None
    if config.alignment_weight:
        alignment_encoder = image_encoder(config.text, config.size).eval().requires_grad_(False).to(device)
    step = make_step(small, text, device, precision, alignment_encoder)
    loader = Loader(
        sampler_from(small, data),
        device,
        batch=ROWS,
        crop=config.size,
        captions_per_image=config.captions_per_image,
        mismatched_images=config.mismatch == "image",
        characters=learned,
    )
    batch = loader.batch(0)
    shapes: dict[str, str] = {}
    hooks = [
        layer.register_forward_hook(partial(_note_shape, shapes, f"{of}.{name}" if name else of))
        for of, net in step.modules().items()
        for name, layer in net.named_modules()
        if of in SHOWN_LAYERS and (not name or (isinstance(layer, SHOWN_LAYERS[of]) and "residual." not in name))
    ]
    saved: dict[int, int] = {}
    weights = {weight.untyped_storage().data_ptr() for net in step.modules().values() for weight in net.parameters()}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            saved[storage.data_ptr()] = max(saved.get(storage.data_ptr(), 0), storage.nbytes())
        return tensor

    with (
        FlopCounterMode(display=False) as counter,
        torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor),
    ):
        step(batch, 0)
    for hook in hooks:
        hook.remove()
    width = max(map(len, shapes), default=0)
    listed = [f"            {name:{width}}  {shape}" for name, shape in shapes.items()]
    return step, listed, float(counter.get_total_flops()), float(sum(saved.values()))


def _note_shape(shapes: dict[str, str], name: str, layer: nn.Module, given: Any, made: Tensor) -> None:
    shapes.setdefault(name, " x ".join(map(str, made.shape[1:])) or "1")


def _flop(count: float) -> str:
    """Write a number of floating-point operations (a multiplication and an addition are two) with three digits."""
    for size, unit in ((1e15, "PFLOP"), (1e12, "TFLOP"), (1e9, "GFLOP")):
        if count >= size:
            return f"{count / size:#.3g} {unit}"
    return f"{count / 1e6:#.3g} MFLOP"


def _networks(step: Step) -> list[str]:
    learned = step.modules()
    nets = [(name, learned.get(key)) for key, name in LEARNED.items()]
    nets += [("text encoder", step.text.encoder), ("alignment encoder", step.alignment_encoder)]
    lines = [f"{name}: {sum(w.numel() for w in net.parameters()):,}" for name, net in nets if net is not None]
    return [f"{'parameters' if not row else '':12}{line}" for row, line in enumerate(lines)]


def _memory(step: Step, saved: float) -> list[str]:
    """Estimate what training holds: weights, gradients, two moments, the EMA, and what backward needs."""
    bytes_of = {
        name: sum(tensor.nbytes for tensor in net.state_dict().values())
        for name, net in step.modules().items()
        if not isinstance(net, TextEncoder) or step.text.learned
    }
    ema = bytes_of.pop("ema")
    weights = sum(bytes_of.values())
    rows = [
        ("weights and EMA", weights + ema),
        ("gradients and moments", 3 * weights),
        ("saved for the backward passes, at most", saved),
    ]
    lines = [f"{what}: {size / 2**20:,.0f} MiB" for what, size in rows]
    lines.append(f"together: {sum(size for _, size in rows) / 2**20:,.0f} MiB")
    return [f"{'memory' if not row else '':12}{line}" for row, line in enumerate(lines)]


def _batch_image(config: TrainConfig, data: PackedDataset) -> Image.Image:
    """Show rows of the first batch: each matching pair, and below it the mismatched one as the settings make it."""
    sampler = sampler_from(config, data)
    device = torch.device("cpu")
    loader = Loader(
        sampler,
        device,
        batch=config.batch,
        crop=config.size,
        captions_per_image=config.captions_per_image,
        mismatched_images=True,
    )
    batch, plan = loader.batch(0), sampler.plan(0)
    assert batch.mismatched_images is not None
    captions = [_captions(data, rows) for rows in plan.caption[:SHOWN]]
    others = [_captions(data, rows) for rows in plan.mismatched_caption[:SHOWN]]
    real, other = to_uint8(batch.images[:SHOWN]), to_uint8(batch.mismatched_images[:SHOWN])
    by_text = config.mismatch == "text"
    shown, labels = [], []
    for row, caption in enumerate(captions):
        shown.append(real[row])
        labels.append(f"{row + 1}. MATCHING: {caption}")
        if config.mismatch_weight:
            shown.append(real[row] if by_text else other[row])
            labels.append(f"{row + 1}. MISMATCHED: {others[row] if by_text else caption}")
    return grids.grid(np.stack(shown)[:, None], labels, side=max(96, config.size), text_width=420)


def _captions(data: PackedDataset, rows: NDArray[np.int64]) -> str:
    return " / ".join(data.caption_texts(rows))  # as written: a text encoder of another language reads them too
