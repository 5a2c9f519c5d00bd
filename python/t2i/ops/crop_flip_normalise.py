"""Images of a plan out of a data set that lies on the device: gather, crop, mirror, scale to [-1, 1].

What the native module's `fill` does on the host, followed by `t2i.images.normalise`; float32 results are equal to the bit.
No gradient: pixels are data.
"""

from typing import Literal

import torch
from torch import Tensor

from t2i.images import scale

Impl = Literal["reference", "triton"]


def crop_flip_normalise(
    images: Tensor,
    index: Tensor,
    corner: Tensor,
    flip: Tensor,
    crop: int,
    dtype: torch.dtype = torch.float32,
    *,
    impl: Impl = "reference",
) -> Tensor:
    """Cut a batch out.

    Args:
        images: (N, S, S, 3) uint8, the whole data set.
        index: (B,) int64 image of each row.
        corner: (B, 2) int64, y and x of the crop, each from 0 to S - crop.
        flip: (B,) int64, 1 where the image is mirrored.
        crop: Side of the crop, in pixels.
        dtype: Of the result.
        impl: "reference" (PyTorch's indexing) or "triton" (one pass, nothing in between).

    Returns:
        (B, 3, crop, crop) in [-1, 1], channels last in memory.
    """
    if impl == "triton":
        from t2i.ops.triton.crop_flip_normalise import cut

        return cut(images, index, corner, flip, crop, dtype)
    steps = torch.arange(crop, device=images.device)
    y = corner[:, :1] + steps  # (B, crop)
    x = corner[:, 1:] + torch.where(flip[:, None] > 0, crop - 1 - steps, steps)
    cropped = images[index[:, None, None], y[:, :, None], x[:, None, :]]  # (B, crop, crop, 3)
    return scale(cropped).to(dtype).permute(0, 3, 1, 2)
