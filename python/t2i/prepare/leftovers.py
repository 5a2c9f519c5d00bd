"""Account for files that no reader used: listed in the report if they may hold images or captions, otherwise counted."""

import re
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Literal

from t2i.files import shell_path
from t2i.prepare.accounting import BESIDE, HIDDEN, LONELY_TEXT, NO_IMAGE, Account
from t2i.prepare.collect import Collector
from t2i.prepare.column_names import CAPTIONS, FILES
from t2i.prepare.columns import find_column
from t2i.prepare.items import Item, Report
from t2i.prepare.kinds import (
    ARCHIVE_ENDINGS,
    CAPTION_ENDINGS,
    RAW,
    RAW_ENDINGS,
    TEXT_ENDINGS,
    archive_kind,
    ending,
    folder_of,
    image_kind,
    is_hidden,
    looks_like_image,
    stem_of,
)
from t2i.prepare.lines import decode
from t2i.prepare.named_lines import FORMS, named_line
from t2i.prepare.parallel import advice
from t2i.prepare.tables import find_delimiter
from t2i.prepare.tree import FolderTree, Tree, head

NOT_NAMED = "no line names it"
# Of the datasets library, of img2dataset and of the Hub: they describe a data set, and list no images.
KNOWN = frozenset(
    {
        "dataset_info.json",
        "dataset_infos.json",
        "dataset_dict.json",
        "state.json",
        "cat_to_name.json",
        "pack.json",
        "report.json",
    }
)
OTHER_OF_COCO = ("instances_", "person_keypoints_", "image_info_", "stuff_", "panoptic_")
# Files that may hold images and captions, and that no reader knows; beside a file of the same name they are of that one.
STORES = {
    ".h5": "HDF5",
    ".hdf5": "HDF5",
    ".tfrecord": "TFRecord",
    ".tfrecords": "TFRecord",
    ".mdb": "LMDB",
    ".lmdb": "LMDB",
    ".rec": "RecordIO",
    ".msgpack": "MessagePack",
}
SHEETS = (".xlsx", ".xlsm", ".xls", ".ods")
_PIECE = re.compile(
    r"\.((zip|7z|rar|tar|tgz|gz)[._-]?(\d{2,3}|a[a-z]|part[._-]?[a-z\d]{1,3})|z\d{2}|part\d+\.rar)$", re.IGNORECASE
)
CSV = "it looks like a table of captions, which is read by t2i-prepare csv {place}; csv FOLDER reads all of them"
METADATA = frozenset({"metadata.jsonl", "metadata.csv", "metadata.parquet", "metadata.json"})
TABLES = (".csv", ".tsv", ".txt", ".token")
JSON = (".json", ".ndjson", ".jl")


def account_for(
    tree: Tree, report: Report, packed: Collection[str], read: Collection[str], lost: Collection[str] = ()
) -> None:
    """Count every file of a source and list unused images, archives and tables in the report.

    Args:
        tree: The source.
        report: Receives the account, skipped files and hints.
        packed: Names of the listed images.
        read: Names of the files read for captions.
        lost: Names of images that are in the report already, under the line or file of their caption.
    """
    packed, read, lost = (_as_listed(tree, names) for names in (packed, read, lost))
    counts = Account()
    counts.add("skipped", tree.refused)
    skipped = {place for place, _ in report.skipped}
    folders = set(map(folder_of, packed))  # img2dataset keeps 00000.parquet beside the folder 00000
    stems = (
        folders
        | {stem_of(name) for name in packed}
        | {stem_of(name) for name in read if ending(name) not in TEXT_ENDINGS}
    )
    of_stem = Counter(map(stem_of, tree.names))
    texts = {stem_of(name): name for name in tree.names if ending(name) in CAPTION_ENDINGS and name not in read}
    images = {name.rpartition("/")[2].casefold() for name in tree.names if looks_like_image(name)}
    own = {stem_of(image) for image in images}  # a text of such a name is the caption of one image
    for name in tree.names:
        place = tree.place(name)
        if name in packed:
            counts.add("images")
        elif name in read:
            counts.add("read")
        elif name in lost or place in skipped:
            counts.add("skipped")
        elif is_hidden(name):
            counts.add(HIDDEN)
        elif (ending(name) in TEXT_ENDINGS and (stem_of(name) in stems or stem_of(name) in packed)) or (
            ending(name) in STORES and of_stem[stem_of(name)] > 1
        ):
            counts.add(BESIDE)
        else:
            sidecar = stem_of(name.rpartition("/")[2].casefold()) in own
            fate = _fate(tree, name, report, () if sidecar else images)
            binary = ending(name) not in TEXT_ENDINGS and b"\0" in head(
                tree, name
            )  # LICENSE beside LICENSE.txt is none
            if fate[0] == NO_IMAGE and stem_of(name) in texts and binary:
                fate = "skipped", f"no image of a known format, though {texts[stem_of(name)]} may be its caption"
            if fate[1] is not None:
                report.skip(place, fate[1])
            counts.add(fate[0])
    report.account = counts


