"""Settings that every training takes."""

from dataclasses import dataclass
from typing import Literal

from t2i.config.fields import option

PRESET_NAMES = ("drawings", "blossoms", "flowers", "modern", "fast", "paper", "paper-coco")
PRESET_HELP = f"Preset that the other settings start from: {', '.join(PRESET_NAMES)}."
MAX_SEED = 2**63 - 1  # what every generator takes
MAX_STEPS = 10**8 - 1  # the names of checkpoints have eight digits
MAX_BATCH = 1 << 24  # the native module's limit
MAX_CAPTIONS = 1024  # of an image in a step

Precision = Literal["auto", "float32", "bfloat16"]


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """What every training takes."""

    seed: int = option(0, "Random seed.", group="run", at_least=0, at_most=MAX_SEED, rare=True)
    log_every: int = option(
        50, "Steps between lines of metrics.jsonl.", group="run", at_least=1, rare=True, runtime_only=True
    )
    checkpoint_every: int = option(
        1000, "Steps between checkpoints.", group="run", at_least=1, rare=True, runtime_only=True
    )
    device: str = option("auto", "auto, cpu, cuda, cuda:N or mps (Apple's GPU).", group="device", runtime_only=True)
    precision: Precision = option(
        "auto", "Mixed precision: auto is bfloat16 where it is faster than float32.", group="device"
    )
    threads: int = option(
        0,
        "CPU threads; 0 takes the number that a few timed steps of a GAN are fastest with, otherwise PyTorch's default.",
        group="device",
        at_least=0,
        rare=True,
        runtime_only=True,
    )
