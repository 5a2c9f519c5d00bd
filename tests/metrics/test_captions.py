"""Caption accuracy of a run: what is counted, and for which captions."""

import types

import pytest
import torch

from t2i.blossoms.captions import held_out_captions
from t2i.blossoms.classes import held_out_classes, unseen_pairs
from t2i.errors import ConfigError, ScorerError
from t2i.metrics import captions
from t2i.metrics.attributes import AttributeProbe
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
    """A probe that reads what the painter spelt out."""

    def read(self, pictures):
        return pictures[:, 0, 0, :4].round().long()


REAL = {"petal_colour": 0.99, "centre_colour": 0.98, "count": 0.97, "shape": 0.96, "all": 0.95}


@pytest.fixture
def run(monkeypatch, tmp_path):
    def measure(wrong, **options):
        monkeypatch.setattr(captions.Pipeline, "from_pretrained", lambda folder, device: Painter(wrong))
        monkeypatch.setattr(captions, "load_probe", lambda device: (Reader(), REAL))
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


def test_the_probes_accuracy_on_real_images_stands_beside_the_figures(run):
    assert run(lambda pair: False).figures["accuracy"]["real images (the probe)"] == REAL


class Sighted(AttributeProbe):
    """A probe whose reading is right for a share of the images, told by a number stored in its weights."""

    def read(self, images):
        truth = torch.from_numpy(captions.real_blossoms(captions.CHECKING, captions.CHECKING_SEED)[1]).long()
        right = torch.arange(len(truth)) < float(self.heads[0].bias.detach()[0]) * len(truth)
        return torch.where(right[:, None], truth, (truth + 1) % 3)

    @classmethod
    def of(cls, share):
        probe = cls()
        torch.nn.init.constant_(probe.heads[0].bias, share)
        return probe


@pytest.fixture
def cache(monkeypatch, tmp_path):
    """An empty cache folder, 40 real blossoms, and trainings that give probes of the shares of `trained`, in turn."""
    state = types.SimpleNamespace(folder=tmp_path / "cache", trained=[])
    monkeypatch.setattr(captions, "cache_folder", lambda: state.folder)
    monkeypatch.setattr(captions, "CHECKING", 40)
    monkeypatch.setattr(captions, "AttributeProbe", Sighted)
    monkeypatch.setattr(captions, "_train", lambda device: Sighted.of(state.trained.pop(0)))
    state.file = state.folder / f"probe-{captions.VERSION}-38px-500.safetensors"
    return state


def load():
    return captions.load_probe(torch.device("cpu"))[1]["petal_colour"]


def test_a_probe_is_trained_once_and_cached(cache):
    cache.trained = [1.0]
    assert load() == load() == 1
    assert cache.trained == []


@pytest.mark.parametrize("left", [0.13, 0.9, float("nan")])
def test_a_probe_at_chance_in_the_cache_is_trained_again(cache, left):
    """A broken run left a probe behind that read 13% of real petals, and its figures were printed."""
    cache.folder.mkdir()
    Sighted.of(left).save(cache.file)
    cache.trained = [1.0]
    assert load() == 1
    assert load() == 1  # the good one is cached in its place
    assert cache.trained == []


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-9], lambda data: data[:-1] + bytes([data[-1] ^ 1]), lambda data: b""]
)
def test_a_damaged_probe_in_the_cache_is_trained_again(cache, damage):
    cache.trained = [1.0, 1.0]
    load()
    cache.file.write_bytes(damage(cache.file.read_bytes()))
    assert load() == 1
    assert cache.trained == []


def test_without_a_probe_that_passes_there_is_no_figure_and_none_is_cached(cache, monkeypatch, tmp_path):
    cache.trained = [0.13]
    monkeypatch.setattr(captions.Pipeline, "from_pretrained", lambda folder, device: Painter(lambda pair: False))
    with pytest.raises(ScorerError, match=r"fails on real blossoms: petal colour 1\d% \(at least 95%\), centre"):
        caption_accuracy_of_run(tmp_path, captions=4, device="cpu")
    assert not cache.file.exists()


def test_no_captions_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="--captions must be at least 1"):
        caption_accuracy_of_run(tmp_path, captions=0)


def test_a_probe_that_cannot_be_cached_is_used_all_the_same(cache, capsys):
    cache.folder.write_text("a file is in the way")
    cache.trained = [1.0, 1.0]
    assert load() == 1.0
    assert load() == 1.0
    assert cache.trained == []
    assert capsys.readouterr().err.count("the probe is not cached: cannot write into") == 2
