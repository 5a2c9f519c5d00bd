"""COCO captions (captions_train2014.json ...) beside the folders of images; also the format of Karpathy's splits."""

import json
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from posixpath import join
from typing import Any

from t2i.errors import DataError
from t2i.prepare.collect import DEFAULTS, Collector, SourceOptions
from t2i.prepare.columns import Columns
from t2i.prepare.finder import Finder
from t2i.prepare.items import Item, Report, checked_captions, root_of
from t2i.prepare.kinds import folder_of, is_hidden
from t2i.prepare.leftovers import account_for_collected, json_content
from t2i.prepare.lines import decode
from t2i.prepare.sources.rows import ListedRow, rows_of_json
from t2i.prepare.splits import split_of_file
from t2i.prepare.tree import FolderTree, Tree, head, is_zip, open_tree, read_text_file, top_level

MAX_JSON_BYTES = 2 * 2**30  # bytes; captions_train2014.json has 67 MB
COLUMNS = Columns("file_name", "text", None, ("split",))


class _NoCaptions(DataError):
    """A file has images without captions, as VizWiz and COCO have one of their test images, or boxes of objects."""

    def __init__(self, place: str, what: str) -> None:
        super().__init__(f"{place} must be COCO's captions: {what}")
        self.what = what


def coco(source: Path, report: Report, options: SourceOptions = DEFAULTS) -> Iterator[Item]:
    """List the images of one captions JSON, or of those in a folder (or zip) and its annotations/.

    The split is read from the file's name (`captions_val2014`), in Karpathy's format from each image. Images are looked for
    in a folder of that name (train2014/, or train2014/train2014/ as unpacked on Windows), in images/ of it, in images/, and
    beside the file, in each folder above it in turn. There are no classes.
    """
    whole = source.is_dir() or is_zip(source)
    root = root_of(source)
    tree = open_tree(source if whole else root, report)
    files = _files(tree) if whole else [source.relative_to(root).as_posix()]
    images = FolderTree(options.images, report) if options.images is not None else None
    collector, without = Collector(Finder(tree, report, images), report), set[str]()
    for name in files:
        stem = name.rpartition("/")[2].removesuffix(".json")
        try:
            for row in _rows(tree, name, report, options):
                place = next((place for place in _places(name, stem) if _there(tree, place, row)), _bases(name)[0])
                collector.add(row.where, place, row.cells, row.columns, split=split_of_file(stem), table=stem)
        except _NoCaptions as error:
            if len(files) == 1:
                raise
            report.skip(tree.place(name), f"not read: {error.what}")
            without.add(name)
    items = list(collector.items())
    if whole:
        account_for_collected(tree, report, items, set(files) - without, collector)
    yield from items


def _files(tree: Tree) -> list[str]:
    """Find the JSON files of captions: captions_*.json, otherwise Karpathy's, any in annotations/, or any of COCO's form."""
    shown = [name for name in tree.names if name.casefold().endswith(".json") and not is_hidden(name)]
    annotations = {name for name in shown if "annotations" in folder_of(name).rpartition("/")[2]}
    top = annotations.union(top_level(tree))
    for start in ("captions_", "dataset_", "dataset", ""):
        wanted = top if start else annotations
        found = [name for name in shown if name in wanted and name.rpartition("/")[2].startswith(start)]
        if found:
            return found
    return [name for name in shown if name in top and json_content(name, head(tree, name)) == "coco"]  # STAIR, nocaps


def _bases(name: str) -> list[str]:
    """List the folders above an annotation file, its own first; annotations/ is none of its own."""
    folder = PurePosixPath(name).parent
    own = folder.parent if folder.name == "annotations" else folder
    return ["" if base == PurePosixPath() else str(base) for base in (own, *own.parents)]


def _places(name: str, stem: str) -> Iterator[str]:
    """List the folders that images of an annotation file are looked for in."""
    split = stem.removeprefix("captions_")
    for base in _bases(name):
        yield from (join(base, place) for place in (split, f"images/{split}", f"{split}/{split}", "images", ""))


