"""A trained model as one ONNX file: caption ids and noise in, images out, in any runtime that reads ONNX.

* The text encoder and the generator are one graph, of standard operators only; the batch is free.
* What a caller needs (alphabet, lengths, size) is in the file's metadata.
* The file is written only after onnxruntime has generated the same images from it as PyTorch.
* float16 computes in half precision. int8 stores the weights as int8 with a scale per channel and computes in float32: a
  quarter of the file, on every runtime. Not integer arithmetic: no CPU runtime has integer transposed convolutions.
"""

import copy
import json
import logging
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from t2i import _native, runtime
from t2i.errors import ConfigError
from t2i.export.checks import sealed
from t2i.extras import require
from t2i.files import make_folder, write_atomically
from t2i.models.build import AnyGenerator
from t2i.pipeline import Pipeline
from t2i.text import tokenizer
from t2i.text.minilm import MiniLmEncoder
from t2i.text.protocol import TextEncoder
from t2i.text.tokenizers import AlphabetTokenizer

Precision = Literal["float32", "float16", "int8"]
Ids = Literal["uint8", "int64"]
OPSET = 20


# Tolerated difference of onnxruntime from PyTorch in float32, images in -1..1: the largest of a pixel, and the mean.
TOLERANCE: dict[Precision, tuple[float, float]] = {
    "float32": (1e-4, 1e-4),
    "float16": (0.05, 0.005),
    "int8": (0.5, 0.02),
}
MIN_WEIGHT_NUMBERS = 256  # elements of a weight from which it is quantised
CHECKED = (
    "a flower with five red petals and a yellow centre",
    "this bird is small and brown, with a white belly and a short pointed beak",
    "Ünknown characters, and so many words that the caption does not fit: " + "and more " * 30,
    "x",
)


class DrawFromIds(nn.Module):
    """The graph: tokens (B, L), of captions, and noise (B, Z) to images (B, 3, size, size) float32 in [-1, 1].

    Args:
        encoder: Embeds captions.
        generator: Maps noise and text embeddings to images.
        dtype: Of the weights and of the arithmetic.
    """

    def __init__(self, encoder: TextEncoder, generator: AnyGenerator, dtype: torch.dtype) -> None:
        super().__init__()
        self.encoder, self.generator, self.dtype = encoder, generator, dtype
        self.body = (
            encoder.body() if isinstance(encoder, MiniLmEncoder) else None
        )  # hidden there: a graph needs it in sight

    def forward(self, captions: Tensor, noise: Tensor) -> Tensor:
        """Generate one image per row."""
        text = self.encoder.exportable(captions).to(self.dtype)  # (B, T)
        images: Tensor = self.generator(noise.to(self.dtype), text).float()
        return images


@dataclass(frozen=True)
class Written:
    """The result of an export: the file, its size, and how far onnxruntime's images are from PyTorch's (-1..1)."""

    path: Path
    bytes: int
    worst: float  # largest difference of a pixel
    mean: float

    def summary(self) -> str:
        """Describe it in one line."""
        return (
            f"{self.path}: {self.bytes / 1e6:.1f} MB; onnxruntime and PyTorch differ by {self.worst:.1e} at most "
            f"and {self.mean:.1e} on average (images span -1..1)"
        )


def export(pipe: Pipeline, path: Path, precision: Precision = "float32", ids: Ids = "uint8") -> Written:
    """Write a model as ONNX, after checking it against PyTorch.

    Args:
        pipe: The trained model.
        path: The file, ending in .onnx; its folder is made.
        precision: "float32"; "float16": half the file; "int8": weights of a quarter of the file.
        ids: Type of the tokens that the graph takes; those of n-grams and word pieces are always int64.

    Raises:
        ConfigError: the model has no text encoder, the extra is not installed, the path does not end in .onnx, or the graph
            generates other images than PyTorch: then nothing is written.
        CheckpointError: the file cannot be written.
    """
    if path.suffix.lower() != ".onnx":
        raise ConfigError(f"--out must end in .onnx, got {path}")
    if pipe.encoder is None:
        raise ConfigError(
            f"{pipe.folder or 'this model'} was trained on embeddings of {pipe.config.text.encoder} and has no text encoder "
            "to export: the file could not read sentences; train on an encoder (--text.encoder RUN)"
        )
    for module in ("onnx", "onnxscript", "onnxruntime"):
        require(module, "t2i-export", "export")
    make_folder(path.parent)  # now, and not after minutes of tracing
    model = trace(pipe, torch.float16 if precision == "float16" else torch.float32, ids)
    if precision == "int8":
        to_int8(model)
    describe(model, pipe, precision)
    data = sealed(model.SerializeToString())
    worst, mean = compare(data, pipe, ids)
    most, most_mean = TOLERANCE[precision]
    if not (worst <= most and mean <= most_mean):  # also catches NaN
        raise ConfigError(
            f"the {precision} graph generates other images than PyTorch: they differ by {worst:.2g} at most and {mean:.2g} on "
            f"average, allowed are {most} and {most_mean}; nothing was written"
            + ("" if precision == "float32" else "; --precision float32 is exact")
        )
    write_atomically(path, data)
    return Written(path, len(data), worst, mean)


def _inputs(pipe: Pipeline, count: int, ids: Ids) -> tuple[Tensor, Tensor]:
    """Return `count` captions and their noise: tokens (count, L), noise (count, Z), on the CPU."""
    assert pipe.encoder is not None
    captions = pipe.encoder.tokenize([CHECKED[row % len(CHECKED)] for row in range(count)])
    noise = runtime.noise((count, pipe.config.noise_dim), torch.device("cpu"), 0, 0, "export")
    return captions if ids == "uint8" and captions.dtype == torch.uint8 else captions.long(), noise


