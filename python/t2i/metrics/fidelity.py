"""FID of 2,048 features and Inception Score, the figures that papers quote, through the extra `torch-fidelity`.

Its weights are downloaded from the project's release page on the first use; where that cannot be reached, a file is
looked for in torch's own cache folder, as ever with torch.hub.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from t2i.errors import ConfigError

MAX_SPLITS = 10  # of the Inception Score


class _Pictures(Dataset[Tensor]):
    """Pictures (N, S, S, 3) one by one, as torch-fidelity reads them: uint8 (3, S, S)."""

    def __init__(self, images: NDArray[np.uint8]) -> None:
        self.images = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: int) -> Tensor:
        return self.images[row].contiguous()


def full_inception(
    drawn: NDArray[np.uint8], real: NDArray[np.uint8], device: torch.device, batch: int = 32, seed: int = 0
) -> dict[str, float]:
    """Compute FID and Inception Score of drawn pictures (N, S, S, 3) against real ones (M, S, S, 3).

    Returns:
        fid, inception_score, its spread over splits, and the number of splits.

    Raises:
        ConfigError: torch-fidelity is not installed, or its weights cannot be had.
    """
    try:
        import torch_fidelity
    except ImportError as error:
        raise ConfigError(f"--full needs the extra: pip install 't2i[eval]' ({error})") from error
    splits = max(1, min(MAX_SPLITS, len(drawn) // 100))
    try:
        found = torch_fidelity.calculate_metrics(
            input1=_Pictures(drawn),
            input2=_Pictures(real),
            fid=True,
            isc=True,
            isc_splits=splits,
            batch_size=batch,
            cuda=device.type == "cuda",
            rng_seed=seed,
            save_cpu_ram=True,  # no worker processes
            cache=False,
            verbose=False,
        )
    except OSError as error:
        raise ConfigError(
            f"--full: the weights of torch-fidelity cannot be had ({error}); go online once, or leave --full out"
        ) from error
    return {
        "fid": float(found["frechet_inception_distance"]),
        "inception_score": float(found["inception_score_mean"]),
        "inception_score_spread": float(found["inception_score_std"]),
        "splits": splits,
    }
