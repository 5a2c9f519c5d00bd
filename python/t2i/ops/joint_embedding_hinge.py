"""The two-sided hinge of the joint embedding (DS-SJE), vectorised, and as one kernel over the scores.

Differentiable once by the kernel, once by the definition almost everywhere (a hinge has a corner).
"""

from typing import Literal

import torch.nn.functional as F
from torch import Tensor

Impl = Literal["reference", "triton"]


def joint_embedding_hinge(scores: Tensor, *, impl: Impl = "reference") -> Tensor:
    """Ask that every image scores its own text highest by a margin of 1, and every text its own image.

    (1/B^2) sum_i sum_(j != i) max(0, s_ij - s_ii + 1) + max(0, s_ji - s_ii + 1).

    Args:
        scores: (B, B) of image i (rows) against text j (columns).
        impl: "reference" (PyTorch) or "triton".

    Returns:
        (), float32.

    Source: Reed et al. CVPR 2016, equations 2 to 4.
    """
    if impl == "triton":
        from t2i.ops.triton.joint_embedding_hinge import hinge

        return hinge(scores)
    own, count = scores.diagonal(), len(scores)
    # On the diagonal each hinge is exactly the margin, 1: it has no gradient and is taken off again.
    by_image = F.relu(scores - own[:, None] + 1).sum() - count
    by_text = F.relu(scores - own[None, :] + 1).sum() - count
    return (by_image + by_text) / count**2
