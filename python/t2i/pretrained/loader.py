"""Load a model from a run folder, a saved folder or the Hugging Face Hub."""

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from t2i import runtime
from t2i.config.options import LEARNED, TrainConfig
from t2i.errors import CheckpointError
from t2i.models import build
from t2i.models.build import AnyGenerator
from t2i.pretrained import hub
from t2i.pretrained.folder import FILES, plain_file, read_settings, tensor_names
from t2i.text.build import text_encoder
from t2i.text.protocol import TextEncoder
from t2i.weights import checked_network, load_weights


@dataclass
class LoadedModel:
    """The networks of a model folder, on their device, and the settings they were trained with."""

    generator: AnyGenerator
    encoder: TextEncoder | None  # None where the generator was trained on embeddings from a file
    config: TrainConfig
    folder: Path


def load_model(
    folder: str | Path, device: str = "cpu", *, revision: str | None = None, token: str | None = None
) -> LoadedModel:
    """Load the generator and the text encoder of a model.

    A folder may come from a stranger: every file is checked before it is read (`t2i.pretrained.folder`).

    Args:
        folder: A folder on this machine; where there is none, owner/name on the Hub.
        device: cpu, cuda, cuda:N or mps.
        revision: Of the Hub: branch, tag or commit.
        token: Of the Hub, for private models.

    Raises:
        CheckpointError: a file is missing, damaged, of another shape, or not a plain file; no such model on the Hub.
        ConfigError: the Hub is asked for and the extra is not installed.
    """
    try:
        if isinstance(folder, str) and not Path(folder).exists() and hub.is_name(folder):
            folder = hub.download(folder, revision, token)
        folder = Path(folder)
        found = folder.is_dir()
    except OSError as error:  # a name that is too long, no permission
        raise CheckpointError(f"{str(folder)[:200]} cannot be read: {error.strerror}") from error
    if not found:
        raise CheckpointError(f"no such run folder: {folder}; t2i-train makes one")
    for each in FILES:
        plain_file(folder, each)
    config = read_settings(folder)
    path = plain_file(folder, "model.safetensors")
    if not path.exists():
        raise CheckpointError(f"{folder} has no model.safetensors yet: training has not reached its first checkpoint")
    names = tensor_names(path)
    strange = next((name for name in sorted(names) if not name.startswith(("generator.", "text."))), None)
    if strange is not None:
        raise CheckpointError(f"{path} has a tensor {strange!r}: a model's are generator.* and text.*")
    generator = checked_network(path, "generator", lambda: build.generator(config))
    modules: dict[str, nn.Module] = {"generator": generator}
    encoder = None
    if config.text.encoder in LEARNED or any(name.startswith("text.") for name in names):
        encoder = checked_network(path, "text", lambda: text_encoder(config.text))
        modules["text"] = encoder
    on = runtime.pick_device(device)
    load_weights(path, modules)
    if read_settings(folder) != config:  # `write_model` puts settings and weights in place one after the other
        raise CheckpointError(f"{folder} was replaced while it was read: load it again")
    return LoadedModel(generator.to(on), None if encoder is None else encoder.to(on), config, folder)
