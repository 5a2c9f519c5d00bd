"""Generator and discriminator, as the released program builds them.

* Channel counts are multiples of one width; a size other than 64 adds or drops one doubling block.
* The released program zeroes every convolution bias at every update, so the networks have none here unless
  `convolution_bias=True` asks for them (to load released weights).
* `Discriminator` is two functions, `features` (the trunk: the image alone) and `score` (where the text joins), because
  a real image with its own and with another's text needs the trunk only once.

Source: Reed et al. 2016, section 4.1, and the released Lua program, which adds the residual blocks.
"""

import itertools
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from t2i.config.sizes import check_size
from t2i.ops.convolution import convolution, transposed_convolution
from t2i.ops.norm_act import activate, norm_act
from t2i.ops.text_join import text_join

LEAK = 0.2  # slope of every LeakyReLU


def _doublings(size: int) -> int:
    """How many times 4 x 4 is doubled to reach `size`."""
    check_size(size, "image size")
    return int(math.log2(size)) - 2


def _multipliers(size: int) -> list[int]:
    """Channel multipliers from the image inwards: 64 -> [1, 2, 4, 8]; capped at 8 for larger images."""
    return [min(2**level, 8) for level in range(_doublings(size))]


def initialise(module: nn.Module) -> None:
    """Sample the released program's initial weights, in place, from torch's generator.

    Convolutions N(0, 0.02) with bias 0; batch normalisation weight N(1, 0.02), bias 0; Linear U(+-1/sqrt(fan_in)).
    """
    for layer in module.modules():
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.normal_(layer.weight, 0.0, 0.02)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d)):
            nn.init.normal_(layer.weight, 1.0, 0.02)
            nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.Linear):
            bound = 1.0 / math.sqrt(layer.in_features)
            nn.init.uniform_(layer.weight, -bound, bound)
            nn.init.uniform_(layer.bias, -bound, bound)


def _apply(layer: nn.Module, x: Tensor) -> Tensor:
    """Run a layer through the faster of two convolutions (see t2i.ops.convolution)."""
    assert isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d))
    run = transposed_convolution if isinstance(layer, nn.ConvTranspose2d) else convolution
    return run(x, layer.weight, layer.bias, layer.stride[0], int(layer.padding[0]))


class Residual(nn.Module):
    """Bottleneck added to its input: 1x1, 3x3, 3x3, each with batch normalisation; activation between and after."""

    def __init__(self, channels: int, inner: int, slope: float, bias: bool) -> None:
        super().__init__()
        self.slope = slope
        self.reduce = nn.Conv2d(channels, inner, 1, bias=bias)
        self.reduce_norm = nn.BatchNorm2d(inner)
        self.middle = nn.Conv2d(inner, inner, 3, padding=1, bias=bias)
        self.middle_norm = nn.BatchNorm2d(inner)
        self.expand = nn.Conv2d(inner, channels, 3, padding=1, bias=bias)
        self.expand_norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor, groups: int = 1) -> Tensor:
        """Add the bottleneck's answer to x (B, channels, H, W)."""
        y = norm_act(_apply(self.reduce, x), self.reduce_norm, self.slope, None, groups)
        y = norm_act(_apply(self.middle, y), self.middle_norm, self.slope, None, groups)
        return norm_act(_apply(self.expand, y), self.expand_norm, self.slope, x, groups)


