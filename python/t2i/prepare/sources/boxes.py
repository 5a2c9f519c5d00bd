"""Tell text files of boxes from captions: labels/a.txt of YOLO has a class and the corners of a box in each line."""

import re
from collections import defaultdict

from t2i.errors import DataError
from t2i.prepare.kinds import CAPTION_ENDINGS, ending, folder_of, is_hidden
from t2i.prepare.lines import decode
from t2i.prepare.tree import Tree, read_text_file

SAMPLE = 20  # files of a folder that are looked at before all of them are
_LINE = re.compile(
    r"\d+(?:\s+-?\d+(?:\.\d+)?(?:e-?\d+)?){4,}\s*"
)  # of a class, and of the numbers of a box or an outline


def are_boxes(text: str) -> bool:
    r"""Return whether each line of a text is a number and four or more others, one of which has a decimal point.

    >>> are_boxes("0 0.5 0.5 0.25 1\n3 0.1 0.2 0.3 0.4\n"), are_boxes("7"), are_boxes("1 2 3 4 5"), are_boxes("")
    (True, False, False, False)
    """
    lines = [line for line in text.splitlines() if line.strip()]
    return "." in text and bool(lines) and all(_LINE.fullmatch(line.strip()) for line in lines)


def box_files(tree: Tree) -> set[str]:
    """List the text files of a source that hold boxes; where a folder has some, its empty ones are of images without any."""
    folders: dict[str, list[str]] = defaultdict(list)
    for name in tree.names:
        if ending(name) in CAPTION_ENDINGS and not is_hidden(name):
            folders[folder_of(name)].append(name)
    found = set[str]()
    for names in folders.values():
        step = max(1, len(names) // SAMPLE)
        if any(are_boxes(_text(tree, name)) for name in names[::step]):
            found.update(name for name in names if not (text := _text(tree, name)).strip() or are_boxes(text))
    return found


def _text(tree: Tree, name: str) -> str:
    try:
        return decode(read_text_file(tree, name))
    except DataError:  # reported where it is the captions of an image
        return "unreadable"
