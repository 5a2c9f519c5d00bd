"""COCO: captions JSON (captions_train2014.json ...) beside the folders of pictures that it names."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from t2i.errors import DataError
from t2i.prepare.items import HELD_OUT, Item, Report, checked_captions, inside, root_of

MAX_JSON_BYTES = 2 * 2**30  # bytes; captions_train2014.json has 67 MB


def coco(source: Path, report: Report) -> Iterator[Item]:
    """List the pictures of one captions JSON, or of every captions_*.json in a folder or its annotations/.

    The split is the part of the file's name after `captions_`: `val...` and `test...` are held out. Pictures are looked
    for in a folder of that name (train2014/), in images/ of it, in images/, and beside the file. There are no classes.
    """
    root = root_of(source)
    files = [source]
    if source.is_dir():
        files = sorted([*source.glob("captions_*.json"), *source.glob("annotations/captions_*.json")])
        if not files:
            raise DataError(f"{source} has no captions_*.json, neither at its top nor in annotations/")
    for file in files:
        if source.is_dir() and inside(source, str(file.relative_to(source))) is None:
            report.skip(file, "a link out of the source folder")
            continue
        yield from _pictures(root, file, report)


def _pictures(root: Path, file: Path, report: Report) -> Iterator[Item]:
    names, captions = _read(file, report)
    split = file.stem.removeprefix("captions_")
    held_out = re.match(r"[a-z]*", split.lower())
    test = held_out is not None and held_out.group() in HELD_OUT
    places = [place for place in (root / split, root / "images" / split, root / "images", root) if place.is_dir()]
    for number, name in names.items():
        where = f"{file}: image {number}"
        if number not in captions:
            report.skip(where, "no captions")
            continue
        paths = [inside(place, name) for place in places]
        if None in paths:
            report.skip(where, f"{name[:200]!r} leads out of the source folder")
            continue
        try:
            path = next((path for path in paths if path is not None and path.is_file()), None)
        except OSError:  # a name too long for the file system
            path = None
        if path is None:
            report.skip(where, f"no such picture: {name[:200]}")
        else:
            yield Item(path, tuple(captions[number]), None, test)


def _read(file: Path, report: Report) -> tuple[dict[int, str], dict[int, list[str]]]:
    """Read file names and captions by the picture's id; a broken entry is reported with its place in its list."""
    try:
        if not file.is_file() or file.stat().st_size > MAX_JSON_BYTES:
            raise DataError(f"{file} must be a file of at most {MAX_JSON_BYTES >> 30} GB")
        content: dict[str, Any] = json.loads(file.read_bytes())
        images, annotations = list(content["images"]), list(content["annotations"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{file} must be COCO's captions: an object with images and annotations ({error!r})") from error
    names: dict[int, str] = {}
    captions: dict[int, list[str]] = {}
    for place, entry in enumerate(images):
        try:
            number, name = entry["id"], entry["file_name"]
            if not isinstance(number, int) or not isinstance(name, str):
                raise TypeError("id must be a number, file_name a string")
            name.encode()
            names[number] = name
        except (KeyError, TypeError, ValueError) as error:
            report.skip(f"{file}: images[{place}]", f"broken entry: {_said(error)}")
    for place, entry in enumerate(annotations):
        try:
            number, text = entry["image_id"], entry["caption"]
            if not isinstance(number, int) or not isinstance(text, str):
                raise TypeError("image_id must be a number, caption a string")
            captions.setdefault(number, []).extend(checked_captions(text))
        except (KeyError, TypeError, ValueError) as error:
            report.skip(f"{file}: annotations[{place}]", f"broken entry: {_said(error)}")
    return names, {number: texts for number, texts in captions.items() if texts}


def _said(error: Exception) -> str:
    return f"no {error}" if isinstance(error, KeyError) else str(error)
