"""Network weights in safetensors files that carry a checksum of their tensors. Nothing is unpickled."""

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from t2i.errors import CheckpointError, ConfigError
from t2i.files import check_file, read_file, write_atomically

MAX_PARAMETERS = 4_000_000_000  # of a network; the paper's have 24 million together
FLOATS = {"F64", "F32", "F16", "BF16"}
Network = TypeVar("Network", bound=nn.Module)
# What the library raises for files of strangers: dtypes that torch does not have, sizes that do not fit the memory.
UNREADABLE = (
    SafetensorError,
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    RuntimeError,
    ArithmeticError,
    MemoryError,
)


def serialise(tensors: Mapping[str, Tensor]) -> bytes:
    """Write tensors as safetensors, with a checksum of them in the header that `read_tensors` compares."""
    plain = plain_tensors(tensors)
    data = save(plain, {"format": "pt", "sha256": tensor_digest(plain)})
    length = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))  # the library writes them in any order
    return data[:8] + json.dumps(header, separators=(",", ":")).encode().ljust(length - 8) + data[length:]


def plain_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Detach tensors and copy them to the CPU in plain memory order."""
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def non_finite(tensors: Mapping[str, Tensor]) -> str | None:
    """Name the first tensor that holds NaN or infinity, if any."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(tensor.float().isfinite().all()):
            return name
    return None


def tensor_digest(tensors: Mapping[str, Tensor]) -> str:
    """Sum names, dtypes, shapes and bytes of plain tensors up, in the order of the names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def save_weights(path: Path, modules: Mapping[str, nn.Module]) -> None:
    """Write modules into one safetensors file; tensor names are prefixed with the module's."""
    write_atomically(path, serialise(module_tensors(modules)))


def module_tensors(modules: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """List the tensors of modules, their names prefixed with the module's."""
    return {f"{prefix}.{name}": t for prefix, module in modules.items() for name, t in module.state_dict().items()}


def load_weights(path: Path, modules: Mapping[str, nn.Module]) -> None:
    """Fill modules from a file of `save_weights`, in place.

    Raises:
        CheckpointError: missing, damaged, or of another shape; the message names the first tensor that does not fit.
    """
    tensors = read_tensors(path)
    for prefix, module in modules.items():
        expected = module.state_dict()
        for name, tensor in expected.items():
            key = f"{prefix}.{name}"
            if key not in tensors:
                raise CheckpointError(f"{path} has no tensor {key!r}: it was not made by these settings")
            if tensors[key].shape != tensor.shape:
                raise CheckpointError(
                    f"{path}: {key} must be {tuple(tensor.shape)}, got {tuple(tensors[key].shape)}: "
                    "it was made with other sizes"
                )
        module.load_state_dict({name: tensors[f"{prefix}.{name}"] for name in expected})


def read_tensors(path: Path, *, require_checksum: bool = False) -> dict[str, Tensor]:
    """Read a safetensors file, and compare its tensors with the checksum in its header where there is one.

    Raises:
        CheckpointError: missing or damaged, or without a checksum where one is required.
    """
    expected = read_header(path).metadata.get("sha256")  # before anything else: gigabytes of nothing are not read
    try:
        tensors = load(read_file(path))
    except UNREADABLE as error:
        raise _unreadable(path, error) from error
    if expected is None and require_checksum:
        raise CheckpointError(f"{path} has no checksum of its tensors: it was not written by t2i")
    if expected is not None and expected != tensor_digest(tensors):
        raise CheckpointError(f"{path} is damaged: the checksum of its tensors differs; copy or download it again")
    wrong = non_finite(tensors)
    if wrong is not None:
        raise CheckpointError(f"{path}: {wrong} holds NaN or infinity")
    return tensors


def _unreadable(path: Path, error: BaseException) -> CheckpointError:
    if isinstance(error, CheckpointError):
        return error
    reason = next(iter(str(error).splitlines()), "") or type(error).__name__
    return CheckpointError(f"{path} is not a readable safetensors file: {reason[:300]}")


class _WithoutNormal(TorchFunctionMode):
    """Skip `normal_`: on the meta device it sets nothing, and imports torch's decompositions first, for 2 to 3 seconds."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in (nn.init.normal_, Tensor.normal_):
            return args[0] if args else (kwargs or {})["tensor"]
        return func(*args, **(kwargs or {}))


def checked_network(path: Path, prefix: str, make: Callable[[], Network]) -> Network:
    """Build a network for the weights of a file, after comparing their names, shapes and dtypes.

    Args:
        path: The safetensors file, of which only the header is read.
        prefix: Of the network's tensors in the file.
        make: Builds the network.

    Raises:
        CheckpointError: the settings describe no network, or one of another shape than the file.
    """
    try:
        with torch.device("meta"), _WithoutNormal():  # shapes without the memory
            expected = make().state_dict()
        parameters = sum(tensor.numel() for tensor in expected.values())
    except (ConfigError, RuntimeError, TypeError, ValueError, OverflowError, AttributeError) as error:
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise CheckpointError(f"{path.parent}: its settings describe no network that can be built: {reason}") from error
    if parameters > MAX_PARAMETERS:
        raise CheckpointError(f"{path.parent}: its settings describe a network of {parameters:,} weights")
    found = read_header(path).tensors
    for name, tensor in expected.items():
        key = f"{prefix}.{name}"
        if key not in found:
            raise CheckpointError(f"{path} has no tensor {key!r}: it was not made by these settings")
        kind, shape = found[key]
        if shape != tuple(tensor.shape):
            raise CheckpointError(
                f"{path}: {key} must be {tuple(tensor.shape)}, got {shape}: it was made with other sizes"
            )
        if (kind in FLOATS) != tensor.is_floating_point():
            raise CheckpointError(f"{path}: {key} must be {tensor.dtype}, got {kind}")
    left = sorted(key for key in found if key.startswith(f"{prefix}.") and key[len(prefix) + 1 :] not in expected)
    if left:
        raise CheckpointError(f"{path} has a tensor {left[0]!r} that these settings do not describe")
    return make()


class Header(NamedTuple):
    """What a safetensors file says of itself."""

    tensors: dict[str, tuple[str, tuple[int, ...]]]  # kind ("F32", "I64", ...) and shape, by name
    metadata: dict[str, str]


def read_header(path: Path) -> Header:
    """Read the header of a safetensors file, and no tensor; CheckpointError where it is missing or damaged."""
    try:
        check_file(path)
    except FileNotFoundError as error:
        raise CheckpointError(f"no such weight file: {path}") from error
    try:
        with contextlib.ExitStack() as opened:
            file = opened.enter_context(safe_open(_utf8_path(path, opened), framework="pt"))
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (it is no mapping)
            tensors = {name: (part.get_dtype(), tuple(part.get_shape())) for name, part in slices.items()}
            return Header(tensors, file.metadata() or {})
    except UNREADABLE as error:
        raise _unreadable(path, error) from error


def _utf8_path(path: Path, opened: contextlib.ExitStack) -> str | Path:
    """Name a file for a library that takes names in UTF-8 alone: by a descriptor where its folders have other bytes (Linux)."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        descriptor = os.open(path, os.O_RDONLY)
        opened.callback(os.close, descriptor)
        return f"/dev/fd/{descriptor}"
    return path


def fingerprint(modules: Mapping[str, nn.Module], step: int) -> str:
    """Name the weights and statistics of modules after `step` steps: equal for equal bits, in hexadecimal digits."""
    digest = hashlib.sha256(str(step).encode())
    for prefix, module in modules.items():
        for name, tensor in module.state_dict().items():
            digest.update(f"{prefix}.{name}".encode())
            digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
