"""Augmentation: closed forms for each transform, gradients, and nothing where the strength is 0."""

import pytest
import torch

from t2i.training.augment import DIFFAUGMENT, NONE, Augmentation, augment

OFF = Augmentation(brightness=0, saturation=0, contrast=0, translation=0)


def draws(**named: float) -> torch.Tensor:
    """One row of draws: 0 but for what is named."""
    order = ("brightness", "saturation", "contrast", "vertical", "horizontal")
    return torch.tensor([[named.get(name, 0.0) for name in order]], dtype=torch.float64)


@pytest.fixture
def image() -> torch.Tensor:
    return torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2 - 1


def test_no_strength_changes_nothing(image: torch.Tensor) -> None:
    torch.testing.assert_close(augment(image, OFF, torch.ones(1, 5, dtype=torch.float64)), image)


def test_brightness_adds_its_share(image: torch.Tensor) -> None:
    found = augment(image, Augmentation(0.16, 0, 0, 0), draws(brightness=0.5))
    torch.testing.assert_close(found, image + 0.08)


def test_full_loss_of_saturation_leaves_grey(image: torch.Tensor) -> None:
    found = augment(image, Augmentation(0, 1.0, 0, 0), draws(saturation=-1))
    torch.testing.assert_close(found, image.mean(dim=1, keepdim=True).expand(-1, 3, -1, -1))


def test_contrast_stretches_about_the_mean_of_the_image(image: torch.Tensor) -> None:
    found = augment(image, Augmentation(0, 0, 0.2, 0), draws(contrast=1))
    torch.testing.assert_close(found, image.mean() + 1.2 * (image - image.mean()))


@pytest.mark.parametrize(
    ("vertical", "horizontal", "places"),
    [
        (0.0, 1.0, [2, 3, 4, 5, 6, 7, 6, 5]),  # two to the left; the border pixel is not repeated
        (0.0, -1.0, [2, 1, 0, 1, 2, 3, 4, 5]),
        (0.0, 0.0, [0, 1, 2, 3, 4, 5, 6, 7]),
    ],
)
def test_translation_reflects_at_the_border(
    image: torch.Tensor, vertical: float, horizontal: float, places: list[int]
) -> None:
    found = augment(image, Augmentation(0, 0, 0, 0.25), draws(vertical=vertical, horizontal=horizontal))
    torch.testing.assert_close(found, image[..., places])
    turned = augment(
        image.transpose(2, 3), Augmentation(0, 0, 0, 0.25), draws(vertical=horizontal, horizontal=vertical)
    )
    torch.testing.assert_close(turned, image[..., places].transpose(2, 3))


def test_every_shift_is_equally_likely() -> None:
    strength = Augmentation(0, 0, 0, 0.25)
    ramp = torch.arange(8.0).expand(1, 3, 8, 8).expand(9000, -1, -1, -1)
    found = augment(ramp, strength, strength.draw(9000, torch.Generator().manual_seed(0)))
    shifts = (found[:, 0, 0, 3] - 3).long()
    counts = torch.bincount(shifts + 2, minlength=5)
    assert counts.tolist() == pytest.approx([1800] * 5, rel=0.1)


def test_the_gradient_is_that_of_the_formula(image: torch.Tensor) -> None:
    image.requires_grad_()
    given = torch.rand(1, 5, dtype=torch.float64) * 2 - 1
    assert torch.autograd.gradcheck(lambda x: augment(x, Augmentation(), given), (image,))


def test_equal_generators_draw_equally() -> None:
    first, second = (Augmentation().draw(4, torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(first, second)
    assert first.shape == (4, 5)
    assert float(first.abs().max()) <= 1


def test_the_cutout_is_a_grey_square_around_its_centre() -> None:
    images = torch.ones(3, 3, 8, 8)
    places = torch.zeros(3, 7)
    places[:, 5:] = torch.tensor([[0.0, 0.0], [-1.0, -1.0], [1.0, 0.0]])
    found = augment(images, Augmentation(0, 0, 0, 0, cutout=0.5), places)
    grey = (found == 0).all(dim=1)
    assert grey[0].nonzero().amin(dim=0).tolist() == [3, 3]
    assert grey[0].sum() == 9
    assert grey[1].sum() == 4  # the corner: the rest lies outside
    assert grey[2].nonzero().amax(dim=0).tolist() == [7, 5]


def test_the_cutout_reaches_every_pixel_and_leaves_a_gradient_elsewhere() -> None:
    images = torch.ones(400, 3, 8, 8, requires_grad=True)
    strength = Augmentation(0, 0, 0, 0, cutout=0.5)
    assert strength.columns == 7
    found = augment(images, strength, strength.draw(400, torch.Generator().manual_seed(0)))
    found.sum().backward()
    assert torch.equal(images.grad, found.detach())
    assert (found == 0).any(dim=0).all()
    assert 0.05 < float((found == 0).double().mean()) < 0.25


def test_a_strength_goes_towards_another_by_parts() -> None:
    assert Augmentation().lerp(DIFFAUGMENT, 0) == Augmentation()
    assert Augmentation().lerp(DIFFAUGMENT, 1) == DIFFAUGMENT
    assert NONE.lerp(DIFFAUGMENT, 0.5).cutout == pytest.approx(0.25)
    assert NONE.columns == 5
