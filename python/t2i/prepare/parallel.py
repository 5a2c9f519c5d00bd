"""Files of captions by language beside a list of their images, line by line, as Multi30k has them: train.en, train.txt."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from t2i.errors import DataError
from t2i.prepare.items import Report
from t2i.prepare.kinds import ending, is_hidden, looks_like_image, stem_of
from t2i.prepare.languages import CODES
from t2i.prepare.lines import MAX_WHOLE_BYTES, decode, split_lines
from t2i.prepare.tree import FolderTree, Tree, head, read_text_file

ENDS_OF_LISTS = ("", "_images", "-images", ".images", "_image", "_img", "_imgs", "_image_names", "_list")


@dataclass(frozen=True)
class Parallel:
    """A file of captions, a line for each image, and the list of the images; None where there is none."""

    captions: str
    images: str | None
    beside: str | None = None  # the captions as they were written, of which these are a normalised form


def parallel_files(tree: Tree, only: str | None = None) -> list[Parallel]:
    """Find files such as train.en: with a list of their images, or at least with another of their name, train.de.

    Args:
        tree: The source.
        only: The one file that is wanted; the folder is not listed where its ending is of no language.
    """
    if only is not None:
        if ending(only)[1:] not in CODES:
            return []
        tree = tree.again() if isinstance(tree, FolderTree) else tree
        return [files for files in parallel_files(tree) if files.captions == only]
    shown = [name for name in tree.names if not is_hidden(name)]
    texts = [name for name in shown if ending(name)[1:] in CODES and b"\0" not in head(tree, name)]
    present, stems = set(texts), Counter(map(stem_of, texts))
    wanted = {key for name in texts for key in _keys(name)}
    lists = {
        key: name
        for name in shown
        if ending(name) == ".txt" and (key := _base(stem_of(name))) in wanted and _lists_images(tree, name)
    }
    found = []
    for name in texts:
        whole = _base(stem_of(name))
        first, *more = whole.split(".")
        images = next((lists[key] for key in _keys(name) if key in lists), None)
        plain = f"{stem_of(name)[: len(stem_of(name)) - len(whole)]}{first}{ending(name)}"
        beside = plain if more and not more[0].isdecimal() and plain in present else None
        if images or stems[stem_of(name)] > 1:
            found.append(Parallel(name, images, beside))
    return found


def _keys(name: str) -> list[str]:
    """List what the list of a file's images may be called: of train.1.en, train.1, train.1_images, train, train_images ..."""
    whole = _base(stem_of(name))
    return [f"{stem}{end}" for stem in (whole, whole.partition(".")[0]) for end in ENDS_OF_LISTS]


def advice(tree: Tree, name: str) -> str | None:
    """Say how a file of captions that was not read is read; None for any other file."""
    found = next(iter(parallel_files(tree, name)), None)
    if found is None:
        return None
    if found.images is None:
        missing = f"{_base(stem_of(name))}_images.txt"
        what = "lines of captions without the names of their images"
        return f"{what}; put these into {missing} beside it, one a line in the same order"
    return f"lines of captions, whose images {found.images} names; t2i-prepare csv reads both, given their folder"


def parallel_lines(tree: Tree, files: Parallel, report: Report) -> Iterator[tuple[str, str, str]]:
    """Yield the place, the image and the caption of each line; nothing, and a report entry, where the two files do not fit."""
    place, images = tree.place(files.captions), files.images
    if files.beside is not None:
        report.skip(place, f"not read: a normalised form of the captions in {files.beside}")
        return
    if images is None:
        report.skip(place, f"not read: {advice(tree, files.captions)}")
        return
    try:
        names, texts = _lines(tree, images), _lines(tree, files.captions)
    except DataError as error:
        report.skip(place, str(error))
        return
    if len(names) != len(texts):
        report.skip(place, f"not read: it has {len(texts)} lines, and {images} has {len(names)} names of images")
        return
    for number, (name, text) in enumerate(zip(names, texts, strict=True), 1):
        yield f"{place}:{number}", name.strip().partition("#")[0], text


def _base(name: str) -> str:
    return name.rpartition("/")[2].casefold()


def _lines(tree: Tree, name: str) -> list[str]:
    return split_lines(decode(read_text_file(tree, name, MAX_WHOLE_BYTES)).rstrip("\r\n"))


def _lists_images(tree: Tree, name: str) -> bool:
    try:
        return all(looks_like_image(line.strip().partition("#")[0]) for line in _lines(tree, name))
    except DataError:
        return False
