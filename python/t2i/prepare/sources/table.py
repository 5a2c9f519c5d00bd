"""Tables of file names and captions: CSV, TSV, JSON lines, and the tables of Flickr8k and Flickr30k."""

from collections.abc import Iterator
from pathlib import Path

from t2i.prepare.collect import DEFAULTS, Collector, SourceOptions
from t2i.prepare.columns import Columns
from t2i.prepare.finder import Finder
from t2i.prepare.items import Item, Report
from t2i.prepare.kinds import ending, folder_of, is_hidden, looks_like_image, stem_of
from t2i.prepare.leftovers import JSON, account_for_collected, first_line, json_content
from t2i.prepare.named_lines import named_line
from t2i.prepare.parallel import Parallel, parallel_files, parallel_lines
from t2i.prepare.sources.image_lines import image_files, read_image_lines
from t2i.prepare.sources.rows import read_listing
from t2i.prepare.split_lists import note_unread_lists, with_listed_splits
from t2i.prepare.splits import split_of_file, split_of_folder, split_of_folders
from t2i.prepare.tree import FolderTree, Tree, head, is_zip, open_tree, top_level

TABLES = (".csv", ".tsv")
CUT = ("lemma.", "seg.", "bosonseg.")  # in the names of tables whose captions stand in another one as they were written
OTHER_TABLES = ("captions.txt", ".token.txt", ".token", "captions.jsonl", "metadata.jsonl")  # where there is no .csv


def table(source: Path, report: Report, options: SourceOptions = DEFAULTS) -> Iterator[Item]:
    """List the images of a table, or of every table at the top of a folder or zip; all rows of an image are its captions.

    Columns: an image (file_name, path, image ...) relative to the table or to a folder `images` beside it, a caption (text,
    caption ...), and, if they are there, a class (class, label ...) and a split. The split is also read from the table's name.
    """
    tree = open_tree(source, report)
    whole = source.is_dir() or is_zip(source)
    files = _tables(tree) if whole else [source.name]
    encoded = image_files(tree, top_level(tree) if whole else files)
    files = [name for name in files if name not in encoded and name not in encoded.values()]
    parallel = [] if encoded or (whole and files) else parallel_files(tree, None if whole else source.name)
    files = [] if parallel else files
    images = FolderTree(options.images, report) if options.images is not None else None
    collector = Collector(Finder(tree, report, images), report)
    lemmatised = _lemmatised(files)
    for name in (name for name in files if name not in lemmatised):
        folder, split, stem = folder_of(name), _split(name), stem_of(name.rpartition("/")[2])
        if split is None and whole:
            split, _ = split_of_folders(tuple(folder.split("/")))
        for row in read_listing(tree, name, report, options):
            collector.add(
                row.where, folder, row.cells, row.columns, split=split, class_names=row.class_names, table=stem
            )
    read = set(files) - lemmatised | {*encoded, *encoded.values()} | _add_parallel(tree, parallel, collector, report)
    items = list(collector.items())
    lines = [item for pair in encoded.items() for item in read_image_lines(tree, *pair, report)]
    for name in lemmatised:
        what = "lemmatised" if "lemma." in name.casefold() else "segmented"
        report.skip(tree.place(name), f"not read: the {what} captions of a table beside it")
    if whole:
        items = with_listed_splits(tree, report, items, read)
        account_for_collected(tree, report, items, read, collector)
        assert report.account is not None
        report.account.add("images", len(lines))
        places = set(map(tree.place, encoded))
        report.account.add("skipped", sum(_line_of(place) in places for place, _ in report.skipped))
    elif isinstance(tree, FolderTree):
        note_unread_lists(tree, source.name, report)
    yield from items
    yield from lines


def _add_parallel(tree: Tree, parallel: list[Parallel], collector: Collector, report: Report) -> set[str]:
    """Read files of captions, a line for each image of a list; return the names of what was read."""
    columns, read = Columns("file_name", "text"), set[str]()
    for files in parallel:
        name = files.captions
        for where, image, text in parallel_lines(tree, files, report):
            row = {"file_name": image, "text": text}
            collector.add(
                where, folder_of(name), row, columns, split=_split(name), table=stem_of(name.rpartition("/")[2])
            )
            read.update((name, files.images or ""))
    return read


def _line_of(place: str) -> str:
    """Return the file of a place such as `train_imgs.tsv:12`; nothing of another."""
    file, _, line = place.rpartition(":")
    return file if line.isdecimal() else ""


def _tables(tree: Tree) -> list[str]:
    """Find the tables at the top of a source, otherwise those in its folders of splits: train/captions.csv."""
    found = _of_one_folder(tree, top_level(tree))
    if found:
        return found
    folders: dict[str, list[str]] = {}
    for name in tree.names:
        above, _, last = folder_of(name).rpartition("/")
        if not is_hidden(name) and split_of_folder(last) is not None and not above.count("/"):
            folders.setdefault(folder_of(name), []).append(name)
    return [table for names in folders.values() for table in _of_one_folder(tree, names)]


def _of_one_folder(tree: Tree, names: list[str]) -> list[str]:
    """Find the tables among the files of a folder: .csv and .tsv, otherwise those of other known names, otherwise JSON.

    Where all are of one split by their names, tables of another kind are read for the other one: test.jsonl beside train.csv.
    """
    images = {stem_of(name) for name in names if looks_like_image(name)}  # a.json beside a.jpg describes that one
    kinds = (
        [name for name in names if name.casefold().endswith(TABLES)],
        [name for name in names if name.casefold().endswith(OTHER_TABLES) or _has_named_lines(tree, name)],
        [name for name in names if stem_of(name) not in images and _is_json(tree, name)],
    )
    found = next(filter(None, kinds), [])
    splits = {_split(name) for name in found}
    if len(splits) == 1 and None not in splits:
        missing = not splits.pop()
        others = ([name for name in names if _split(name) is missing] for names in kinds)
        found = sorted([*found, *next(filter(None, others), [])])
    return found


def _lemmatised(tables: list[str]) -> set[str]:
    """Return the tables of lemmatised or segmented captions, Flickr8k.lemma.token.txt, which are there as they were written."""
    present = {name.casefold() for name in tables}
    return {name for name in tables if any(_without(name.casefold(), part) in present for part in CUT)}


def _without(name: str, part: str) -> str | None:
    """Return the name of a table without a part that stands at its beginning or behind a point; None where it has none."""
    folder, slash, base = name.rpartition("/")
    rest = base.removeprefix(part) if base.startswith(part) else base.replace(f".{part}", ".")
    return f"{folder}{slash}{rest}" if rest != base else None


def _has_named_lines(tree: Tree, name: str) -> bool:
    """Return whether a file of any name has lines such as `a.jpg#zhm#0 ...` or `a.jpg: ...`, by the first one."""
    return ending(name) == ".txt" and named_line(first_line(head(tree, name))) is not None


def _split(name: str) -> bool | None:
    return split_of_file(name.rpartition("/")[2])


def _is_json(tree: Tree, name: str) -> bool:
    return ending(name).startswith(JSON) and json_content(name, head(tree, name)) == "captions"
