"""Recognise the names of splits in folders, file names and columns, in the same way for every source."""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

HELD_OUT = frozenset(
    {"test", "testing", "validation", "valid", "val", "dev", "eval", "evaluation", "holdout", "heldout"}
)
IN_COLUMNS = HELD_OUT | {"unseen"}  # a folder or a table of this name may be of things unseen
TRAINING = frozenset(
    {"train", "training", "trainval", "restval"}
)  # restval: Karpathy's name for more of COCO's training
# What may stand beside the name of a split in the name of a folder: test_set, val_images, train2014.
PLAIN = frozenset(
    {"", "set", "split", "data", "dataset", "image", "images", "img", "imgs", "picture", "pictures", "photos"}
)
# Chinese words for the same, of which those in 集 are no part of another word: 验证码 is a captcha, 验证集 the validation set.
SETS = {"训练集": "train", "訓練集": "train", "测试集": "test", "測試集": "test", "验证集": "val", "驗證集": "val"}
CHINESE_PLACES = ("图片", "圖片", "图像", "圖像", "照片", "数据", "數據", "資料")  # what folders of images are called
CHINESE = {word.removesuffix("集"): name for word, name in SETS.items()} | dict.fromkeys(
    ("数据集", "數據集", "資料集", *CHINESE_PLACES, "集", "用"), "data"
)
# Letters, Latin ones apart from those of other scripts.
_RUN = re.compile(r"[a-z\u00df-\u024f]+|[^\W\d_a-z\u00df-\u024f]+")
_SET = re.compile(f"({'|'.join(SETS)})")
_CHINESE = re.compile("|".join(CHINESE))


def _words(name: str) -> list[str]:
    """Split a name into lower-case words: `TestSet-2`, `test_set` and `test set` are all test and set; so is 测试集."""
    plain = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", unicodedata.normalize("NFC", name)).casefold()
    runs = _RUN.findall(re.sub(r"(?<![a-z])(held|hold)[ _-]out(?![a-z])", r"\1out", plain))
    if plain.isascii():
        return runs
    return [word for run in runs for part in _SET.split(run) if part for word in _translated(part)]


def _translated(part: str) -> list[str]:
    """Translate what is all Chinese for a split, data or images: 测试图片 is test and data; anything else stays one word."""
    if part in SETS:
        return [SETS[part]]
    return [part] if _CHINESE.sub("", part) else [CHINESE[word] for word in _CHINESE.findall(part)]


def _held_out(words: Sequence[str], names: frozenset[str] = HELD_OUT) -> bool | None:
    held_out, training = not names.isdisjoint(words), not TRAINING.isdisjoint(words)
    return None if held_out == training else held_out


def split_of_value(value: object, *, alone: bool = False) -> bool | None:
    """Read a value of a split column: True for held out, False for training, None for an unknown name.

    Args:
        value: The value.
        alone: It counts only where it says nothing else: the column may be of something else than splits.

    >>> split_of_value("Validation"), split_of_value("train"), split_of_value("val2014"), split_of_value("extra")
    (True, False, True, None)
    """
    words = _words(value) if isinstance(value, str) else []
    if alone and len(_telling(words)) != 1:
        return None
    return _held_out(words, IN_COLUMNS)


def split_of_file(stem: str) -> bool | None:
    """Read the split from any word in the name of a table, shard or Parquet file.

    >>> split_of_file("captions_val2014"), split_of_file("train-00000-of-00001"), split_of_file("list")
    (True, False, None)
    """
    return _held_out(_words(stem))


def split_of_folder(name: str) -> bool | None:
    """Read the split from the name of a folder that says nothing else: `test_set`, but not `test tubes`.

    >>> split_of_folder("val"), split_of_folder("training_set"), split_of_folder("test tubes")
    (True, False, None)
    """
    words = _telling(_words(name))
    return _held_out(words) if len(words) == 1 else None