def _there(tree: Tree, place: str, row: ListedRow) -> bool:
    try:
        return tree.has(f"{place}/{row.cells.get('file_name')}".strip("/"))
    except (OSError, ValueError):  # a name that no file system takes
        return False


def _rows(tree: Tree, name: str, report: Report, options: SourceOptions) -> Iterator[ListedRow]:
    place = tree.place(name)
    try:
        content: Any = json.loads(decode(read_text_file(tree, name, MAX_JSON_BYTES)))
        if isinstance(content, dict) and isinstance(content.get("images"), list):
            karpathy = any(isinstance(image, dict) and "sentences" in image for image in content["images"][:100])
            if not karpathy and "annotations" not in content:
                raise _NoCaptions(place, "it lists images without captions")
            if not karpathy and _are_boxes(content["annotations"]):
                raise _NoCaptions(place, "it has boxes or classes of objects, and no captions")
            if karpathy or isinstance(content["annotations"], list):
                yield from _karpathy(content, place, report) if karpathy else _annotated(content, place, report)
                return
        if not isinstance(content, (list, dict)) or not content or "images" in content:
            raise TypeError("it has no images")
        yield from rows_of_json(content, place, report, options)
    except _NoCaptions:
        raise
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(
            f"{place} must be COCO's captions: an object with images and annotations ({error!r:.300})"
        ) from error


def _are_boxes(annotations: Any) -> bool:
    """Return whether annotations are of objects, as in instances_train2017.json and Roboflow's _annotations.coco.json."""
    if not isinstance(annotations, list) or not annotations:
        return False
    return all(isinstance(each, dict) and "caption" not in each and "category_id" in each for each in annotations)


def _karpathy(content: Any, place: str, report: Report) -> Iterator[ListedRow]:
    """Read Karpathy's format: each image has its sentences and its split."""
    for number, image in enumerate(content["images"]):
        where = f"{place}: images[{number}]"
        try:
            name = image["filename"] if "filename" in image else image["file_name"]
            folder = image.get("filepath")
            texts = [sentence["raw"] for sentence in image["sentences"]]
            path = f"{folder}/{name}" if isinstance(folder, str) and folder else name
            cells = {"file_name": path, "text": texts, "split": image.get("split")}
        except (KeyError, TypeError) as error:
            report.skip(where, f"broken entry: {_said(error)}")
            continue
        yield ListedRow(where, cells, COLUMNS)


def _annotated(content: Any, place: str, report: Report) -> Iterator[ListedRow]:
    """Read COCO's format: images, and captions by image id; invalid entries are reported with their index."""
    names: dict[str, dict[str, None]] = {}  # files by id
    captions: dict[str, list[str]] = {}
    for number, entry in enumerate(content["images"]):
        try:
            image, name = _id(entry["id"], "id"), _checked(entry["file_name"], "file_name")
            names.setdefault(image, {})[name] = None
        except (KeyError, TypeError, ValueError) as error:
            report.skip(f"{place}: images[{number}]", f"broken entry: {_said(error)}")
    for number, entry in enumerate(content["annotations"]):
        where = f"{place}: annotations[{number}]"
        try:
            image, texts = _id(entry["image_id"], "image_id"), checked_captions(_checked(entry["caption"], "caption"))
        except (KeyError, TypeError, ValueError) as error:
            report.skip(where, f"broken entry: {_said(error)}")
            continue
        if image not in names:
            report.skip(where, f"no image has its image_id, {image[:100]}")
        else:
            captions.setdefault(image, []).extend(texts)
    for image, files in names.items():
        if len(files) > 1:
            captions.pop(image, None)
            reason = f"{len(files)} images have this id, so its captions could be any one's: {', '.join(files)[:300]}"
            report.skip(f"{place}: image {image[:100]}", f"{reason}; give each its own")
        for name in files:
            yield ListedRow(f"{place}: image {image}", {"file_name": name, "text": captions.get(image, [])}, COLUMNS)


def _id(value: object, what: str) -> str:
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise TypeError(f"{what} must be a number or a string")
    return str(value)


def _checked(value: object, what: str) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{what} must be a string")
    value.encode()
    return value


def _said(error: Exception) -> str:
    return f"no {error}" if isinstance(error, KeyError) else str(error)
