"""Oxford-102 and CUB-200-2011 as they were published, with the captions of Reed et al. beside them."""

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from posixpath import join

from t2i.errors import DataError
from t2i.prepare.collect import DEFAULTS, SourceOptions
from t2i.prepare.items import Item, Report, read_lines
from t2i.prepare.kinds import ending, is_hidden
from t2i.prepare.leftovers import account_for_items
from t2i.prepare.lines import decode
from t2i.prepare.tree import LEADS_OUT, FolderTree, joined

# Lists of classes and whether theirs are held out, or all others: the first that holds some out decides.
CLASS_LISTS = {"testclasses.txt": True, "trainvalclasses.txt": False, "trainclasses.txt": False, "valclasses.txt": True}
NOTHING = "no usable testclasses.txt: nothing is held out"


class _Layout:
    """A published data set: files by the names that its layout gives them, none of which leads out of the source."""

    def __init__(self, source: Path, report: Report) -> None:
        self.source, self.report = source, report
        self.tree = FolderTree(source, report)
        self.names = [name for name in self.tree.names if not is_hidden(name)]
        self._refused = {place for place, _ in report.skipped}

    def folder(self, what: str, *names: str) -> str:
        """Return the first of these folders that is there. DataError where none is."""
        for name in names:
            if (self.source / name).is_dir():
                return self.tree.enter(name)
        path = self.source / names[0]
        if path.exists():
            raise DataError(f"{path} must be a folder ({what})")
        raise DataError(f"no such file or folder: {path} ({what})")

    def lines(self, name: str, what: str) -> list[str]:
        """Read the lines of a list. DataError where that cannot be done."""
        try:
            lines = read_lines(self.tree.within(name))
        except DataError as error:
            raise DataError(f"{self.source / name} ({what}): {error}") from error
        self.report.read.add(self.tree.place(name))
        return lines

    def columns(self, name: str, what: str, count: int) -> dict[str, list[str]]:
        """Read one of CUB's lists: `count` columns a line, the first of which is the image's number."""
        rows: dict[str, list[str]] = {}
        for line in self.lines(name, what):
            number, *values = line.split(maxsplit=count - 1)
            if len(values) != count - 1:
                raise DataError(f"{self.source / name} must have {count} columns, got {line[:80]!r}")
            if rows.setdefault(number, values) != values:
                raise DataError(f"{self.source / name} must have a number for each line, and has {number[:80]} twice")
        return rows

    def captions(self, image: str, text: str) -> tuple[str, ...] | None:
        """Read the captions of an image; None, and a report entry, where it or they cannot be used."""
        place = self.tree.place(text)
        try:
            captions = read_lines(self.tree.within(text))
            self.report.read.add(place)
            place = self.tree.place(image)
            if not self.tree.within(image).is_file():
                raise DataError("no such image")
            if not captions:
                raise DataError("no captions")
        except DataError as error:
            if place not in self._refused:  # otherwise it is in the report already
                self.report.skip(place, str(error))
            return None
        return tuple(captions)

    def find(self, *names: str) -> str | None:
        """Return the first of these names that is there, be it a link that leads nowhere."""
        return next((name for name in names if os.path.lexists(self.source / name)), None)

    def held_out(self, folders: Sequence[str], classes: set[str]) -> set[str] | None:
        """Read the classes that are held out from the lists in these folders; None where no list says."""
        for base, names_held_out in CLASS_LISTS.items():
            name = self.find(*(join(folder, base) for folder in folders))
            if name is None:
                continue
            listed = set(self.lines(name, "list of classes"))
            unknown = listed - classes
            if unknown:
                usual = f"; the classes have names such as {min(classes)!r}" if classes else ""
                self.note(f"{len(unknown)} names in {base} match no class, such as {min(unknown)[:100]!r}{usual}")
            held_out = listed & classes if names_held_out else classes - listed
            if not held_out or unknown == listed:
                continue
            if base != "testclasses.txt":
                which = "the classes of" if names_held_out else "all classes but those of"
                self.note(f"no usable testclasses.txt: {which} {base} are held out")
            return held_out
        return None

    def note(self, text: str) -> None:
        """Add a note to the report."""
        self.report.notes.append(text)


