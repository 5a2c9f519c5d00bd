"""ONNX files from anywhere: what is looked at before onnxruntime sees a file.

* The file ends with its own SHA-256, as one more entry of its metadata: a damaged file is refused.
* Nothing outside it is read: external data are refused. Loops, branches and functions, which t2i-export never writes, are
  refused too: a loop may have no end.
* Names, types and ranks of inputs and outputs are those that t2i-export writes.
"""

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from t2i.errors import CheckpointError
from t2i.extras import require
from t2i.files import read_file

MAX_BYTES = 2**31  # a protobuf holds no more
MAX_SIZE, MAX_NOISE = 4096, 65536
# Field 14 (metadata_props) of a ModelProto: 74 bytes of key "sha256" and a value of 64 digits. A protobuf may be continued by
# appending fields to it.
SEAL = b"\x72\x4a\x0a\x06sha256\x12\x40"
SUBGRAPHS = {"Loop", "Scan", "If", "SequenceMap"}


def sealed(data: bytes) -> bytes:
    """Append its checksum to a serialised model."""
    return data + SEAL + hashlib.sha256(data).hexdigest().encode()


def read_model(path: Path) -> tuple[bytes, Any]:
    """Read an ONNX file and look at it: its bytes, and what its metadata says.

    Raises:
        CheckpointError: missing, damaged, not written by t2i-export, or not to be trusted.
        ConfigError: the extra is not installed.
    """
    try:
        data = read_file(path, MAX_BYTES)
    except FileNotFoundError as error:
        raise CheckpointError(f"no such model: {path}; t2i-export makes one") from error
    body, seal = data[: -len(SEAL) - 64], data[-len(SEAL) - 64 :]
    if not seal.startswith(SEAL):
        raise CheckpointError(f"{path} is not a model that t2i-export wrote, or damaged: it has no checksum at its end")
    if seal[len(SEAL) :] != hashlib.sha256(body).hexdigest().encode():
        raise CheckpointError(f"{path} is damaged: its checksum differs; export the model again")
    onnx = require("onnx", path.name, "export")
    try:
        model = onnx.load_model_from_string(data)
        metadata = {entry.key: entry.value for entry in model.metadata_props}
        _check(model, int(metadata["size"]), int(metadata["noise_length"]), onnx.TensorProto)
    except Exception as error:  # of protobuf: a class for each fault
        raise CheckpointError(f"{path} is not a model that t2i-export wrote: {_line(error)}") from error
    return data, metadata


def _check(model: Any, size: int, noise: int, kinds: Any) -> None:
    """Raise ValueError for what t2i-export never writes."""
    if not 16 <= size <= MAX_SIZE or not 1 <= noise <= MAX_NOISE:
        raise ValueError(f"images of {size} px from noise of {noise} numbers")
    if model.functions or any(domain.domain not in ("", "ai.onnx") for domain in model.opset_import):
        raise ValueError("it has functions or operators of its own")
    for node in model.graph.node:
        if node.op_type in SUBGRAPHS or any(
            attribute.HasField("g") or attribute.graphs for attribute in node.attribute
        ):
            raise ValueError(f"it has a graph inside a graph ({node.op_type})")
    for tensor in _tensors(model.graph):
        if tensor.data_location == kinds.EXTERNAL or tensor.external_data:
            raise ValueError(f"its tensor {tensor.name!r} is in another file")
    found = {value.name: _type(value) for value in (*model.graph.input, *model.graph.output)}
    captions = found.get("captions", (0, []))
    if set(found) != {"captions", "noise", "images"} or [value.name for value in model.graph.output] != ["images"]:
        raise ValueError(f"its inputs and outputs are {', '.join(sorted(found))}")
    if captions[0] not in (kinds.UINT8, kinds.INT64) or len(captions[1]) != 2:
        raise ValueError("its captions are no table of numbers")
    if found["noise"][0] != kinds.FLOAT or found["noise"][1][1:] != [noise]:
        raise ValueError(f"its noise must be (batch, {noise}) float32")
    if found["images"][0] != kinds.FLOAT or len(found["images"][1]) != 4:
        raise ValueError("its images must be (batch, 3, size, size) float32")


def _type(value: Any) -> tuple[int, list[int]]:
    tensor = value.type.tensor_type
    return tensor.elem_type, [dimension.dim_value for dimension in tensor.shape.dim]


def _tensors(graph: Any) -> Iterator[Any]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                yield from (sparse.values, sparse.indices)


def _line(error: BaseException) -> str:
    return re.sub(r"\s+", " ", str(error))[:200] or type(error).__name__
