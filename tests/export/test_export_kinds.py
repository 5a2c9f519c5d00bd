"""Every kind of text encoder as part of one ONNX file: the images that PyTorch generates, from the sentence on."""

import importlib.util

import pytest
import torch

from helpers import tiny_pipeline
from t2i.errors import CheckpointError
from t2i.export import onnx as exporting
from t2i.export.onnx_pipeline import OnnxPipeline

onnx = pytest.importorskip("onnx", reason="the extra is not installed: pip install 't2i[export]'")
pytest.importorskip("onnxruntime", reason="the extra is not installed: pip install 't2i[export]'")
pytest.importorskip("onnxscript", reason="the extra is not installed: pip install 't2i[export]'")
pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.timeout(600)]  # tracing is slow on a busy machine
SENTENCES = ["a flower with red petals", "\U0001f33b 红色的花, naïve", "x", "red " * 90]


@pytest.mark.parametrize("kind", ["char-cnn-rnn-bytes", "ngrams", "minilm"])
def test_the_file_draws_what_pytorch_draws(kind, tmp_path):
    if kind == "minilm" and not all(map(importlib.util.find_spec, ("tokenizers", "all_minilm_l6_v2"))):
        pytest.skip("the extra minilm is not installed")
    pipe = tiny_pipeline(kind)
    written = exporting.export(pipe, tmp_path / "model.onnx")
    assert written.worst < 1e-4
    model = OnnxPipeline(written.path)
    for sentences in (SENTENCES, SENTENCES[:1], ["..."]):
        found, expected = model(sentences, count=2, seed=3).tensor, pipe(sentences, count=2, seed=3).tensor
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_a_file_without_its_tokenizer_is_not_one_of_ours(tmp_path):
    graph = onnx.helper.make_graph([], "empty", [], [])
    model = onnx.helper.make_model(graph)
    onnx.helper.set_model_props(model, {"noise_length": "8", "size": "16"})
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(CheckpointError, match="is not a model that t2i-export wrote"):
        OnnxPipeline(tmp_path / "model.onnx")