def _as_listed(tree: Tree, names: Collection[str]) -> set[str]:
    """Give files the names that they have in the listing: a link inside of the source may have led to them."""
    listed = set(tree.names)
    return {tree.real(name) if name not in listed and isinstance(tree, FolderTree) else name for name in names}


def account_for_collected(
    tree: Tree,
    report: Report,
    items: Sequence[Item],
    read: Collection[str],
    collector: Collector,
    lost: Collection[str] = (),
) -> None:
    """Account for a source of tables, including the zips in which images were found."""
    archives = {name: archive for name, archive in collector.finder.archives.items() if archive is not None}
    used = {name for name, archive in archives.items() if any(item.path == archive.path for item in items)}
    packed = {_packed_name(tree, item) for item in items if item.member is None or item.path == tree.path}
    account_for(tree, report, packed, {*read, *used}, {*collector.named, *lost})
    counts = report.account
    assert counts is not None
    for name in sorted(used):
        members = {item.member or "" for item in items if item.path == archives[name].path}
        account_for(archives[name], report, members, ())
        assert report.account is not None
        counts.include(report.account)
    report.account = counts


def _packed_name(tree: Tree, item: Item) -> str:
    """Return the name of an image in a source; of one in another folder, which may be inside of the source, its path."""
    name = item.named or item.member or ""
    return name if item.path in (tree.path, tree.path / name) else str(item.path.absolute())


def _fate(tree: Tree, name: str, report: Report, images: Collection[str]) -> tuple[str, str | None]:
    """Return how an unused file is counted, and the reason if it is skipped."""
    kind = ending(name)
    if looks_like_image(name):
        return "skipped", NOT_NAMED
    if kind in RAW_ENDINGS:
        return "skipped", RAW
    start = head(tree, name)
    where = tree.place(name) if isinstance(tree, FolderTree) else name
    hint = _hint(name, kind, where, start) or unknown_form(kind, start, images, where) or advice(tree, name)
    if hint is not None:
        if not isinstance(tree, FolderTree) and "t2i-prepare" in hint:
            hint += " (once the archive is unpacked)"
        report.hints.append(f"{tree.place(name)}: {hint}")
        return "skipped", f"not read: {hint}"
    if kind not in TEXT_ENDINGS and image_kind(start) is not None:
        return "skipped", NOT_NAMED
    return (LONELY_TEXT if kind in CAPTION_ENDINGS else NO_IMAGE), None


def _hint(name: str, kind: str, place: str, start: bytes) -> str | None:
    """Suggest what to do with an unused file that holds images or captions; None if it holds neither."""
    place = shell_path(place)
    if name.rpartition("/")[2].casefold() in METADATA:
        return "metadata of images, which is read by t2i-prepare folder (without --captions name)"
    if kind == ".parquet":
        return f"Parquet, which is read by t2i-prepare parquet {place}"
    if kind == ".arrow":
        return "Arrow, which is read by t2i-prepare huggingface, given the folder that save_to_disk wrote"
    if kind in SHEETS:
        return "a spreadsheet; save it as CSV in UTF-8, which is read by t2i-prepare csv"
    store = STORES.get(kind) or ("TFRecord" if ".tfrecord-" in name.casefold() else None)
    if store is not None:
        return f"{store}, which no reader knows; write its images to files, and their captions to a metadata.jsonl beside them"
    if _PIECE.search(name):
        return "a piece of an archive; join the pieces and unpack them"
    if kind not in TEXT_ENDINGS:
        found = archive_kind(start)
        if found is not None or name.casefold().endswith(ARCHIVE_ENDINGS):
            return archive_hint(found or kind[1:], place)
    miss = near_miss(name, start)
    return None if miss is None else miss.format(place=place)


def archive_hint(kind: str, place: str) -> str:
    """Suggest what to do with an archive in a source."""
    if kind in ("tar", "gzip", "bzip2", "xz", "tgz", "gz"):
        return f"a {kind} archive; tar shards are read by t2i-prepare webdataset {place}"
    if kind == "zip":
        return f"a zip archive; one is read as it is by t2i-prepare folder {place}, or unpack it here"
    return f"a {kind} archive, which is not read; unpack it"


