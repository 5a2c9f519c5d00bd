"""Where the text joins the image in D: a 1x1 convolution of [image, repeated text], without the concatenation.

A 1x1 convolution of a concatenation is a sum of two products, and the text's is the same at every place: the repeated
(B, P, H, W) tensor need not exist. Exact (4e-15 in float64).
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def text_join(features: Tensor, text: Tensor, weight: Tensor, bias: Tensor | None, kinds: Sequence[int] = ()) -> Tensor:
    """Convolve the image's features and the text's, side by side.

    Args:
        features: (B, C, H, W).
        text: (B, P), or (groups B / kinds, P) with `kinds`.
        weight: (D, C + P, 1, 1), the image's channels first.
        bias: (D,) or None.
        kinds: Of each of the text's groups, which of the image's equal groups it is joined to, where they do not go one to one:
            an image's product is made once however many texts it has.

    Returns:
        (the text's rows, D, H, W).

    Source: Reed et al. 2016, section 4.1.
    """
    channels = features.shape[1]
    shift = F.linear(text, weight[:, channels:, 0, 0], bias)  # (B, D)
    product = F.conv2d(features, weight[:, :channels])
    if kinds:
        parts = product.chunk(max(kinds) + 1)
        product = torch.cat([parts[kind] for kind in kinds])
    return product + shift[:, :, None, None]
