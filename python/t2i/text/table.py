"""Caption embeddings, from a trained text encoder or from a file: what a GAN on frozen text conditions on.

* `resolve_text_options`: what `--text.encoder` names, with the settings it was made with.
* `caption_table`: every caption of a data set embedded once, kept beside the pack under a hash of encoder and captions.
* `read_table`: embeddings that somebody else computed.
"""

from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from t2i import runtime
from t2i.data.cache import cached_tensor
from t2i.data.dataset import PackedDataset
from t2i.errors import ConfigError, DataError
from t2i.files import check_file
from t2i.text.inputs import CaptionInputs
from t2i.text.protocol import TextEncoder
from t2i.weights import read_tensors

# What numpy.load raises: a header is Python source, whose parser has errors of its own.
UNREADABLE = (
    OSError,
    ValueError,
    EOFError,
    SyntaxError,
    RecursionError,
    MemoryError,
    ArithmeticError,
    TypeError,
    LookupError,
    TokenError,
)


@torch.no_grad()
def embed_captions(
    encoder: TextEncoder, data: PackedDataset, device: torch.device, precision: torch.dtype, block: int = 512
) -> Tensor:
    """Embed every caption of a data set once: (M, T) float32 on `device`, row by row as the pack counts captions."""
    encoder.eval()
    inputs, parts = CaptionInputs(encoder, data, device), []
    for first in range(0, data.captions, block):
        tokens = inputs(np.arange(first, min(first + block, data.captions)))
        with runtime.autocast(device, precision):
            parts.append(encoder(tokens).float())
    return torch.cat(parts)


def caption_table(encoder: TextEncoder, data: PackedDataset, device: torch.device, precision: torch.dtype) -> Tensor:
    """Embed every caption, or read the embeddings that are kept beside the pack: (M, T) float32 on `device`."""
    facts = {
        "encoder": encoder.digest(),
        "data": data.fingerprint,
        "device": device.type,
        "precision": str(precision),
    }
    table = cached_tensor(
        data.path,
        "caption-embeddings",
        facts,
        (data.captions, encoder.text_dim),
        lambda: embed_captions(encoder, data, device, precision),
    )
    return table.to(device)


def read_table(path: Path, data: PackedDataset) -> Tensor:
    """Read embeddings (N, K, T) of a data set's captions, K of each of N images, in the pack's order: (M, T) float32.

    Raises:
        ConfigError: they do not fit the data set.
        DataError: the file is damaged, or holds NaN or infinity.
    """
    table = torch.from_numpy(_table(path, data).astype(np.float32)).flatten(0, 1)
    if not torch.isfinite(table).all():
        raise DataError(f"{path} holds NaN or infinity: compute the embeddings again")
    return table


def _table(path: Path, data: PackedDataset) -> NDArray[Any]:
    """Open embeddings and check their shape against the data; the numbers are not read yet where the format allows."""
    found: NDArray[Any]
    if path.is_dir():
        found = PackedDataset(path).extra("embeddings")
    elif path.suffix == ".npy":
        check_file(path, error=DataError)
        try:
            found = np.load(path, mmap_mode="r", allow_pickle=False)
            if not isinstance(found, np.ndarray):
                raise ValueError("an archive of arrays")
        except UNREADABLE as error:
            raise DataError(
                f"{path} is not a readable .npy of numbers; write one with numpy.save (arrays of objects are never loaded)"
            ) from error
    else:
        tensors = read_tensors(path)
        if len(tensors) != 1:
            raise ConfigError(
                f"{path} holds {len(tensors)} tensors: expected a trained text encoder (text.*) or embeddings alone"
            )
        (only,) = tensors.values()
        if not only.is_floating_point():
            raise ConfigError(f"{path} must hold floating-point embeddings, got {only.dtype}")
        found = only.float().numpy()
    counts = np.unique(np.diff(data.caption_offsets))
    expected = f"({len(data)}, {'K' if len(counts) > 1 else counts[0]}, T)"
    if not np.issubdtype(found.dtype, np.floating):
        raise ConfigError(f"{path} must hold floating-point embeddings {expected}, got {found.dtype}")
    if found.ndim != 3 or len(counts) > 1 or found.shape[:2] != (len(data), counts[0]) or not found.shape[2]:
        more = "; embeddings need the same number of captions for every image" if len(counts) > 1 else ""
        raise ConfigError(
            f"{path} holds embeddings {tuple(found.shape)}; {data.path} needs {expected}: images, captions of each, "
            f"numbers of an embedding{more}"
        )
    return found
