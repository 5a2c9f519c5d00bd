"""Every network from settings, with random weights."""

from t2i.config.options import JointOptions, TrainConfig
from t2i.models.efficientnet import DIMENSIONS
from t2i.models.encoders import FeatureEncoder, ImageEncoder, WhitenedEncoder
from t2i.models.paper import Discriminator, Generator


def generator(config: TrainConfig) -> Generator:
    """Make the generator that the settings describe, with random weights."""
    return Generator(config.size, config.generator_width, config.noise_dim, config.text.dim, config.projection_dim)


def discriminator(config: TrainConfig) -> Discriminator:
    """Make the discriminator that the settings describe, with random weights."""
    return Discriminator(
        config.size,
        config.discriminator_width,
        config.text.dim,
        config.projection_dim,
        config.discriminator_text_norm,
        config.discriminator_late_activation,
    )


def image_encoder(options: JointOptions, size: int) -> ImageEncoder | FeatureEncoder | WhitenedEncoder:
    """Make the image side that the options describe, with random weights."""
    if options.image_features == "joint":
        return ImageEncoder(size, options.image_width, options.dim)
    if options.objective == "class-contrastive":
        return WhitenedEncoder(DIMENSIONS[options.image_features], options.dim, dropout=options.dropout)
    return FeatureEncoder(DIMENSIONS[options.image_features], options.dim)
