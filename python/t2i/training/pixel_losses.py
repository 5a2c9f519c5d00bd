"""The paper's discriminator beside a modern step: what it learns, and what the generator learns from it.

It scores reduced images, and the noise may be read back from its features. A step has it only where one of the two has a
weight in the generator's loss.

Source: Reed et al. 2016 for the three kinds of pair; InfoGAN (Chen et al. 2016) for the noise that is read back.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from t2i.config.options import TrainConfig
from t2i.models.build import discriminator
from t2i.training import losses
from t2i.training.augment import DIFFAUGMENT, NONE, augment, reduce_to
from t2i.training.graph import Inputs
from t2i.training.optim import adam

RATE, BETAS = 0.6, (0.5, 0.999)  # of the discriminator: part of the learning rate, and Adam's moments


class PixelLosses:
    """The pixel discriminator, its optimizer, and the head that reads the noise back.

    Args:
        config: Weights of the losses, widths, the learning rate.
        device: Where the networks live.
    """

    def __init__(self, config: TrainConfig, device: torch.device) -> None:
        self.config = config
        self.discriminator = discriminator(config).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.recovery: nn.Linear | None = None
        if config.recovery_weight:
            self.recovery = nn.Linear(self.discriminator.to_logit.weight[0].numel(), config.noise_dim).to(device)
        self.optimizer = adam(self.discriminator.parameters(), RATE * config.learning_rate, *BETAS)
        self.strength = NONE.lerp(DIFFAUGMENT, config.augmentation)

    @staticmethod
    def wanted(config: TrainConfig) -> bool:
        """Return whether the generator's loss has a part of it."""
        return bool(config.pixel_weight or config.recovery_weight)

    def reduced(self, images: Tensor, draws: Tensor) -> Tensor:
        """Reduce images to what the discriminator reads, augmented where the settings say so."""
        small = reduce_to(images, self.discriminator.size)
        return small if self.strength == NONE else augment(small, self.strength, draws)

    def score(
        self, inputs: Inputs, matching: Tensor, mismatched: Tensor, fakes: Tensor, fake_text: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Score three kinds of pair, each with its own batch statistics.

        Args:
            inputs: Real images, and the draws of the augmentation.
            matching: (B, T) texts of the real images.
            mismatched: (B, T) texts of other classes.
            fakes: (B, 3, S, S) generated images, detached.
            fake_text: (B, T) their texts.

        Returns:
            The discriminator's loss, and the mean score (0..1) of each kind.
        """
        net, weight = self.discriminator, self.config.mismatch_weight
        real = net.features(self.reduced(inputs["images"], inputs["real_augmentation"]))
        fake = net.features(self.reduced(fakes, inputs["fake_augmentation"]))
        logits = {
            "matching": net.score(real, matching),
            "mismatched": net.score(real, mismatched),
            "fake": net.score(fake, fake_text),
        }
        loss = losses.discriminator_loss(logits["matching"], logits["mismatched"], logits["fake"], weight)
        return loss, {kind: torch.sigmoid(scores.detach()).mean() for kind, scores in logits.items()}

    def of_generator(self, given: Inputs, fakes: Tensor, fake_text: Tensor) -> dict[str, tuple[float, Tensor]]:
        """Weigh and name the parts of the generator's loss.

        Args:
            given: The noise, and the draws of the augmentation.
            fakes: (B, 3, S, S) generated images.
            fake_text: (B, T) their texts.
        """
        features = self.discriminator.features(self.reduced(fakes, given["fake_augmentation"]))
        score = self.discriminator.score(features, fake_text)
        parts = {"g_loss": (self.config.pixel_weight, losses.generator_loss(score))}
        if self.recovery is not None:
            read = self.recovery(features.flatten(1)).float()
            parts["recovery"] = (self.config.recovery_weight, F.mse_loss(read, given["noise"]))
        return parts
