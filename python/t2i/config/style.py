"""Settings of the style encoder."""

from dataclasses import dataclass

from t2i.config.fields import check_bounds, option, required
from t2i.config.run import MAX_BATCH, MAX_STEPS, RunOptions


@dataclass(frozen=True)
class StyleConfig(RunOptions):
    """Train the style encoder of a run: it predicts the noise that an image was generated from.

    The same command again resumes it.
    """

    model: str = required(
        "Run folder of t2i-train; its generator and text encoder are frozen.", group="run", runtime_only=True
    )
    out: str | None = option(
        None,
        "Where style.safetensors goes. Without it: the run folder itself. Another folder becomes a run of its own.",
        group="run",
        runtime_only=True,
    )
    steps: int = option(3000, "Training steps.", group="run", at_least=1, at_most=MAX_STEPS)
    force: bool = option(
        False,
        "Start again although the folder holds a style encoder, or its checkpoints, with other settings.",
        group="run",
        rare=True,
        runtime_only=True,
    )
    data: str | None = option(
        None,
        "Packed data set whose captions are sampled. Without it: the one the run was trained on.",
        group="data",
        runtime_only=True,
    )
    batch: int = option(64, "Generated images per step.", group="data", at_least=2, at_most=MAX_BATCH)
    blur: float = option(
        0.5,
        "Fraction of the images that are blurred, so that the encoder generalises to photographs, which are blurred"
        " too (not in the paper; 0 blurs neither).",
        group="data",
        at_least=0,
        at_most=1,
    )
    noise: float = option(
        0.1,
        "Standard deviation of the noise added to blurred images (images span -1..1).",
        group="data",
        at_least=0,
        rare=True,
    )
    interpolated: float = option(
        0.0,
        "Fraction of the texts that are midpoints of two captions; the paper has captions only.",
        group="data",
        at_least=0,
        at_most=1,
        rare=True,
    )
    width: int = option(32, "Channels of the style encoder's first feature map.", group="network", at_least=1)
    learning_rate: float = option(
        1e-3,
        "Learning rate of Adam; it decays to 0 over the second half of the training.",
        group="optimiser",
        above=0,
        at_most=1,
    )
    beta1: float = option(0.9, "Adam's beta1.", group="optimiser", at_least=0, below=1, rare=True)
    beta2: float = option(0.999, "Adam's beta2.", group="optimiser", at_least=0, below=1, rare=True)

    def __post_init__(self) -> None:
        check_bounds(self)
