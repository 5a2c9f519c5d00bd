"""A model as one ONNX file: the same pictures, in another runtime."""

import dataclasses
import shlex
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import t2i
from promises import TORTURE
from t2i.cli import main
from t2i.config.options import TextOptions, TrainConfig
from t2i.export import onnx as exporting
from t2i.export.onnx_pipeline import OnnxPipeline
from t2i.noise import noise_of
from t2i.pipeline import Pipeline
from t2i.text import tokenizer

onnx = pytest.importorskip("onnx", reason="the extra is not installed: pip install 't2i[export]'")
onnxruntime = pytest.importorskip("onnxruntime", reason="the extra is not installed: pip install 't2i[export]'")
pytest.importorskip("onnxscript", reason="the extra is not installed: pip install 't2i[export]'")
pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.timeout(400)]  # tracing is slow on a busy machine

SENTENCES = ["a flower with red petals", "\U0001f33b of BLUE, naïve", "x" * 300]


@pytest.fixture(scope="module")
def pipe(tiny_run):
    return Pipeline.from_pretrained(tiny_run)


@pytest.fixture(scope="module", autouse=True)
def traced_once():
    """Tracing costs seconds: a network that was traced before is not traced again."""
    kept, trace = {}, exporting.trace

    def once(pipe, dtype, ids):
        key = (pipe.config, dtype, ids)
        if key not in kept:
            kept[key] = trace(pipe, dtype, ids).SerializeToString()
        return onnx.load_from_string(kept[key])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exporting, "trace", once)
        yield


@pytest.fixture(scope="module")
def written(pipe, tmp_path_factory):
    """The same model with weights of four bytes and of one: its file and what the export said."""
    folder = tmp_path_factory.mktemp("exported")
    return {each: exporting.export(pipe, folder / f"{each}.onnx", each) for each in ("float32", "int8")}


def run_graph(path, ids, noise):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {"captions": ids, "noise": noise})[0]


@pytest.mark.parametrize("count", [1, 2, 7])
def test_the_graph_draws_pytorchs_pictures_at_any_batch_size(pipe, written, count):
    ids = tokenizer.encode([SENTENCES[row % 3] for row in range(count)])
    noise = torch.randn(count, 8, generator=torch.Generator().manual_seed(count))
    expected = pipe.generator(noise, pipe.encoder(torch.from_numpy(ids))).detach().numpy()
    assert expected.std() > 0.01  # not one grey picture
    np.testing.assert_allclose(run_graph(written["float32"].path, ids, noise.numpy()), expected, rtol=0, atol=1e-4)


def test_padding_and_unknown_characters_are_the_tables_zeros(pipe, written):
    """Every id that the tokenizer can give, in one caption, and no character at all in another."""
    ids = np.zeros((2, 201), np.uint8)
    ids[0, :72] = np.arange(72)
    noise = np.ones((2, 8), np.float32)
    expected = pipe.generator(torch.from_numpy(noise), pipe.encoder(torch.from_numpy(ids))).detach().numpy()
    np.testing.assert_allclose(run_graph(written["float32"].path, ids, noise), expected, rtol=0, atol=1e-4)


def test_int8_is_smaller_and_near(pipe, written):
    assert written["int8"].bytes < written["float32"].bytes
    ids, noise = tokenizer.encode(SENTENCES), np.random.default_rng(0).standard_normal((3, 8)).astype(np.float32)
    exact, found = (run_graph(written[each].path, ids, noise) for each in ("float32", "int8"))
    assert 0 < np.abs(found - exact).mean() < 0.02


def test_int8_keeps_every_large_weight_in_a_byte_within_half_a_step_of_its_channel(pipe, written):
    graph = onnx.load(written["int8"].path).graph
    tensors = {t.name: onnx.numpy_helper.to_array(t) for t in graph.initializer}
    whole = {name.removesuffix(".int8"): t for name, t in tensors.items() if name.endswith(".int8")}
    large = [name for name, t in tensors.items() if t.dtype == np.float32 and t.ndim > 1 and t.size >= 256]
    assert large == []
    weight = pipe.generator.state_dict()["to_rgb.weight"].numpy()  # (8, 3, 4, 4): output channels on axis 1
    (name,) = [name for name in whole if name.endswith("to_rgb.weight")]
    scale = tensors[f"{name}.scale"]
    np.testing.assert_allclose(scale, np.abs(weight).max(axis=(0, 2, 3)) / 127, rtol=1e-6)
    off = np.abs(whole[name] * scale[None, :, None, None] - weight)
    assert (off <= scale[None, :, None, None] * 0.5001).all()


