"""Settings of the text encoder, inside those of a GAN or by themselves."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from t2i.config.fields import check_bounds, option
from t2i.config.run import MAX_BATCH, MAX_CAPTIONS, MAX_STEPS, PRESET_HELP, RunOptions
from t2i.config.sizes import check_size
from t2i.errors import ConfigError

MAX_BUCKETS = 1 << 24  # of n-grams; the native module's limit
FEATURE_SIZE = 224  # side in pixels that the frozen networks were trained with
LEARNED = ("joint", "end-to-end")  # values of text.encoder that train an encoder; others are files


@dataclass(frozen=True)
class JointOptions:
    """The text encoder, and how its joint embedding is trained. The defaults are the paper's."""

    flags: ClassVar[str] = "--"  # what its flags begin with

    kind: Literal["auto", "char-cnn-rnn", "char-cnn-rnn-bytes", "ngrams", "minilm"] = option(
        "char-cnn-rnn",
        "Text encoder: auto is char-cnn-rnn where its alphabet covers the captions, else ngrams; "
        "char-cnn-rnn is the paper's, over its alphabet; char-cnn-rnn-bytes the same over UTF-8; ngrams a"
        " bag of hashed words, pairs of words and character n-grams (any language); minilm the frozen all-MiniLM-L6-v2"
        " with a learned linear map (extra: t2i[minilm]).",
        group="text",
    )
    variant: Literal["short", "long"] = option(
        "short", "Char-CNN-RNN: short is HybridCNN (flowers), long is HybridCNNLong (birds, COCO).", group="text"
    )
    dim: int = option(1024, "Dimension of the text embedding.", group="text", at_least=1)
    objective: Literal["sje", "contrastive", "class-contrastive"] = option(
        "sje",
        "Joint embedding loss: sje is the paper's symmetric hinge loss, contrastive the symmetric cross-entropy of "
        "CLIP; class-contrastive is that with half of the target spread over the class, on images sampled at random and"
        " the mean of several captions each.",
        group="text",
    )
    epochs: int = option(
        200,
        "Epochs of the joint embedding; an epoch is as many steps as there are training classes.",
        group="text",
        at_least=1,
        at_most=MAX_STEPS,
    )
    steps: int | None = option(
        None, "Steps of the joint embedding, instead of epochs.", group="text", at_least=1, at_most=MAX_STEPS
    )
    max_epochs: int = option(
        0,
        "Maximum number of epochs of the joint embedding, but at least 300 steps; 0 is no limit. For few images: an image"
        " encoder that has memorised them is a poor scorer of generated ones.",
        group="text",
        at_least=0,
        rare=True,
    )
    batch: int = option(
        40,
        "Distinct classes per step, with one image and one caption each (fewer where the data has fewer); images per step"
        " of class-contrastive.",
        group="text",
        at_least=2,
        at_most=MAX_BATCH,
    )
    learning_rate: float = option(
        7e-4,
        "Learning rate of RMSprop (sje), Adam (contrastive) or AdamW (class-contrastive and --teacher; warm-up and cosine).",
        group="text",
        above=0,
        at_most=1,
    )
    teacher: str = option(
        "",
        "Run folder of a trained text encoder that this one is distilled from; its image side is kept.",
        group="text",
    )
    image_features: Literal["joint", "efficientnet-lite0", "efficientnet-lite0-stages", "googlenet"] = option(
        "joint",
        "Image encoder of the joint embedding: joint trains one on pixels; efficientnet-lite0, "
        "its stages (mean and deviation of each) and googlenet (torchvision; the paper's) are frozen "
        "ImageNet features, computed once and cached beside the data.",
        group="text",
    )
    feature_size: int = option(
        FEATURE_SIZE,
        "Side in pixels that images are resized to before frozen features are computed; 160 takes half of the time.",
        group="text",
        at_least=32,
        at_most=512,
        rare=True,
    )
    width: int = option(
        512, "Channels of the last convolution and hidden units of the recurrence.", group="text", at_least=1, rare=True
    )
    channels: tuple[int, int] = option(
        (384, 512), "Channels of the first two convolutions.", group="text", at_least=1, rare=True
    )
    decay: float = option(
        0.98, "Factor on the learning rate after every epoch.", group="text", above=0, at_most=1, rare=True
    )
    buckets: tuple[int, int] = option(
        (65536, 32768),
        "ngrams: hash buckets of words and pairs of words, and of character n-grams.",
        group="text",
        at_least=0,
        at_most=MAX_BUCKETS,
        rare=True,
    )
    captions: int = option(
        5,
        "class-contrastive: captions of an image, sampled at random, whose embeddings are averaged.",
        group="text",
        at_least=1,
        at_most=MAX_CAPTIONS,
        rare=True,
    )
    dropout: float = option(
        0.3,
        "Fraction of tokens (ngrams), of MiniLM's outputs and, with class-contrastive, of frozen image features dropped.",
        group="text",
        at_least=0,
        below=1,
        rare=True,
    )
    weight_decay: float = option(
        1e-2, "Weight decay of AdamW (class-contrastive and --teacher).", group="text", at_least=0, rare=True
    )
    image_width: int = option(
        64,
        "Channels of the first feature map of an image encoder trained on pixels.",
        group="text",
        at_least=1,
        rare=True,
    )
    image_size: int = option(
        0,
        "Side in pixels that larger images are averaged down to before an image encoder trained on pixels; 0 leaves them.",
        group="text",
        at_least=0,
        rare=True,
    )

    def __post_init__(self) -> None:
        check_bounds(self, self.flags)
        if self.image_size:
            check_size(self.image_size, f"{self.flags}image-size")
        if self.buckets[0] < 1:
            raise ConfigError(f"{self.flags}buckets: words need at least 1 bucket, got {self.buckets}")
        if self.teacher and self.kind == "minilm":
            raise ConfigError(f"{self.flags}teacher: minilm learns no more than a linear map; train it against images")
        if self.kind not in ("auto", "char-cnn-rnn") and self.objective == "sje" and not self.teacher:
            raise ConfigError(
                f"{self.flags}objective sje is the paper's, for char-cnn-rnn; for {self.kind} take class-contrastive"
            )


