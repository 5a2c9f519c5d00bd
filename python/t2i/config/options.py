"""Settings: one frozen dataclass a command, and the presets as a table.

The fields are the command-line flags, the JSON in a run folder and the documentation at once. Nothing here imports torch, so
that `--help` answers at once.
"""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from t2i.errors import ConfigError


@dataclass(frozen=True)
class JointOptions:
    """The text encoder, and how it is trained with an image encoder. The defaults are the paper's."""

    flags: ClassVar[str] = "--"  # what its flags begin with
    image_features: Literal["joint", "efficientnet-lite0", "googlenet"] = "joint"
    """Image side: joint learns one from pixels; efficientnet-lite0 (extra: t2i[features]) and googlenet (torchvision; the
    paper's) are frozen ImageNet features, computed once and kept beside the data."""
    variant: Literal["short", "long"] = "short"
    """Char-CNN-RNN: short is HybridCNN (flowers), long is HybridCNNLong (birds, COCO)."""
    width: int = 512
    """Channels of the last convolution and of the recurrence."""
    channels: tuple[int, int] = (384, 512)
    """Channels of the first two convolutions."""
    dim: int = 1024
    """Length of the text embedding."""
    objective: Literal["sje", "contrastive"] = "sje"
    """Joint embedding loss: sje is the paper's two-sided hinge, contrastive a two-sided cross-entropy."""
    epochs: int = 200
    """Epochs of the joint embedding; one is as many steps as there are training classes."""
    steps: int | None = None
    """Steps of the joint embedding, in place of epochs."""
    batch: int = 40
    """Distinct classes a step, one picture and one caption each (fewer where the data has fewer)."""
    learning_rate: float = 7e-4
    """Step size of RMSprop (sje) or Adam (contrastive)."""
    decay: float = 0.98
    """Factor on the learning rate after every epoch."""
    image_width: int = 64
    """Channels of the first feature map of the image encoder that learns from pixels."""

    def __post_init__(self) -> None:
        for name in ("width", "dim", "epochs", "image_width"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{self.flags}{name.replace('_', '-')} must be at least 1, got {getattr(self, name)}")
        if min(self.channels) < 1:
            raise ConfigError(f"{self.flags}channels must be at least 1 each, got {self.channels}")
        if self.steps is not None and self.steps < 1:
            raise ConfigError(f"{self.flags}steps must be at least 1, got {self.steps}")
        if self.batch < 2:
            raise ConfigError(
                f"{self.flags}batch must be at least 2, got {self.batch}: one has nothing to be told from"
            )
        if not 0 < self.learning_rate <= 1:
            raise ConfigError(f"{self.flags}learning-rate must be above 0 and at most 1, got {self.learning_rate}")


@dataclass(frozen=True)
class TextOptions(JointOptions):
    """The text encoder, and how it is trained before the GAN."""

    flags: ClassVar[str] = "--text."
    encoder: str = "joint"
    """Where embeddings come from: joint (learned against an image encoder first, then frozen), end-to-end (learned with
    the GAN, from the discriminator's loss), or a file: a run folder or a .safetensors of a trained encoder, or caption
    embeddings (N, K, T) in a .safetensors or .npy."""


@dataclass(frozen=True)
class TextConfig:
    """Train a joint embedding of captions and pictures. Again resumes it.

    A GAN then takes it: t2i-train --text.encoder RUN.
    """

    preset: str = "paper"
    """Where the other settings start from: blossoms, flowers, fast, paper, paper-coco."""
    data: str | None = None
    """Folder that t2i-prepare wrote. Without it: blossoms, drawn by the program."""
    out: str = "runs/text"
    """Run folder."""
    size: int = 64
    """Side of the pictures that an image side learned from pixels reads."""
    flip: bool = True
    """Mirror half of the pictures."""
    seed: int = 0
    """Everything random follows from it."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Arithmetic of the networks; auto is bfloat16 where the hardware has it."""
    threads: int = 0
    """CPU threads; 0 leaves it to torch."""
    log_every: int = 50
    """Steps between lines of metrics.jsonl."""
    checkpoint_every: int = 1000
    """Steps between checkpoints."""
    force: bool = False
    """Begin anew although the folder holds a text encoder, or one in the making, with other settings."""

    text: JointOptions = field(default_factory=JointOptions)

    def __post_init__(self) -> None:
        for name in ("log_every", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"--{name.replace('_', '-')} must be at least 1, got {getattr(self, name)}")
        if self.size < 16 or self.size & (self.size - 1):
            raise ConfigError(f"--size must be a power of two of at least 16 (32, 64, 128 ...), got {self.size}")
        if self.threads < 0:
            raise ConfigError(f"--threads must be at least 0, got {self.threads}")


@dataclass(frozen=True)
class TrainConfig:
    """Train a text-to-image GAN. The same command again resumes it.

    t2i-train text trains a text encoder alone, t2i-train style a style encoder.

    t2i-train --plot RUN draws the curves of a run to a picture.
    """

    preset: str = "blossoms"
    """Where the other settings start from: blossoms, flowers, fast, paper, paper-coco."""
    data: str | None = None
    """Folder that t2i-prepare wrote. Without it: blossoms, drawn by the program."""
    out: str | None = None
    """Run folder; without it, a folder under runs/ named after the preset."""
    seed: int = 0
    """Everything random follows from it."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Arithmetic of the networks; auto is bfloat16 where the hardware has it."""
    threads: int = 0
    """CPU threads; 0 leaves it to torch."""
    compile: Literal["auto", "on", "off"] = "auto"
    """Let torch.compile make the networks' kernels; auto does so on a GPU."""
    cuda_graph: bool = True
    """On a GPU, record a whole step once and replay it (one process, not with --stages)."""
    kernels: Literal["reference", "triton"] = "reference"
    """What carries out normalisation, activation and crops: PyTorch's definitions, or t2i's own kernels (a GPU)."""
    deterministic: bool = False
    """On a GPU, equal bits from equal seeds, at some speed; a CPU gives them always."""
    loader: Literal["auto", "host", "device"] = "auto"
    """Where batches are put together; device keeps the whole data set on the GPU; auto does so where it fits."""
    sync_batch_norm: bool = False
    """Several processes (torchrun): batch statistics over the rows of all, as one process would have them, instead of each
    process's own."""
    force: bool = False
    """Go on in the run folder although its settings differ."""

    steps: int | None = None
    """Training steps, in place of epochs."""
    epochs: int = 600
    """Passes over the training pictures; an epoch is pictures / batch steps."""
    batch: int = 64
    """Pictures a step, of all processes together."""
    log_every: int = 50
    """Steps between lines of metrics.jsonl."""
    sample_every: int = 1000
    """Steps between picture grids in samples/."""
    checkpoint_every: int = 1000
    """Steps between checkpoints."""
    report_to: str = ""
    """Show the metrics elsewhere too, as they are written: tensorboard, wandb, or both with a comma (extras of these
    names)."""

    size: int = 64
    """Side of the pictures drawn, in pixels: a power of two."""
    generator_width: int = 128
    """Channels of the generator's last feature map (ngf)."""
    discriminator_width: int = 64
    """Channels of the discriminator's first feature map (ndf)."""
    noise_dim: int = 100
    """Length of the noise vector."""
    projection_dim: int = 128
    """Length of the text inside both networks."""
    discriminator_text_norm: bool = True
    """Batch normalisation on the text inside the discriminator."""
    discriminator_late_activation: bool = False
    """LeakyReLU after the discriminator's last but one stride-2 convolution."""

    mismatch_weight: float = 0.5
    """c: weight of the mismatched pair against the fake one (GAN-CLS); 0 is the plain GAN."""
    mismatch: Literal["image", "text"] = "image"
    """Mismatched pair: another class's image with this text (the released program), or this image with another class's
    text (the paper's algorithm; the discriminator's trunk then runs once for both)."""
    stages: bool = False
    """Learn realism alone first (real and fake pairs), then matching too."""
    realism_steps: int | None = None
    """Steps of realism alone, with --stages; without it, until fakes are good enough for --realism-goal."""
    realism_goal: float = 0.5
    """Good enough: the discriminator's mean score of real pairs exceeds that of fake ones by less than this."""
    interpolation_weight: float = 1.0
    """w: weight of interpolated texts in the generator's loss (GAN-INT); 0 leaves them out."""
    interpolation: Literal["fixed", "uniform", "extrapolate"] = "fixed"
    """How b of b t1 + (1 - b) t2 is drawn: fixed, U(0, 1), or U(-0.5, 1.5) (the program's type 2)."""
    interpolation_coefficient: float = 0.5
    """b, where it is fixed."""
    reuse_fakes: bool = False
    """Let the generator learn from the fakes the discriminator has just seen, instead of drawing new ones."""
    alignment_weight: float = 0.0
    """Weight of the joint embedding's own verdict in the generator's loss (not in the paper; needs an image side learned
    from pixels): a fake must be closer to its own text than to the others of the batch."""

    recovery_weight: float = 0.0
    """Weight of reading the noise back from a fake (InfoGAN; not in the paper): keeps the generator from ignoring it."""

    learning_rate: float = 2e-4
    """Adam's step size."""
    beta1: float = 0.5
    """Adam's first moment."""
    beta2: float = 0.999
    """Adam's second moment."""
    halve_every: int = 100
    """The learning rate is halved at the start of every epoch (counted from 1) divisible by this; 0 never."""
    ema: float = 0.999
    """Decay of the moving average of the generator that is kept as the model; 0 keeps the last weights."""

    captions_per_image: int = 4
    """Captions drawn with replacement and averaged, for each picture."""
    crop_low: int = 0
    """Smallest crop offset (the released program draws 1..12 of 0..12)."""
    flip: bool = True
    """Mirror half of the pictures."""

    text: TextOptions = field(default_factory=TextOptions)

    def __post_init__(self) -> None:
        positive = ("batch", "size", "generator_width", "discriminator_width", "noise_dim", "projection_dim", "epochs")
        periods = ("captions_per_image", "log_every", "sample_every", "checkpoint_every")
        for name in (*positive, *periods):
            if getattr(self, name) < 1:
                raise ConfigError(f"--{name.replace('_', '-')} must be at least 1, got {getattr(self, name)}")
        if self.steps is not None and self.steps < 1:
            raise ConfigError(f"--steps must be at least 1, got {self.steps}")
        if self.size < 16 or self.size & (self.size - 1):
            raise ConfigError(f"--size must be a power of two of at least 16 (32, 64, 128 ...), got {self.size}")
        strange = [name for name in self.trackers if name not in ("tensorboard", "wandb")]
        if strange:
            raise ConfigError(f"--report-to takes tensorboard and wandb, with a comma between them; got {strange[0]!r}")
        if not 0 <= self.mismatch_weight <= 1:
            raise ConfigError(f"--mismatch-weight must lie in 0..1, got {self.mismatch_weight}")
        if self.stages and not self.mismatch_weight:
            raise ConfigError("--stages adds mismatched pairs later; with --mismatch-weight 0 there are none to add")
        if self.realism_steps is not None and self.realism_steps < 1:
            raise ConfigError(f"--realism-steps must be at least 1, got {self.realism_steps}")
        if not 0 < self.realism_goal <= 1:
            raise ConfigError(f"--realism-goal must lie in 0..1 (0 excluded), got {self.realism_goal}")
        if not 0 <= self.ema < 1:
            raise ConfigError(f"--ema must lie in 0..1 (1 excluded), got {self.ema}")
        if self.batch < 4 or self.batch % 2:
            raise ConfigError(f"--batch must be an even number of at least 4, got {self.batch}")
        if self.threads < 0:
            raise ConfigError(f"--threads must be at least 0, got {self.threads}")
        if not 0 < self.learning_rate <= 1:
            raise ConfigError(f"--learning-rate must be above 0 and at most 1, got {self.learning_rate}")
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"--{name} must lie in 0..1 (1 excluded), got {getattr(self, name)}")
        if self.alignment_weight and (self.text.encoder == "end-to-end" or self.text.image_features != "joint"):
            raise ConfigError(
                "--alignment-weight needs a joint embedding whose image side was learned from pixels: --text.encoder joint "
                "and --text.image-features joint; or leave it out: --alignment-weight 0"
            )

    @property
    def trackers(self) -> tuple[str, ...]:
        """The names in --report-to."""
        return tuple(dict.fromkeys(name.strip() for name in self.report_to.split(",") if name.strip()))