def test_the_file_says_what_a_caller_must_know(written):
    model = onnx.load(written["float32"].path)
    facts = {entry.key: entry.value for entry in model.metadata_props}
    assert facts["alphabet"] == t2i.ALPHABET
    assert (facts["caption_length"], facts["noise_length"], facts["size"]) == ("201", "8", "16")
    assert {node.domain for node in model.graph.node} <= {"", "ai.onnx"}  # standard operators: any runtime
    assert not {"Loop", "Scan", "If"} & {node.op_type for node in model.graph.node}
    captions, noise = model.graph.input
    assert captions.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert [d.dim_value or "free" for d in noise.type.tensor_type.shape.dim] == ["free", 8]
    assert captions.type.tensor_type.shape.dim[0].dim_param == noise.type.tensor_type.shape.dim[0].dim_param


def test_the_metadata_is_enough_to_write_a_caption_without_this_package(written):
    """A tokenizer of three lines from the file's own words gives the ids."""
    facts = onnxruntime.InferenceSession(written["float32"].path).get_modelmeta().custom_metadata_map
    length, alphabet = int(facts["caption_length"]), facts["alphabet"]
    for sentence in ("A red-and-white flower, n. 5!", "\U0001f33b ok", "y" * 250):
        ids = [alphabet.rfind(c) + 1 or 71 for c in sentence.lower()[:length]]
        assert [*ids, *[0] * (length - len(ids))] == t2i.encode([sentence])[0].tolist()


def test_the_exported_model_draws_what_the_pipeline_draws(pipe, written):
    expected = pipe(SENTENCES, count=2, seed=3)
    drawn = OnnxPipeline(written["float32"].path)(SENTENCES, count=2, seed=3)
    torch.testing.assert_close(drawn.tensor, expected.tensor, rtol=0, atol=1e-4)
    assert [picture.size for picture in drawn.images] == [(16, 16)] * 6


@pytest.mark.parametrize(
    "variant",
    ["short", pytest.param("long", marks=pytest.mark.skipif(not TORTURE, reason="18 gated steps: set T2I_TORTURE=1"))],
)
def test_half_precision_and_wide_ids_export_too(tmp_path, variant):
    text = TextOptions(variant=variant, width=8, channels=(8, 8), dim=16)
    config = TrainConfig(size=16, generator_width=8, noise_dim=8, projection_dim=8, text=text)
    torch.manual_seed(1)
    pipe = Pipeline(t2i.Generator(16, 8, 8, 16, 8), t2i.CharCnnRnn(variant, 8, 16, (8, 8)), config)
    with torch.no_grad():
        pipe.generator.to_rgb.weight *= 50
    written = exporting.export(pipe, tmp_path / "half.onnx", "float16", ids="int64")
    weights = [t for t in onnx.load(written.path).graph.initializer if np.prod(t.dims) > 100]
    assert {tensor.data_type for tensor in weights} == {onnx.TensorProto.FLOAT16}
    expected = pipe(SENTENCES).tensor.numpy()
    drawn = OnnxPipeline(written.path)(SENTENCES).tensor.numpy()
    noise = noise_of(0, 1, 8, torch.device("cpu")).expand(3, -1).numpy()
    for found in (drawn, run_graph(written.path, t2i.encode(SENTENCES).astype(np.int64), noise)):
        assert found.dtype == np.float32
        assert 0 < np.abs(found - expected).mean() < 0.005 * expected.std() / 0.1


