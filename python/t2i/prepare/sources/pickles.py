"""A loader of pickles that can make lists, dicts, tuples, numbers, text and numpy arrays, and nothing else.

The only place of this package that reads a pickle: the data sets of StackGAN, AttnGAN and DF-GAN exist as nothing else.
A pickle is a program. This runs it on Python's own, slow machine, in which the six names below are all that it can call;
whatever else it asks for is refused by name, and it can read no more bytes than its file has.
"""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from t2i.errors import DataError

MAX_BYTES = 8 * 2**30  # bytes: 304images.pickle of CUB's training classes has 2.5 GB


class _Array:
    """Stands for numpy.ndarray: a class that pickles name and must not be able to call."""

    def __new__(cls, *arguments: object) -> "_Array":
        raise pickle.UnpicklingError("an array made by calling numpy.ndarray")


def _reconstruct(kind: object, shape: object, code: object) -> np.ndarray[Any, Any]:
    """Make the empty array that a pickle then fills; anything larger could be of any size."""
    if kind is not _Array or shape != (0,):
        raise pickle.UnpicklingError(f"an array of shape {shape!r:.50}")
    return np.empty(0, np.int8)


def _dtype(code: object, *flags: object) -> np.dtype[Any]:
    if not isinstance(code, str) or len(code) > 8:
        raise pickle.UnpicklingError("a dtype that is no short name")
    return np.dtype(code)


def _frombuffer(data: object, dtype: object, shape: object, order: object) -> np.ndarray[Any, Any]:
    """Make an array of bytes that are there, as pickles since protocol 5 do."""
    if not isinstance(data, (bytes, bytearray)) or not isinstance(dtype, np.dtype) or dtype.hasobject:
        raise pickle.UnpicklingError("an array of something else than bytes")
    if not isinstance(shape, tuple) or order not in ("C", "F"):
        raise pickle.UnpicklingError(f"an array of shape {shape!r:.50}")
    return np.frombuffer(data, dtype).reshape(shape, order="C" if order == "C" else "F")


def _scalar(dtype: object, data: object = b"") -> Any:
    if not isinstance(dtype, np.dtype) or dtype.hasobject:
        raise pickle.UnpicklingError("a number of an unknown dtype")
    raw = data.encode("latin1") if isinstance(data, str) else data
    if not isinstance(raw, bytes) or len(raw) != dtype.itemsize:
        raise pickle.UnpicklingError("a number of the wrong length")
    return np.frombuffer(raw, dtype)[0]


def _encode(text: object, encoding: object = "latin1", *more: object) -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1", "utf-8"):
        raise pickle.UnpicklingError("bytes in an unknown encoding")
    return text.encode(str(encoding))


ALLOWED: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _dtype,
    ("_codecs", "encode"): _encode,
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _reconstruct for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _frombuffer for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): _scalar for core in ("core", "_core")},
}


class _Bounded:
    """A file from which nobody can ask for more than it has: a pickle may claim a string of any length."""

    def __init__(self, file: Any, length: int) -> None:
        self.file, self.length = file, length

    def read(self, count: int) -> bytes:
        if not 0 <= count <= self.length - self.file.tell():
            raise pickle.UnpicklingError(f"{count} bytes claimed, {self.length - self.file.tell()} there")
        data: bytes = self.file.read(count)
        return data

    def readline(self) -> bytes:
        line: bytes = self.file.readline()
        return line


class _Unpickler(pickle._Unpickler):  # the C one fills a table up to the largest number that a pickle names
    def find_class(self, module: str, name: str) -> Any:
        try:
            return ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}"[:200]) from None

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError("it refers to objects elsewhere")

    def load_build(self) -> None:
        """Give an array its content or a dtype its byte order; of anything else it would set attributes."""
        state, made = self.stack[-1], self.stack[-2]  # type: ignore[attr-defined]
        plain = isinstance(state, tuple) and (
            (isinstance(made, np.dtype) and 5 <= len(state) <= 9 and state[2:5] == (None,) * 3)
            or (isinstance(made, np.ndarray) and len(state) == 5 and isinstance(state[2], np.dtype))
        )
        if not plain:
            raise pickle.UnpicklingError(f"it sets the state of a {type(made).__name__}")
        super().load_build()  # type: ignore[misc]

    dispatch: ClassVar[dict[int, Any]] = {**pickle._Unpickler.dispatch, pickle.BUILD[0]: load_build}


def load(path: Path) -> Any:
    """Read a pickle of plain values and numpy arrays.

    Raises:
        DataError: it is missing, damaged, or holds or does anything else; nothing it asked for was run.
    """
    try:
        if not path.is_file():
            raise DataError(f"no such file: {path}")
        length = path.stat().st_size
        if length > MAX_BYTES:
            raise DataError(f"{path} has {length} bytes, the limit is {MAX_BYTES}")
        with open(path, "rb") as file:
            return _Unpickler(_Bounded(file, length), encoding="latin1").load()
    except DataError:
        raise
    except Exception as error:  # a program that breaks off raises whatever it meets
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise DataError(f"{path} is not a pickle of plain values and numpy arrays: {reason}") from error
