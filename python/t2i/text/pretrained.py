"""Text encoders from files: run folders and weight files."""

import dataclasses
from pathlib import Path
from typing import TypeVar

from t2i.config.options import LEARNED, JointOptions, TextConfig, TextOptions, TrainConfig
from t2i.config.records import text_options, text_size
from t2i.data.dataset import PackedDataset
from t2i.errors import ConfigError
from t2i.files import is_file, is_folder
from t2i.text.build import text_encoder
from t2i.text.protocol import TextEncoder
from t2i.text.table import _table
from t2i.weights import checked_network, load_weights, read_header

Config = TypeVar("Config", TextConfig, TrainConfig)
# Settings that a student shares.
TEACHERS = ("dim", "image_features", "feature_size", "image_width", "image_size", "objective")
MAX_UNKNOWN = 0.01  # share of captions with letters outside the alphabet, up to which `auto` is the char-CNN-RNN


def load_text(path: Path, options: JointOptions) -> TextEncoder:
    """Load a trained text encoder from `text.safetensors` or `model.safetensors`; CheckpointError where it differs."""
    encoder = checked_network(path, "text", lambda: text_encoder(options))
    load_weights(path, {"text": encoder})
    return encoder.eval()


def encoder_file(name: str) -> Path:
    """Find the weights that `--text.encoder NAME` means: a file, those of a run folder, or a pack with embeddings in it.

    Raises:
        ConfigError: there is no such file.
    """
    path = Path(name)
    if is_folder(path, ConfigError):
        if (path / "pack.json").is_file():
            return path
        found = [path / each for each in ("text.safetensors", "model.safetensors") if (path / each).is_file()]
        if not found:
            raise ConfigError(f"--text.encoder {name}: the folder has no text.safetensors; t2i-train text makes one")
        return found[0]
    if not is_file(path, ConfigError):
        raise ConfigError(f"--text.encoder {name}: no such file, and neither joint nor end-to-end")
    if path.suffix not in (".safetensors", ".npy"):
        raise ConfigError(f"--text.encoder {name}: expected a run folder, a .safetensors or a .npy")
    return path


def holds_encoder(path: Path) -> bool:
    """Return whether a file is a trained text encoder, as opposed to embeddings."""
    return path.suffix == ".safetensors" and any(name.startswith("text.") for name in read_header(path).tensors)


def resolve_text_options(options: TextOptions, data: PackedDataset) -> TextOptions:
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
    return TextOptions(**dataclasses.asdict(text_options(path.parent)), encoder=options.encoder)


def resolve_text(config: TrainConfig, data: PackedDataset) -> TrainConfig:
    """Settle every setting of the text encoder that depends on files or on the data; training and dry run begin with it.

    Raises:
        ConfigError: as `resolve_text_options` and `with_teacher`.
        CheckpointError: likewise.
    """
    config = dataclasses.replace(config, text=resolve_text_options(config.text, data))
    return with_teacher(with_kind(config, data))


def with_kind(config: Config, data: PackedDataset) -> Config:
    """Choose the network of `--text.kind auto`: char-cnn-rnn where its alphabet covers the captions, else ngrams.

    Captions in Chinese, say, are all the same to the char-CNN-RNN, whose alphabet is that of English.
    """
    if config.text.kind != "auto":
        return config
    _, unknown = data.native.count_losses()
    covered = unknown <= MAX_UNKNOWN * data.captions
    return dataclasses.replace(
        config, text=dataclasses.replace(config.text, kind="char-cnn-rnn" if covered else "ngrams")
    )


def with_teacher(config: Config) -> Config:
    """Take over what a student shares with its teacher: length of the embedding, image side, how the two are compared.

    Raises:
        ConfigError: the teacher is no run folder of t2i-train text, or its image side reads images of another size.
        CheckpointError: its settings are damaged.
    """
    if not config.text.teacher:
        return config
    folder = Path(config.text.teacher)
    if not is_file(folder / "text.safetensors", ConfigError):
        raise ConfigError(f"{config.text.flags}teacher {folder}: no text.safetensors there; t2i-train text makes one")
    taught = text_options(folder)
    if taught.image_features == "joint" and text_size(folder) != config.size:
        raise ConfigError(
            f"{config.text.flags}teacher {folder}: its image side reads {text_size(folder)} px, --size is {config.size}"
        )
    shared = {name: getattr(taught, name) for name in TEACHERS}
    return dataclasses.replace(config, text=dataclasses.replace(config.text, **shared))
