"""The convolution whose weight gradient is a matrix product, against PyTorch's own."""

import pytest
import torch
import torch.nn.functional as F

from t2i.ops.convolution import convolution, transposed_convolution, upsampled_convolution

CASES = [  # batch, in, out, side, taps, stride, padding
    (2, 3, 5, 8, 4, 2, 1),
    (3, 4, 6, 7, 4, 2, 1),  # odd side: the last column is never read, and its gradient is 0
    (2, 4, 4, 4, 3, 1, 1),
    (2, 4, 6, 4, 1, 1, 0),
    (1, 2, 3, 4, 4, 1, 0),  # the whole map at once
]


def both(function, reference, x, weight, stride, padding):
    x, weight = x.requires_grad_(), weight.requires_grad_()
    ours = function(x, weight, None, stride, padding, impl="product")
    theirs = reference(x, weight, None, stride, padding)
    grad = torch.randn(ours.shape, generator=torch.Generator().manual_seed(1), dtype=ours.dtype)
    assert torch.equal(ours, theirs)
    return zip(
        torch.autograd.grad(ours, (x, weight), grad), torch.autograd.grad(theirs, (x, weight), grad), strict=True
    )


@pytest.mark.parametrize(("batch", "before", "after", "side", "taps", "stride", "padding"), CASES)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_convolution_has_the_gradients_of_the_library(batch, before, after, side, taps, stride, padding, layout):
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(batch, before, side, side, generator=rng, dtype=torch.float64).contiguous(memory_format=layout)
    weight = torch.randn(after, before, taps, taps, generator=rng, dtype=torch.float64)
    for ours, theirs in both(convolution, F.conv2d, x, weight, stride, padding):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("batch", "before", "after", "side", "taps", "stride", "padding"), CASES)
def test_transposed_convolution_has_the_gradients_of_the_library(batch, before, after, side, taps, stride, padding):
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(batch, before, side, side, generator=rng, dtype=torch.float64)
    weight = torch.randn(before, after, taps, taps, generator=rng, dtype=torch.float64)
    for ours, theirs in both(transposed_convolution, F.conv_transpose2d, x, weight, stride, padding):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


def test_under_autocast_the_weight_gradient_is_float32_and_within_bfloat16_of_the_exact_one():
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(4, 16, 8, 8, generator=rng)
    weight = torch.randn(32, 16, 4, 4, generator=rng).requires_grad_()
    exact = torch.autograd.grad(F.conv2d(x, weight, None, 2, 1).square().sum(), weight)[0]
    with torch.autocast("cpu", torch.bfloat16):
        out = convolution(x, weight, None, 2, 1)
        loss = out.float().square().sum()
    gradient = torch.autograd.grad(loss, weight)[0]
    assert out.grad_fn.name().startswith("_Convolution")  # the fast form was chosen
    assert gradient.dtype == torch.float32
    assert (gradient - exact).abs().max() < 0.02 * exact.abs().max()


def test_in_float32_the_product_is_chosen_for_the_smallest_maps():
    x, weight = torch.randn(2, 4, 8, 8), torch.randn(4, 4, 4, 4, requires_grad=True)
    assert convolution(x, weight, None, 2, 1).grad_fn.name().startswith("_Convolution")


@pytest.mark.parametrize("reason", ["float32", "large map", "bias", "frozen weight", "1x1"])
def test_the_library_is_left_alone_where_the_product_does_not_pay(reason):
    side = {"large map": 32, "float32": 16}.get(reason, 8)
    x = torch.randn(2, 4, side, side, requires_grad=True)
    taps = 1 if reason == "1x1" else 4
    weight = torch.randn(4, 4, taps, taps, requires_grad=reason != "frozen weight")
    bias = torch.zeros(4) if reason == "bias" else None
    with torch.autocast("cpu", torch.bfloat16, enabled=reason != "float32"):
        out = convolution(x, weight, bias, 2, 1)
    assert not out.grad_fn.name().startswith("_Convolution")


@pytest.mark.parametrize("side", [1, 4, 5, 8])
@pytest.mark.parametrize("biased", [True, False])
def test_upsampling_and_convolving_at_once_is_doing_one_after_the_other(side, biased):
    rng = torch.Generator().manual_seed(2)
    x, weight, bias = (
        torch.randn(*shape, generator=rng, dtype=torch.float64).requires_grad_()
        for shape in ((2, 4, side, side), (3, 4, 3, 3), (3,))
    )
    given = (x, weight, bias if biased else None)
    ours, theirs = (upsampled_convolution(*given, impl=impl) for impl in ("product", "reference"))
    assert ours.shape == (2, 3, 2 * side, 2 * side)
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
    grad = torch.randn(ours.shape, generator=rng, dtype=torch.float64)
    learned = [each for each in given if each is not None]
    for one, other in zip(
        torch.autograd.grad(ours, learned, grad), torch.autograd.grad(theirs, learned, grad), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("precision", "side", "at_once"),
    [
        (torch.float32, 4, False),
        (torch.float32, 8, True),
        (torch.bfloat16, 8, False),
        (torch.bfloat16, 16, True),
    ],
)
def test_they_are_one_where_that_is_faster(precision, side, at_once):
    x, weight = torch.zeros(1, 2, side, side), torch.zeros(2, 2, 3, 3).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=precision is torch.bfloat16):
        out = upsampled_convolution(x, weight, None)
    assert out.dtype is precision
    assert out.grad_fn._saved_transposed is at_once
