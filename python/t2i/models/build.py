"""Every network of images from settings, with random weights; the text encoders are in `text/build.py`.

The one place that names the networks' classes: training, pipeline, export, evaluation and benches all ask here. Another
architecture is another row of `NETWORKS`.
"""

from collections.abc import Callable
from typing import NamedTuple

from t2i.config.options import JointOptions, TrainConfig
from t2i.models.efficientnet import DIMENSIONS
from t2i.models.encoders import FeatureEncoder, ImageEncoder, StyleEncoder, WhitenedEncoder
from t2i.models.modern import ModernGenerator
from t2i.models.paper import Discriminator, Generator

AnyGenerator = Generator | ModernGenerator


def _paper_generator(config: TrainConfig) -> Generator:
    return Generator(config.size, config.generator_width, config.noise_dim, config.text.dim, config.projection_dim)


def _paper_discriminator(config: TrainConfig) -> Discriminator:
    return Discriminator(
        config.size,
        config.discriminator_width,
        config.text.dim,
        config.projection_dim,
        config.discriminator_text_norm,
        config.discriminator_late_activation,
    )


def _modern_generator(config: TrainConfig) -> ModernGenerator:
    return ModernGenerator(
        config.size, config.generator_width, config.noise_dim, config.text.dim, config.projection_dim
    )


def _pixel_discriminator(config: TrainConfig) -> Discriminator:
    """The paper's, on reduced images; the one on frozen features is made where it is trained, and only there."""
    size = min(config.size, config.pixel_size)
    return Discriminator(size, config.discriminator_width, config.text.dim, config.projection_dim)


class Networks(NamedTuple):
    """How the two networks of an architecture are made."""

    generator: Callable[[TrainConfig], AnyGenerator]
    discriminator: Callable[[TrainConfig], Discriminator]


NETWORKS = {
    "paper": Networks(_paper_generator, _paper_discriminator),
    "modern": Networks(_modern_generator, _pixel_discriminator),
}


def generator(config: TrainConfig) -> AnyGenerator:
    """Make the generator that the settings describe."""
    return NETWORKS[config.network].generator(config)


def discriminator(config: TrainConfig) -> Discriminator:
    """Make the discriminator that the settings describe."""
    return NETWORKS[config.network].discriminator(config)


def image_encoder(options: JointOptions, size: int) -> ImageEncoder | FeatureEncoder | WhitenedEncoder:
    """Make the image side of the joint embedding that the options describe.

    Args:
        options: Whether it learns from pixels or maps frozen features, and how wide it is.
        size: Side of the images it is given, in pixels.
    """
    if options.image_features == "joint":
        return ImageEncoder(min(size, options.image_size or size), options.image_width, options.dim)
    if options.objective == "class-contrastive":
        return WhitenedEncoder(DIMENSIONS[options.image_features], options.dim, dropout=options.dropout)
    return FeatureEncoder(DIMENSIONS[options.image_features], options.dim)


def style_encoder(config: TrainConfig, width: int) -> StyleEncoder:
    """Make the style encoder of a generator.

    Args:
        config: The generator's settings.
        width: Channels of the first feature map.
    """
    return StyleEncoder(config.size, width, config.noise_dim)
