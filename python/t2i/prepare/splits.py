"""Which images are held out of training: one reading of split names, for folders, file names and columns of every source."""

import re

HELD_OUT = frozenset({"test", "testing", "validation", "valid", "val", "dev", "eval", "evaluation"})
TRAINING = frozenset(
    {"train", "training", "trainval", "restval"}
)  # restval: Karpathy's name for more of COCO's training
# What may stand beside the name of a split in the name of a folder: test_set, val_images, train2014.
PLAIN = frozenset(
    {"", "set", "split", "data", "dataset", "image", "images", "img", "imgs", "picture", "pictures", "photos"}
)


def _words(name: str) -> list[str]:
    """Split a name into lower-case words: `TestSet-2`, `test_set` and `test set` are all test and set."""
    return re.split(r"[^a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).casefold())


def _held_out(words: list[str]) -> bool | None:
    held_out, training = not HELD_OUT.isdisjoint(words), not TRAINING.isdisjoint(words)
    return None if held_out == training else held_out


def split_of_value(value: object) -> bool | None:
    """Read a value of a split column: True is held out, False is training, None is no known name.

    >>> split_of_value("Validation"), split_of_value("train"), split_of_value("val2014"), split_of_value("extra")
    (True, False, True, None)
    """
    return _held_out(_words(value)) if isinstance(value, str) else None


def split_of_file(stem: str) -> bool | None:
    """Read the split off the name of a file that lists or holds many images, wherever in the name it stands.

    >>> split_of_file("captions_val2014"), split_of_file("train-00000-of-00001"), split_of_file("list")
    (True, False, None)
    """
    return _held_out(_words(stem))


def split_of_folder(name: str) -> bool | None:
    """Read the split off the name of one folder, which must say nothing else: `test_set`, but not `test tubes`.

    >>> split_of_folder("val"), split_of_folder("training_set"), split_of_folder("test tubes")
    (True, False, None)
    """
    words = [word for word in _words(name) if word not in PLAIN]
    return _held_out(words) if len(words) == 1 else None


def split_of_folders(parts: tuple[str, ...]) -> tuple[bool | None, tuple[str, ...]]:
    """Read the split off the folders that lead to an image: the first that names one, and the other folders."""
    for place, part in enumerate(parts):
        split = split_of_folder(part)
        if split is not None:
            return split, parts[:place] + parts[place + 1 :]
    return None, parts
