"""The swap test: its sentences, and what a model that knows order and one that does not get."""

import types

import pytest
import torch

from t2i.blossoms.classes import CENTRE_COLOURS, PETAL_COLOURS, BlossomClass
from t2i.errors import ConfigError
from t2i.metrics import swap

PETALS, CENTRES = list(PETAL_COLOURS), list(CENTRE_COLOURS)


def test_pairs_are_the_same_words_with_two_colours_exchanged():
    pairs = swap.swapped_pairs(100, 0)
    assert len({kind for *_, kind in pairs}) == 72  # 3 x 2 ordered pairs of red, yellow and white, 4 counts, 3 shapes
    for first, second, kind in pairs:
        swapped = first.replace(kind.petal, "\0").replace(kind.centre, kind.petal).replace("\0", kind.centre)
        articles = [text.replace(" an ", " a ").replace("vivid", "bright") for text in (swapped, second)]
        assert articles[0] == articles[1]
        assert first != second


class Model:
    """A pipeline that draws the colours of its captions into the first pixels; without order, always the first's."""

    device = torch.device("cpu")
    config = types.SimpleNamespace(noise_dim=3)

    def __init__(self, knows_order):
        self.colours = {}
        for first, second, kind in swap.swapped_pairs(60, 0):
            other = BlossomClass(kind.centre, kind.petal, kind.count, kind.shape)
            self.colours[first] = kind.attributes[:2]
            self.colours[second] = (other if knows_order else kind).attributes[:2]

    def embed(self, captions):
        return torch.tensor([self.colours[caption] for caption in captions])

    def draw(self, noise, text):
        assert len(noise) == len(text)
        images = torch.zeros(len(text), 3, 32, 32)
        images[:, 0, 0, :2] = text.float()
        return images


@pytest.fixture(autouse=True)
def reader(monkeypatch):
    probe = types.SimpleNamespace(read=lambda images: images[:, 0, 0, :4].long())
    monkeypatch.setattr(swap, "load_probe", lambda device: (probe, {}))


@pytest.mark.parametrize(("knows_order", "expected"), [(True, 1.0), (False, 0.0)])
def test_only_a_model_that_knows_order_passes(knows_order, expected):
    found = swap.swap_test(Model(knows_order), pairs=60)
    assert found["petals"] == found["centres"] == found["both"] == expected
    assert found["protocol"]["colours"] == ["red", "white", "yellow"]


def test_no_pairs_are_refused():
    with pytest.raises(ConfigError, match="at least 1 pair"):
        swap.swap_test(Model(True), pairs=0)
