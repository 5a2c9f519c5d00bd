"""t2i: text-to-image GANs that train in minutes.

Everything named here is loaded when it is first used: `import t2i` alone starts neither torch nor the native module.

    ids = t2i.encode(["a flower with five red petals"])           # uint8 (1, 201)
    pipe = t2i.Pipeline.from_pretrained("runs/drawings")
    pipe(["a flower with five red petals"], count=8).images       # PIL images
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from t2i.data.dataset import PackedDataset
    from t2i.data.sampler import Sampler
    from t2i.errors import CheckpointError, ConfigError, DataError, T2IError
    from t2i.models.encoders import ImageEncoder, StyleEncoder
    from t2i.models.paper import Discriminator, Generator
    from t2i.pipeline import Pipeline
    from t2i.text.char_cnn_rnn import CharCnnRnn
    from t2i.text.tokenizer import ALPHABET, decode, encode, one_hot


__version__ = "0.1.0"  # the native module, built from the same tree, refuses to be loaded by another one
_HOMES = {
    "ALPHABET": "text.tokenizer",
    "CharCnnRnn": "text.char_cnn_rnn",
    "CheckpointError": "errors",
    "ConfigError": "errors",
    "DataError": "errors",
    "Discriminator": "models.paper",
    "Generator": "models.paper",
    "ImageEncoder": "models.encoders",
    "PackedDataset": "data.dataset",
    "Pipeline": "pipeline",
    "Sampler": "data.sampler",
    "StyleEncoder": "models.encoders",
    "T2IError": "errors",
    "decode": "text.tokenizer",
    "encode": "text.tokenizer",
    "one_hot": "text.tokenizer",
}
__all__ = [
    "ALPHABET",
    "CharCnnRnn",
    "CheckpointError",
    "ConfigError",
    "DataError",
    "Discriminator",
    "Generator",
    "ImageEncoder",
    "PackedDataset",
    "Pipeline",
    "Sampler",
    "StyleEncoder",
    "T2IError",
    "__version__",
    "decode",
    "encode",
    "one_hot",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 't2i' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"t2i.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