class Generator(nn.Module):
    """Generate images from noise and a text embedding.

    Args:
        size: Side of the image in pixels, a power of two of at least 16.
        width: Channels of the last feature map (`ngf`); 128 in the released program, 196 for COCO.
        noise_dim: Z, length of the noise vector.
        text_dim: T, length of the text embedding.
        projection_dim: P, length of the compressed text.
        convolution_bias: Give convolutions a bias (the released program keeps them at zero).

    Raises:
        ConfigError: `size` is not a power of two.

    Source: Reed et al. 2016, section 4.1; 18,905,472 parameters without and 18,909,699 with convolution biases.

    Example:
        >>> Generator(size=32, width=8)(torch.randn(2, 100), torch.randn(2, 1024)).shape
        torch.Size([2, 3, 32, 32])
    """

    def __init__(
        self,
        size: int = 64,
        width: int = 128,
        noise_dim: int = 100,
        text_dim: int = 1024,
        projection_dim: int = 128,
        convolution_bias: bool = False,
    ) -> None:
        super().__init__()
        self.size, self.noise_dim, self.text_dim = size, noise_dim, text_dim
        bias = convolution_bias
        channels = [width * m for m in reversed(_multipliers(size))]  # 64: [8, 4, 2, 1] x width
        self.text = nn.Linear(text_dim, projection_dim)
        self.project = nn.ConvTranspose2d(noise_dim + projection_dim, channels[0], 4, 1, 0, bias=bias)
        self.project_norm = nn.BatchNorm2d(channels[0])
        self.project_residual = Residual(channels[0], channels[0] // 4, 0.0, bias)
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(before, after, 4, 2, 1, bias=bias) for before, after in itertools.pairwise(channels)
        )
        self.up_norm = nn.ModuleList(nn.BatchNorm2d(after) for after in channels[1:])
        self.up_residual = Residual(channels[1], channels[1] // 4, 0.0, bias)
        self.to_rgb = nn.ConvTranspose2d(channels[-1], 3, 4, 2, 1, bias=bias)
        initialise(self)

    def forward(self, noise: Tensor, text: Tensor) -> Tensor:
        """Generate one image a row.

        Args:
            noise: (B, Z), normally N(0, I).
            text: (B, T) text embeddings.

        Returns:
            (B, 3, size, size) in [-1, 1].
        """
        text = F.leaky_relu(self.text(text), LEAK)  # (B, P)
        x = torch.cat([noise.to(text.dtype), text], dim=1)  # (B, Z + P), noise first
        x = norm_act(self._project(x), self.project_norm)  # (B, 8w, 4, 4); no activation before the residual
        x = self.project_residual(x)
        for level, (up, norm) in enumerate(zip(self.up, self.up_norm, strict=True)):
            assert isinstance(norm, _BatchNorm)
            x = norm_act(_apply(up, x), norm, 0.0 if level else 1.0)
            x = x if level else self.up_residual(x)
        return torch.tanh(self.to_rgb(x))

    def _project(self, x: Tensor) -> Tensor:
        """Apply the transposed convolution to a 1x1 map (B, Z + P) as what it is there, one matrix product.

        Its columns are taken in the order (4, 4, C), in which channels-last weights lie, so that the map is channels-last too:
        neither is copied.
        """
        channels = self.project.weight.shape[1]
        y = (x @ self.project.weight.permute(0, 2, 3, 1).flatten(1)).view(-1, 4, 4, channels)
        if self.project.bias is not None:
            y = y + self.project.bias
        return y.permute(0, 3, 1, 2)


class Discriminator(nn.Module):
    """Score how real an image is and how well it matches a text, as one number.

    Args:
        size: Side of the image in pixels, a power of two of at least 16.
        width: Channels of the first feature map (`ndf`); 64 in the released program, 196 for COCO.
        text_dim: T, length of the text embedding.
        projection_dim: P, length of the compressed text.
        text_norm: Batch normalisation on the compressed text; off in the COCO program.
        late_activation: LeakyReLU after the last but one stride-2 convolution; on in the COCO program.
        convolution_bias: Give convolutions a bias (the released program keeps them at zero).

    Raises:
        ConfigError: `size` is not a power of two.

    Source: Reed et al. 2016, section 4.1; 4,030,080 parameters without and 4,032,321 with convolution biases.

    Example:
        >>> Discriminator(size=32, width=8)(torch.zeros(2, 3, 32, 32), torch.randn(2, 1024)).shape
        torch.Size([2])
    """

    def __init__(
        self,
        size: int = 64,
        width: int = 64,
        text_dim: int = 1024,
        projection_dim: int = 128,
        text_norm: bool = True,
        late_activation: bool = False,
        convolution_bias: bool = False,
    ) -> None:
        super().__init__()
        self.size, self.text_dim = size, text_dim
        bias = convolution_bias
        channels = [width * m for m in _multipliers(size)]  # 64: [1, 2, 4, 8] x width
        top = channels[-1]
        self.down = nn.ModuleList(
            nn.Conv2d(before, after, 4, 2, 1, bias=bias)
            for before, after in zip([3, *channels], channels, strict=False)
        )
        self.down_norm = nn.ModuleList(nn.BatchNorm2d(after) for after in channels[1:])
        last = len(channels) - 1
        # The program leaves the activation out before the last convolution, and the residual block brings its own.
        self.activated = [level < last and (level != last - 1 or late_activation) for level in range(last + 1)]
        self.activated[0] = True
        self.residual = Residual(top, top // 4, LEAK, bias)
        self.text = nn.Linear(text_dim, projection_dim)
        self.text_norm = nn.BatchNorm1d(projection_dim) if text_norm else None
        self.join = nn.Conv2d(top + projection_dim, top, 1, bias=bias)
        self.join_norm = nn.BatchNorm2d(top)
        self.to_logit = nn.Conv2d(top, 1, 4, bias=bias)
        initialise(self)

    def features(self, images: Tensor, groups: int = 1) -> Tensor:
        """Run the trunk, which does not depend on the text.

        Args:
            images: (B, 3, size, size) in [-1, 1].
            groups: Kinds of images joined in the batch, equally many of each: each kind keeps its own batch statistics.

        Returns:
            (B, 8 width, 4, 4).
        """
        x = images
        for level, down in enumerate(self.down):
            x = _apply(down, x)
            slope = LEAK if self.activated[level] else 1.0
            if level == 0:
                x = activate(x, slope)
            else:
                norm = self.down_norm[level - 1]
                assert isinstance(norm, _BatchNorm)
                x = norm_act(x, norm, slope, None, groups)
        features: Tensor = self.residual(x, groups)
        return features

    def score(self, features: Tensor, text: Tensor, groups: int = 1, kinds: Sequence[int] = ()) -> Tensor:
        """Score trunk features against text embeddings.

        Args:
            features: (B, 8 width, 4, 4).
            text: (B, T), or more rows with `kinds`.
            groups: Kinds of pairs joined in the batch, equally many of each.
            kinds: Of each kind of pair, which kind of image it has, where they do not go one to one (`text_join`).

        Returns:
            A logit a row of the text, float32.
        """
        text, norm = self.text(text), self.text_norm  # (B, P)
        text = activate(text, LEAK) if norm is None else norm_act(text, norm, LEAK, None, groups)
        x = text_join(features, text, self.join.weight, self.join.bias, kinds)
        x = norm_act(x, self.join_norm, LEAK, None, groups)
        # The convolution covers the whole map: one dot product an image, in the order of channels-last memory.
        seen, weight = (t.permute(0, 2, 3, 1).flatten(1) for t in (x, self.to_logit.weight))
        scores = F.linear(seen, weight, self.to_logit.bias)  # (B, 1)
        return scores.flatten().float()

    def forward(self, images: Tensor, text: Tensor) -> Tensor:
        """Score images against texts.

        Args:
            images: (B, 3, size, size) in [-1, 1].
            text: (B, T) text embeddings.

        Returns:
            (B,) logits, float32; a sigmoid makes them the paper's probabilities.
        """
        return self.score(self.features(images), text)
