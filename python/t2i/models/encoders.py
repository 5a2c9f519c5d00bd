"""Encoders of images: the image side of the joint embedding, from pixels or from frozen features, and the style encoder."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from t2i.config.sizes import check_size
from t2i.errors import ConfigError
from t2i.images import averaged
from t2i.ops.convolution import convolution
from t2i.text.char_cnn_rnn import TEXT_DIM
from t2i.weights import checked_network, load_weights, read_header


def _run_trunk(trunk: nn.Sequential, images: Tensor) -> Tensor:
    """Run a trunk's layers, its convolutions by `ops.convolution`."""
    x = images
    for layer in trunk:
        if isinstance(layer, nn.Conv2d):
            x = convolution(x, layer.weight, layer.bias, layer.stride[0], int(layer.padding[0]))
        else:
            x = layer(x)
    return x


class ImageEncoder(nn.Module):
    """Encode images to the text's space: the other half of the joint embedding, learned from pixels.

    Not in the paper, which takes frozen GoogLeNet features: those cannot be had offline, and images outside
    ImageNet's world (drawings, icons) need their own.

    Args:
        size: Side in pixels that it reads, a power of two of at least 16; images of a multiple are averaged down to it.
        width: Channels of the first feature map.
        text_dim: T, length of the embedding.

    Example:
        >>> ImageEncoder(size=32, width=8)(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 1024])
    """

    def __init__(self, size: int = 64, width: int = 64, text_dim: int = TEXT_DIM) -> None:
        super().__init__()
        self.size, self.text_dim = size, text_dim
        layers: list[nn.Module] = []
        before, side, level = 3, size, 0
        while side > 4:
            after = width * min(2**level, 8)
            layers += [nn.Conv2d(before, after, 4, 2, 1, bias=False), nn.BatchNorm2d(after), nn.LeakyReLU(0.1)]
            before, side, level = after, side // 2, level + 1
        self.trunk = nn.Sequential(*layers)
        self.head = nn.Linear(before * 16, text_dim)

    @classmethod
    def load(cls, path: Path, text_dim: int, size: int) -> "ImageEncoder":
        """Load the image side of a joint embedding; its file says how many pixels it reads and how wide it is.

        Args:
            path: `text.safetensors` of a run.
            text_dim: T.
            size: Side of the images it is given, in pixels: a multiple of what it reads.

        Raises:
            ConfigError: the file holds no image side that reads pixels, or one that reads larger images.
            CheckpointError: the file is damaged or of another shape.
        """
        shapes = {name: shape for name, (_, shape) in read_header(path).tensors.items()}
        maps = [shape[0] for name, shape in shapes.items() if name.startswith("image.trunk.") and len(shape) == 4]
        if not maps or "image.head.weight" not in shapes:
            raise ConfigError(
                f"{path} has no image side that reads pixels; t2i-train text --image-features joint makes one"
            )
        side = 4 * 2 ** len(maps)
        if size % side:
            raise ConfigError(f"{path} reads images of {side} px; the model generates {size} px")
        encoder = checked_network(path, "image", lambda: cls(side, min(maps), text_dim))
        load_weights(path, {"image": encoder})
        return encoder.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Embed images (B, 3, S, S) in [-1, 1], S a multiple of `size`: (B, T)."""
        x = _run_trunk(self.trunk, averaged(images, self.size))
        embeddings: Tensor = self.head(x.flatten(1))
        return embeddings.float()


class FeatureEncoder(nn.Module):
    """Bring frozen image features to the text's space.

    As they are, where both are equally long (the paper's GoogLeNet features and embeddings, 1024); else by a linear map.

    Example:
        >>> FeatureEncoder(1280, 1024)(torch.zeros(2, 1280)).shape
        torch.Size([2, 1024])
    """

    def __init__(self, features: int, text_dim: int = TEXT_DIM) -> None:
        super().__init__()
        self.head = nn.Identity() if features == text_dim else nn.Linear(features, text_dim)

    def forward(self, features: Tensor) -> Tensor:
        """Embed features (B, D): (B, T) float32."""
        embeddings: Tensor = self.head(features)
        return embeddings.float()


class WhitenedEncoder(nn.Module):
    """Bring frozen image features to the text's space by way of their principal components, each of variance 1.

    Args:
        features: D, numbers of an image.
        text_dim: T, length of the embedding.
        components: Principal components that are kept.
        dropout: Part of the components that are left out while it learns.

    Example:
        >>> WhitenedEncoder(1632, 128)(torch.zeros(2, 1632)).shape
        torch.Size([2, 128])
    """

    def __init__(self, features: int, text_dim: int = TEXT_DIM, components: int = 200, dropout: float = 0.3) -> None:
        super().__init__()
        self.dropout = dropout
        self.mean: Tensor
        self.components: Tensor
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("components", torch.zeros(features, min(components, features)))
        self.head = nn.Linear(min(components, features), text_dim)

    @torch.no_grad()
    def fit(self, features: Tensor) -> None:
        """Take mean, deviations and components over from training images (N, D), before the first step."""
        rows = features.double()
        mean, deviation = rows.mean(dim=0), rows.std(dim=0) + 1e-6
        scaled = (rows - mean) / deviation
        values, vectors = torch.linalg.eigh(scaled.T @ scaled / len(scaled))  # ascending
        count = self.components.shape[1]
        kept = vectors[:, -count:].flip(1) / values[-count:].flip(0).clamp_min(1e-6).sqrt()
        self.mean.copy_(mean)
        self.components.copy_(kept / deviation[:, None])

    def forward(self, features: Tensor) -> Tensor:
        """Embed features (B, D): (B, T) float32."""
        with torch.autocast(features.device.type, enabled=False):  # small components drown in bfloat16
            white = (features.float() - self.mean) @ self.components  # (B, 200)
        embeddings: Tensor = self.head(F.dropout(white, self.dropout, self.training))
        return embeddings.float()


def blurred(images: Tensor, side: int = 8) -> Tensor:
    """Reduce images (B, 3, S, S) to `side` pixels a side by averaging, and spread them to their size again, smoothly.

    What is left, the layout of colours, photographs and generated images share; edges and grain they do not.
    """
    small = F.adaptive_avg_pool2d(images, side)
    return F.interpolate(small, images.shape[2:], mode="bilinear", align_corners=False)


class StyleEncoder(nn.Module):
    """Read from an image the noise that would generate it: S, the inverse of the generator.

    The trunk is the discriminator's without the text and the residual block: stride-2 convolutions with batch
    normalisation, down to 4 x 4. One linear map follows. The paper gives no architecture.

    Args:
        size: Side of the image in pixels, a power of two of at least 16.
        width: Channels of the first feature map.
        noise_dim: Z, length of the noise vector.

    Raises:
        ConfigError: `size` is not a power of two.

    Source: Reed et al. 2016, section 4.4.

    Example:
        >>> StyleEncoder(size=32, width=8)(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 100])
    """

    def __init__(self, size: int = 64, width: int = 64, noise_dim: int = 100) -> None:
        super().__init__()
        check_size(size, "image size")
        self.size, self.width, self.noise_dim = size, width, noise_dim
        layers: list[nn.Module] = []
        before, side, level = 3, size, 0
        while side > 4:
            after = width * min(2**level, 8)
            layers += [nn.Conv2d(before, after, 4, 2, 1, bias=False)]
            layers += [nn.BatchNorm2d(after)] if level else []  # none on the first, as in the discriminator
            layers += [nn.LeakyReLU(0.2)]
            before, side, level = after, side // 2, level + 1
        self.trunk = nn.Sequential(*layers)
        self.head = nn.Linear(before * 16, noise_dim)

    def forward(self, images: Tensor) -> Tensor:
        """Read noise (B, Z), float32, from images (B, 3, size, size) in [-1, 1]."""
        x = _run_trunk(self.trunk, images)
        noise: Tensor = self.head(x.flatten(1))
        return noise.float()