@torch.no_grad()
def trace(pipe: Pipeline, dtype: torch.dtype, ids: Ids) -> Any:
    """Turn text encoder and generator into an onnx.ModelProto that computes in `dtype`; the pipeline stays as it is."""
    assert pipe.encoder is not None
    graph = DrawFromIds(copy.deepcopy(pipe.encoder), copy.deepcopy(pipe.generator), dtype).to("cpu", dtype).eval()
    batch = torch.export.Dim("batch", min=1)
    fixed = pipe.encoder.tokenize(["x"]).shape[1] == pipe.encoder.tokenize(CHECKED).shape[1]
    length = {} if fixed else {1: torch.export.Dim("length", min=2)}
    loud = logging.getLogger("torch.onnx").level
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it warns of packages that are not needed
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                graph,
                _inputs(pipe, 3, ids),
                dynamo=True,
                input_names=["captions", "noise"],
                output_names=["images"],
                dynamic_shapes={"captions": {0: batch, **length}, "noise": {0: batch}},
                opset_version=OPSET,
                verbose=False,
            )
    finally:
        logging.getLogger("torch.onnx").setLevel(loud)
    assert program is not None
    return program.model_proto


def to_int8(model: Any) -> None:
    """Store the weights of products and convolutions as int8 with a float32 scale a channel, in place.

    A weight w becomes round(w / s) with s = max |w| / 127 over its output channel; the graph multiplies it again.
    """
    import onnx
    from onnx import numpy_helper

    # Operator and place of its input: axis of the output channels. The generator's first weight is reshaped before it is used.
    axes = {("Conv", 1): 0, ("ConvTranspose", 1): 1, ("MatMul", 1): 1, ("Reshape", 0): 1}
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    uses: dict[str, set[int]] = {}
    for node in model.graph.node:
        for place, name in enumerate(node.input):
            if name not in weights or len(weights[name].dims) < 2 or np.prod(weights[name].dims) < MIN_WEIGHT_NUMBERS:
                continue
            axis = axes.get((node.op_type, place), -1)
            if node.op_type == "Gemm" and place == 1:
                axis = 0 if any(a.name == "transB" and a.i for a in node.attribute) else 1
            uses.setdefault(name, set()).add(axis)
    multiplied = []
    for name, found in uses.items():
        if len(found) > 1 or -1 in found:  # read in a way that has no channels
            continue
        (axis,) = found
        weight = numpy_helper.to_array(weights[name])
        others = tuple(each for each in range(weight.ndim) if each != axis)
        scale = np.maximum(np.abs(weight).max(axis=others), 1e-12).astype(np.float32) / np.float32(127)
        spread = scale.reshape([-1 if each == axis else 1 for each in range(weight.ndim)])
        whole = np.clip(np.round(weight / spread), -127, 127).astype(np.int8)
        model.graph.initializer.remove(weights[name])
        model.graph.initializer.extend(
            [numpy_helper.from_array(whole, f"{name}.int8"), numpy_helper.from_array(scale, f"{name}.scale")]
        )
        multiplied.append(
            onnx.helper.make_node("DequantizeLinear", [f"{name}.int8", f"{name}.scale"], [name], axis=axis)
        )
    nodes = [*multiplied, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def describe(model: Any, pipe: Pipeline, precision: Precision) -> None:
    """Write what a caller needs into the metadata, in place."""
    import onnx

    assert pipe.encoder is not None
    config = pipe.config
    metadata = {
        "tokenizer": json.dumps(pipe.encoder.tokenizer.settings()),
        "noise_length": str(config.noise_dim),
        "size": str(config.size),
        "precision": precision,
        "images": "(batch, 3, size, size), RGB, -1..1: uint8 = round((x + 1) * 127.5)",
        "settings": json.dumps({"preset": config.preset, "text": config.text.variant, "kind": pipe.encoder.kind}),
    }
    if isinstance(pipe.encoder.tokenizer, AlphabetTokenizer):
        metadata |= {
            "alphabet": tokenizer.ALPHABET,
            "caption_length": str(tokenizer.CAPTION_LENGTH),
            "captions": "lower-cased; id = 1 + last place in the alphabet, 71 any other character, 0 from the end on",
        }
    onnx.helper.set_model_props(model, metadata)
    model.producer_name, model.producer_version = "t2i", _native.__version__
    model.doc_string = "Text to image, Reed et al. 2016: tokens (batch, length) and noise (batch, Z) to images."
    onnx.checker.check_model(model, full_check=True)


@torch.no_grad()
def compare(data: bytes, pipe: Pipeline, ids: Ids, counts: tuple[int, ...] = (1, 4, 9)) -> tuple[float, float]:
    """Generate batches of several sizes with onnxruntime and with PyTorch: largest and mean difference of a pixel."""
    import onnxruntime

    assert pipe.encoder is not None
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    differences = []
    for count in counts:
        captions, noise = _inputs(pipe, count, ids)
        expected = pipe.draw(noise.to(pipe.device), pipe.encoder(captions.to(pipe.device))).float().cpu().numpy()
        images = session.run(None, {"captions": captions.numpy(), "noise": noise.numpy()})[0]
        differences.append(np.abs(images - expected).ravel())
    together = np.concatenate(differences)
    return float(together.max()), float(together.mean())
