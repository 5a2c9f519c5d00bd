"""The demo draws what the pipeline draws, for every kind of text encoder, from a model folder and over HTTP."""

import importlib.util
import io
import json
import urllib.parse
import urllib.request

import numpy as np
import pytest
import torch
from PIL import Image

from helpers import tiny_pipeline
from t2i.demo.app import Server
from t2i.pipeline import Pipeline

pytest.importorskip("starlette", reason="the extra is not installed: pip install 't2i[demo]'")
pytest.importorskip("uvicorn", reason="the extra is not installed: pip install 't2i[demo]'")
pytestmark = pytest.mark.usefixtures("one_thread")
MARGIN, SIDE = 10, 160  # of the grid, in pixels
SENTENCES = ["a flower with red petals", "一朵红色的花 🌻, naïve"]


@pytest.mark.parametrize("kind", ["char-cnn-rnn", "char-cnn-rnn-bytes", "ngrams", "minilm"])
def test_the_demo_draws_what_the_pipeline_draws(kind, tmp_path):
    if kind == "minilm" and not all(map(importlib.util.find_spec, ("tokenizers", "all_minilm_l6_v2"))):
        pytest.skip("the extra minilm is not installed")
    made = tiny_pipeline(kind)
    generator = made.generator.train()
    for _ in range(20):  # batch statistics, as a training would leave them
        generator(torch.randn(16, 8), 5 * torch.randn(16, 16))
    with torch.no_grad():
        generator.to_rgb.weight *= 50  # contrast, as a trained one has
    made.save_pretrained(tmp_path / "model")
    pipe = Pipeline.from_pretrained(tmp_path / "model")
    assert pipe.encoder.kind == kind
    with Server(pipe) as server:
        for sentence in SENTENCES:
            body = json.dumps({"sentence": sentence, "count": 1, "seed": 3}).encode()
            asked = urllib.request.Request(f"{server.url}/api/generate", body, {"Content-Type": "application/json"})
            with urllib.request.urlopen(asked, timeout=60) as answer:
                sheet = np.asarray(Image.open(io.BytesIO(answer.read())).convert("RGB"))
                said = urllib.parse.unquote(answer.headers.get("T2I-Unread", ""))
            assert said == "".join(line.removeprefix("warning: ") for line in pipe.unread([sentence]))
            found = sheet[MARGIN : MARGIN + SIDE, MARGIN : MARGIN + SIDE].astype(int)
            image = pipe(sentence, count=1, seed=3).images[0]
            expected = np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BICUBIC))
            assert expected.std() > 10  # it shows something
            assert np.abs(found - expected).max() <= 1
