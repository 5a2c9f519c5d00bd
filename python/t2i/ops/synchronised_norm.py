"""Batch normalisation over the rows of all processes: what one process would compute of the joined batch.

Forward: every process's mean and variance are gathered, and joined by the law of total variance, which loses nothing to
cancellation as sums of squares would. Backward: the two sums that the gradient needs are averaged over processes. An
exchange each. `torch.nn.SyncBatchNorm` does the same on GPUs, and is what they use; this one is for CPUs (Gloo).
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm

from t2i.distributed import Ranks


class SynchronisedNorm(_BatchNorm):
    """A batch normalisation with the weights and running statistics of `like`; (B, C) or (B, C, H, W).

    Args:
        like: Shared, not copied.
        ranks: The processes.
    """

    def __init__(self, like: _BatchNorm, ranks: Ranks) -> None:
        super().__init__(like.num_features, like.eps, like.momentum)
        self._parameters, self._buffers = like._parameters, like._buffers
        self.ranks = ranks
        self.train(like.training)

    def _check_input_dim(self, input: Tensor) -> None:
        assert input.dim() in (2, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise x over rows and places; in evaluation, by the running statistics."""
        if not self.training:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        y, mean, variance = _Normalise.apply(x, self.weight, self.bias, self.eps, self.ranks)
        with torch.no_grad():
            count = x.numel() // x.shape[1] * self.ranks.world
            rate = 0.1 if self.momentum is None else self.momentum
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), rate)
            self.running_var.lerp_(variance.to(self.running_var.dtype) * (count / (count - 1)), rate)
        out: Tensor = y
        return out


class _Normalise(torch.autograd.Function):
    """(x - mean) / sqrt(variance + eps) * weight + bias; statistics in float32, or float64 where x is."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float, ranks: Ranks) -> tuple[Tensor, ...]:
        """Normalise; also returns the mean (C,) and the variance (C,) over all processes."""
        over = [0, *range(2, x.dim())]
        shape = [1, -1, *[1] * (x.dim() - 2)]
        wide = x if x.dtype == torch.float64 else x.float()
        variance, mean = torch.var_mean(wide, over, correction=0)
        of_all = ranks.gather(torch.stack([mean, variance])[None])  # (W, 2, C)
        mean = of_all[:, 0].mean(0)
        variance = (of_all[:, 1] + (of_all[:, 0] - mean).square()).mean(0)
        scale = (variance + eps).rsqrt()
        normal = (wide - mean.view(shape)) * scale.view(shape)
        ctx.save_for_backward(normal, scale, weight)
        ctx.ranks, ctx.over, ctx.shape = ranks, over, shape
        y = (normal * weight.view(shape) + bias.view(shape)).to(x.dtype)
        ctx.mark_non_differentiable(mean, variance)
        return y, mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of x, weight and bias; those of the weights are this process's share."""
        normal, scale, weight = ctx.saved_tensors
        wide = gradient.to(normal.dtype)
        by_bias, by_weight = wide.sum(ctx.over), (wide * normal).sum(ctx.over)
        count = wide.numel() // wide.shape[1]
        means = torch.stack([by_bias, by_weight]) / count  # (2, C)
        ctx.ranks.average([means])
        centred = wide - means[0].view(ctx.shape) - normal * means[1].view(ctx.shape)
        by_x = centred * (scale * weight).view(ctx.shape)
        return by_x.to(gradient.dtype), by_weight.to(weight.dtype), by_bias.to(weight.dtype), None, None


def synchronise(module: nn.Module, ranks: Ranks, device: torch.device) -> None:
    """Replace every batch normalisation inside `module` by one over all processes, in place; alone, do nothing.

    Args:
        module: Is none itself; weights and running statistics stay the same tensors.
        ranks: The processes.
        device: Where the module lives: on a GPU torch's own takes over, through NCCL.
    """
    if ranks.world == 1:
        return
    if device.type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(module)
        return
    for name, child in module.named_children():
        if isinstance(child, (nn.BatchNorm1d, nn.BatchNorm2d)):
            setattr(module, name, SynchronisedNorm(child, ranks))
        else:
            synchronise(child, ranks, device)
