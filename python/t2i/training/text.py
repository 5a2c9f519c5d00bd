"""Joint embedding: teach the text encoder what captions say, by matching them with pictures.

Each step takes one picture and one caption of each of a batch of distinct classes, embeds both, and asks that every
picture lies nearest to its own text and the reverse. The text encoder is then frozen and the GAN conditions on it.

Source: Reed et al. CVPR 2016 (DS-SJE): U(-0.08, 0.08) weights, RMSprop 7e-4, x 0.98 an epoch, batches of 40 classes.
Differs: the image side is a small network learned with it, from pixels, in place of frozen GoogLeNet features.
"""

import itertools
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from t2i import runtime
from t2i.checkpoint import Checkpoints, load_weights, save_weights
from t2i.config import TextOptions, TrainConfig
from t2i.data import Loader, PackedDataset, Sampler
from t2i.encoders import CharCnnRnn, ImageEncoder
from t2i.errors import ConfigError
from t2i.losses import contrastive_loss, joint_embedding_loss
from t2i.optim import set_learning_rate
from t2i.training.progress import Progress, Stopped, StopSignal


def text_encoder(options: TextOptions) -> CharCnnRnn:
    """Make the char-CNN-RNN that the options describe, with random weights."""
    return CharCnnRnn(options.variant, options.width, options.dim, options.channels)


def image_encoder(options: TextOptions, size: int) -> ImageEncoder:
    """Make the image side that the options describe, with random weights."""
    return ImageEncoder(size, options.image_width, options.dim)


def train_text(config: TrainConfig, data: PackedDataset, folder: Path) -> Path:
    """Train the joint embedding inside a run folder, or load it where that is done already.

    Args:
        config: `config.text` says how; size, seed, device and precision are the run's.
        data: Pictures and captions.
        folder: The run folder; `text.safetensors` (modules `text` and `image`) is written there.

    Returns:
        The file written.

    Raises:
        Stopped: SIGINT or SIGTERM came; a checkpoint was written.
    """
    final = folder / "text.safetensors"
    if final.exists():
        return final
    options = config.text
    device = runtime.pick_device(config.device)
    precision = runtime.pick_precision(config.precision, device)
    batch = options.batch
    classes = len(np.unique(data.classes[data.split("train")])) if data.class_names else None
    if classes is not None:
        batch = min(batch, classes)
    sampler = Sampler(
        data, batch=batch, seed=config.seed, crop=config.size, flip=config.flip, distinct_classes=classes is not None
    )
    epoch_steps = classes or max(1, sampler.images // batch)
    steps = options.steps or options.epochs * epoch_steps
    torch.manual_seed(config.seed)
    text, image = text_encoder(options), image_encoder(options, config.size)
    if options.objective == "sje":
        text.initialise()
    text, image = text.to(device), image.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    parameters = list(itertools.chain(text.parameters(), image.parameters()))
    optimizer: torch.optim.Optimizer
    if options.objective == "sje":
        optimizer = torch.optim.RMSprop(parameters, lr=options.learning_rate, alpha=0.99, foreach=True)
    else:
        optimizer = torch.optim.Adam(parameters, lr=options.learning_rate, fused=True)
    loader = Loader(sampler, device, batch=batch, crop=config.size, characters=True)
    checkpoints = Checkpoints(folder / "text", {"text": text, "image": image}, {"optimizer": optimizer})
    start, damaged = checkpoints.restore()
    for line in damaged:
        print(line)
    progress = Progress(folder / "metrics.jsonl", "text", start, steps, batch)
    image.train()
    with StopSignal() as stop:
        for step in range(start, steps):
            decayed = options.learning_rate * options.decay ** (step // epoch_steps)
            if options.objective == "contrastive":
                decayed *= min(1.0, (step + 1) / 30, 2 * (1 - step / steps))  # warms up; the second half cools down
            set_learning_rate(optimizer, max(decayed, 1e-8))
            drawn = loader.batch(step)
            assert drawn.caption_ids is not None
            with runtime.autocast(device, precision):
                texts, images = text(drawn.caption_ids[:, 0]), image(drawn.images)
            joint = joint_embedding_loss if options.objective == "sje" else contrastive_loss
            loss = joint(images, texts)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            progress.advance()
            done = step + 1
            if done % config.log_every == 0 or done == steps:
                own = (images @ texts.T).argmax(dim=1) == torch.arange(batch, device=device)
                values = {"loss": float(loss.detach()), "top1": float(own.float().mean())}
                if not np.isfinite(values["loss"]):
                    raise ConfigError(
                        f"the text encoder's loss is not finite at step {done}; lower --text.learning-rate"
                    )
                progress.log(done, values)
            if stop.asked or (done % config.checkpoint_every == 0 and done < steps):
                checkpoints.save(done, {"data": data.fingerprint})
                if stop.asked:
                    progress.close()
                    raise Stopped(f"stopped after step {done} of the text encoder; the same command goes on from there")
    progress.close()
    save_weights(final, {"text": text, "image": image})
    return final


@torch.no_grad()
def embed_captions(
    encoder: nn.Module, data: PackedDataset, device: torch.device, precision: torch.dtype, block: int = 512
) -> Tensor:
    """Embed every caption of a data set once: (M, T) float32 on `device`, row by row as the pack counts captions."""
    encoder.eval()
    parts = []
    for first in range(0, data.captions, block):
        ids = torch.from_numpy(data.read_captions(np.arange(first, min(first + block, data.captions)))).to(device)
        with runtime.autocast(device, precision):
            parts.append(encoder(ids).float())
    return torch.cat(parts)


def load_text(path: Path, options: TextOptions) -> CharCnnRnn:
    """Load a trained text encoder from `text.safetensors` or `model.safetensors`; CheckpointError where it differs."""
    encoder = text_encoder(options)
    load_weights(path, {"text": encoder})
    return encoder.eval()
