"""A trained model as one object: sentences in, pictures out."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from t2i import config as settings
from t2i import runtime, tokenizer
from t2i.checkpoint import load_weights
from t2i.config import TrainConfig
from t2i.encoders import CharCnnRnn
from t2i.errors import CheckpointError, ConfigError
from t2i.networks import Generator
from t2i.pictures import to_pil


@dataclass
class Drawn:
    """What a pipeline returns: `images`, caption by caption, `count` of each; and the same as a tensor."""

    images: list[Image.Image]
    tensor: Tensor  # (captions * count, 3, size, size) float32 in [-1, 1]


class Pipeline:
    """Draw pictures of sentences with a trained generator and its text encoder.

    Args:
        generator: Draws.
        encoder: Embeds captions.
        config: The settings they were trained with.

    Example:
        >>> pipe = Pipeline.from_pretrained("runs/blossoms")                  # doctest: +SKIP
        >>> pipe(["a flower with five red petals and a yellow centre"]).images[0].save("a.png")  # doctest: +SKIP
    """

    def __init__(self, generator: Generator, encoder: CharCnnRnn, config: TrainConfig) -> None:
        self.generator, self.encoder, self.config = generator.eval(), encoder.eval(), config
        self.device = next(generator.parameters()).device

    @classmethod
    def from_pretrained(cls, folder: str | Path, device: str = "cpu") -> "Pipeline":
        """Load a run folder: config.json and model.safetensors.

        Raises:
            CheckpointError: a file is missing, damaged or of another shape.
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise CheckpointError(f"no such run folder: {folder}; t2i-train makes one")
        config = settings.from_json(folder / "config.json")
        if not (folder / "model.safetensors").exists():
            raise CheckpointError(
                f"{folder} has no model.safetensors yet: training has not reached its first checkpoint"
            )
        text = config.text
        generator = Generator(config.size, config.generator_width, config.noise_dim, text.dim, config.projection_dim)
        encoder = CharCnnRnn(text.variant, text.width, text.dim, text.channels)
        load_weights(folder / "model.safetensors", {"generator": generator, "text": encoder})
        on = runtime.pick_device(device)
        return cls(generator.to(on), encoder.to(on), config)

    @torch.no_grad()
    def embed(self, captions: Sequence[str]) -> Tensor:
        """Embed captions: (n, T) float32. ConfigError for an empty caption."""
        for caption in captions:
            if not caption.strip():
                raise ConfigError("a caption is empty: say what to draw, as in 'a flower with five red petals'")
        embedded: Tensor = self.encoder(torch.from_numpy(tokenizer.encode(list(captions))).to(self.device))
        return embedded

    @torch.no_grad()
    def __call__(self, captions: str | Sequence[str], count: int = 1, seed: int = 0) -> Drawn:
        """Draw `count` pictures of each caption; picture i of every caption has the same noise.

        Args:
            captions: One or more sentences.
            count: Pictures of each.
            seed: Chooses the noise.

        Raises:
            ConfigError: an empty caption, or a count below 1.
        """
        if isinstance(captions, str):
            captions = [captions]
        if count < 1:
            raise ConfigError(f"count must be at least 1, got {count}")
        text = self.embed(captions)  # (n, T)
        noise = runtime.noise((count, self.config.noise_dim), self.device, seed, 0, "generate")
        drawn = self.draw(noise.repeat(len(text), 1), text.repeat_interleave(count, dim=0))
        return Drawn(to_pil(drawn), drawn)

    @torch.no_grad()
    def draw(self, noise: Tensor, text: Tensor) -> Tensor:
        """Draw from noise (n, Z) and embeddings (n, T): (n, 3, size, size) in [-1, 1]."""
        pictures: Tensor = self.generator(noise, text)
        return pictures
