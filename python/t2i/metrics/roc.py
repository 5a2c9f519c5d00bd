"""ROC curves of a score that should be high for pairs of the same kind: the curve and its area."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from t2i.errors import ConfigError


@dataclass(frozen=True)
class Roc:
    """A curve from (0, 0) to (1, 1): rates at every threshold, the highest first."""

    false_positive: NDArray[np.float64]  # (n,) part of the different pairs whose score reaches the threshold
    true_positive: NDArray[np.float64]  # (n,) part of the same pairs
    area: float  # chance that a same pair scores above a different one; a tie counts one half


def roc(scores: NDArray[np.floating], same: NDArray[np.bool_]) -> Roc:
    """Compute the curve of scores (n,) against the truth (n,).

    Equal scores share one threshold, so that the order of the pairs cannot matter.

    Raises:
        ConfigError: there is no same pair or no different pair, a score is not a number, or the two differ in length.
    """
    scores, same = np.asarray(scores, np.float64), np.asarray(same, bool)
    if scores.ndim != 1 or scores.shape != same.shape:
        raise ConfigError(f"a ROC curve needs a truth for each score (n,), got {scores.shape} and {same.shape}")
    if not same.any() or same.all():
        raise ConfigError(f"a ROC curve needs same and different pairs, got {int(same.sum())} same of {len(same)}")
    if not np.isfinite(scores).all():
        raise ConfigError("a ROC curve needs finite scores, got NaN or infinity")
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.diff(scores[order]) != 0, True)  # the last pair of each run of equal scores
    hits, misses = np.cumsum(same[order])[last], np.cumsum(~same[order])[last]
    true_positive, false_positive = np.append(0, hits) / hits[-1], np.append(0, misses) / misses[-1]
    return Roc(false_positive, true_positive, float(np.trapezoid(true_positive, false_positive)))