def is_of_table(folder: str, table: str) -> bool:
    """Return whether a folder of images is called like a table, or like the split in the table's name.

    >>> is_of_table("train_images", "train"), is_of_table("val", "captions_val"), is_of_table("kites", "Kites")
    (True, True, True)
    >>> is_of_table("test", "train"), is_of_table("images", "train"), is_of_table("red", "red_list")
    (False, False, False)
    >>> is_of_table("caption_train_images_20170902", "caption_train_annotations_20170902")  # AI Challenger
    True
    """
    words = [word for word in _telling(_words(folder)) if word not in ("caption", "captions")]
    known = len(words) == 1 and words[0] in HELD_OUT | TRAINING
    return bool(table) and (folder.casefold() == table.casefold() or (known and words[0] in _words(table)))


def _telling(words: list[str]) -> list[str]:
    return [word for word in words if word not in PLAIN]


def split_of_folders(parts: tuple[str, ...]) -> tuple[bool | None, tuple[str, ...]]:
    """Read the split from the folders of an image; return it with the remaining folders."""
    for place, part in enumerate(parts):
        split = split_of_folder(part)
        if split is not None:
            return split, parts[:place] + parts[place + 1 :]
    return None, parts


class SplitFolders:
    """The splits of images by their folders: `val`, `test_set`, or one of two that differ in the name of a split alone.

    `cats_test` may be cats in a test; beside `cats_train` it is the part of the cats that is held out.

    Args:
        folders: Those of all images of a source, in parts.

    Attributes:
        paired: Images that such a pair decided for as held out, counted by `read`.
    """

    def __init__(self, folders: Iterable[tuple[str, ...]]) -> None:
        found = dict[tuple[Any, ...], dict[tuple[str, ...], bool]]()
        for path in {parts[:end] for parts in folders for end in range(1, len(parts) + 1)}:
            split, rest = _held_out(_words(path[-1])), _without_split(path[-1])
            if split is not None and rest:
                found.setdefault((path[:-1], rest), {})[path] = split
        self._pairs = {
            path: (split, rest)
            for (_, rest), splits in found.items()
            if len(set(splits.values())) == 2
            for path, split in splits.items()
        }
        self.paired = 0

    def read(self, parts: tuple[str, ...]) -> tuple[bool | None, tuple[str, ...]]:
        """Read the split from the folders of an image; return it with the folders that say something else."""
        split, others = split_of_folders(parts)
        ends = () if split is not None else range(1, len(parts) + 1)
        for end in ends:
            if parts[:end] in self._pairs:
                split, rest = self._pairs[parts[:end]]
                self.paired += split
                return split, (*parts[: end - 1], rest, *parts[end:])
        return split, others

    def notes(self) -> list[str]:
        """Say how many images were held out by a pair of folders."""
        if not self.paired:
            return []
        example = "/".join(min(path for path, (split, _) in self._pairs.items() if split))
        return [f"{self.paired} images are held out by folders such as {example}, which have a twin for training"]


def _without_split(name: str) -> str:
    """Return what the name of a folder says beside a split, with its numbers; empty where that is nothing."""
    words = [word for word in _telling(_words(name)) if word not in HELD_OUT | TRAINING]
    return "_".join([*words, *re.findall(r"\d+", name)]) if words else ""


def splits_of_names(names: Sequence[str], notes: list[str]) -> list[bool | None]:
    """Read the splits of images from their files' names: `train_1.jpg`, `val_2.jpg`.

    They say it only where each begins with the name of a split, and both kinds are there: one `test_1.jpg` among others may
    show a test.

    Args:
        names: Paths of the images of a source, of which no folder or column says the split.
        notes: Receives a line where names decide.
    """
    files = [name.rpartition("/")[2] for name in names]
    found = [_held_out(_words(file)[:1]) if file[:1].isalpha() else None for file in files]
    if None in found or len(set(found)) < 2:
        return [None] * len(names)
    notes.append(f"{sum(map(bool, found))} images are held out by the beginnings of their names, such as val_1.jpg")
    return found
