"""Every network from settings, with random weights."""

from t2i.config.options import JointOptions, TrainConfig
from t2i.models.efficientnet import DIMENSIONS
from t2i.models.encoders import FeatureEncoder, ImageEncoder
from t2i.models.modern import ModernGenerator
from t2i.models.paper import Discriminator, Generator


def generator(config: TrainConfig) -> Generator:
    """Make the generator that the settings describe, with random weights."""
    return Generator(config.size, config.generator_width, config.noise_dim, config.text.dim, config.projection_dim)


def modern_generator(config: TrainConfig) -> ModernGenerator:
    """Make the modern generator that the settings describe, with random weights."""
    return ModernGenerator(
        config.size, config.generator_width, config.noise_dim, config.text.dim, config.projection_dim
    )


def any_generator(config: TrainConfig) -> Generator | ModernGenerator:
    """Make the generator of the network that the settings name, with random weights."""
    return modern_generator(config) if config.network == "modern" else generator(config)


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


def image_encoder(options: JointOptions, size: int) -> ImageEncoder | FeatureEncoder:
    """Make the image side that the options describe, with random weights."""
    if options.image_features == "joint":
        return ImageEncoder(size, options.image_width, options.dim)
    return FeatureEncoder(DIMENSIONS[options.image_features], options.dim)
