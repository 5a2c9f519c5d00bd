"""The presets, as a table, and a caption to try first."""

from t2i.config.options import TextOptions, TrainConfig
from t2i.errors import ConfigError

EXAMPLE = "a flower with five red petals and a yellow centre"

PRESETS: dict[str, TrainConfig] = {
    # The released program for birds and flowers, number by number; docs/paper.md lists what differs in spite of that.
    "paper": TrainConfig(preset="paper", crop_low=1, text=TextOptions()),
    "paper-coco": TrainConfig(
        preset="paper-coco",
        generator_width=196,
        discriminator_width=196,
        discriminator_text_norm=False,
        discriminator_late_activation=True,
        epochs=200,
        halve_every=40,
        captions_per_image=3,
        crop_low=1,
        text=TextOptions(variant="long"),
    ),
    # The paper's networks without the work that need not be done: the discriminator's trunk runs once for an image with its
    # own and with another's text, and the generator learns from the fakes that the discriminator has just seen. GAN-CLS.
    "fast": TrainConfig(
        preset="fast",
        crop_low=1,
        mismatch="text",
        reuse_fakes=True,
        interpolation_weight=0.0,
        text=TextOptions(
            kind="auto",
            buckets=(8192, 4096),
            objective="contrastive",
            steps=3000,
            batch=64,
            learning_rate=1e-3,
            decay=1.0,
        ),
    ),
    # Real photographs on a CPU in under an hour: a narrower net, the same method.
    "flowers": TrainConfig(
        preset="flowers",
        generator_width=32,
        discriminator_width=32,
        steps=20_000,
        batch=32,
        noise_dim=32,
        mismatch="text",
        reuse_fakes=True,
        interpolation_weight=0.0,
        alignment_weight=0.5,
        recovery_weight=3.0,
        captions_per_image=2,
        learning_rate=3e-4,
        halve_every=0,
        text=TextOptions(
            kind="auto",
            buckets=(8192, 4096),
            width=256,
            channels=(192, 256),
            dim=256,
            objective="contrastive",
            steps=2000,
            batch=64,
            learning_rate=1e-3,
            decay=1.0,
            image_width=32,
        ),
    ),
    # A first look on a laptop: a few minutes on two cores from nothing to images that match the caption.
    "blossoms": TrainConfig(
        preset="blossoms",
        size=32,
        generator_width=32,
        discriminator_width=32,
        steps=3300,
        batch=32,
        noise_dim=16,
        mismatch="text",
        reuse_fakes=True,
        interpolation_weight=0.0,
        alignment_weight=0.7,
        recovery_weight=1.0,
        captions_per_image=1,
        learning_rate=3e-4,
        halve_every=0,
        sample_every=500,
        text=TextOptions(
            kind="auto",
            buckets=(8192, 4096),
            width=128,
            channels=(96, 128),
            dim=256,
            objective="contrastive",
            steps=650,
            batch=128,
            learning_rate=2e-3,
            decay=1.0,
            image_width=32,
        ),
    ),
    # Drawings and icons, and a first look: the modern networks without frozen features, which score drawings poorly; the
    # joint embedding, learned from these pixels, says what the sentence asks for.
    "drawings": TrainConfig(
        preset="drawings",
        network="modern",
        size=32,
        generator_width=24,
        discriminator_width=32,
        steps=4000,
        batch=32,
        noise_dim=16,
        mismatch="text",
        interpolation_weight=0.0,
        alignment_weight=1.5,
        recovery_weight=0.5,
        diversity_weight=1.0,
        hard_mismatch=0.5,
        captions_per_image=1,
        learning_rate=5e-4,
        beta1=0.0,
        beta2=0.99,
        ema=0.998,
        halve_every=0,
        sample_every=500,
        text=TextOptions(
            kind="ngrams",
            buckets=(16384, 8192),
            dim=128,
            objective="class-contrastive",
            steps=1800,
            max_epochs=50,
            batch=128,
            captions=3,
            dropout=0.2,
            learning_rate=3e-3,
            image_width=32,
            image_size=32,
        ),
    ),
    # Photographs: a discriminator on frozen ImageNet features, averages of pixels, text in every block.
    "modern": TrainConfig(
        preset="modern",
        network="modern",
        generator_width=24,
        discriminator_width=32,
        steps=8_000,
        batch=16,
        noise_dim=32,
        mismatch="text",
        interpolation_weight=0.0,
        feature_weight=1.0,
        feature_size=128,
        pixel_weight=0.0,  # averages of pixels and the directions of features say what it said (docs/method.md)
        diversity_weight=1.0,
        feature_diversity_weight=0.4,
        moment_weight=0.13,
        text_mixing=1.0,
        captions_per_image=2,
        learning_rate=5e-4,
        beta1=0.0,
        beta2=0.99,
        ema=0.998,
        halve_every=0,
        text=TextOptions(
            kind="ngrams",
            image_features="efficientnet-lite0-stages",
            feature_size=160,
            dim=128,
            objective="class-contrastive",
            steps=800,
            batch=256,
            learning_rate=5e-3,
        ),
    ),
}


def preset(name: str) -> TrainConfig:
    """Look a preset up by name; ConfigError names those there are."""
    if name not in PRESETS:
        raise ConfigError(f"no preset {name!r}; there are: {', '.join(PRESETS)}")
    return PRESETS[name]
