from collections.abc import Sequence
from os import PathLike
from typing import Literal, TypeAlias, final

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "ALPHABET",
    "ALPHABET_SIZE",
    "CAPTION_LENGTH",
    "MAX_CAPTION_BYTES",
    "UNKNOWN",
    "Pack",
    "Plan",
    "Sampler",
    "__version__",
    "count_losses",
    "decode",
    "decode_image",
    "encode",
    "image_format",
    "load_images",
    "ngrams",
    "one_hot",
    "resize",
]

__version__: str
ALPHABET: str
ALPHABET_SIZE: int
CAPTION_LENGTH: int
MAX_CAPTION_BYTES: int
UNKNOWN: int

_Tokenizer: TypeAlias = Literal["alphabet", "bytes"]

def encode(captions: Sequence[str], out: NDArray[np.uint8], tokenizer: _Tokenizer = "alphabet") -> None: ...
def count_losses(captions: Sequence[str], tokenizer: _Tokenizer = "alphabet", length: int = 201) -> tuple[int, int]: ...
def ngrams(
    captions: Sequence[str], values: NDArray[np.int32], offsets: NDArray[np.int64], words: int, characters: int
) -> int: ...
def decode(ids: NDArray[np.uint8]) -> list[str]: ...
def one_hot(ids: NDArray[np.uint8], out: NDArray[np.float32] | NDArray[np.uint8]) -> None: ...
def image_format(data: bytes) -> Literal["jpeg", "png", "webp"] | None: ...
def decode_image(data: bytes, max_pixels: int) -> NDArray[np.uint8]: ...
def resize(image: NDArray[np.uint8], out: NDArray[np.uint8], fit: Literal["stretch", "crop"]) -> None: ...
def load_images(
    paths: Sequence[str | PathLike[str]],
    boxes: NDArray[np.float32] | None,
    fit: Literal["stretch", "crop"],
    max_pixels: int,
    out: NDArray[np.uint8],
) -> list[tuple[Literal["unsupported", "broken", "unreadable", "too large"], str] | None]: ...

@final
class Pack:
    def __new__(cls, path: str | PathLike[str], verify: bool = False, memory: int = 2147483648) -> Pack: ...
    @property
    def path(self) -> str: ...
    @property
    def images(self) -> int: ...
    @property
    def captions(self) -> int: ...
    @property
    def image_size(self) -> int: ...
    @property
    def class_names(self) -> list[str]: ...
    @property
    def fingerprint(self) -> str: ...
    def classes(self) -> NDArray[np.int32]: ...
    def splits(self) -> NDArray[np.uint8]: ...
    def caption_offsets(self) -> NDArray[np.int64]: ...
    def read_images(self, index: NDArray[np.int64], out: NDArray[np.uint8]) -> None: ...
    def caption_texts(self, index: NDArray[np.int64]) -> list[str]: ...
    def read_captions(
        self, index: NDArray[np.int64], out: NDArray[np.uint8], tokenizer: _Tokenizer = "alphabet", threads: int = 0
    ) -> None: ...
    def count_losses(self, tokenizer: _Tokenizer = "alphabet", length: int = 201) -> tuple[int, int]: ...
    def fill(
        self,
        plan: Plan,
        *,
        images: NDArray[np.uint8] | None = None,
        mismatched_images: NDArray[np.uint8] | None = None,
        captions: NDArray[np.uint8] | None = None,
        mismatched_captions: NDArray[np.uint8] | None = None,
        tokenizer: _Tokenizer = "alphabet",
        threads: int = 0,
    ) -> None: ...

@final
class Sampler:
    def __new__(
        cls,
        pack: Pack,
        *,
        batch: int,
        seed: int = 0,
        split: Literal["train", "test", "all"] = "train",
        crop: int = 64,
        crop_low: int = 0,
        flip: bool = True,
        captions_per_image: int = 1,
        class_uniform: bool = True,
        distinct_classes: bool = False,
        mismatched: bool = True,
        interpolation: Literal["fixed", "uniform", "extrapolate"] = "fixed",
        interpolation_weight: float = 0.5,
        rank: int = 0,
        world: int = 1,
    ) -> Sampler: ...
    def plan(self, step: int) -> Plan: ...
    @property
    def images(self) -> int: ...
    @property
    def classes(self) -> int: ...
    @property
    def ambiguous_captions(self) -> float: ...

@final
class Plan:
    @property
    def step(self) -> int: ...
    @property
    def image(self) -> NDArray[np.int64]: ...
    @property
    def mismatched_image(self) -> NDArray[np.int64]: ...
    @property
    def caption(self) -> NDArray[np.int64]: ...
    @property
    def mismatched_caption(self) -> NDArray[np.int64]: ...
    @property
    def crop(self) -> NDArray[np.int32]: ...
    @property
    def mismatched_crop(self) -> NDArray[np.int32]: ...
    @property
    def flip(self) -> NDArray[np.uint8]: ...
    @property
    def mismatched_flip(self) -> NDArray[np.uint8]: ...
    @property
    def interpolation_partner(self) -> NDArray[np.int64]: ...
    @property
    def interpolation_weight(self) -> NDArray[np.float32]: ...
