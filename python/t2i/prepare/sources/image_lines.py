"""Chinese-CLIP's layout, of MUGE: train_imgs.tsv with an id, a tab and the image in base64; train_texts.jsonl with texts by id.

{"text_id": 1, "text": "a red kite", "image_ids": [1, 2]}
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from t2i.errors import DataError
from t2i.prepare.encoded import decoded_image
from t2i.prepare.items import Item, Report, checked_captions
from t2i.prepare.kinds import POINTER, folder_of, is_pointer
from t2i.prepare.lines import numbered_lines
from t2i.prepare.sources.rows import parse_json
from t2i.prepare.splits import split_of_file, split_of_folders
from t2i.prepare.tree import FolderTree, Tree, head

IMAGES, TEXTS = "_imgs.tsv", "_texts.jsonl"
MAX_IMAGE_LINE = 64 << 20  # bytes


@dataclass
class _Image:
    number: int  # of its line
    offset: int  # of its text
    length: int
    captions: list[str] = field(default_factory=list)


def image_files(tree: Tree, names: Collection[str]) -> dict[str, str]:
    """Return those of some files that are of this layout, images and texts: {"train_imgs.tsv": "train_texts.jsonl"}."""
    starts = {name.removesuffix(end) for name in names for end in (IMAGES, TEXTS) if name.endswith(end)}
    pairs = {start + IMAGES: start + TEXTS for start in sorted(starts)}
    return {images: texts for images, texts in pairs.items() if tree.has(images) and tree.has(texts)}


def read_image_lines(tree: Tree, images: str, texts: str, report: Report) -> Iterator[Item]:
    """List the images of one file that have captions in the other; lines that cannot be used are reported."""
    if not isinstance(tree, FolderTree):
        report.skip(tree.place(images), "its images are in base64, which are not read inside of an archive; unpack it")
        return
    for name in (images, texts):
        if is_pointer(head(tree, name)):
            report.skip(tree.place(name), POINTER)
            return
    try:
        found = _images(tree, images, report)
        _read_texts(tree, texts, images, found, report)
    except (OSError, DataError) as error:
        report.skip(tree.place(images), getattr(error, "strerror", None) or str(error))
        return
    split = split_of_file(images.rpartition("/")[2])
    if split is None:
        split, _ = split_of_folders(tuple(folder_of(images).split("/")))
    path = tree.path / images
    for number, image in found.items():
        if image.captions:
            read = partial(_read, path, image.offset, image.length)
            length = image.length * 3 // 4
            member = f"{images}:{number}"
            yield Item(path, tuple(image.captions), None, bool(split), member=member, length=length, read=read)
        else:
            report.skip(f"{path}:{image.number}", "no captions: no text has its id")


def _images(tree: FolderTree, name: str, report: Report) -> dict[str, _Image]:
    """Find the images of a file by their ids; their bytes are read when they are packed."""
    found: dict[str, _Image] = {}
    place, number, offset = tree.place(name), 0, 0
    with tree.open(name) as file:
        while line := file.readline(MAX_IMAGE_LINE + 1):
            number += 1
            start, length = offset, len(line)
            while len(line) > MAX_IMAGE_LINE and not line.endswith(b"\n") and (more := file.readline(MAX_IMAGE_LINE)):
                length += len(more)
                if more.endswith(b"\n"):
                    break
            offset += length
            key, tab, text = line.removeprefix(b"\xef\xbb\xbf").partition(b"\t")
            known = key.strip().decode("utf-8", "replace")[:200]
            if length > MAX_IMAGE_LINE:
                report.skip(f"{place}:{number}", f"a line of over {MAX_IMAGE_LINE >> 20} MB")
            elif not line.strip():
                continue
            elif not tab or not known or not text.strip():
                report.skip(f"{place}:{number}", "broken line: an id, a tab and an image in base64 expected")
            elif known in found:
                report.skip(f"{place}:{number}", f"a second image of the id {known}")
            else:
                found[known] = _Image(number, start + len(line) - len(text), len(text))
    return found


def _read_texts(tree: Tree, name: str, images: str, found: dict[str, _Image], report: Report) -> None:
    """Give the texts of a file to the images whose ids they have."""
    place, alone = tree.place(name), 0
    with tree.open(name) as file:
        for number, line in numbered_lines(file, lambda number, reason: report.skip(f"{place}:{number}", reason)):
            if not line.strip():
                continue
            try:
                row = parse_json(line)
                captions, keys = checked_captions(row["text"]), row["image_ids"]
                if not isinstance(keys, list):
                    raise TypeError("image_ids must be a list")
            except DataError as error:
                report.skip(f"{place}:{number}", str(error))
                continue
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                said = f"no {error}" if isinstance(error, KeyError) else str(error)
                report.skip(f"{place}:{number}", f"broken line: {said}")
                continue
            alone += not keys
            known = dict.fromkeys(str(key) for key in keys)
            for key in known:
                if key in found:
                    found[key].captions += captions
            missing = [key for key in known if key not in found]
            if missing:
                listed = ", ".join(missing[:3])[:200]
                report.skip(f"{place}:{number}", f"no image in {images} has the id {listed}")
    if alone:
        report.notes.append(f"{alone} texts in {name} are of no image: their image_ids are empty")


def _read(path: Path, offset: int, length: int, limit: int) -> bytes:
    with open(path, "rb") as file:
        file.seek(offset)
        return decoded_image(file.read(length), limit)
