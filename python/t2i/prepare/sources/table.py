"""Tables of file names and captions: CSV, TSV, JSON lines, and the tables of Flickr8k and Flickr30k."""

from collections.abc import Iterator
from pathlib import Path

from t2i.prepare.collect import DEFAULTS, Collector, SourceOptions
from t2i.prepare.finder import Finder
from t2i.prepare.items import Item, Report
from t2i.prepare.kinds import is_hidden
from t2i.prepare.leftovers import account_for_collected
from t2i.prepare.sources.rows import read_listing
from t2i.prepare.splits import split_of_file
from t2i.prepare.tree import FolderTree, Tree, is_zip, open_tree

TABLES = (".csv", ".tsv")
OTHER_TABLES = ("captions.txt", ".token.txt", ".token", "captions.jsonl", "metadata.jsonl")  # where there is no .csv


def table(source: Path, report: Report, options: SourceOptions = DEFAULTS) -> Iterator[Item]:
    """List the images of a table, or of every table at the top of a folder or zip; all rows of an image are its captions.

    Columns: an image (file_name, path, image ...) relative to the table or to a folder `images` beside it, a caption (text,
    caption ...), and, if they are there, a class (class, label ...) and a split. The split is also read from the table's name.
    """
    tree = open_tree(source, report)
    whole = source.is_dir() or is_zip(source)
    files = _tables(tree) if whole else [source.name]
    images = FolderTree(options.images, report) if options.images is not None else None
    collector = Collector(Finder(tree, report, images), report)
    for name in files:
        folder, _, base = name.rpartition("/")
        split = split_of_file(base)
        for row in read_listing(tree, name, report, options):
            collector.add(row.where, folder, row.cells, row.columns, split=split, class_names=row.class_names)
    items = list(collector.items())
    if whole:
        account_for_collected(tree, report, items, set(files), collector)
    yield from items


def _tables(tree: Tree) -> list[str]:
    """Find the tables at the top of a source, or in its only folder."""
    shown = [name for name in tree.names if not is_hidden(name)]
    tops = {name.partition("/")[0] for name in shown}
    depth = 1 if len(tops) == 1 and shown and "/" in shown[0] else 0
    top = [name for name in shown if name.count("/") == depth]
    for endings in (TABLES, OTHER_TABLES):
        found = [name for name in top if name.casefold().endswith(endings)]
        if found:
            return found
    return []
