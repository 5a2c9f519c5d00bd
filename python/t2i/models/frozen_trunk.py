"""EfficientNet-lite0 with frozen weights on a CPU: its taps, and the gradient of the images alone.

What autograd would do, with less work:

* Weights need no gradient, so only the outputs of the activations are kept, and the activations are applied in place.
* The input's gradient of a 1x1 or depthwise convolution is again a convolution, with the weight transposed or flipped, which
  oneDNN has in bfloat16 too. Its own bfloat16 gradient of a strided depthwise convolution took 30 to 300 times as long on
  processors with AMX. See docs/method.md for the figures.

Differentiable once.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from t2i.models.efficientnet import EfficientNetLite0

CEILING = 6.0  # of ReLU6


def frozen_taps(
    trunk: EfficientNetLite0, images: Tensor, blocks: Sequence[int], precision: torch.dtype
) -> list[Tensor]:
    """Read images at several depths, as running the trunk's blocks does.

    Args:
        trunk: Its weights must not change after the first call.
        images: (B, 3, S, S) in [-1, 1], on the CPU.
        blocks: Ascending indices of the blocks whose outputs are returned; those behind the last are not run.
        precision: Of all maps: float32 or bfloat16.

    Returns:
        One map (B, C, S', S') float32 for each of `blocks`.
    """
    taps: tuple[Tensor, ...] = _FrozenTaps.apply(images, trunk, tuple(blocks), precision)
    return list(taps)


@dataclasses.dataclass(frozen=True)
class _Layer:
    """One convolution with SAME padding, and ReLU6 where `active`.

    Attributes:
        weight: (D, C / groups, K, K) in the precision of the maps.
        bias: (D,).
        back: Weight of the convolution that gives the input's gradient, where that is one; else `weight`.
        stride: In pixels.
        groups: 1, or C of a depthwise convolution.
        active: Whether ReLU6 follows.
    """

    weight: Tensor
    bias: Tensor
    back: Tensor
    stride: int
    groups: int
    active: bool

    @staticmethod
    def of(convolution: nn.Conv2d, active: bool, precision: torch.dtype) -> "_Layer":
        assert convolution.bias is not None
        layout = torch.channels_last
        weight = convolution.weight.detach().to(precision, memory_format=layout, copy=True)
        back = weight
        if convolution.groups > 1:
            back = weight.flip(2, 3)
        elif convolution.kernel_size[0] == 1:
            back = weight.transpose(0, 1).contiguous(memory_format=layout)
        bias = convolution.bias.detach().to(precision, copy=True)
        return _Layer(weight, bias, back, convolution.stride[0], convolution.groups, active)

    def padding(self, side: int) -> tuple[int, int]:
        """Pixels before and after a map of `side` pixels: TensorFlow's SAME, what is odd goes after."""
        total = max((-(-side // self.stride) - 1) * self.stride + self.weight.shape[2] - side, 0)
        return total // 2, total - total // 2

    def forward(self, x: Tensor) -> Tensor:
        """Apply to (B, C, S, S)."""
        before, after = self.padding(x.shape[2])
        if before != after:
            x = F.pad(x, (before, after) * 2)
        y = F.conv2d(x, self.weight, self.bias, self.stride, before if before == after else 0, 1, self.groups)
        return F.hardtanh_(y, 0.0, CEILING) if self.active else y

    def backward(self, grad: Tensor, side: int) -> Tensor:
        """Turn the gradient of the convolution's output into that of its input, (B, C, side, side)."""
        kernel, (before, _) = self.weight.shape[2], self.padding(side)
        if kernel == 1 and self.groups == 1:
            return F.conv2d(grad, self.back)
        if self.groups > 1 and self.stride == 1:
            return F.conv2d(grad, self.back, None, 1, kernel - 1 - before, 1, self.groups)
        if self.groups > 1 and grad.dtype is torch.bfloat16:
            # The gradient at every stride-th place, zeros between and around.
            size = (*grad.shape[:2], side + kernel - 1, side + kernel - 1)
            spread = torch.empty(size, dtype=grad.dtype, memory_format=torch.channels_last).zero_()
            start = kernel - 1 - before
            end = start + self.stride * (grad.shape[2] - 1) + 1
            spread[:, :, start : end : self.stride, start : end : self.stride] = grad
            return F.conv2d(spread, self.back, None, 1, 0, 1, self.groups)
        whole = F.conv_transpose2d(grad, self.weight, None, self.stride, 0, 0, self.groups)
        return whole[:, :, before : before + side, before : before + side]


class _Prepared:
    """The trunk's layers in one precision."""

    def __init__(self, trunk: EfficientNetLite0, precision: torch.dtype) -> None:
        self.stem = _Layer.of(trunk.stem.convolution, True, precision)
        self.blocks: list[tuple[list[_Layer], bool]] = []
        for block in trunk.blocks:
            parts = (block.expand, block.depthwise, block.project)
            layers = [_Layer.of(part.convolution, part.active, precision) for part in parts if part is not None]  # type: ignore[union-attr,arg-type]
            self.blocks.append((layers, bool(block.residual)))


def _prepared(trunk: EfficientNetLite0, precision: torch.dtype) -> _Prepared:
    """Make the layers once a trunk and precision; they are kept on the trunk, outside its state."""
    kept: dict[torch.dtype, _Prepared] = trunk.__dict__.setdefault("_prepared", {})
    if precision not in kept:
        kept[precision] = _Prepared(trunk, precision)
    return kept[precision]


class _FrozenTaps(torch.autograd.Function):
    @staticmethod
    @torch.no_grad()
    def forward(
        ctx: Any, images: Tensor, trunk: EfficientNetLite0, blocks: tuple[int, ...], precision: torch.dtype
    ) -> tuple[Tensor, ...]:
        layers, keep = _prepared(trunk, precision), bool(ctx.needs_input_grad[0])
        saved: list[Tensor] = []  # every layer's output, in order
        found = []
        with torch.autocast(images.device.type, enabled=False):
            # Scaled in float32: neighbouring shades of a pixel would be one in bfloat16.
            scaled = torch.add(0.5 / 128, images.float(), alpha=127.5 / 128)
            x = layers.stem.forward(scaled.to(precision, memory_format=torch.channels_last))
            saved.append(x)
            for index in range(blocks[-1] + 1):
                parts, residual = layers.blocks[index]
                y = x
                for layer in parts:
                    y = layer.forward(y)
                    if keep and layer.active:
                        saved.append(y)
                x = y.add_(x) if residual else y
                if index in blocks:
                    found.append(x.float())
        ctx.layers, ctx.blocks, ctx.precision, ctx.side = layers, blocks, precision, images.shape[2]
        ctx.save_for_backward(*saved if keep else ())
        return tuple(found)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        saved, layers = list(ctx.saved_tensors), ctx.layers
        waiting = dict(zip(ctx.blocks, grads, strict=True))
        grad: Tensor | None = None
        with torch.autocast(grads[0].device.type, enabled=False):
            for index in reversed(range(ctx.blocks[-1] + 1)):
                if index in waiting:
                    own = waiting[index].to(ctx.precision, memory_format=torch.channels_last)
                    grad = own if grad is None else grad + own
                assert grad is not None
                parts, residual = layers.blocks[index]
                inner = grad
                for number, layer in reversed(list(enumerate(parts))):
                    if layer.active:
                        inner = torch.ops.aten.hardtanh_backward(inner, saved.pop(), 0.0, CEILING)
                    first = number == 0
                    side = _side(ctx.side, layers, index) if first else saved[-1].shape[2]
                    inner = layer.backward(inner, side)
                grad = inner + grad if residual else inner
            assert grad is not None
            grad = torch.ops.aten.hardtanh_backward(grad, saved.pop(), 0.0, CEILING)
            images = layers.stem.backward(grad, ctx.side).float() * (127.5 / 128)
        return images, None, None, None


def _side(side: int, layers: _Prepared, index: int) -> int:
    """Side of the map that block `index` reads, for images of `side` pixels."""
    for stride in (layers.stem.stride, *(part.stride for parts, _ in layers.blocks[:index] for part in parts)):
        side = -(-side // stride)
    return side
