"""Settings that a training takes no notice of, because of others: a flag without effect is mostly a mistake."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from t2i.config.options import TrainConfig

MODERN = (
    *("feature_weight", "feature_size", "pixel_weight", "pixel_size", "diversity_weight", "feature_diversity_weight"),
    *("moment_weight", "contrastive_weight", "augmentation", "condition_ramp", "text_mixing", "hard_mismatch"),
)
INTERPOLATION = ("interpolation", "interpolation_coefficient")


def ignored_settings(config: TrainConfig) -> list[str]:
    """Name the settings that have another value than by default and no effect, a line for each setting they hang on."""
    found = (no_effect(config, names, reason) for reason, names in _without_effect(config).items())
    return [warning for warning in found if warning is not None]


def no_effect(settings: Any, names: Sequence[str], reason: str) -> str | None:
    """Warn of those of some settings without effect that have another value than by default; None where all have it."""
    defaults = {field.name: field.default for field in dataclasses.fields(settings)}
    changed = [name for name in names if getattr(settings, name) != defaults[name]]
    flags = ", ".join(f"--{name.replace('_', '-')}" for name in changed)
    return f"warning: {flags}: no effect {reason}" if changed else None


def _without_effect(config: TrainConfig) -> dict[str, tuple[str, ...]]:
    """List settings without effect by the reason."""
    found: dict[str, tuple[str, ...]] = {}
    if config.network == "paper":
        found["with --network paper"] = MODERN
        if not config.interpolation_weight:
            found["with --interpolation-weight 0"] = INTERPOLATION
        elif config.interpolation != "fixed":
            found[f"with --interpolation {config.interpolation}"] = ("interpolation_coefficient",)
    else:
        found["with --network modern"] = ("reuse_fakes", *INTERPOLATION)
        if not config.feature_weight:
            found["with --feature-weight 0"] = ("feature_size",)
    if not config.stages:
        found["without --stages"] = ("realism_steps", "realism_goal")
    elif config.realism_steps is not None:
        found["with --realism-steps"] = ("realism_goal",)
    return found
