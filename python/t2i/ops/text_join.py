"""Where the text joins the picture in D: a 1x1 convolution of [picture, repeated text], without the concatenation.

A 1x1 convolution of a concatenation is a sum of two products, and the text's is the same at every place: the repeated
(B, P, H, W) tensor need not exist. Exact (4e-15 in float64).

Differentiable once by kernels, as often as one likes by the definition.
"""

from typing import Literal

import torch.nn.functional as F
from torch import Tensor

Impl = Literal["reference", "triton"]


def text_join(
    features: Tensor, text: Tensor, weight: Tensor, bias: Tensor | None, *, impl: Impl = "reference"
) -> Tensor:
    """Join.

    Args:
        features: (B, C, H, W).
        text: (B, P).
        weight: (D, C + P, 1, 1), the picture's channels first.
        bias: (D,) or None.
        impl: "reference" (PyTorch) or "triton" (the sum is made where the product is written).

    Returns:
        (B, D, H, W).

    Source: Reed et al. 2016, section 4.1.
    """
    channels = features.shape[1]
    flat = weight[:, :, 0, 0]
    shift = F.linear(text, flat[:, channels:], bias)  # (B, D)
    if impl == "triton":
        from t2i.ops.triton.text_join import shifted_product

        return shifted_product(features.to(shift.dtype), flat[:, :channels].to(shift.dtype), shift)
    return F.conv2d(features, weight[:, :channels]) + shift[:, :, None, None]
