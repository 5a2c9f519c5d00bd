"""Caption accuracy of a blossoms run: how often a generated flower shows the attributes that its caption names.

A probe reads the attributes. It is trained on first use, on real blossoms of all classes, and cached in the user's cache
folder. Before each use its accuracy is measured on real blossoms of another seed: a cached probe that fails there is trained
again, and without a probe that passes no figure is reported.

Source: none; in the paper, people rate the images.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from t2i import console, runtime
from t2i.blossoms.captions import held_out_captions
from t2i.blossoms.classes import VERSION, unseen_pairs
from t2i.blossoms.dataset import make_blossoms
from t2i.blossoms.languages import LanguageCode
from t2i.errors import CheckpointError, ConfigError, ScorerError
from t2i.files import cache_folder, make_folder
from t2i.metrics.attributes import ATTRIBUTES, AttributeProbe, caption_accuracy, probe_accuracy, train_probe
from t2i.pipeline import Pipeline

TRAINING, CHECKING = 7_000, 1_080  # real blossoms the probe learns from and is measured on
TRAINING_SEED, CHECKING_SEED = 1001, 1002  # neither is the training set's
STEPS = 500
STORED, CROP = 38, 32
# What a probe must read on real blossoms; trained probes read 99.6% to 100% of each. At chance: 13%, 17%, 25% and 33%.
MIN_ACCURACY = {"petal_colour": 0.95, "centre_colour": 0.95, "count": 0.9, "shape": 0.95}


@dataclass(frozen=True)
class Accuracy:
    """The figures with their protocol."""

    figures: dict[str, Any]

    def table(self) -> str:
        """Format the figures as a table."""
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
    """Render real images (N, 38, 38, 3) with their attributes (N, 4)."""
    rendered = make_blossoms(images, STORED, seed)
    return rendered.images, rendered.attributes


def load_probe(device: torch.device) -> tuple[AttributeProbe, dict[str, float]]:
    """Load the probe from the cache folder, or train it (a minute or two), and measure it on real blossoms.

    Returns:
        The probe, and its accuracy by attribute.

    Raises:
        ScorerError: even a probe trained just now fails on real blossoms.
    """
    real = real_blossoms(CHECKING, CHECKING_SEED)
    path = cache_folder() / f"probe-{VERSION}-{STORED}px-{STEPS}.safetensors"
    if path.exists():
        try:
            probe = AttributeProbe.load(path).to(device)
        except CheckpointError:
            pass  # damaged: train it again
        else:
            accuracy = probe_accuracy(probe, *real, crop=CROP)
            if not failing(accuracy):
                return probe, accuracy
    probe = _train(device)
    accuracy = probe_accuracy(probe, *real, crop=CROP)
    failed = failing(accuracy)
    if failed:
        raise ScorerError(
            "the probe fails on real blossoms: "
            + ", ".join(
                f"{name.replace('_', ' ')} {accuracy[name]:.0%} (at least {MIN_ACCURACY[name]:.0%})" for name in failed
            )
        )
    try:
        make_folder(path.parent)
        probe.save(path)
    except (CheckpointError, OSError) as error:  # no reason to lose what was measured so far
        console.say(f"the probe is not cached: {error}")
    return probe, accuracy


def failing(accuracy: dict[str, float]) -> list[str]:
    """List the attributes that a probe does not read well enough on real blossoms."""
    return [name for name, bar in MIN_ACCURACY.items() if not accuracy[name] >= bar]


def _train(device: torch.device) -> AttributeProbe:
    from tqdm import tqdm

    images, attributes = real_blossoms(TRAINING, TRAINING_SEED)
    with tqdm(total=STEPS, desc="probe network", unit="step", dynamic_ncols=True, disable=None) as bar:
        return train_probe(
            images, attributes, crop=CROP, steps=STEPS, device=device, progress=lambda step: bar.update() and None
        )


def caption_accuracy_of_run(
    run: Path,
    *,
    captions: int = 200,
    seed: int = 0,
    device: str = "auto",
    seen: bool = False,
    language: LanguageCode = "en",
) -> Accuracy:
    """Generate one image of each of `captions` held-out captions, and read its attributes.

    Args:
        run: Run folder of a training on blossoms.
        captions: How many; evenly over the held-out classes, in new wordings.
        seed: Of wordings and noise.
        device: Where to compute.
        seen: Take captions of the training classes instead (new wordings too).
        language: Of the captions.

    Raises:
        ConfigError: no captions asked for.
        CheckpointError: not a run folder.
        ScorerError: the probe fails on real blossoms.
    """
    if captions < 1:
        raise ConfigError(f"--captions must be at least 1, got {captions}")
    on = runtime.pick_device(device)
    pipe = Pipeline.from_pretrained(run, str(on))
    probe, real = load_probe(on)
    texts, wanted = zip(*held_out_captions(captions, seed, seen=seen, language=language), strict=True)
    attributes = np.array(wanted, np.int32)
    noise = runtime.noise((captions, pipe.config.noise_dim), on, seed, 0, "evaluate")
    generated = torch.cat([pipe.draw(n, pipe.embed(t)) for n, t in _blocks(noise, texts)])
    pairs = unseen_pairs()
    unseen = np.array([(int(petal), int(centre)) in pairs for petal, centre, *_ in attributes])
    accuracy = {"generated": caption_accuracy(probe, generated, attributes)}
    if unseen.any():
        accuracy["  colours seen together"] = caption_accuracy(
            probe, generated[torch.from_numpy(~unseen)], attributes[~unseen]
        )
        accuracy["  colours never together"] = caption_accuracy(
            probe, generated[torch.from_numpy(unseen)], attributes[unseen]
        )
    accuracy["real images (the probe)"] = real
    protocol = {
        "captions": captions,
        "language": language,
        "images_per_caption": 1,
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
