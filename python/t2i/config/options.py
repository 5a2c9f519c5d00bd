"""Settings: one frozen dataclass for each training.

The fields are the command-line flags, the TOML file, the JSON in a run folder and the documentation at once. A new setting is
one line here. Nothing here imports torch, so that `--help` answers at once.
"""

from dataclasses import dataclass, field
from typing import Literal

from t2i.config.fields import check_bounds, option
from t2i.config.run import MAX_BATCH, MAX_CAPTIONS, MAX_STEPS, PRESET_HELP, PRESET_NAMES, RunOptions
from t2i.config.sizes import check_size
from t2i.config.style import StyleConfig
from t2i.config.text import LEARNED, JointOptions, TextConfig, TextOptions
from t2i.errors import ConfigError

__all__ = ["LEARNED", "PRESET_NAMES", "JointOptions", "StyleConfig", "TextConfig", "TextOptions", "TrainConfig"]

TRACKERS = ("tensorboard", "wandb")


@dataclass(frozen=True)
class TrainConfig(RunOptions):
    """Train a text-to-image GAN. The same command again resumes it.

    t2i-train text trains a text encoder alone, t2i-train style a style encoder.

    t2i-train --plot RUN plots the curves of a run.
    """

    preset: str = option("drawings", PRESET_HELP, group="run")
    out: str | None = option(
        None, "Run folder. Without it: a folder under runs/ named after the preset.", group="run", runtime_only=True
    )
    steps: int | None = option(
        None, "Training steps, instead of epochs.", group="run", at_least=1, at_most=MAX_STEPS, runtime_only=True
    )
    epochs: int = option(
        600,
        "Passes over the training images; an epoch is images / batch steps.",
        group="run",
        at_least=1,
        at_most=MAX_STEPS,
        runtime_only=True,
    )
    sample_every: int = option(
        1000,
        "Steps between grids of generated images in samples/.",
        group="run",
        at_least=1,
        rare=True,
        runtime_only=True,
    )
    init: str = option(
        "",
        "Model that training starts from, instead of random weights: a run folder, or owner/name on the Hub; of the same"
        " preset, at the same or another size.",
        group="run",
        metavar="RUN",
    )
    eval_every: int = option(
        0,
        "Steps between evaluations of the model on held-out captions by an independent scorer; 0 turns them off.",
        group="run",
        at_least=0,
        runtime_only=True,
    )
    keep: Literal["last", "best"] = option(
        "last",
        "Which model the run folder holds: that of the last step, or the best of --eval-every.",
        group="run",
        runtime_only=True,
    )
    report_to: str = option(
        "",
        "Also log the metrics to tensorboard, wandb, or both with a comma (extras of these names).",
        group="run",
        rare=True,
        runtime_only=True,
    )
    force: bool = option(
        False,
        "Resume in the run folder although its settings differ; replace a model that has no checkpoint to resume from.",
        group="run",
        rare=True,
        runtime_only=True,
    )

    data: str | None = option(
        None,
        "Packed data set, written by t2i-prepare. Without it: blossoms, rendered by the program.",
        group="data",
        runtime_only=True,
    )
    batch: int = option(64, "Images per step, over all processes.", group="data", at_most=MAX_BATCH)
    captions_per_image: int = option(
        4,
        "Captions sampled with replacement for each image; their embeddings are averaged.",
        group="data",
        at_least=1,
        at_most=MAX_CAPTIONS,
    )
    flip: bool = option(True, "Random horizontal flips.", group="data")
    crop_low: int = option(
        0, "Smallest crop offset (the released program samples 1..12 of 0..12).", group="data", rare=True
    )
    loader: Literal["auto", "host", "device"] = option(
        "auto",
        "Where batches are assembled: device keeps the whole data set on the GPU; auto does so where it fits.",
        group="data",
        rare=True,
        runtime_only=True,
    )

    compile: Literal["auto", "on", "off"] = option(
        "auto", "torch.compile for the networks; auto uses it on a GPU.", group="device", runtime_only=True
    )
    cuda_graph: bool = option(
        True,
        "On a GPU, capture a whole step as a CUDA graph (one process, not with --stages).",
        group="device",
        rare=True,
        runtime_only=True,
    )
    kernels: Literal["reference", "triton"] = option(
        "reference",
        "Crops of the device loader: PyTorch's operations, or t2i's Triton kernel (GPU).",
        group="device",
        rare=True,
        runtime_only=True,
    )
    deterministic: bool = option(
        False,
        "On a GPU, use only PyTorch's deterministic algorithms, which are slower. Two runs on an H200 still differed "
        "(docs/method.md). Runs on a CPU are always bit-identical.",
        group="device",
        rare=True,
        runtime_only=True,
    )
    sync_batch_norm: bool = option(
        False,
        "With several processes (torchrun), batch statistics over all of them instead of each process's own.",
        group="device",
        rare=True,
    )

    network: Literal["paper", "modern"] = option(
        "paper",
        "Generator, and the discriminators it learns from: paper; or modern, text in every block and a discriminator on"
        " frozen ImageNet features (--feature-weight), the paper's (--pixel-weight), or both.",
        group="network",
    )
    size: int = option(64, "Size of the generated images, in pixels: a power of two.", group="network")
    generator_width: int = option(
        128, "Channels of the generator's last feature map (ngf).", group="network", at_least=1
    )
    discriminator_width: int = option(
        64, "Channels of the discriminator's first feature map (ndf).", group="network", at_least=1
    )
    noise_dim: int = option(100, "Dimension of the noise vector.", group="network", at_least=1)
    projection_dim: int = option(
        128, "Dimension of the projected text embedding in both networks.", group="network", at_least=1
    )
    ema: float = option(
        0.999,
        "Decay of the exponential moving average of the generator's weights, which is the saved model; 0 saves the "
        "last weights.",
        group="network",
        at_least=0,
        below=1,
    )
    discriminator_text_norm: bool = option(
        True, "Batch normalisation of the projected text in the discriminator.", group="network", rare=True
    )
    discriminator_late_activation: bool = option(
        False, "LeakyReLU after the discriminator's last but one stride-2 convolution.", group="network", rare=True
    )

    mismatch_weight: float = option(
        0.5,
        "c: weight of mismatched pairs against fake ones in the matching-aware discriminator loss (GAN-CLS); 0 is a"
        " plain GAN.",
        group="losses",
        at_least=0,
        at_most=1,
    )
    mismatch: Literal["image", "text"] = option(
        "image",
        "Mismatched pair: another class's image with this text (the released program), or this image with another "
        "class's text (the paper's algorithm; the discriminator's trunk then runs once for both).",
        group="losses",
    )
    interpolation_weight: float = option(
        1.0,
        "w: weight of interpolated text embeddings in the generator's loss (GAN-INT); 0 turns them off.",
        group="losses",
        at_least=0,
    )
    alignment_weight: float = option(
        0.0,
        "CLIP-style contrastive loss of generated images against the captions of the batch, by the joint "
        "embedding's frozen image encoder: its weight in the generator's loss (not in the paper; needs an image "
        "encoder trained on pixels).",
        group="losses",
        at_least=0,
    )
    recovery_weight: float = option(
        0.0,
        "InfoGAN noise reconstruction: weight of the error in predicting the noise from a generated image (not in "
        "the paper); keeps the generator from ignoring the noise.",
        group="losses",
        at_least=0,
    )
    reuse_fakes: bool = option(
        False,
        "Update the generator with the fakes that the discriminator was updated with, instead of generating new ones.",
        group="losses",
    )
    feature_weight: float = option(
        0.0,
        "modern: weight of the discriminator on frozen features in the generator's loss; 0 leaves it out.",
        group="losses",
        at_least=0,
    )
    feature_size: int = option(
        0,
        "modern: size in pixels that smaller images are upsampled to for the frozen network, at most twice their own; 0 turns"
        " this off.",
        group="losses",
        at_least=0,
    )
    pixel_weight: float = option(
        1.0,
        "modern: weight of the paper's discriminator; it is left out if this and --recovery-weight are 0.",
        group="losses",
        at_least=0,
    )
    diversity_weight: float = option(
        0.0,
        "modern: weight of the diversity loss: images of one text must differ as much as real images do.",
        group="losses",
        at_least=0,
    )
    feature_diversity_weight: float = option(
        0.0,
        "modern: weight of the directional diversity loss: frozen features of images of one text must differ in direction as"
        " much as those of real images of one class.",
        group="losses",
        at_least=0,
    )
    moment_weight: float = option(
        0.0,
        "modern: weight of the moment matching loss: mean and mean square of pixels, at 16 px, against real images.",
        group="losses",
        at_least=0,
    )
    contrastive_weight: float = option(
        0.0,
        "modern: weight of a contrastive loss on frozen features, whose linear map is trained on real images.",
        group="losses",
        at_least=0,
    )
    augmentation: float = option(
        0.0,
        "modern: strength of augmentation before the discriminators: 0 is weak, 1 all of DiffAugment; for few images.",
        group="losses",
        at_least=0,
        at_most=1,
    )
    condition_ramp: int = option(
        0,
        "modern: steps over which the weight of the text grows from 0 to 1, against mode collapse on a few hundred images.",
        group="losses",
        at_least=0,
        rare=True,
    )
    text_mixing: float = option(
        0.0,
        "modern: maximum interpolation of a text embedding with another of its class, 0..1, lower where classes say little"
        " about captions; keeps the generator from memorising one image per caption.",
        group="losses",
        at_least=0,
        at_most=1,
    )
    hard_mismatch: float = option(
        0.0,
        "modern: fraction of mismatched texts that are the most similar other text of the batch.",
        group="losses",
        at_least=0,
        at_most=1,
        rare=True,
    )
    pixel_size: int = option(
        32,
        "modern: size of the images that the paper's discriminator sees; larger ones are reduced.",
        group="losses",
        rare=True,
    )
    interpolation: Literal["fixed", "uniform", "extrapolate"] = option(
        "fixed",
        "How b of b t1 + (1 - b) t2 is sampled: fixed, U(0, 1), or U(-0.5, 1.5) (the released program's type 2).",
        group="losses",
        rare=True,
    )
    interpolation_coefficient: float = option(
        0.5, "b, where it is fixed.", group="losses", at_least=-10, at_most=10, rare=True
    )
    stages: bool = option(
        False, "Train in two stages: real and fake pairs only, then mismatched pairs too.", group="losses", rare=True
    )
    realism_steps: int | None = option(
        None,
        "With --stages, steps of the first stage. Without it: until --realism-goal is reached.",
        group="losses",
        at_least=1,
        rare=True,
    )
    realism_goal: float = option(
        0.5,
        "With --stages, the first stage ends when the discriminator's mean score of real pairs exceeds that of fake"
        " pairs by less than this.",
        group="losses",
        above=0,
        at_most=1,
        rare=True,
    )

    learning_rate: float = option(2e-4, "Learning rate of Adam.", group="optimiser", above=0, at_most=1)
    halve_every: int = option(
        100,
        "Epochs (counted from 1) between halvings of the learning rate; 0 keeps it constant.",
        group="optimiser",
        at_least=0,
    )
    beta1: float = option(0.5, "Adam's beta1.", group="optimiser", at_least=0, below=1, rare=True)
    beta2: float = option(0.999, "Adam's beta2.", group="optimiser", at_least=0, below=1, rare=True)
    text: TextOptions = field(default_factory=TextOptions)

    def __post_init__(self) -> None:
        check_bounds(self)
        check_size(self.size, "--size")
        unknown = [name for name in self.trackers if name not in TRACKERS]
        if unknown:
            raise ConfigError(f"--report-to takes tensorboard and wandb, with a comma between them; got {unknown[0]!r}")
        if self.keep == "best" and not self.eval_every:
            raise ConfigError("--keep best needs evaluations to choose by: add --eval-every STEPS")
        if self.stages and not self.mismatch_weight:
            raise ConfigError("--stages adds mismatched pairs later; with --mismatch-weight 0 there are none to add")
        if self.network == "modern":
            self._check_modern()
        if self.batch < 4 or self.batch % 2:
            raise ConfigError(f"--batch must be an even number of at least 4, got {self.batch}")
        if self.alignment_weight and (self.text.encoder == "end-to-end" or self.text.image_features != "joint"):
            raise ConfigError(
                "--alignment-weight needs a joint embedding whose image encoder was trained on pixels: --text.encoder joint "
                "and --text.image-features joint; or leave it out: --alignment-weight 0"
            )

    def _check_modern(self) -> None:
        """Refuse what the modern networks cannot do."""
        if self.text.encoder == "end-to-end":
            raise ConfigError("--network modern needs frozen text: --text.encoder joint, or a trained encoder")
        for name in ("stages", "interpolation_weight", "sync_batch_norm"):
            if getattr(self, name):
                raise ConfigError(f"--network modern has no --{name.replace('_', '-')}, got {getattr(self, name)}")
        check_size(self.pixel_size, "--pixel-size")
        on_features = self.contrastive_weight or self.feature_diversity_weight
        if not self.feature_weight and (on_features or not self.pixel_weight):
            raise ConfigError(
                "--feature-weight 0 needs --contrastive-weight 0, --feature-diversity-weight 0 and a --pixel-weight above 0"
            )

    @property
    def trackers(self) -> tuple[str, ...]:
        """The names in --report-to."""
        return tuple(dict.fromkeys(name.strip() for name in self.report_to.split(",") if name.strip()))
