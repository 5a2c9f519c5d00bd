"""Convolutions whose weight gradient, on small maps on a CPU, is one matrix product.

PyTorch's weight gradient on a CPU (oneDNN) is slow where the small side of a strided convolution is 4x4, and in bfloat16 on
processors with AMX up to 8x8: there, 256 -> 512 channels, 8x8 -> 4x4, batch 64, took 6.5 times as long as gathering the windows
and multiplying; in float32, 1024 -> 512 channels transposed, 4x4 -> 8x8, 2.2 times. On larger maps the library wins, and so it
does everywhere for the outputs and for the gradient of the input: only the weight gradient is replaced, and only where it
pays. See docs/method.md for the figures.

Differentiable once.
"""

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

# Pixels: side of the small map up to which the matrix product is faster.
SMALL = {torch.bfloat16: 8 if torch.cpu._is_amx_tile_supported() else 4, torch.float32: 4}
# Pixels: side of the map from which upsampling and convolving at once is faster.
JOINED = {torch.bfloat16: 16, torch.float32: 8}
Impl = Literal["auto", "reference", "product"]


def convolution(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int, *, impl: Impl = "auto"
) -> Tensor:
    """Convolve, as `F.conv2d`.

    Args:
        x: (B, C, H, W).
        weight: (D, C, K, K).
        bias: (D,) or None.
        stride: in pixels.
        padding: in pixels, zeros.
        impl: "reference" is PyTorch's, "product" replaces its weight gradient, "auto" chooses.

    Returns:
        (B, D, h, w), in bfloat16 under autocast.
    """
    side = (x.shape[2] + 2 * padding - weight.shape[2]) // stride + 1
    if bias is None and (impl == "product" or (impl == "auto" and _pays(x, weight, side))):
        out: Tensor = _Convolution.apply(*_cast(x, weight), stride, padding, False)
        return out
    return F.conv2d(x, weight, bias, stride, padding)


def transposed_convolution(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int, *, impl: Impl = "auto"
) -> Tensor:
    """Convolve transposed, as `F.conv_transpose2d`; arguments as `convolution`'s, but weight (C, D, K, K)."""
    if bias is None and (impl == "product" or (impl == "auto" and _pays(x, weight, x.shape[2]))):
        out: Tensor = _Convolution.apply(*_cast(x, weight), stride, padding, True)
        return out
    return F.conv_transpose2d(x, weight, bias, stride, padding)


def upsampled_convolution(x: Tensor, weight: Tensor, bias: Tensor | None, *, impl: Impl = "auto") -> Tensor:
    """Repeat every place 2x2, and convolve by 3x3 with a padding of one pixel.

    The four places that a repetition makes see sums of the same weights, so that one transposed convolution of 4x4 and stride 2
    does both in four products a place instead of nine: on a CPU it took half the time on large maps, and more on small ones.

    Args:
        x: (B, C, H, W).
        weight: (D, C, 3, 3).
        bias: (D,) or None.
        impl: "reference" is `F.interpolate` and `F.conv2d`, "product" the transposed convolution, "auto" chooses.

    Returns:
        (B, D, 2 H, 2 W), in bfloat16 under autocast.

    Source: the arithmetic of Karras et al. 2020 (StyleGAN2), with a filter of ones.
    """
    joined = x.device.type == "cpu" and not torch.compiler.is_compiling()
    if impl == "product" or (impl == "auto" and joined and x.shape[2] >= JOINED.get(_precision(x), x.shape[2] + 1)):
        spread = 4 * F.avg_pool2d(F.pad(weight, (1, 1, 1, 1)), 2, 1)  # (D, C, 4, 4), sums of 2x2 weights
        return F.conv_transpose2d(x, spread.flip(2, 3).transpose(0, 1), bias, 2, 1)
    return F.conv2d(F.interpolate(x, scale_factor=2.0), weight, bias, 1, 1)


def _precision(x: Tensor) -> torch.dtype:
    """Return the dtype in which a convolution of x is computed."""
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype


def _pays(x: Tensor, weight: Tensor, side: int) -> bool:
    """Return whether the matrix product is the faster weight gradient here."""
    if torch.compiler.is_compiling():
        return False
    return (
        side <= SMALL.get(_precision(x), 0)
        and weight.shape[2] > 1  # a 1x1 convolution is a matrix product in the library too
        and x.device.type == "cpu"
        and weight.requires_grad
        and torch.is_grad_enabled()
    )


def _cast(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Do what autocast does for the library's convolutions: the custom function must see the dtype it computes in."""
    if torch.is_autocast_enabled(x.device.type):
        dtype = torch.get_autocast_dtype(x.device.type)
        return x.to(dtype), weight.to(dtype)
    return x, weight


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int, padding: int, transposed: bool) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding, ctx.transposed = stride, padding, transposed
        if transposed:
            return F.conv_transpose2d(x, weight, None, stride, padding)
        return F.conv2d(x, weight, None, stride, padding)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        x, weight = ctx.saved_tensors
        to_x = to_weight = None
        if ctx.needs_input_grad[0]:
            if ctx.transposed:
                to_x = F.conv2d(grad, weight, None, ctx.stride, ctx.padding)
            else:
                rest = tuple(
                    side - ((out - 1) * ctx.stride - 2 * ctx.padding + weight.shape[2])
                    for side, out in zip(x.shape[2:], grad.shape[2:], strict=True)
                )
                to_x = F.conv_transpose2d(grad, weight, None, ctx.stride, ctx.padding, output_padding=rest)
        if ctx.needs_input_grad[1]:
            large, small = (grad, x) if ctx.transposed else (x, grad)
            to_weight = weight_gradient(large, small, weight.shape[2], ctx.stride, ctx.padding)
        return to_x, to_weight, None, None, None


def weight_gradient(large: Tensor, small: Tensor, taps: int, stride: int, padding: int) -> Tensor:
    """Multiply the windows of the large map by the small map: the weight gradient of either convolution.

    Args:
        large: (B, C, H, W): a convolution's input, or the gradient of a transposed one's output.
        small: (B, D, h, w): the gradient of a convolution's output, or a transposed one's input.
        taps: K.
        stride: in pixels.
        padding: in pixels.

    Returns:
        (D, C, K, K).
    """
    edges = (0, 0, padding, padding, padding, padding)
    padded = F.pad(large.permute(0, 2, 3, 1), edges).contiguous()  # (B, H + 2p, W + 2p, C)
    batch, height, width, channels = padded.shape
    high, wide = small.shape[2:]
    row = width * channels
    windows = padded.as_strided(
        (batch, high, wide, taps, taps, channels),
        (height * row, stride * row, stride * channels, row, channels, 1),
    ).reshape(batch * high * wide, taps * taps * channels)
    flat = small.permute(0, 2, 3, 1).reshape(batch * high * wide, -1)
    return (flat.t() @ windows).view(-1, taps, taps, channels).permute(0, 3, 1, 2)
