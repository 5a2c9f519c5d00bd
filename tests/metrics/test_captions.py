"""Caption accuracy of a run: what is counted, and for which captions."""

import numpy as np
import pytest
import torch

from t2i.blossoms.captions import held_out_captions
from t2i.blossoms.classes import held_out_classes, unseen_pairs
from t2i.errors import ConfigError
from t2i.metrics import captions
from t2i.metrics.captions import caption_accuracy_of_run

PAIRS = unseen_pairs()


class Painter:
    """A pipeline whose pictures spell the attributes of the caption out, wrongly where `wrong` says so."""

    def __init__(self, wrong):
        self.config = type("Config", (), {"size": 32, "noise_dim": 3})()
        self.wrong = wrong

    def embed(self, texts):
        known = {text: attributes for seen in (0, 1) for text, attributes in self.captions(bool(seen))}
        return torch.tensor([known[text] for text in texts])

    @staticmethod
    def captions(seen):
        return held_out_captions(150, 5, seen=seen)

    def draw(self, noise, attributes):
        assert noise.shape == (len(attributes), 3)
        shown = attributes.clone()
        for row in shown:
            if self.wrong(tuple(row[:2].tolist())):
                row[0] = (row[0] + 1) % 8
        pictures = torch.zeros(len(shown), 3, 32, 32)
        pictures[:, 0, 0, :4] = shown.float()
        return pictures


class Reader:
    """A probe that reads what the painter spelt out; of real pictures it says that all is 0."""

    def read(self, pictures):
        return pictures[:, 0, 0, :4].round().long()


@pytest.fixture
def run(monkeypatch, tmp_path):
    def measure(wrong, **options):
        monkeypatch.setattr(captions.Pipeline, "from_pretrained", lambda folder, device: Painter(wrong))
        monkeypatch.setattr(captions, "load_probe", lambda device: Reader())
        monkeypatch.setattr(captions, "CHECKING", 12)
        return caption_accuracy_of_run(tmp_path, captions=150, seed=5, device="cpu", **options)

    return measure


def test_a_model_that_shows_what_is_asked_is_always_right(run):
    rows = run(lambda pair: False).figures["accuracy"]
    assert rows["generated"] == {"petal_colour": 1, "centre_colour": 1, "count": 1, "shape": 1, "all": 1}


def test_colours_never_seen_together_are_counted_apart(run):
    result = run(lambda pair: pair in PAIRS)
    rows, protocol = result.figures["accuracy"], result.figures["protocol"]
    unseen = sum(attributes[:2] in PAIRS for _, attributes in Painter.captions(False))
    assert 10 < unseen == protocol["unseen_pairs"] < 60
    assert rows["  colours never together"]["petal_colour"] == 0
    assert rows["  colours seen together"]["petal_colour"] == 1
    assert rows["generated"]["petal_colour"] == pytest.approx(1 - unseen / 150)
    assert rows["generated"]["centre_colour"] == 1
    assert f"{1 - unseen / 150:.1%}" in result.table()


def test_captions_of_training_classes_name_no_held_out_class(run):
    protocol = run(lambda pair: False, seen=True).figures["protocol"]
    held = {kind.attributes for kind in held_out_classes()}
    assert not {tuple(attributes) for _, attributes in Painter.captions(True)} & held
    assert protocol["unseen_pairs"] == 0
    assert protocol["split"] == "training classes, new wordings"


def test_the_probe_is_measured_on_real_pictures_beside_the_figures(run):
    rows = run(lambda pair: False).figures["accuracy"]
    _, attributes = captions.real_blossoms(12, captions.CHECKING_SEED)
    # The reader reads the first four pixels of a real picture, values in -1..1: 0 or +-1, hardly ever all four right.
    assert rows["real pictures (the probe)"]["petal_colour"] <= np.mean(np.isin(attributes[:, 0], [0, 1]))


def test_no_captions_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="--captions must be at least 1"):
        caption_accuracy_of_run(tmp_path, captions=0)
