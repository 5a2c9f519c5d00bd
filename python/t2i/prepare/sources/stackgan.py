"""The folders that StackGAN, AttnGAN and DF-GAN train on: lists of names, captions and images as pickles.

birds/train/filenames.pickle                    names without an ending, in the order of everything else
birds/train/char-CNN-RNN-embeddings.pickle      StackGAN: (N, 10, 1024)
birds/train/76images.pickle  304images.pickle   StackGAN: N images as arrays
birds/captions.pickle                           AttnGAN, DF-GAN: captions as numbers of words
birds/text/001.Albatross/....txt                all: ten captions an image, one a line
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from t2i.errors import DataError
from t2i.prepare.collect import DEFAULTS, SourceOptions
from t2i.prepare.items import Item, Report, checked_captions, read_lines
from t2i.prepare.leftovers import account_for_items
from t2i.prepare.sources.pickles import load
from t2i.prepare.tree import LEADS_OUT, FolderTree, joined

IMAGES = ("CUB_200_2011/images", "images", "jpg", "train2014", "val2014")
TEXTS = ("text", "text_c10")
CAPTIONS = ("captions.pickle", "captions_DAMSM.pickle")
ARRAYS = ("304images.pickle", "152images.pickle", "76images.pickle")


def stackgan(source: Path, report: Report, options: SourceOptions = DEFAULTS) -> Iterator[Item]:
    """List a StackGAN, AttnGAN or DF-GAN folder: train/ and test/ of `source`.

    Captions come from text/ (or text_c10/), else from captions.pickle; images from the folders of the originals, else
    from 304images.pickle or 76images.pickle. Embeddings are packed as the tensor `embeddings` (N, K, T).
    """
    tree = FolderTree(source, report)
    splits = [name for name in ("train", "test") if (source / name / "filenames.pickle").exists()]
    if not splits:
        raise DataError(f"{source} has neither train/filenames.pickle nor test/filenames.pickle")
    if "test" not in splits:
        report.notes.append("no test/filenames.pickle: nothing is held out")
    words = _caption_file(tree, report)
    items = list[Item]()
    for split in splits:
        names = _load(tree, f"{split}/filenames.pickle", report)
        if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
            raise DataError(f"{source / split / 'filenames.pickle'} must be a list of names")
        items += _images(tree, split, names, words[split] if words else None, report)
    account_for_items(tree, report, items)
    yield from items


def _load(tree: FolderTree, name: str, report: Report) -> Any:
    try:
        path = tree.within(name)
    except DataError as error:
        raise DataError(f"{tree.path / name} {error}") from error
    content = load(path)
    report.read.add(str(path))
    return content


def _caption_file(tree: FolderTree, report: Report) -> dict[str, list[str]] | None:
    """Read captions.pickle, [train, test, word of each number, number of each word], as sentences."""
    name = next((name for name in CAPTIONS if (tree.path / name).exists()), None)
    if name is None or any((tree.path / folder).is_dir() for folder in TEXTS):
        return None
    content = _load(tree, name, report)
    try:
        train, test, word_of = content[0], content[1], content[2]
        return {
            split: [" ".join(str(word_of[int(number)]) for number in caption) for caption in captions]
            for split, captions in (("train", train), ("test", test))
        }
    except (TypeError, KeyError, IndexError, ValueError) as error:
        raise DataError(
            f"{tree.path / name} must hold captions of train and test, and words by number: {error!r}"
        ) from error


def _optional(
    tree: FolderTree, split: str, names: Sequence[str], count: int, report: Report
) -> tuple[Path, Any] | None:
    name = next((f"{split}/{name}" for name in names if (tree.path / split / name).exists()), None)
    if name is None:
        return None
    content = _load(tree, name, report)
    if not isinstance(content, (list, tuple, np.ndarray)) or len(content) != count:
        raise DataError(f"{tree.path / name} must have a row for each of the {count} names of filenames.pickle")
    return tree.path / name, content


def _images(
    tree: FolderTree,
    split: str,
    names: Sequence[str],
    words: list[str] | None,
    report: Report,
) -> Iterator[Item]:
    folder = tree.path / split
    embeddings = _optional(tree, split, ["char-CNN-RNN-embeddings.pickle"], len(names), report)
    originals = [name for name in IMAGES if (tree.path / name).is_dir()]
    arrays = None if originals else _optional(tree, split, ARRAYS, len(names), report)
    texts = next((name for name in TEXTS if (tree.path / name).is_dir()), None)
    for name in filter(None, (*originals, texts)):
        tree.enter(name)
    each = len(words) // len(names) if words and names else 0
    if words is not None and (not each or len(words) != each * len(names)):
        raise DataError(f"captions.pickle has {len(words)} captions for the {len(names)} names of {folder}")
    shape: tuple[int, ...] | None = None
    for row, name in enumerate(names):
        where = f"{folder / 'filenames.pickle'}: {name[:200]}"
        try:
            captions = _captions(tree, report, texts, name, words[row * each : (row + 1) * each] if words else None)
            extra = {} if embeddings is None else {"embeddings": _numbers(embeddings[1][row], len(captions))}
            if extra and shape not in (None, extra["embeddings"].shape):
                raise DataError(f"embeddings must all be {shape}, got {extra['embeddings'].shape}")
            path, read = _image(tree, originals, name, arrays, row)
            shape = extra["embeddings"].shape if extra else None
        except (DataError, TypeError, ValueError) as error:
            report.skip(where, str(error))
            continue
        class_name = name.rpartition("/")[0] or None
        member = None if read is None else name
        length = row if read is not None else None
        test = split == "test"
        yield Item(path, captions, class_name, test, member=member, length=length, read=read, extra=extra)


def _captions(
    tree: FolderTree, report: Report, texts: str | None, name: str, words: list[str] | None
) -> tuple[str, ...]:
    if texts is None:
        if words is None:
            raise DataError("no captions: neither text/ nor captions.pickle")
        return checked_captions(words)
    path = _within(tree, texts, f"{name}.txt")
    report.read.add(str(path))
    return checked_captions(read_lines(path))


def _within(tree: FolderTree, folder: str, name: str) -> Path:
    path = joined(folder, name)
    if path is None:
        raise DataError(LEADS_OUT)
    return tree.within(path)


def _numbers(value: object, captions: int) -> NDArray[np.float32]:
    """Check one image's embeddings: (K, T), finite, one for each of its captions."""
    array = np.asarray(value, np.float32)
    if array.ndim != 2 or len(array) != captions or not np.isfinite(array).all():
        raise DataError(f"embeddings must be finite numbers ({captions}, T), got {array.shape}")
    return array


def _image(
    tree: FolderTree, originals: Sequence[str], name: str, arrays: tuple[Path, Any] | None, row: int
) -> tuple[Path, Callable[[int], NDArray[np.uint8]] | None]:
    for folder in originals:
        for ending in (".jpg", ".png"):
            path = _within(tree, folder, name + ending)
            if path.is_file():
                return path, None
    if arrays is None:
        raise DataError("no such image")
    return arrays[0], partial(_array, arrays[1], row)


def _array(content: Any, row: int, limit: int) -> NDArray[np.uint8]:
    array = np.asarray(content[row])
    if array.ndim != 3 or array.shape[2] != 3 or array.dtype != np.uint8:
        raise DataError(f"broken: the image must be uint8 (H, W, 3), got {array.dtype} {array.shape}")
    if array.nbytes > limit:
        raise DataError(f"too large: {array.nbytes} bytes, the limit is {limit}")
    return np.ascontiguousarray(array)
