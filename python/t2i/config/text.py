"""Settings of the text encoder, inside those of a GAN or by themselves."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from t2i.config.fields import check_bounds, option

LEARNED = ("joint", "end-to-end")  # values of text.encoder that train an encoder; others are files


@dataclass(frozen=True)
class JointOptions:
    """The text encoder, and how its joint embedding is trained. The defaults are the paper's."""

    flags: ClassVar[str] = "--"  # what its flags begin with

    variant: Literal["short", "long"] = option(
        "short", "Char-CNN-RNN: short is HybridCNN (flowers), long is HybridCNNLong (birds, COCO).", group="text"
    )
    dim: int = option(1024, "Dimension of the text embedding.", group="text", at_least=1)
    objective: Literal["sje", "contrastive"] = option(
        "sje",
        "Joint embedding loss: sje is the paper's symmetric hinge loss, contrastive the symmetric cross-entropy of "
        "CLIP.",
        group="text",
    )
    epochs: int = option(
        200,
        "Epochs of the joint embedding; an epoch is as many steps as there are training classes.",
        group="text",
        at_least=1,
    )
    steps: int | None = option(None, "Steps of the joint embedding, instead of epochs.", group="text", at_least=1)
    batch: int = option(
        40,
        "Distinct classes per step, with one image and one caption each (fewer where the data has fewer).",
        group="text",
        at_least=2,
    )
    learning_rate: float = option(
        7e-4, "Learning rate of RMSprop (sje) or Adam (contrastive).", group="text", above=0, at_most=1
    )
    image_features: Literal["joint", "efficientnet-lite0", "googlenet"] = option(
        "joint",
        "Image encoder of the joint embedding: joint trains one on pixels; efficientnet-lite0 (extra: "
        "t2i[features]) and googlenet (torchvision; the paper's) are frozen ImageNet features, computed once and "
        "cached beside the data.",
        group="text",
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
    image_width: int = option(
        64,
        "Channels of the first feature map of an image encoder trained on pixels.",
        group="text",
        at_least=1,
        rare=True,
    )

    def __post_init__(self) -> None:
        check_bounds(self, self.flags)


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
