"""Grouped batch normalisation with activation: against PyTorch's own, group by group, value and every gradient."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from t2i.ops.norm_act import activate, norm_act, pack, reference, unpack

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
CASES = [  # shape, groups, slope, residual
    ((8, 5, 3, 3), 2, 0.2, False),
    ((6, 3, 4, 4), 3, 0.0, True),  # ReLU, as in the generator
    ((4, 70, 2, 2), 1, 0.2, True),  # more channels than a block
    ((6, 32, 3, 5), 3, 0.2, True),  # the side of 0 is kept in bits, in compiled code
    ((12, 7), 3, 0.2, False),  # the text's normalisation
    ((40, 4, 5, 5), 2, 1.0, False),  # no activation; several tiles of rows
]


def separately(x, norm, slope, residual, groups):
    """The definition: one library call a group, in order."""
    parts = []
    for part, more in zip(
        x.chunk(groups), [None] * groups if residual is None else residual.chunk(groups), strict=True
    ):
        y = norm(part)
        parts.append(F.leaky_relu(y if more is None else y + more, slope))
    return torch.cat(parts)


def made(shape, dtype=torch.float64, layout=torch.channels_last):
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=rng, dtype=torch.float64).mul(2).add(3).to(DEVICE, dtype)
    more = torch.randn(shape, generator=rng, dtype=torch.float64).to(DEVICE, dtype)
    norm = (nn.BatchNorm2d if len(shape) == 4 else nn.BatchNorm1d)(shape[1]).to(DEVICE)
    with torch.no_grad():
        norm.weight.copy_(torch.randn(shape[1], generator=rng))
        norm.bias.copy_(torch.randn(shape[1], generator=rng))
    if len(shape) == 4:
        x, more = (t.contiguous(memory_format=layout) for t in (x, more))
    return x.requires_grad_(), more.requires_grad_(), norm


def everything(run, x, more, norm, has_residual):
    """Output, every gradient and the running statistics of one call."""
    y = run(x, norm, more if has_residual else None)
    weight = torch.linspace(-1, 1, y.numel(), device=y.device, dtype=y.dtype).view(y.shape)
    wanted = [x, norm.weight, norm.bias, *([more] if has_residual else [])]
    gradients = torch.autograd.grad((y * weight).sum(), wanted)
    return [y, *gradients, norm.running_mean, norm.running_var, norm.num_batches_tracked]


@pytest.mark.parametrize(("shape", "groups", "slope", "has_residual"), CASES)
def test_it_is_one_library_call_a_group(shape, groups, slope, has_residual):
    x, more, norm = made(shape)
    found = everything(lambda x, n, m: norm_act(x, n.double(), slope, m, groups), x, more, norm, has_residual)
    x, more, norm = made(shape)
    expected = everything(lambda x, n, m: separately(x, n.double(), slope, m, groups), x, more, norm, has_residual)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours.double(), theirs.double(), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("shape", "groups", "slope", "has_residual"), CASES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2**-6)])
def test_its_gradient_is_that_of_the_definition(shape, groups, slope, has_residual, dtype, tolerance, monkeypatch):
    """Derived by autograd, in float64, from the same rounded input; what comes back to it is rounded in bfloat16."""
    x, more, norm = made(shape, dtype)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)  # where one group is the library's otherwise
    found = everything(lambda x, n, m: norm_act(x, n, slope, m, groups), x, more, norm, has_residual)[:5]
    exact = [t.detach().double().requires_grad_() for t in (x, more)]
    norm = made(shape, dtype)[2].double()

    def define(x, n, m):
        return reference(x, n.weight, n.bias, m, n.eps, slope, groups)[0]

    expected = everything(define, *exact, norm, has_residual)[:5]
    for ours, theirs in zip(found[: 4 + has_residual], expected[: 4 + has_residual], strict=True):
        assert (ours.double() - theirs).abs().max() <= tolerance * theirs.abs().max()


def test_it_keeps_bfloat16_and_computes_in_float32():
    x, more, norm = made((8, 16, 4, 4), torch.bfloat16)
    found = norm_act(x, norm, 0.2, more, 2)
    assert found.dtype is torch.bfloat16
    assert found.is_contiguous(memory_format=torch.channels_last)
    exact = separately(x.double(), made((8, 16, 4, 4))[2].double(), 0.2, more.double(), 2)
    assert (found.double() - exact).abs().max() <= 2**-8 * exact.abs().max()


def test_a_second_derivative_is_refused_instead_of_wrong():
    x, _, norm = made((4, 3, 2, 2))
    (gradient,) = torch.autograd.grad(norm_act(x, norm.double(), 0.2, None, 2).pow(2).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def test_a_constant_channel_far_from_zero_has_no_variance():
    """Sums of squares would cancel here; squared deviations do not."""
    _, _, norm = made((4, 2, 8, 8), torch.float32)
    x = torch.full((4, 2, 8, 8), 4097.0, device=DEVICE).contiguous(memory_format=torch.channels_last)
    norm_act(x, norm, groups=2)
    torch.testing.assert_close(norm.running_var.cpu(), torch.full((2,), 0.81), rtol=0, atol=1e-6)


def test_in_evaluation_the_running_statistics_are_used_and_stay():
    x, more, norm = made((4, 3, 2, 2), torch.float32)
    norm.eval()
    before = norm.running_mean.clone()
    expected = F.leaky_relu(norm(x) + more, 0.2)
    assert torch.equal(norm_act(x, norm, 0.2, more, 2), expected)
    assert torch.equal(norm.running_mean, before)


def test_a_bit_a_place_says_on_which_side_of_zero_it_was():
    above = torch.rand(3, 5, 96, generator=torch.Generator().manual_seed(0)) > 0.5
    packed = pack(above)
    assert (packed.shape, packed.dtype) == ((3, 5, 3), torch.int32)
    assert torch.equal(unpack(packed), above)
    assert pack(torch.ones(32, dtype=torch.bool)) == -1


@pytest.mark.parametrize("slope", [0.0, 0.2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_activation_that_keeps_bits_is_pytorchs_to_the_bit(slope, dtype, monkeypatch):
    x = torch.randn(2, 64, 3, 3, generator=torch.Generator().manual_seed(0)).to(DEVICE, dtype)
    x[0, 0] = 0.0
    found = []
    for compiling in (False, True):
        monkeypatch.setattr(torch.compiler, "is_compiling", lambda compiling=compiling: compiling)
        given = x.clone().requires_grad_()
        y = activate(given, slope)
        y.backward(torch.linspace(-1, 1, y.numel(), device=y.device).view(y.shape).to(dtype))
        assert (type(y.grad_fn).__name__ == "_ActivationBackward") is compiling
        found.append((y, given.grad))
    for ours, theirs in zip(*found, strict=True):
        assert torch.equal(ours, theirs)
