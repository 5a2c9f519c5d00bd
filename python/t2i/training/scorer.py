"""A joint embedding to evaluate a GAN by, which has no say in its training: another seed, and half of the training images.

A bag of n-grams against a small image encoder that learns from pixels, of which nothing knows ImageNet; half a minute of one
core at 32 px. Its folder is one of `t2i-train text`, so that `t2i-eval images --scorer` takes it too.
"""

import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.random import Generator, Philox
from tqdm import tqdm

from t2i import console, runtime
from t2i.config.options import JointOptions, TextConfig
from t2i.config.run import MAX_SEED
from t2i.data.dataset import PackedDataset
from t2i.errors import ConfigError
from t2i.files import make_folder, read_json, write_atomically
from t2i.images import normalise
from t2i.metrics.retrieval import JointEmbedding
from t2i.models.build import image_encoder
from t2i.text.build import text_encoder
from t2i.text.inputs import CaptionInputs
from t2i.training.losses import class_contrastive_loss
from t2i.training.optim import set_learning_rate
from t2i.training.text import text_metadata
from t2i.training.text_objectives import warm_cosine
from t2i.weights import save_weights

# As the preset `drawings` had them before its last change, written out: a scorer must not change with what it scores.
SCORER = JointOptions(
    kind="ngrams",
    buckets=(16384, 8192),
    dim=128,
    objective="class-contrastive",
    steps=300,
    batch=128,
    captions=3,
    dropout=0.2,
    learning_rate=3e-3,
    image_width=32,
)
WARM_UP = 30
HALF = {"images": "half"}  # in the record of a scorer alone


def independent_scorer(
    data: PackedDataset, size: int, seed: int, folder: Path, device: torch.device, precision: torch.dtype
) -> JointEmbedding:
    """Load the scorer of a run, or train it.

    Args:
        data: The GAN's data set.
        size: Of its images.
        seed: Of the GAN; the scorer has another.
        folder: Kept there, and trained again where that does not fit or is damaged.
        device: Where it is trained and used.
        precision: Of its training.

    Raises:
        ConfigError: the folder holds a text encoder that is no scorer.
    """
    config = TextConfig(out=str(folder), size=size, seed=(seed + 1) % (MAX_SEED + 1), text=SCORER)
    metadata = text_metadata(config, data) | HALF
    record: object = None
    try:
        record = read_json(folder / "text.json")
        if record == json.loads(json.dumps(metadata)):
            return JointEmbedding.load(folder, SCORER, size, device)
    except (OSError, ValueError, ConfigError):  # also a record without its weights
        pass  # trained below
    if isinstance(record, dict) and not record.items() >= HALF.items() and (folder / "text.safetensors").exists():
        raise ConfigError(
            f"{folder} holds a text encoder, and the scorer of --eval-every goes there; move it elsewhere"
        )
    networks = _trained(config, data, device, precision)
    make_folder(folder)
    save_weights(folder / "text.safetensors", networks)
    write_atomically(folder / "text.json", (json.dumps(metadata, indent=2) + "\n").encode())
    return JointEmbedding.load(folder, SCORER, size, device)


def _trained(
    config: TextConfig, data: PackedDataset, device: torch.device, precision: torch.dtype
) -> dict[str, torch.nn.Module]:
    """Train text and image side on half of the training images."""
    options, steps = config.text, SCORER.steps or 0
    rows = Generator(Philox(key=config.seed)).permutation(data.split("train"))
    rows = np.sort(rows[: max(2, len(rows) // 2)])
    counts, groups = np.diff(data.caption_offsets), torch.from_numpy(data.groups())
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(config.seed)
        text, image = text_encoder(options), image_encoder(options, config.size)
        inputs = CaptionInputs(text, data, device)
        inputs.fit(text, data.caption_rows(rows))
        text = text.to(device)
        image = image.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        adam = torch.optim.AdamW(
            [*text.parameters(), *image.parameters()], weight_decay=options.weight_decay, fused=True
        )
        room = data.image_size - config.size + 1
        for step in tqdm(range(steps), desc="scorer", unit="step", disable=None, file=console.errors(), leave=False):
            draw = Generator(Philox(key=[config.seed, step]))
            chosen = draw.choice(rows, min(options.batch, len(rows)), replace=False)
            captions = data.caption_offsets[chosen, None] + draw.integers(
                0, counts[chosen, None], (len(chosen), options.captions)
            )
            low = draw.integers(0, room, 2)
            pixels = data.read_images(chosen)[:, low[0] : low[0] + config.size, low[1] : low[1] + config.size]
            seen = normalise(torch.from_numpy(np.ascontiguousarray(pixels)).to(device))
            seen = seen.flip(3) if draw.random() < 0.5 else seen
            with runtime.autocast(device, precision):
                texts = F.normalize(text(inputs(captions.reshape(-1))), dim=1).unflatten(0, (len(chosen), -1))
                embedded = image(seen.contiguous(memory_format=torch.channels_last))
                loss = class_contrastive_loss(embedded.float(), texts.mean(dim=1), groups[chosen].to(device))
            set_learning_rate(adam, warm_cosine(options.learning_rate, step, steps, WARM_UP))
            adam.zero_grad(set_to_none=True)
            loss.backward()
            adam.step()
    return {"text": text, "image": image}
