"""The style encoder of a model: which noise would generate an image like this one?"""

import math
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from t2i.config.options import TrainConfig
from t2i.errors import CheckpointError
from t2i.files import read_json, shell_path
from t2i.models import build
from t2i.models.encoders import StyleEncoder, blurred
from t2i.pretrained.folder import MAX_SETTINGS_BYTES, model_hash, plain_file
from t2i.weights import checked_network, load_weights

# Blurs (side of the box, in pixels) at which the style of a photograph is read. Where the grid of a blur falls says nothing
# about the style: the mean of five readings separates the styles of blossoms of training classes with an area under the ROC
# curve of 0.88, a single reading with 0.85.
BLURS = (4, 5, 6, 7, 8)


def has_style(folder: Path | None) -> bool:
    """Return whether a model folder holds a style encoder."""
    return folder is not None and (folder / "style.safetensors").exists()


class StyleReader:
    """S(x): images to the noise that would generate images like them.

    Args:
        encoder: The style encoder, in evaluation mode.
        blur: It was trained on blurred images too, so that photographs are read blurred.
    """

    def __init__(self, encoder: StyleEncoder, blur: bool) -> None:
        self.encoder, self.blur = encoder, blur

    @classmethod
    def load(cls, folder: Path | None, config: TrainConfig, device: torch.device) -> "StyleReader":
        """Load the style encoder of a model folder.

        Args:
            folder: Model folder; None where the model was not loaded from one.
            config: The settings of its generator.
            device: Where to put the encoder.

        Raises:
            CheckpointError: there is none, a file is damaged, or the model has changed since it was trained.
        """
        if folder is None or not has_style(folder):
            raise CheckpointError(
                f"{folder or 'this pipeline'} has no style encoder; train it first: "
                f"t2i-train style --model {shell_path(folder) if folder else 'RUN'}"
            )
        path = plain_file(folder, "style.json", MAX_SETTINGS_BYTES)
        weights = plain_file(folder, "style.safetensors")
        try:
            record = read_json(path)
            width, blur = int(record["settings"]["width"]), record["settings"]["blur"] > 0
            model = record["model_sha256"]
        except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            raise CheckpointError(f"{path} cannot be read as the settings of a style encoder: {error}") from error
        if model != model_hash(folder):
            raise CheckpointError(
                f"the model of {folder} has changed since its style encoder was trained; "
                f"train the style encoder again: t2i-train style --model {shell_path(folder)} --force"
            )
        encoder = checked_network(weights, "style", lambda: build.style_encoder(config, width))
        load_weights(weights, {"style": encoder})
        return cls(encoder.eval().requires_grad_(False).to(device), blur)

    @torch.no_grad()
    def read(self, images: Tensor, *, generated: bool = False) -> Tensor:
        """Read the style of images: S(x).

        Args:
            images: (n, 3, size, size) in [-1, 1], on the encoder's device.
            generated: They are unchanged images of this generator and are read as they are. Otherwise they are read as
                photographs: the mean over the blurs of BLURS, where the encoder was trained on blurred images too.

        Returns:
            (n, Z) float32.
        """
        if generated or not self.blur:
            noise: Tensor = self.encoder(images)
            return noise
        return torch.stack([self.encoder(blurred(images, side)) for side in BLURS]).mean(dim=0)

    def noise(self, images: Tensor) -> Tensor:
        """Read noise to generate with: S(x), scaled to the usual length of noise, the square root of Z.

        S regresses to the mean of all noise that fits an image, which is shorter than the noise the generator was trained
        on and would give a pale average. Not in the paper.
        """
        read = self.read(images)
        return F.normalize(read) * math.sqrt(read.shape[1])
