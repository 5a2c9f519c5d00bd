"""Caption embeddings, from a trained text encoder or from a file: what a GAN on frozen text conditions on.

* `settle`: what `--text.encoder` names, with the settings it was made with.
* `caption_table`: every caption of a data set embedded once, kept beside the pack under a hash of encoder and captions.
* `read_table`: embeddings that somebody else computed.
"""

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from t2i import config as settings
from t2i import runtime
from t2i.cache import kept
from t2i.checkpoint import load_weights, read_tensors
from t2i.config import JointOptions, TextOptions
from t2i.data import PackedDataset
from t2i.encoders import CharCnnRnn
from t2i.errors import ConfigError, DataError

LEARNED = ("joint", "end-to-end")


def text_encoder(options: JointOptions) -> CharCnnRnn:
    """Make the char-CNN-RNN that the options describe, with random weights."""
    return CharCnnRnn(options.variant, options.width, options.dim, options.channels)


def load_text(path: Path, options: JointOptions) -> CharCnnRnn:
    """Load a trained text encoder from `text.safetensors` or `model.safetensors`; CheckpointError where it differs."""
    encoder = text_encoder(options)
    load_weights(path, {"text": encoder})
    return encoder.eval()


def encoder_file(name: str) -> Path:
    """Find the weights that `--text.encoder NAME` means: a file, those of a run folder, or a pack with embeddings in it.

    Raises:
        ConfigError: there is no such file.
    """
    path = Path(name)
    if path.is_dir():
        if (path / "pack.json").is_file():
            return path
        found = [path / each for each in ("text.safetensors", "model.safetensors") if (path / each).is_file()]
        if not found:
            raise ConfigError(f"--text.encoder {name}: the folder has no text.safetensors; t2i-train text makes one")
        return found[0]
    if not path.is_file():
        raise ConfigError(f"--text.encoder {name}: no such file, and neither joint nor end-to-end")
    if path.suffix not in (".safetensors", ".npy"):
        raise ConfigError(f"--text.encoder {name}: expected a run folder, a .safetensors or a .npy")
    return path


def holds_encoder(path: Path) -> bool:
    """Say whether a file is a trained text encoder, as opposed to embeddings."""
    return path.suffix == ".safetensors" and any(name.startswith("text.") for name in read_tensors(path))


def settle(options: TextOptions, data: PackedDataset) -> TextOptions:
    """Take the settings of the text encoder over from where it comes from: its run, or the width of the embeddings.

    Args:
        options: As the flags say; those of an encoder that is trained here are returned as they are.
        data: The captions that embeddings must fit.

    Raises:
        ConfigError: there is no such file, or the embeddings do not fit the data.
        CheckpointError: a damaged file.
    """
    if options.encoder in LEARNED:
        return options
    path = encoder_file(options.encoder)
    if not holds_encoder(path):
        return dataclasses.replace(options, dim=_table(path, data).shape[-1])
    if not any((path.parent / name).exists() for name in ("text.json", "config.json")):
        return options  # the weights alone: the flags must describe them
    return TextOptions(**dataclasses.asdict(settings.text_options(path.parent)), encoder=options.encoder)


@torch.no_grad()
def embed_captions(
    encoder: nn.Module, data: PackedDataset, device: torch.device, precision: torch.dtype, block: int = 512
) -> Tensor:
    """Embed every caption of a data set once: (M, T) float32 on `device`, row by row as the pack counts captions."""
    encoder.eval()
    parts = []
    for first in range(0, data.captions, block):
        ids = torch.from_numpy(data.read_captions(np.arange(first, min(first + block, data.captions)))).to(device)
        with runtime.autocast(device, precision):
            parts.append(encoder(ids).float())
    return torch.cat(parts)


def caption_table(encoder: CharCnnRnn, data: PackedDataset, device: torch.device, precision: torch.dtype) -> Tensor:
    """Embed every caption, or read the embeddings that are kept beside the pack: (M, T) float32 on `device`."""
    digest = hashlib.sha256()
    for name, tensor in sorted(encoder.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    facts = {
        "encoder": digest.hexdigest(), "variant": encoder.variant, "data": data.fingerprint, "device": device.type,
        "precision": str(precision),
    }  # fmt: skip
    table = kept(
        data.path, "caption-embeddings", facts, (data.captions, encoder.text_dim),
        lambda: embed_captions(encoder, data, device, precision),
    )  # fmt: skip
    return table.to(device)


def read_table(path: Path, data: PackedDataset) -> Tensor:
    """Read embeddings (N, K, T) of a data set's captions, K of each of N pictures, in the pack's order: (M, T) float32.

    Raises:
        ConfigError: they do not fit the data set.
        DataError: the file is damaged, or holds NaN or infinity.
    """
    table = torch.from_numpy(_table(path, data).astype(np.float32)).flatten(0, 1)
    if not torch.isfinite(table).all():
        raise DataError(f"{path} holds NaN or infinity: compute the embeddings anew")
    return table


def _table(path: Path, data: PackedDataset) -> NDArray[Any]:
    """Open embeddings and check their shape against the data; the numbers are not read yet where the format allows."""
    found: NDArray[Any]
    if path.is_dir():
        found = PackedDataset(path).extra("embeddings")
    elif path.suffix == ".npy":
        try:
            found = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise DataError(
                f"{path} is not a readable .npy of numbers; write one with numpy.save (arrays of objects are never loaded)"
            ) from error
    else:
        tensors = read_tensors(path)
        if len(tensors) != 1:
            raise ConfigError(
                f"{path} holds {len(tensors)} tensors: expected a trained text encoder (text.*) or embeddings alone"
            )
        found = next(iter(tensors.values())).float().numpy()
    counts = np.unique(np.diff(data.caption_offsets))
    expected = f"({len(data)}, {'K' if len(counts) > 1 else counts[0]}, T)"
    if not np.issubdtype(found.dtype, np.floating):
        raise ConfigError(f"{path} must hold floating-point embeddings {expected}, got {found.dtype}")
    if found.ndim != 3 or len(counts) > 1 or found.shape[:2] != (len(data), counts[0]) or not found.shape[2]:
        more = "; embeddings need the same number of captions for every picture" if len(counts) > 1 else ""
        raise ConfigError(
            f"{path} holds embeddings {tuple(found.shape)}; {data.path} needs {expected}: pictures, captions of each, "
            f"numbers of an embedding{more}"
        )
    return found