def oxford102(source: Path, report: Report, options: SourceOptions = DEFAULTS) -> Iterator[Item]:
    """List Oxford-102 as published: jpg/ beside text_c10/class_*/image_*.txt, trainvalclasses.txt, testclasses.txt."""
    layout = _Layout(source, report)
    images, texts = layout.folder("images", "jpg"), layout.folder("captions", "text_c10")
    below = [(name, name.removeprefix(f"{texts}/").split("/")) for name in layout.names if name.startswith(f"{texts}/")]
    files = [(name, *parts) for name, parts in below if len(parts) == 2 and ending(name) == ".txt"]
    held_out = layout.held_out([""], {class_name for _, class_name, _ in files})
    if held_out is None:
        layout.note(NOTHING)
    names = _class_names(layout) if layout.find("cat_to_name.json") else {}
    items = []
    for text, class_name, base in files:
        image = join(images, f"{base[: -len('.txt')]}.jpg")
        captions = layout.captions(image, text)
        if captions:
            test = class_name in (held_out or ())
            items.append(Item(source / image, captions, names.get(class_name, class_name), test))
    account_for_items(layout.tree, report, items)
    yield from items


def _class_names(layout: _Layout) -> dict[str, str]:
    """Read cat_to_name.json: {"1": "pink primrose", ...}, by the folder names of text_c10."""
    path = layout.source / "cat_to_name.json"
    try:
        numbered = json.loads(decode(layout.tree.within("cat_to_name.json").read_bytes()))
        layout.report.read.add(str(path))
        return {f"class_{int(number):05d}": str(name) for number, name in numbered.items()}
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise DataError(f"{path} must hold class numbers and names: {error}") from error


def cub(source: Path, report: Report, options: SourceOptions = DEFAULTS) -> Iterator[Item]:
    """List CUB-200-2011 as published, with text_c10/ and the class lists beside or inside CUB_200_2011/."""
    layout = _Layout(source, report)
    root = layout.tree.enter("CUB_200_2011") if (source / "CUB_200_2011").is_dir() else ""
    texts = layout.folder("captions", "text_c10", join(root, "text_c10"))
    listed = {number: name for number, (name,) in layout.columns(join(root, "images.txt"), "list of images", 2).items()}
    boxes = _boxes(layout, join(root, "bounding_boxes.txt")) if options.boxes else {}
    layout.tree.enter(join(root, "images"))
    images = {number: joined(join(root, "images"), name) for number, name in listed.items()}
    held_out = layout.held_out(["", root], {_class_of(name) for name in images.values() if name is not None})
    test = _held_out_images(layout, join(root, "train_test_split.txt"), set(images)) if held_out is None else set()
    items = []
    for number, image in images.items():
        if image is None:
            report.skip(listed[number], LEADS_OUT)
            continue
        class_name, stem = _class_of(image), Path(image).stem
        captions = layout.captions(image, join(texts, class_name, f"{stem}.txt"))
        if captions:
            is_test = number in test or class_name in (held_out or ())
            items.append(Item(source / image, captions, class_name, is_test, boxes.get(number)))
    account_for_items(layout.tree, report, items)
    yield from items


def _class_of(image: str) -> str:
    return Path(image).parent.name


def _boxes(layout: _Layout, name: str) -> dict[str, tuple[float, float, float, float]]:
    found = {}
    for number, values in layout.columns(name, "bounding boxes", 5).items():
        try:
            x, y, width, height = map(float, values)
        except ValueError as error:
            raise DataError(f"{layout.source / name} must hold numbers, got {values}") from error
        found[number] = (x, y, width, height)
    return found


def _held_out_images(layout: _Layout, name: str, images: set[str]) -> set[str]:
    """Read CUB's own split, which is used without a list of classes: an image's number, and 1 for training."""
    if layout.find(name) is None:
        layout.note(NOTHING)
        return set()
    rows = layout.columns(name, "split of the images", 2)
    values = {value for (value,) in rows.values()}
    if not values <= {"0", "1"}:
        raise DataError(f"{layout.source / name} must hold 0 and 1, got {min(values - {'0', '1'})[:80]!r}")
    held_out = {number for number, (value,) in rows.items() if value == "0"} & images
    layout.note(f"no usable testclasses.txt: {len(held_out)} images are held out by train_test_split.txt")
    unknown = len(images - rows.keys())
    if unknown:
        layout.note(f"{unknown} images are not in train_test_split.txt: read as training")
    return held_out
