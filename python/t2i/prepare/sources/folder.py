"""A folder or zip of the user's own images, or a Hugging Face ImageFolder.

Captions are in `metadata.jsonl`, `.csv`, `.parquet` or `.json` (file_name, text), or in a text file with the image's
name, beside it or in a folder of texts beside the folder of images. The class is the label column of the metadata, otherwise
the subfolder. A folder named after a split (test, val, validation ...) is held out.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path

from t2i.errors import DataError
from t2i.prepare.collect import DEFAULTS, Collector, SourceOptions
from t2i.prepare.columns import unread_note
from t2i.prepare.finder import Finder
from t2i.prepare.items import Item, Report, caption_lines, checked_captions
from t2i.prepare.kinds import (
    CAPTION_ENDINGS,
    RAW_ENDINGS,
    TEXT_ENDINGS,
    ending,
    image_kind,
    is_hidden,
    looks_like_image,
)
from t2i.prepare.leftovers import account_for_collected
from t2i.prepare.lines import decode
from t2i.prepare.sources.rows import METADATA, find_in, parse_json, read_listing
from t2i.prepare.split_lists import with_listed_splits
from t2i.prepare.splits import split_of_folder, split_of_folders, splits_of_names
from t2i.prepare.tree import FolderTree, Tree, head, open_tree, read_text_file

NO_CAPTIONS = (
    "no captions: neither a line in metadata.jsonl nor a .txt beside it (--captions name takes the file's name)"
)
NOT_TAKEN = (
    "; not taken, since it may be another image's (a folder of texts is named text or captions, and holds no images): "
)
# Words in the name of a folder that holds texts of images: text_c10, train_captions.
TEXT_FOLDERS = frozenset(
    form
    for word in ("text", "txt", "caption", "label", "annotation", "description", "prompt", "sentence", "tag")
    for form in (word, f"{word}s")
)
CONTAINERS = frozenset({"image", "images", "img", "imgs", "picture", "pictures", "photos", "data"})
NO_HOME = TEXT_FOLDERS | CONTAINERS | frozenset(Finder.PLACES)


def folder(source: Path, report: Report, options: SourceOptions = DEFAULTS) -> Iterator[Item]:
    """List the captioned images of a folder or zip."""
    tree = open_tree(source, report)
    images = FolderTree(options.images, report) if options.images is not None else None
    read, items = set[str](), list[Item]()
    collector = Collector(Finder(tree, report, images), report)
    if options.captions == "files":
        for name in tree.names:
            if name.rpartition("/")[2].casefold() in METADATA and not is_hidden(name):
                read.add(name)
                for row in read_listing(tree, name, report, options):
                    folder_of = name.rpartition("/")[0]
                    collector.add(row.where, folder_of, row.cells, row.columns, class_names=row.class_names)
    items += collector.items()
    named = collector.named
    alone = [name for name in tree.names if name not in named and not is_hidden(name) and is_image(tree, name)]
    found = _by_name(alone) if options.captions == "name" else _sidecars(tree, alone, report, read, options)
    items += [tree.item(name, captions, *where) for name, captions, where in _with_classes(found, report)]
    items = with_listed_splits(tree, report, items, read)
    account_for_collected(tree, report, items, read, collector, alone)
    yield from items


def is_image(tree: Tree, name: str) -> bool:
    """Return whether a file is an image: by its extension, otherwise by its first bytes."""
    if looks_like_image(name):
        return True
    if ending(name) in TEXT_ENDINGS or ending(name) in RAW_ENDINGS:
        return False
    return image_kind(head(tree, name)) is not None


def _by_name(images: list[str]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Use file names as captions: without extension and copy number, underscores as spaces."""
    for name in images:
        base = _base(name)
        caption = re.sub(r" *\(\d+\)$", "", base).replace("_", " ").strip()
        yield name, checked_captions(caption or base)


