"""An exported model, drawn from by onnxruntime: the pictures that its run folder draws."""

from collections.abc import Sequence
from pathlib import Path

import torch

from t2i import runtime
from t2i.errors import CheckpointError
from t2i.extras import require
from t2i.images import to_pil
from t2i.pipeline import PipelineOutput, check_captions
from t2i.text import tokenizer


class OnnxPipeline:
    """Draw sentences with a file of t2i-export.

    Args:
        path: The .onnx file.

    Raises:
        ConfigError: onnxruntime is not installed.
        CheckpointError: the file is missing, damaged, or was not written by t2i-export.
    """

    def __init__(self, path: Path) -> None:
        onnxruntime = require("onnxruntime", path.name, "export")
        if not path.is_file():
            raise CheckpointError(f"no such model: {path}; t2i-export makes one")
        try:
            self.session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
            facts = self.session.get_modelmeta().custom_metadata_map
            self.noise_dim, self.size = int(facts["noise_length"]), int(facts["size"])
            self.ids = {"tensor(uint8)": "uint8", "tensor(int64)": "int64"}[self.session.get_inputs()[0].type]
        except Exception as error:  # onnxruntime has an exception class for every status, none of them public
            reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
            raise CheckpointError(f"{path} is not a model that t2i-export wrote: {reason}") from error

    def __call__(self, captions: str | Sequence[str], count: int = 1, seed: int = 0) -> PipelineOutput:
        """Draw `count` pictures of each caption, of the noise that `Pipeline` draws them from.

        Raises:
            ConfigError: an empty caption, or a count below 1.
        """
        sentences = check_captions(captions, count)
        ids = tokenizer.encode(sentences).repeat(count, axis=0).astype(self.ids)  # (n * count, 201)
        noise = runtime.noise((count, self.noise_dim), torch.device("cpu"), seed, 0, "generate")
        feed = {"captions": ids, "noise": noise.repeat(len(sentences), 1).numpy()}
        drawn = torch.from_numpy(self.session.run(None, feed)[0])
        return PipelineOutput(to_pil(drawn), drawn)
