"""A model of the modern network through every door: loading, saving, ONNX, interpolation and its style encoder."""

from pathlib import Path

import pytest
import torch

from helpers import call
from t2i.config.options import TextOptions, TrainConfig
from t2i.config.records import to_json
from t2i.data.dataset import PackedDataset
from t2i.errors import CheckpointError
from t2i.files import write_atomically
from t2i.models.build import generator as make_generator
from t2i.pipeline import Pipeline
from t2i.text.build import text_encoder
from t2i.weights import save_weights

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.timeout(400)]
CONFIG = TrainConfig(
    network="modern",
    size=16,
    generator_width=4,
    noise_dim=8,
    projection_dim=8,
    interpolation_weight=0.0,
    alignment_weight=0.0,
    text=TextOptions(width=8, channels=(8, 8), dim=16),
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with random weights, and batch and text statistics that a training would leave."""
    folder = tmp_path_factory.mktemp("modern")
    torch.manual_seed(0)
    generator, encoder = make_generator(CONFIG), text_encoder(CONFIG.text)
    generator.fit_text(5 + 2 * torch.randn(50, 16))
    for _ in range(20):
        generator(torch.randn(16, 8), 5 + 2 * torch.randn(16, 16))
    with torch.no_grad():
        generator.to_rgb_last.weight *= 20  # contrast, as a trained one has
    save_weights(folder / "model.safetensors", {"generator": generator, "text": encoder})
    write_atomically(folder / "config.json", to_json(CONFIG).encode())
    return folder


def test_a_saved_model_draws_the_same_to_the_bit(run: Path, tmp_path: Path) -> None:
    pipe = Pipeline.from_pretrained(run)
    pipe.save_pretrained(tmp_path / "saved")
    again = Pipeline.from_pretrained(tmp_path / "saved")
    noise, text = torch.randn(2, 8), torch.randn(2, 16)
    assert torch.equal(pipe.draw(noise, text), again.draw(noise, text))


def test_a_model_of_the_paper_is_not_taken_for_a_modern_one(run: Path, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes((run / "model.safetensors").read_bytes())
    settings = to_json(CONFIG).replace('"network": "modern"', '"network": "paper"')
    (tmp_path / "config.json").write_text(settings)
    with pytest.raises(CheckpointError, match="generator"):
        Pipeline.from_pretrained(tmp_path)


def test_sentences_and_noises_are_interpolated(run: Path, tmp_path: Path) -> None:
    code, _, err = call(
        "t2i-generate",
        "--interpolate-text",
        "a red flower",
        "a blue flower",
        "--model",
        run,
        "--out",
        tmp_path / "between.png",
    )
    assert code == 0, err
    assert (tmp_path / "between.png").stat().st_size > 0


def test_onnxruntime_draws_what_pytorch_draws(run: Path, tmp_path: Path) -> None:
    for extra in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(extra, reason="the extra is not installed: pip install 't2i[export]'")
    from t2i.export import onnx

    written = onnx.export(Pipeline.from_pretrained(run), tmp_path / "model.onnx")
    assert written.worst < 1e-4


def test_a_style_encoder_learns_from_it(run: Path, tmp_path: Path, tiny_blossoms: PackedDataset) -> None:
    code, _, err = call(
        "t2i-train",
        "style",
        "--model",
        run,
        "--out",
        tmp_path / "style",
        "--data",
        tiny_blossoms.path,
        "--steps",
        2,
        "--batch",
        4,
        "--width",
        4,
        "--device",
        "cpu",
    )
    assert code == 0, err
    assert (tmp_path / "style" / "style.safetensors").is_file()
