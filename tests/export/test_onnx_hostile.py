"""ONNX files from strangers: refused in one line, before onnxruntime sees them; whatever changes in one is noticed."""

import hashlib
import json

import numpy as np
import pytest
import torch

import t2i
from promises import cases

onnx = pytest.importorskip("onnx", reason="the extra is not installed: pip install 't2i[export]'")
pytest.importorskip("onnxruntime", reason="the extra is not installed: pip install 't2i[export]'")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from t2i.export import onnx_pipeline  # noqa: E402
from t2i.export.checks import SEAL, sealed  # noqa: E402
from t2i.export.onnx import export  # noqa: E402
from t2i.export.onnx_pipeline import OnnxPipeline  # noqa: E402
from t2i.pipeline import Pipeline  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def exported(tiny_run, tmp_path_factory):
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    export(Pipeline.from_pretrained(tiny_run), path)
    return path


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"count": True}, "count must be a whole number, got True"),
        ({"count": 10**12}, r"images of 16 px need .* GB are free: ask for fewer"),
        ({"seed": None}, "seed must be a whole number, got None"),
    ],
)
def test_what_a_file_cannot_draw_is_refused_as_by_the_pipeline(exported, options, says):
    with pytest.raises(t2i.ConfigError, match=says):
        OnnxPipeline(exported)("a red flower", **options)


def test_many_images_of_a_file_are_drawn_in_parts_and_none_of_no_caption(exported, monkeypatch):
    pipe = OnnxPipeline(exported)
    expected = pipe(["a red flower", "a blue flower"], count=4).tensor
    monkeypatch.setattr(onnx_pipeline, "PIXELS", 3 * 16 * 16)
    torch.testing.assert_close(pipe(["a red flower", "a blue flower"], count=4).tensor, expected)
    assert pipe([]).tensor.shape == (0, 3, 16, 16)
    assert pipe.unread("a \U0001f33b flower") == pipe.unread(["a \U0001f33b flower"])


def changed(exported, path, change):
    """Write the model with a change and a checksum that fits."""
    model = onnx.load_model_from_string(exported.read_bytes())
    kept = [entry for entry in model.metadata_props if entry.key != "sha256"]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    change(model)
    path.write_bytes(sealed(model.SerializeToString()))


def external(location):
    def change(model):
        tensor = next(each for each in model.graph.initializer if len(each.raw_data) > 64)
        length = len(tensor.raw_data)
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in {"location": location, "offset": "0", "length": str(length)}.items():
            tensor.external_data.add(key=key, value=value)

    return change


def constant_external(model):
    tensor = numpy_helper.from_array(np.zeros(4, np.float32), "x")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="secret.bin")
    model.graph.node.append(helper.make_node("Constant", [], ["x"], value=tensor))


def endless(model):
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
        ],
        [helper.make_tensor_value_info("on", TensorProto.BOOL, [])],
    )
    model.graph.initializer.append(numpy_helper.from_array(np.array(2**62, np.int64), "times"))
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
    model.graph.node.append(helper.make_node("Loop", ["times", "yes"], [], body=body))


def props(**values):
    def change(model):
        for entry in model.metadata_props:
            if entry.key in values:
                entry.value = str(values[entry.key])

    return change


def renamed_input(model):
    model.graph.input[0].name = "ids"


def float_captions(model):
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT


def longer_noise(model):
    model.graph.input[1].type.tensor_type.shape.dim[1].dim_value = 2**40


def another_output(model):
    model.graph.output.append(helper.make_tensor_value_info("more", TensorProto.FLOAT, [1]))


def own_domain(model):
    model.opset_import.append(helper.make_opsetid("evil", 1))


CHANGES = [  # and why each is refused: onnxruntime would refuse some of them, too
    (external("secret.bin"), "is in another file"),
    (external("../cwd/secret.bin"), "is in another file"),
    (external("/etc/passwd"), "is in another file"),
    (constant_external, "is in another file"),
    (endless, "it has a graph inside a graph (Loop)"),
    (own_domain, "it has functions or operators of its own"),
    (props(noise_length=0), "images of 16 px from noise of 0 numbers"),
    (props(noise_length=-1), "images of 16 px from noise of -1 numbers"),
    (props(noise_length=10**12), "images of 16 px from noise of 1000000000000 numbers"),
    (props(noise_length="x"), "invalid literal for int()"),
    (props(size=10**9), "images of 1000000000 px"),
    (props(size=-32), "images of -32 px"),
    (props(tokenizer="[" * 100_000), "maximum recursion depth exceeded"),
    (props(tokenizer="{}"), ""),
    (props(tokenizer="null"), ""),
    (renamed_input, "its inputs and outputs are"),
    (float_captions, "its captions are no table of numbers"),
    (longer_noise, "its noise must be (batch, "),
    (another_output, "its inputs and outputs are"),
]


@pytest.mark.promise(34)
def test_a_model_that_t2i_export_never_writes_is_refused_in_one_line(exported, tmp_path, monkeypatch, tally):
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    (tmp_path / "cwd" / "secret.bin").write_bytes(bytes(range(256)) * 1000)
    for number, (change, why) in enumerate(tally(CHANGES)):
        path = tmp_path / f"{number}.onnx"
        changed(exported, path, change)
        with pytest.raises(t2i.CheckpointError, match="is not a model that t2i-export wrote") as caught:
            OnnxPipeline(path)
        assert f"wrote: {why}" in str(caught.value) or (why.startswith("is") and why in str(caught.value))
        assert "\n" not in str(caught.value)


def test_a_change_that_fits_nothing_else_is_an_error_when_it_is_drawn_from(exported, tmp_path):
    """The size in the metadata is not that of the graph."""
    path = tmp_path / "x.onnx"
    changed(exported, path, props(size=32))
    with pytest.raises(t2i.CheckpointError, match=r"gives \(1, 3, 16, 16\) in place of finite images \(1, 3, 32, 32\)"):
        OnnxPipeline(path)("a flower")


@pytest.mark.promise(34)
def test_twenty_flipped_bits_anywhere_are_noticed(exported, tmp_path, tally):
    whole, path, rng = exported.read_bytes(), tmp_path / "x.onnx", np.random.default_rng(0)
    for _ in tally(range(len(cases(34)) // 2)):
        data = bytearray(whole)
        for place in rng.integers(0, len(data), 20):
            data[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(data)
        with pytest.raises(t2i.CheckpointError, match=r"is damaged: its checksum differs|has no checksum at its end"):
            OnnxPipeline(path)
    path.write_bytes(whole)
    assert OnnxPipeline(path)("a flower").images


def test_the_checksum_is_of_all_that_comes_before_it(exported):
    data = exported.read_bytes()
    body, seal = data[: -len(SEAL) - 64], data[-len(SEAL) - 64 :]
    assert seal == SEAL + hashlib.sha256(body).hexdigest().encode()
    metadata = {entry.key: entry.value for entry in onnx.load_model_from_string(data).metadata_props}
    assert metadata["sha256"] == hashlib.sha256(body).hexdigest()  # any reader of ONNX finds it
    assert json.loads(metadata["settings"])