class _Texts:
    """Finds the caption files of an image: beside it, otherwise by name in a folder of texts."""

    def __init__(self, tree: Tree, images: list[str]) -> None:
        self._present = set(tree.names)
        # The stem of an image by its name without case; None where several images have that name.
        self._folded: dict[str, str | None] = {}
        # Texts by their names without ending; those that no image claims by that name without case, by the name of an image
        # in any folder, and, where their folder holds no images, by what the folder says too.
        self._beside: dict[str, list[str]] = {}
        self._alike: dict[str, list[str]] = {}
        self._lonely: dict[str, list[str]] = {}
        self._elsewhere: dict[str, dict[frozenset[str], list[str]]] = {}
        self._images: dict[str, dict[frozenset[str], set[str]]] = {}  # stems of images that could be meant by these
        for image in images:
            for form in (_stem(image), image):
                key, stem = _fold(form), _stem(image)
                self._folded[key] = stem if self._folded.get(key, stem) == stem else None
        claims = {form for name in images for form in (_stem(name), name)}
        seen = (name for name in tree.names if looks_like_image(name) and not is_hidden(name))
        with_images = {_folder(name) for name in (*images, *seen)}
        self._homes = frozenset(part for folder in with_images for part in _home(folder))
        for name in tree.names:
            if ending(name) in CAPTION_ENDINGS and not is_hidden(name):
                stem = _stem(name)
                self._beside.setdefault(stem, []).append(name)
                if stem not in claims and stem not in self._present:
                    self._alike.setdefault(_fold(stem), []).append(name)
                    base = _base(stem) if looks_like_image(stem) else stem.rpartition("/")[2]
                    self._lonely.setdefault(base, []).append(name)
                    if _folder(name) not in with_images:
                        self._elsewhere.setdefault(base, {}).setdefault(_home(_folder(name)), []).append(name)
        for name in images:
            if _base(name) in self._elsewhere:
                homes = self._images.setdefault(_base(name), {})
                homes.setdefault(_home(_folder(name)), set()).add(_stem(name))

    def of(self, image: str) -> list[str]:
        """Return its caption files, the one to read first."""
        stem, forms = _stem(image), dict.fromkeys((_stem(image), image))
        found = [text for form in forms for text in sorted(self._beside.get(form, ()), key=_rank)]
        for form in forms:
            if self._folded[_fold(form)] is not None:
                found += sorted(self._alike.get(_fold(form), ()), key=_rank)
        if not found and f"{stem}.json" in self._present:
            found = [f"{stem}.json"]
        return found or self._parallel(image)

    def near(self, image: str) -> list[str]:
        """List texts that no image claims and that could be its own by their names."""
        texts = [text for form in (_stem(image), image) for text in self._alike.get(_fold(form), ())]
        return list(dict.fromkeys(texts + self._lonely.get(_base(image), [])))

    def _parallel(self, image: str) -> list[str]:
        """Find its texts in folders of texts: `text/red/a.txt` of `images/red/a.png`, where no other image could be meant."""
        base, home = _base(image), _home(_folder(image))
        texts = self._elsewhere.get(base, {})
        homes = [home] if home in texts else [other for other in texts if self._fits(other, home)]
        mine = [other for other in homes if self._claimants(base, other) == {_stem(image)}]
        return [text for other in mine for text in texts[other] if other == home or _is_of_texts(_folder(text))]

    def _claimants(self, base: str, home: frozenset[str]) -> set[str]:
        images = self._images[base]
        fitting = [home] if home in images else [other for other in images if self._fits(home, other)]
        return {stem for other in fitting for stem in images[other]}

    def _fits(self, text: frozenset[str], image: frozenset[str]) -> bool:
        """Return whether the folders of a text do not say another class or split than those of an image."""
        more = text - image
        return not more or (
            image < text and more.isdisjoint(self._homes) and all(split_of_folder(name) is None for name in more)
        )


def _plain(name: str) -> str:
    """Write a name without case, in one of the two forms that Unicode has for accented letters (macOS writes the other)."""
    return unicodedata.normalize("NFC", name).casefold()


def _stem(name: str) -> str:
    """Return a name without its extension."""
    return name[: len(name) - len(ending(name))]


def _base(name: str) -> str:
    """Return the name of a file without its folders and its extension; of a file that has none, all of it."""
    return _stem(name.rpartition("/")[2]) if looks_like_image(name) else name.rpartition("/")[2]


