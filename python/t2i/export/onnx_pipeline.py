"""An exported model run by onnxruntime: it generates the images of its run folder."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from t2i.errors import CheckpointError
from t2i.export.checks import read_model
from t2i.extras import require
from t2i.images import to_pil
from t2i.noise import noise_of, require_integer
from t2i.pipeline import PIXELS, PipelineOutput, check_captions, check_memory, sentences
from t2i.text.build import tokenizer_of
from t2i.text.protocol import unread_warnings


class OnnxPipeline:
    """Generate images from sentences with a file of t2i-export.

    Args:
        path: The .onnx file.

    Raises:
        ConfigError: onnxruntime is not installed.
        CheckpointError: the file is missing, damaged, or was not written by t2i-export.
    """

    def __init__(self, path: str | Path) -> None:
        path = Path(path)
        onnxruntime = require("onnxruntime", path.name, "export")
        data, metadata = read_model(path)
        self.path = path
        try:
            self.session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
            self.noise_dim, self.size = int(metadata["noise_length"]), int(metadata["size"])
            self.tokenizer = tokenizer_of(json.loads(metadata["tokenizer"]))
            self.ids = {"tensor(uint8)": "uint8", "tensor(int64)": "int64"}[self.session.get_inputs()[0].type]
        except Exception as error:  # onnxruntime has an exception class for every status, none of them public
            reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
            raise CheckpointError(f"{path} is not a model that t2i-export wrote: {reason}") from error

    def unread(self, captions: str | Sequence[str]) -> list[str]:
        """Warn of captions as `Pipeline.unread` does, by the tokenizer alone: which words were learned is not in the file."""
        return unread_warnings(sentences(captions), self.tokenizer)

    def __call__(self, captions: str | Sequence[str], count: int = 1, seed: int = 0) -> PipelineOutput:
        """Generate `count` images of each caption, from the same noise as `Pipeline`.

        Raises:
            ConfigError: an empty caption or what is no text, a count below 1, a seed that is no whole number, or more images
                than fit into the memory.
            CheckpointError: the graph fails, or returns something else than images.
        """
        several, count = check_captions(captions), require_integer("count", count, 1)
        check_memory(len(several) * count, self.size, self.noise_dim)
        tokens = self.tokenizer(several)
        if tokens.shape[1] < 2:  # the graph's length is free from 2 on
            tokens = np.pad(tokens, ((0, 0), (0, 1)))
        ids = tokens.repeat(count, axis=0).astype(self.ids)  # (n * count, L)
        noise = noise_of(seed, count, self.noise_dim, torch.device("cpu")).repeat(len(several), 1).numpy()
        block = max(1, PIXELS // self.size**2)
        parts = [self._draw(ids[at : at + block], noise[at : at + block]) for at in range(0, len(ids), block)]
        images = torch.cat([torch.empty(0, 3, self.size, self.size), *parts])
        return PipelineOutput(to_pil(images), images)

    def _draw(self, ids: NDArray[Any], noise: NDArray[np.float32]) -> Tensor:
        expected = (len(ids), 3, self.size, self.size)
        try:
            (found,) = self.session.run(None, {"captions": ids, "noise": noise})
        except Exception as error:  # as above
            raise CheckpointError(
                f"{self.path} cannot be generated from: {' '.join(str(error).split())[:200]}"
            ) from error
        if found.shape != expected or not np.isfinite(found).all():
            raise CheckpointError(f"{self.path} gives {found.shape} in place of finite images {expected}")
        return torch.from_numpy(found)
