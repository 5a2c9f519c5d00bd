"""`--init`: start from another model's weights, so that a few hundred images of a new subject need minutes.

Tensors are taken where name and shape agree. Between models of different sizes the levels are counted from the image inwards,
as their channels are: the blocks that make edges and texture are the same, the coarsest ones of the larger model start fresh.

* generator: from model.safetensors, for the network and for its moving average;
* discriminators and the noise reader: from the newest checkpoint, where the source is a run folder of this machine;
* text encoder and its image side: where they are trained jointly and of the same kind, training starts from the source's.
"""

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from t2i.config.options import TrainConfig
from t2i.errors import ConfigError
from t2i.pretrained.loader import LoadedModel, load_model
from t2i.training.checkpoint import newest_tensors
from t2i.training.resume import recorded_settings
from t2i.training.steps import Step
from t2i.weights import read_tensors

LEAST = 0.05  # part of a generator that must fit; a model of half the size fits by more
LEVEL = re.compile(r"^(up|up_norm|down|down_norm)\.(\d+)\.")


def with_init(config: TrainConfig, folder: Path) -> TrainConfig:
    """Fill in --init where it is left out and the run folder began with one: a resume need not say it again."""
    before = None if config.init else recorded_settings(folder)
    return config if before is None else dataclasses.replace(config, init=before.init)


def load_source(config: TrainConfig) -> LoadedModel:
    """Load the model that a run starts from.

    Raises:
        ConfigError: its networks are of another architecture.
        CheckpointError: there is no such model, or it is damaged.
    """
    model = load_model(config.init)
    if model.config.network != config.network:
        raise ConfigError(
            f"--init {config.init} has --network {model.config.network}, these settings {config.network}: choose the preset "
            f"it was trained with (--preset {model.config.preset})"
        )
    return model


def take(module: nn.Module, tensors: Mapping[str, Tensor], shift: int = 0) -> tuple[int, int]:
    """Copy the tensors whose name and shape agree into a module.

    Args:
        module: What is filled.
        tensors: By name.
        shift: Levels that this module has more than the one the tensors are from, in `up.N` and the like.

    Returns:
        How many numbers were taken, of how many.
    """
    moved = {LEVEL.sub(lambda found: f"{found[1]}.{int(found[2]) + shift}.", name): t for name, t in tensors.items()}
    state = module.state_dict()
    taken = {name: t for name, t in moved.items() if name in state and state[name].shape == t.shape}
    module.load_state_dict(state | taken)
    return sum(t.numel() for t in taken.values()), sum(t.numel() for t in state.values())


def warm_start(gan: Step, source: LoadedModel) -> list[str]:
    """Fill a GAN's networks from another model, before the first step.

    Returns:
        A line for each network: what part of it was taken.

    Raises:
        ConfigError: hardly anything fits.
    """
    generator = source.generator.state_dict()
    shift = _levels(gan.config.size) - _levels(source.config.size)
    generator = {name: t for name, t in generator.items() if name not in ("text_mean", "text_scale")}  # of the data
    found = {"generator": take(gan.generator, generator, shift)}
    count, total = found["generator"]
    if count < LEAST * total:
        raise ConfigError(
            f"--init {gan.config.init}: {count / total:.0%} of its generator has the shapes of these settings; take its preset "
            f"(--preset {source.config.preset}) and leave widths and dimensions as they are there"
        )
    take(gan.ema, generator, shift)
    rest = newest_tensors(source.folder)
    for name, module in gan.modules().items():
        if name in ("discriminator", "feature_discriminator", "recovery", "text_head"):
            found[name.replace("_", " ")] = take(module, _below(rest, f"{name}/"))
    return [f"{name}: {_share(*counts)} from {gan.config.init}" for name, counts in found.items()]


def warm_start_text(init: str, kind: str, networks: Mapping[str, nn.Module]) -> str:
    """Fill a joint embedding from another model's, before it is trained on the new captions.

    Args:
        init: Run folder, or name on the Hub; of the latter, and of a saved folder, the text encoder alone.
        kind: Of the text encoder that is about to be trained; one of another kind is left alone.
        networks: "text" and "image".

    Returns:
        A line that says what was taken.

    Raises:
        CheckpointError: there is no such model, or it is damaged.
    """
    source = load_model(init)
    path = source.folder / "text.safetensors"
    path = path if path.exists() else source.folder / "model.safetensors"
    count = total = 0
    tensors = read_tensors(path) if source.encoder is not None and source.encoder.kind == kind else {}
    for name, module in networks.items():
        own = _below(tensors, f"{name}.")
        own.pop("idf", None)  # of the data
        taken, of = take(module, own)
        count, total = count + taken, total + of
    return f"text encoder: {_share(count, total)} from {init}"


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Select the tensors whose names begin with a prefix, which is taken off."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _levels(size: int) -> int:
    return size.bit_length()


def _share(count: int, total: int) -> str:
    return "nothing" if not count else "all" if count == total else f"{count / total:.0%}"