def _fold(name: str) -> str:
    """Write a name with the last part of it plain."""
    folder, slash, base = name.rpartition("/")
    return f"{folder}{slash}{_plain(base)}"


def _rank(text: str) -> tuple[int, bool]:
    return CAPTION_ENDINGS.index(ending(text)), not text.endswith(ending(text))


def _folder(name: str) -> str:
    return name.rpartition("/")[0]


def _words(folder: str) -> list[str]:
    return [word for word in re.split(r"[\W_]+", _plain(re.sub(r"(?<=[a-z])(?=[A-Z])", " ", folder))) if word]


@lru_cache(maxsize=10_000)
def _home(folder: str) -> frozenset[str]:
    """Return what a path says beside images and texts: `train_images/red` is of train and red."""
    parts = ([word for word in _words(part) if word not in NO_HOME] for part in folder.split("/"))
    return frozenset("_".join(words) for words in parts if words)


def _is_of_texts(folder: str) -> bool:
    """Return whether a path is called one of texts."""
    return not TEXT_FOLDERS.isdisjoint(_words(folder))


def _sidecars(
    tree: Tree, images: list[str], report: Report, read: set[str], options: SourceOptions
) -> Iterator[tuple[str, tuple[str, ...]]]:
    texts, unread = _Texts(tree, images), set[str]()
    for image in images:
        found = texts.of(image)
        if not found:
            near = texts.near(image)
            report.skip(tree.place(image), NO_CAPTIONS + (NOT_TAKEN + ", ".join(near[:3]) if near else ""))
            continue
        parts = {text.rpartition("/")[0] for text in found}
        if len(found) > 1 and parts != {image.rpartition("/")[0]}:
            report.skip(tree.place(image), f"{len(found)} caption files could be its own: {', '.join(found[:3])}")
            continue
        for other in found[1:]:
            report.skip(tree.place(other), f"not read: {found[0]} has the captions of its image")
        read.add(found[0])
        try:
            captions = _read_captions(tree, found[0], options, unread)
        except (DataError, TypeError, UnicodeError) as error:
            place = image if str(error) == "no captions" else found[0]
            report.skip(tree.place(place), str(error))
            continue
        yield image, captions
    report.notes += unread_note(unread)


def _read_captions(tree: Tree, name: str, options: SourceOptions, unread: set[str]) -> tuple[str, ...]:
    try:
        data = read_text_file(tree, name)
    except DataError as error:
        raise DataError("caption file of over 2 MB" if "over" in str(error) else str(error)) from error
    if ending(name) != ".json":
        return checked_captions(caption_lines(data))
    text = decode(data)
    try:
        content = parse_json(text)
        if not isinstance(content, dict):
            raise TypeError("an object was expected")
        columns = find_in(content | {"file_name": name}, "file_name", options.caption_column)
        unread.update(columns.unread)
        return checked_captions(columns.captions(content))
    except (ValueError, TypeError, RecursionError) as error:
        raise DataError(f"no captions in it: {error}") from error


def _with_classes(
    found: Iterable[tuple[str, tuple[str, ...]]], report: Report
) -> Iterator[tuple[str, tuple[str, ...], tuple[str | None, bool]]]:
    """Read class and split of each image from its folders."""
    listed = list(found)
    splits, classes = list[bool | None](), []
    for name, _ in listed:
        split, parts = split_of_folders(tuple(name.split("/")[:-1]))
        splits.append(split)
        while parts and parts[0].casefold() in CONTAINERS:
            parts = parts[1:]
        classes.append("/".join(parts))
    if all(split is None for split in splits):
        splits = splits_of_names([name for name, _ in listed], report.notes)
    kinds = set(classes)
    if len(kinds) == 1 and kinds != {""}:
        report.notes.append(f"all images are in one folder, {kinds.pop()}, which is no class")
        classes = [""] * len(listed)
    elif kinds and all(re.fullmatch(r"\d{5,}", kind) for kind in kinds):
        report.notes.append(
            f"folders of five digits and more ({min(kinds)} ...) are parts of the source, and no classes"
        )
        classes = [""] * len(listed)
    for (name, captions), class_name, test in zip(listed, classes, splits, strict=True):
        yield name, captions, (class_name or None, bool(test))