@dataclass(frozen=True)
class _EncoderOption:  # a base class of its own, so that --help lists it first
    encoder: str = option(
        "joint",
        "Text encoder: joint (trained with an image encoder first, then frozen), end-to-end (trained with the GAN "
        "by the discriminator's loss), or a file: a run folder or .safetensors of a trained encoder, or caption "
        "embeddings (N, K, T) in a .safetensors or .npy.",
        group="text",
    )


@dataclass(frozen=True)
class TextOptions(JointOptions, _EncoderOption):
    """The text encoder, and how it is trained before the GAN."""

    flags: ClassVar[str] = "--text."

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.encoder == "end-to-end" and self.teacher:
            raise ConfigError("--text.teacher teaches before the GAN: leave it out with --text.encoder end-to-end")


@dataclass(frozen=True)
class TextConfig(RunOptions):
    """Train a joint embedding of captions and images. The same command again resumes it.

    A GAN then takes it: t2i-train --text.encoder RUN.
    """

    preset: str = option("paper", PRESET_HELP, group="run", runtime_only=True)
    out: str = option("runs/text", "Run folder.", group="run", runtime_only=True)
    force: bool = option(
        False,
        "Start again although the folder holds a text encoder, or its checkpoints, with other settings.",
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
    flip: bool = option(True, "Random horizontal flips.", group="data")
    size: int = option(64, "Size of the images, in pixels, for an image encoder trained on them.", group="network")
    text: JointOptions = field(default_factory=JointOptions)

    def __post_init__(self) -> None:
        check_bounds(self)
        check_size(self.size, "--size")
