"""FID, KID and Inception Score as papers quote them, through `torch-fidelity` (extra: t2i[eval]).

torch-fidelity downloads its weights on first use; docs/metrics.md says from where, and how to bring the file to a machine
without a network. The same weights give the feature file of FID-768 (`write_feature_file`).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from t2i.errors import ConfigError
from t2i.extras import require
from t2i.files import write_atomically
from t2i.metrics.inception import FeatureNetwork
from t2i.weights import serialise

MAX_SPLITS = 10  # of the Inception Score
KID_SUBSETS, MAX_SUBSET = 100, 1000  # how many subsets, and images of each at most
LAYERS = {"768": ("fid_768", "kid_768"), "2048": ("fid", "kid")}  # torch-fidelity's layers, and our figures of each


class _Images(Dataset[Tensor]):
    """Images (N, S, S, 3) one by one, as torch-fidelity reads them: uint8 (3, S, S)."""

    def __init__(self, images: NDArray[np.uint8]) -> None:
        self.images = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: int) -> Tensor:
        return self.images[row].contiguous()


def full_figures(
    generated: NDArray[np.uint8],
    real: NDArray[np.uint8],
    device: torch.device,
    batch: int,
    seed: int,
    protocol: dict[str, Any],
) -> dict[str, dict[str, Any]]:
    """Compute FID and KID of 768 and of 2,048 features, and the Inception Score, with torch-fidelity.

    Args:
        generated: (N, S, S, 3).
        real: (M, S, S, 3).
        device: Where to compute.
        batch: Images at once.
        seed: Of the subsets of KID.
        protocol: Kept with each figure.

    Returns:
        fid, kid, fid_768, kid_768, inception_score: each with its value and protocol.

    Raises:
        ConfigError: torch-fidelity is not installed, or its weights cannot be downloaded.
    """
    torch_fidelity = require("torch_fidelity", "--full", "eval")
    splits = max(1, min(MAX_SPLITS, len(generated) // 100))
    subset = min(MAX_SUBSET, min(len(generated), len(real)) // 2)
    settings = {
        "input1": _Images(generated),
        "input2": _Images(real),
        "isc_splits": splits,
        "kid_subsets": KID_SUBSETS,
        "kid_subset_size": subset,
        "batch_size": batch,
        "cuda": device.type == "cuda",
        "rng_seed": seed,
        "save_cpu_ram": True,  # no worker processes
        "cache": False,
        "verbose": False,
    }
    figures: dict[str, dict[str, Any]] = {}
    for layer, (fid, kid) in LAYERS.items():
        scored = layer == "2048"
        layers = {"feature_layer_fid": layer, "feature_layer_kid": layer}
        try:
            found = torch_fidelity.calculate_metrics(fid=True, kid=True, isc=scored, **layers, **settings)
        except OSError as error:
            raise ConfigError(_no_weights(error)) from error
        how = protocol | {"by": "torch-fidelity", "features": f"inception-2015-12-05, {int(layer):,} features"}
        subsets = {"subsets": KID_SUBSETS, "subset_size": subset}
        figures[fid] = {"value": float(found["frechet_inception_distance"]), "protocol": how}
        figures[kid] = _spread(found, "kernel_inception_distance", how | subsets)
        if scored:
            figures["inception_score"] = _spread(found, "inception_score", how | {"splits": splits})
    return figures


def _spread(found: Mapping[str, float], name: str, protocol: dict[str, Any]) -> dict[str, Any]:
    return {"value": float(found[f"{name}_mean"]), "spread": float(found[f"{name}_std"]), "protocol": protocol}


def write_feature_file(path: Path) -> None:
    """Write the feature file of `--features` from torch-fidelity's weights, batch normalisation folded in.

    Raises:
        ConfigError: torch-fidelity is not installed, or its weights cannot be downloaded.
        CheckpointError: the file cannot be written.
    """
    module = require("torch_fidelity.feature_extractor_inceptionv3", "the feature file", "eval")
    try:
        theirs = module.FeatureExtractorInceptionV3("inception-v3-compat", ["768"]).eval()
    except OSError as error:
        raise ConfigError(_no_weights(error)) from error
    write_atomically(path, serialise(folded(theirs, module.BasicConv2d)))


def folded(network: torch.nn.Module, kind: type) -> dict[str, Tensor]:
    """Fold batch normalisation into the convolutions of torch-fidelity's network, up to mixed_7.

    Args:
        network: torch-fidelity's; its blocks up to Mixed_6e come in the order of `FeatureNetwork`'s layers.
        kind: Its class of blocks: a convolution without bias, `conv`, and its normalisation, `bn`.

    Returns:
        `<layer>.weight` and `<layer>.bias`, float32.
    """
    blocks: list[Any] = [
        each for name, each in network.named_modules() if isinstance(each, kind) and "Mixed_7" not in name
    ]
    tensors: dict[str, Tensor] = {}
    for name, block in zip(FeatureNetwork().layers, blocks, strict=True):
        norm = block.bn
        scale = (norm.weight if norm.affine and norm.weight is not None else 1) / (norm.running_var + norm.eps).sqrt()
        tensors[f"{name}.weight"] = (block.conv.weight * scale[:, None, None, None]).detach()
        tensors[f"{name}.bias"] = (norm.bias - norm.running_mean * scale).detach()
    return tensors


def _no_weights(error: OSError) -> str:
    return (
        f"the weights of torch-fidelity cannot be downloaded ({error}): docs/metrics.md says how to bring them here; "
        "or leave --full out"
    )