def near_miss(name: str, start: bytes) -> str | None:
    """Suggest what an unused text file was meant to be; `{place}` stands for its path."""
    base, kind = name.rpartition("/")[2].casefold(), ending(name)
    if kind.startswith(JSON):
        if _is_label_studio(start):
            return "Label Studio's JSON; export it as JSON-MIN or CSV, which t2i-prepare csv reads"
        content = json_content(name, start)
        if content == "coco":
            return "it looks like COCO's captions, which are read by t2i-prepare coco {place}"
        what = "the name must be metadata.jsonl" if kind != ".json" else "it looks like a list of captions"
        return None if content is None else f"{what}; as it is, it is read by t2i-prepare csv {{place}}"
    if base.startswith("metadata.") and kind not in (".txt",):
        return "near to metadata.csv and metadata.jsonl, the names that are read: rename it"
    line = first_line(start)
    if kind in TABLES and line:
        if named_line(line) is not None:
            return CSV
        cells = [cell.strip(' "\r') for cell in line.split(find_delimiter(line, kind == ".tsv"))]
        named = find_column(cells, FILES) and find_column(cells, CAPTIONS)
        others = [cell for cell in cells if not looks_like_image(cell.partition("#")[0])]
        # Tables of numbers by image, such as Flickr8k's ExpertAnnotations.txt, hold no captions.
        if named or (len(others) < len(cells) and not all(cell.replace(".", "", 1).isdecimal() for cell in others)):
            return CSV
    return None


def unknown_form(kind: str, start: bytes, images: Collection[str], place: str) -> str | None:
    """Return the forms that are read, for an unused text file whose first line names an image and has words; else None.

    Args:
        kind: The ending of its name.
        start: Its first bytes.
        images: Names of the images of the source, without folders and in lower case.
        place: Its path.
    """
    if kind not in (*TABLES, *CAPTION_ENDINGS, ".yaml", ".yml", ""):
        return None
    words = re.findall(r"[^\s\"'`<>()\[\]{},;:|#=：，]+", first_line(start))
    found = next((word for word in words if re.split(r"[\\/]", word)[-1].casefold() in images), None)
    if found is None or not any(word[:1].isalpha() and not looks_like_image(word) for word in words):
        return None
    said = f"it names images, such as {found[:100]}, in a form that is not known. A line is {FORMS}"
    return f"{said}; so written, it is read by t2i-prepare csv {shell_path(place)}"


def first_line(start: bytes) -> str:
    """Return the first line of a file by its first bytes."""
    return re.split(r"[\r\n]", _text(start).lstrip("\ufeff"), maxsplit=1)[0].strip()


def _text(start: bytes) -> str:
    """Decode the first bytes of a file."""
    try:
        return decode(start if not start.startswith((b"\xff\xfe", b"\xfe\xff")) else start[: len(start) // 2 * 2])
    except ValueError:  # cut in the middle of a character, or no text
        return start.decode("utf-8", "replace")


def json_content(name: str, start: bytes) -> Literal["captions", "coco"] | None:
    """Return what a JSON file seems to hold by its first bytes: a list of captions, COCO's form, or neither."""
    base, first = name.rpartition("/")[2].casefold(), _text(start)
    if base in KNOWN or base.endswith(("_stats.json", "_annotations.coco.json")) or base.startswith(OTHER_OF_COCO):
        return None
    columns = any(f'"{column}"' in first.casefold() for column in (*FILES, "caption", "captions"))
    if not columns and ".jp" not in first and ".png" not in first:
        return None
    if _is_label_studio(start):
        return None
    whole = ending(name) == ".json" and first.lstrip("\ufeff \t\r\n").startswith("{")  # COCO's form is one object
    return "coco" if whole and ('"annotations"' in first or '"images"' in first) else "captions"


def _is_label_studio(start: bytes) -> bool:
    """Return whether a file begins as what Label Studio exports as JSON: tasks, each with the results of its annotations."""
    first = _text(start).lstrip("\ufeff \t\r\n")
    return first.startswith("[") and '"annotations"' in first and ('"result"' in first or '"completed_by"' in first)


def account_for_items(tree: FolderTree, report: Report, items: Sequence[Item]) -> None:
    """Account for a folder whose reader notes the paths of the files that it reads in the report."""
    inside = {str(item.path) for item in items if item.member is not None}  # files that hold many images
    packed = {item.path.relative_to(tree.path).as_posix() for item in items if item.member is None}
    read = {Path(place).relative_to(tree.path).as_posix() for place in report.read | inside}
    account_for(tree, report, packed, read)
    assert report.account is not None
    report.account.add("images", sum(item.member is not None for item in items))
    places = [place for place, _ in report.skipped]
    report.account.add("skipped", sum(place.partition(": ")[0] in inside for place in places if ": " in place))
