"""Caption accuracy of a blossoms run: how often a drawn flower shows what a caption of a class never trained on names.

The probe that judges is trained on the first use, on real blossoms of all classes, and kept in the user's cache folder; its
own accuracy, on real blossoms of another seed, is measured each time and stands beside the figures.

Source: none; the paper judges captions by eye.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from t2i import runtime
from t2i.blossoms.captions import held_out_captions
from t2i.blossoms.classes import VERSION, unseen_pairs
from t2i.blossoms.dataset import make_blossoms
from t2i.blossoms.languages import LanguageCode
from t2i.errors import ConfigError
from t2i.metrics.attributes import ATTRIBUTES, AttributeProbe, caption_accuracy, probe_accuracy, train_probe
from t2i.pipeline import Pipeline
from t2i.prepare import cache_folder

TRAINING, CHECKING = 7_000, 1_080  # real blossoms the probe learns from and is measured on
TRAINING_SEED, CHECKING_SEED = 1001, 1002  # neither is the training set's
STEPS = 500
STORED, CROP = 38, 32


@dataclass(frozen=True)
class Accuracy:
    """The figures, and how they were come by."""

    figures: dict[str, Any]

    def table(self) -> str:
        """Lay the figures out for a person."""
        protocol, rows = self.figures["protocol"], self.figures["accuracy"]
        names = [*ATTRIBUTES, "all"]
        lines = [f"{'':<26}" + "".join(f"{name.replace('_', ' '):>15}" for name in names)]
        for title, values in rows.items():
            lines.append(f"{title:<26}" + "".join(f"{values[name]:>15.1%}" for name in names))
        lines.append(
            f"{protocol['captions']} captions of {protocol['classes']} classes, {protocol['split']}, {protocol['size']} px, "
            f"seed {protocol['seed']}; {protocol['unseen_pairs']} of them name colours never seen together"
        )
        return "\n".join(lines)


def real_blossoms(images: int, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """Draw real pictures (N, 38, 38, 3) and their attributes (N, 4)."""
    drawn = make_blossoms(images, STORED, seed)
    return drawn.images, drawn.attributes


def load_probe(device: torch.device) -> AttributeProbe:
    """Load the probe from the cache folder; train it first (a minute or two) where it is not there."""
    from tqdm import tqdm

    path = cache_folder() / f"probe-{VERSION}-{STORED}px-{STEPS}.safetensors"
    if path.exists():
        return AttributeProbe.load(path).to(device)
    images, attributes = real_blossoms(TRAINING, TRAINING_SEED)
    with tqdm(total=STEPS, desc="probe", unit="step", dynamic_ncols=True) as bar:
        probe = train_probe(
            images, attributes, crop=CROP, steps=STEPS, device=device, progress=lambda step: bar.update() and None
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    probe.save(path)
    return probe


def caption_accuracy_of_run(
    run: Path,
    *,
    captions: int = 200,
    seed: int = 0,
    device: str = "auto",
    seen: bool = False,
    language: LanguageCode = "en",
) -> Accuracy:
    """Draw one picture of each of `captions` held-out captions, and read it.

    Args:
        run: Run folder of a training on blossoms.
        captions: How many; evenly over the held-out classes, worded anew.
        seed: Of wordings and noise.
        device: Where to draw.
        seen: Take captions of the training classes instead (new wordings too).
        language: Of the captions.

    Raises:
        ConfigError: no captions asked for.
        CheckpointError: not a run folder.
    """
    if captions < 1:
        raise ConfigError(f"--captions must be at least 1, got {captions}")
    on = runtime.pick_device(device)
    pipe = Pipeline.from_pretrained(run, str(on))
    probe = load_probe(on)
    texts, wanted = zip(*held_out_captions(captions, seed, seen=seen, language=language), strict=True)
    attributes = np.array(wanted, np.int32)
    noise = runtime.noise((captions, pipe.config.noise_dim), on, seed, 0, "evaluate")
    drawn = torch.cat([pipe.draw(n, pipe.embed(t)) for n, t in _blocks(noise, texts)])
    pairs = unseen_pairs()
    unseen = np.array([(int(petal), int(centre)) in pairs for petal, centre, *_ in attributes])
    accuracy = {"generated": caption_accuracy(probe, drawn, attributes)}
    if unseen.any():
        accuracy["  colours seen together"] = caption_accuracy(
            probe, drawn[torch.from_numpy(~unseen)], attributes[~unseen]
        )
        accuracy["  colours never together"] = caption_accuracy(
            probe, drawn[torch.from_numpy(unseen)], attributes[unseen]
        )
    accuracy["real pictures (the probe)"] = probe_accuracy(probe, *real_blossoms(CHECKING, CHECKING_SEED), crop=CROP)
    protocol = {
        "captions": captions,
        "language": language,
        "pictures_per_caption": 1,
        "classes": len({tuple(row) for row in attributes.tolist()}),
        "unseen_pairs": int(unseen.sum()),
        "split": f"{'training' if seen else 'held-out'} classes, new wordings",
        "size": pipe.config.size,
        "seed": seed,
        "probe": f"{STEPS} steps on {TRAINING} real blossoms of all classes, measured on {CHECKING} others",
    }
    return Accuracy({"measure": "caption accuracy", "accuracy": accuracy, "protocol": protocol})


def _blocks(
    noise: torch.Tensor, texts: tuple[str, ...], block: int = 256
) -> list[tuple[torch.Tensor, tuple[str, ...]]]:
    return [(noise[first : first + block], texts[first : first + block]) for first in range(0, len(texts), block)]
