"""Text encoders: captions to vectors; and the image encoder that teaches them.

`CharCnnRnn` is the exact network of *Learning Deep Representations of Fine-Grained Visual Descriptions* (Reed et al., CVPR
2016), in the two forms the authors released. Its recurrent layers are written out because `nn.RNN` and `nn.GRU` compute
something else: the first step here has no hidden term, and the gated one applies its reset gate before the hidden
linear map. Released weights fit these modules and cannot fit the library's.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from t2i.config.sizes import check_size
from t2i.ops.convolution import convolution
from t2i.text.char_cnn_rnn import TEXT_DIM


class ImageEncoder(nn.Module):
    """Encode pictures to the text's space: the other half of the joint embedding, learned from pixels.

    Not in the paper, which takes frozen GoogLeNet features: those cannot be had offline, and pictures outside
    ImageNet's world (drawings, icons) need their own.

    Args:
        size: Side of the picture in pixels, a power of two of at least 16.
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

    def forward(self, images: Tensor) -> Tensor:
        """Embed pictures (B, 3, size, size) in [-1, 1]: (B, T)."""
        x = images
        for layer in self.trunk:
            if isinstance(layer, nn.Conv2d):
                x = convolution(x, layer.weight, layer.bias, layer.stride[0], int(layer.padding[0]))
            else:
                x = layer(x)
        embeddings: Tensor = self.head(x.flatten(1))
        return embeddings.float()


class FeatureEncoder(nn.Module):
    """Bring frozen picture features to the text's space.

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


def blurred(images: Tensor, side: int = 8) -> Tensor:
    """Reduce pictures (B, 3, S, S) to `side` pixels a side by averaging, and spread them to their size again, smoothly.

    What is left, where the colours lie, a photograph and a drawn picture share; edges and grain they do not.
    """
    small = F.adaptive_avg_pool2d(images, side)
    return F.interpolate(small, images.shape[2:], mode="bilinear", align_corners=False)


class StyleEncoder(nn.Module):
    """Read from a picture the noise that would draw it: S, the generator turned round.

    The trunk is the discriminator's without the text and the residual block: stride-2 convolutions with batch
    normalisation, down to 4 x 4. One linear map follows. The paper gives no architecture.

    Args:
        size: Side of the picture in pixels, a power of two of at least 16.
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
        """Read noise (B, Z), float32, from pictures (B, 3, size, size) in [-1, 1]."""
        x = images
        for layer in self.trunk:
            if isinstance(layer, nn.Conv2d):
                x = convolution(x, layer.weight, layer.bias, layer.stride[0], int(layer.padding[0]))
            else:
                x = layer(x)
        noise: Tensor = self.head(x.flatten(1))
        return noise.float()