def test_a_graph_that_draws_something_else_is_refused_and_not_written(pipe, tmp_path, monkeypatch):
    def spoiled(pipe, dtype, ids):
        model = original(pipe, dtype, ids)
        tensor = next(t for t in model.graph.initializer if t.name.endswith("to_rgb.weight"))
        tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor) + 0.01, tensor.name))
        return model

    original = exporting.trace
    monkeypatch.setattr(exporting, "trace", spoiled)
    with pytest.raises(t2i.ConfigError, match="generates other images than PyTorch") as caught:
        exporting.export(pipe, tmp_path / "model.onnx")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_exporting_leaves_the_pipeline_as_it_was(pipe, written):
    assert {t.dtype for t in pipe.generator.parameters()} == {torch.float32}
    assert not pipe.generator.training


def test_a_model_without_a_text_encoder_cannot_be_exported(pipe, tmp_path):
    text = dataclasses.replace(pipe.config.text, encoder="captions.npy")
    without = Pipeline(pipe.generator, None, dataclasses.replace(pipe.config, text=text))
    with pytest.raises(t2i.ConfigError, match=r"trained on embeddings of captions\.npy and has no text encoder"):
        exporting.export(without, tmp_path / "model.onnx")


def call(monkeypatch, capsys, command, *arguments):
    monkeypatch.setattr(sys, "argv", ["t2i", *map(str, arguments)])
    code = 0
    try:
        command()
    except SystemExit as stop:
        code = stop.code
    seen = capsys.readouterr()
    return code, seen.out, seen.err


def test_the_command_writes_a_file_and_names_a_next_command_that_draws_the_runs_picture(
    tiny_run, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    code, out, _ = call(monkeypatch, capsys, main.export, "--model", tiny_run, "--out", "new/a model.onnx")
    assert code == 0
    assert "onnxruntime and PyTorch differ by" in out
    command, *arguments = shlex.split(out.splitlines()[-1].removeprefix("next: "))
    assert command == "t2i-generate"
    assert call(monkeypatch, capsys, main.generate, *arguments)[0] == 0
    arguments[1], arguments[-1] = str(tiny_run), "of-the-run.png"
    assert call(monkeypatch, capsys, main.generate, *arguments)[0] == 0
    one, two = (np.asarray(Image.open(name), np.int16) for name in ("picture.png", "of-the-run.png"))
    assert np.abs(one - two).max() <= 1


@pytest.mark.parametrize(
    ("command", "arguments", "says"),
    [
        (main.export, ["--model", "{run}", "--out", "model.pt"], "--out must end in .onnx, got model.pt"),
        (main.export, ["--model", "nowhere"], "no such run folder: nowhere"),
        (main.generate, ["--model", "no.onnx", "a"], "no such model: no.onnx; t2i-export makes one"),
        (main.generate, ["--model", "bad.onnx", "a"], "bad.onnx is not a model that t2i-export wrote"),
        (main.generate, ["--model", "bad.onnx", "--interpolate-noise", "a"], "an .onnx file takes plain captions only"),
        (
            main.generate,
            ["--model", "bad.onnx", "a", "--device", "cuda"],
            "an .onnx file runs on the CPU: --device cuda",
        ),
        (main.generate, ["--model", "bad.onnx", "a", "--device", "nonsense"], "--device nonsense needs the run folder"),
        (main.generate, ["--model", "bad.onnx", "a", "--device", "auto"], "is not a model that t2i-export wrote"),
    ],
)
def test_what_cannot_work_is_one_line(tiny_run, tmp_path, monkeypatch, capsys, command, arguments, says):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.onnx").write_bytes(b"\x80\x04.")
    code, _, err = call(monkeypatch, capsys, command, *[each.format(run=tiny_run) for each in arguments])
    assert code == 2
    assert says in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(("captions", "count"), [(b"abc", 1), ([1], 1), (None, 1), ("a flower", 2.5), ("a flower", 0)])
def test_what_is_no_caption_or_count_is_refused_as_by_the_pipeline(written, captions, count):
    with pytest.raises(t2i.ConfigError, match=r"a caption must be a text|count must be"):
        OnnxPipeline(str(written["float32"].path))(captions, count=count)


def test_without_the_extra_the_command_says_what_to_install(tiny_run, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "onnx", None)
    code, _, err = call(monkeypatch, capsys, main.export, "--model", tiny_run, "--out", tmp_path / "m.onnx")
    assert code == 2
    assert "t2i-export needs onnx: pip install 't2i[export]'" in err
