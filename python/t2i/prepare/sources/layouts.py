"""Oxford-102 and CUB-200-2011 as they were published, with the captions of Reed et al. beside them."""

import json
from collections.abc import Iterator
from pathlib import Path

from t2i.errors import DataError
from t2i.prepare.collect import DEFAULTS, SourceOptions
from t2i.prepare.items import Item, Report, inside, read_lines, required, with_captions
from t2i.prepare.lines import decode


def oxford102(source: Path, report: Report, options: SourceOptions = DEFAULTS) -> Iterator[Item]:
    """List Oxford-102 as published: jpg/ beside text_c10/class_*/image_*.txt, trainvalclasses.txt, testclasses.txt."""
    images, texts = required(source / "jpg", "images"), required(source / "text_c10", "captions")
    held_out = set(read_lines(source / "testclasses.txt")) if (source / "testclasses.txt").exists() else set()
    names = {}
    if (source / "cat_to_name.json").exists():
        names = _class_names(source / "cat_to_name.json")
    for folder in sorted(path for path in texts.iterdir() if path.is_dir()):
        for file in sorted(folder.glob("*.txt")):
            item = with_captions(images / f"{file.stem}.jpg", file, report)
            if item:
                name = names.get(folder.name, folder.name)
                yield Item(item[0], item[1], name, folder.name in held_out)


def _class_names(path: Path) -> dict[str, str]:
    """Read cat_to_name.json: {"1": "pink primrose", ...}, by the folder names of text_c10."""
    try:
        numbered = json.loads(decode(path.read_bytes()))
        return {f"class_{int(number):05d}": str(name) for number, name in numbered.items()}
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise DataError(f"{path} must hold class numbers and names: {error}") from error


def _columns(path: Path, what: str, count: int) -> dict[str, list[str]]:
    """Read one of CUB's lists: `count` columns a line, the first of which is the image's number."""
    rows = {}
    for line in read_lines(required(path, what)):
        number, *values = line.split(maxsplit=count - 1)
        if len(values) != count - 1:
            raise DataError(f"{path} must have {count} columns, got {line[:80]!r}")
        rows[number] = values
    return rows


def cub(source: Path, report: Report, options: SourceOptions = DEFAULTS) -> Iterator[Item]:
    """List CUB-200-2011 as published, with text_c10/ and the class lists beside or inside CUB_200_2011/."""
    root = source / "CUB_200_2011" if (source / "CUB_200_2011").is_dir() else source
    texts = next((p for p in (source / "text_c10", root / "text_c10") if p.is_dir()), source / "text_c10")
    required(texts, "captions")
    paths = _columns(root / "images.txt", "list of images", 2)
    found: dict[str, tuple[float, float, float, float]] = {}
    if options.boxes:
        for number, values in _columns(root / "bounding_boxes.txt", "bounding boxes", 5).items():
            try:
                x, y, width, height = map(float, values)
            except ValueError as error:
                raise DataError(f"{root / 'bounding_boxes.txt'} must hold numbers, got {values}") from error
            found[number] = (x, y, width, height)
    lists = next((p for p in (source, root) if (p / "testclasses.txt").exists()), source)
    held_out = set(read_lines(lists / "testclasses.txt")) if (lists / "testclasses.txt").exists() else set()
    for number, (name,) in paths.items():
        path = inside(root / "images", name)
        if path is None:
            report.skip(name, "leads out of the source folder")
            continue
        folder = path.parent.name
        item = with_captions(path, texts / folder / f"{path.stem}.txt", report)
        if item:
            yield Item(item[0], item[1], folder, folder in held_out, found.get(number))