@dataclass(frozen=True)
class StyleConfig:
    """Train the style encoder of a run. Again resumes it.

    It reads from a picture the noise that would draw it.
    """

    model: str
    """Run folder of t2i-train; its generator and text encoder stay as they are."""
    out: str | None = None
    """Where style.safetensors goes; without it, the run folder itself. Another folder becomes a run of its own."""
    data: str | None = None
    """Packed data set whose captions are drawn; without it, the one the run was trained on."""
    steps: int = 3000
    """Training steps."""
    batch: int = 64
    """Pictures a step, drawn by the generator."""
    width: int = 32
    """Channels of the style encoder's first feature map."""
    learning_rate: float = 1e-3
    """Adam's step size; the second half of the training lowers it to 0."""
    beta1: float = 0.9
    """Adam's first moment."""
    beta2: float = 0.999
    """Adam's second moment."""
    interpolated: float = 0.0
    """Part of the texts that are midpoints of two captions; the paper draws from captions only."""
    blur: float = 0.5
    """Part of the pictures that are blurred before they are read, so that photographs, which are read blurred too, say
    as much as drawn ones (not in the paper; 0 turns it off, and photographs are then read as they are)."""
    noise: float = 0.1
    """Noise added to the blurred pictures, standard deviation (pictures span -1..1)."""
    seed: int = 0
    """Everything random follows from it."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Arithmetic of the networks; auto is bfloat16 where the hardware has it."""
    threads: int = 0
    """CPU threads; 0 leaves it to torch."""
    log_every: int = 50
    """Steps between lines of metrics.jsonl."""
    checkpoint_every: int = 1000
    """Steps between checkpoints."""
    force: bool = False
    """Begin anew although the folder holds a style encoder, or one in the making, with other settings."""

    def __post_init__(self) -> None:
        for name in ("steps", "width", "log_every", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"--{name.replace('_', '-')} must be at least 1, got {getattr(self, name)}")
        if self.batch < 2:
            raise ConfigError(f"--batch must be at least 2, got {self.batch}")
        for name in ("interpolated", "blur"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"--{name} must lie in 0..1, got {getattr(self, name)}")
        if not 0 < self.learning_rate <= 1:
            raise ConfigError(f"--learning-rate must be above 0 and at most 1, got {self.learning_rate}")
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"--{name} must lie in 0..1 (1 excluded), got {getattr(self, name)}")
        if self.noise < 0:
            raise ConfigError(f"--noise must be at least 0, got {self.noise}")


LEARNED = ("joint", "end-to-end")
