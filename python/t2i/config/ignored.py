"""Settings that a training takes no notice of, because of others: a flag without effect is mostly a mistake."""

import dataclasses

from t2i.config.options import TrainConfig

MODERN = (
    *("feature_weight", "feature_size", "pixel_weight", "pixel_size", "diversity_weight", "feature_diversity_weight"),
    *("moment_weight", "contrastive_weight", "augmentation", "condition_ramp", "text_mixing", "hard_mismatch"),
)
DEFAULTS = {field.name: field.default for field in dataclasses.fields(TrainConfig)}
INTERPOLATION = ("interpolation", "interpolation_coefficient")


def ignored_settings(config: TrainConfig) -> list[str]:
    """Name the settings that have another value than by default and no effect, a line for each setting they hang on."""
    found = []
    for reason, names in _without_effect(config).items():
        changed = [name for name in names if getattr(config, name) != DEFAULTS[name]]
        if changed:
            flags = ", ".join(f"--{name.replace('_', '-')}" for name in changed)
            found.append(f"warning: {flags}: no effect {reason}")
    return found


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
