"""Mixing texts of a class: between the two, with every partner of the class, and only as far as classes say something."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from t2i.training.text_mixing import TextMixing, class_share


def captions(classes, images, each, of_class, of_image, seed=0):
    """Embeddings of captions, a part of the class, one of the image, and noise of variance 1; class and image of each."""
    rng = torch.Generator().manual_seed(seed)
    image = torch.arange(classes * images * each) // each
    kind = image // images
    of_kinds = of_class * torch.randn(classes, 6, generator=rng)
    of_images = of_image * torch.randn(classes * images, 6, generator=rng)
    return of_kinds[kind] + of_images[image] + torch.randn(len(image), 6, generator=rng), kind, image


@pytest.mark.parametrize(("images", "each"), [(2, 3), (5, 4), (3, 1)])
@pytest.mark.parametrize(
    ("of_class", "of_image", "share"),
    [
        (1.0, 0.0, 1.0),  # images of a class say the same: captions of one are true of the others
        (1.0, 1.0, 0.5),
        (2.0, 1.0, 0.8),
        (0.0, 1.0, 0.0),  # the class says nothing
    ],
)
def test_the_share_of_classes_is_their_variance_over_that_of_images(images, each, of_class, of_image, share):
    embeddings, kind, image = captions(600, images, each, of_class, of_image)
    # With one caption per image, the variance between captions cannot be separated from that between images.
    expected = share if each > 1 else of_class**2 / (of_class**2 + of_image**2 + 1)
    assert class_share(embeddings, kind, image) == pytest.approx(expected, abs=0.06)


def test_one_class_of_everything_is_not_mixed():
    embeddings, _, image = captions(100, 2, 4, 1.0, 1.0)
    mixing = TextMixing(embeddings, torch.arange(len(embeddings)), torch.zeros_like(image), image, 1.0)
    assert mixing.reach == pytest.approx(0.0, abs=1e-6)


def test_without_classes_captions_mix_with_those_of_their_own_image():
    embeddings, _, image = captions(100, 2, 4, 1.0, 1.0)
    mixing = TextMixing(embeddings, torch.arange(len(embeddings)), image, image, 1.0)
    assert mixing.reach == 1.0
    draws = torch.rand(len(embeddings), 2, generator=torch.Generator().manual_seed(2))
    draws[:, 1] = 1.0  # all the way
    partner = torch.cdist(mixing(embeddings, torch.arange(len(embeddings)), draws), embeddings).argmin(dim=1)
    assert torch.equal(image[partner], image)
    assert (partner != torch.arange(len(embeddings))).any()


def test_the_setting_is_the_most_that_a_text_moves():
    embeddings, kind, image = captions(200, 5, 4, 1.0, 1.0)
    whole, half = (TextMixing(embeddings, torch.arange(len(embeddings)), kind, image, most) for most in (1.0, 0.5))
    assert half.reach == pytest.approx(whole.reach / 2)
    assert 0.4 < whole.reach < 0.6


@given(seed=st.integers(0, 2**31), gap=st.integers(1, 5))
def test_a_mixed_text_lies_between_its_own_and_one_of_its_class(seed, gap):
    rng = torch.Generator().manual_seed(seed)
    count = 24
    rows = gap * torch.arange(count) + 3  # of a table that holds other captions too
    table = torch.randn(int(rows.max()) + 2, 4, generator=rng)
    classes = torch.randint(0, 5, (count,), generator=rng) * 7
    mixing = TextMixing(table, rows, classes, torch.arange(count) // 2, 1.0)
    mixing.reach = 0.8
    draws = torch.rand(count, 2, generator=rng)
    mixed = mixing(table[rows], rows, draws)
    for index, row in enumerate(rows):
        others = table[rows[classes == classes[index]]]
        ends = torch.lerp(table[row], others, 0.8 * draws[index, 1])
        assert (ends - mixed[index]).abs().sum(dim=1).min() < 1e-5
    others = torch.tensor([row for row in range(len(table)) if row not in rows])
    assert torch.equal(mixing(table[others], others, torch.rand(len(others), 2)), table[others])


def test_every_caption_of_the_class_is_as_likely_to_be_the_partner():
    classes = torch.tensor([0, 1, 0, 1, 1, 0, 2])
    rows, table = torch.arange(7), torch.eye(7)
    mixing = TextMixing(table, rows, classes, rows, 1.0)
    mixing.reach = 1.0
    draws = torch.ones(3000, 2)
    draws[:, 0] = torch.linspace(0, 1, 3000)  # both ends of the range
    found = mixing(table[torch.full((3000,), 1)], torch.full((3000,), 1), draws).sum(dim=0)
    assert found[[0, 2, 5, 6]].abs().sum() < 1e-3
    assert found[[1, 3, 4]].tolist() == pytest.approx([1000] * 3, abs=2)
    alone = mixing(table[[6]], torch.tensor([6]), torch.rand(1, 2))
    assert torch.equal(alone, table[[6]])
