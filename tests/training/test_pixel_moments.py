"""The critic of averages: what it has seen, where its gradient leads, and that contrast comes to that of real images."""

import pytest
import torch

from t2i.training.pixel_moments import RATE, SIDE, PixelMoments

pytestmark = pytest.mark.usefixtures("one_thread")


def images(number: int, mean: float = 0.0, spread: float = 0.3) -> torch.Tensor:
    """Noise of 32 px in blocks of two, so that reducing them to 16 px keeps its spread."""
    small = torch.randn(16, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(number))
    return (mean + spread * small).repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)


def test_generated_images_have_a_moving_mean_and_real_ones_a_plain_one() -> None:
    moments, seen, real = PixelMoments(), [], []
    for number in range(60):
        moments(images(number, mean=0.2), images(100 + number))
        real.append(images(100 + number)[:, :, ::2, ::2].mean(dim=0))
        seen.append(images(number, mean=0.2)[:, :, ::2, ::2].mean(dim=0))
        if number + 1 <= 1 / RATE:
            torch.testing.assert_close(moments.fake[0], torch.stack(seen).mean(dim=0), rtol=0, atol=1e-5)
    expected = torch.stack(seen[:50]).mean(dim=0)
    for x in seen[50:]:
        expected = torch.lerp(expected, x, RATE)
    torch.testing.assert_close(moments.fake[0], expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(moments.real[0], torch.stack(real).mean(dim=0), rtol=0, atol=1e-5)
    assert float(moments.real[1].mean()) == pytest.approx(0.09, abs=0.01)  # the mean square of noise of deviation 0.3
    assert int(moments.steps) == 60


def test_its_gradient_is_that_of_the_squared_distance_of_the_averages() -> None:
    """Of a batch that the averages consist of: pixels' and squares', the second with half the weight."""
    moments, real = PixelMoments(), images(1)
    fakes = images(2, mean=0.3, spread=0.5)
    moments(fakes, real)
    x = fakes.clone().requires_grad_()
    (found,) = torch.autograd.grad(moments(x, real), x)
    small = torch.nn.functional.avg_pool2d(x, 2)
    means = (small.mean(dim=0) - real[:, :, ::2, ::2].mean(dim=0)).square().sum() / 2
    squares = (small.square().mean(dim=0) - real[:, :, ::2, ::2].square().mean(dim=0)).square().sum() / 4
    (expected,) = torch.autograd.grad(means + squares, x)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-7)


def test_nothing_is_pushed_in_the_first_step_nor_where_averages_agree() -> None:
    other, same = PixelMoments(), PixelMoments()
    for moments, real in ((other, images(4)), (same, images(3)), (same, images(3))):
        x = images(3).requires_grad_()
        loss = moments(x, real)
        (gradient,) = torch.autograd.grad(loss, x)
        assert float(loss.detach()) == 0.0
        assert float(gradient.abs().max()) == 0.0
    assert not torch.equal(other.fake, other.real)


def test_a_generator_of_two_numbers_comes_to_the_mean_and_the_contrast_of_real_images() -> None:
    moments = PixelMoments()
    mean, spread = torch.tensor(0.5, requires_grad=True), torch.tensor(0.6, requires_grad=True)
    optimizer = torch.optim.Adam([mean, spread], lr=0.01)
    for number in range(400):
        loss = moments(mean + spread * images(number, spread=1.0), images(1000 + number, mean=-0.1, spread=0.25))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(mean.detach()) == pytest.approx(-0.1, abs=0.05)
    assert float(spread.detach()) == pytest.approx(0.25, abs=0.05)
