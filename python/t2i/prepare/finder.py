"""Find the images listed in tables: beside the table, in an images folder, in a zip beside it, or in the user's folder."""

import os
import re
import unicodedata
from collections.abc import Iterator, Sequence
from urllib.parse import unquote

from t2i.errors import DataError
from t2i.files import shell_path
from t2i.prepare.column_names import TO_DOWNLOAD
from t2i.prepare.encoded import NO_NAME, holds_image
from t2i.prepare.items import Report, inside
from t2i.prepare.kinds import ENDINGS, ending, is_hidden, looks_like_image, stem_of
from t2i.prepare.splits import CHINESE_PLACES, is_of_table, split_of_folder
from t2i.prepare.tree import FolderTree, Tree, ZipTree, is_folder, joined, shown


class Finder:
    """Finds the images listed in tables.

    Args:
        tree: The source.
        report: Receives zips that cannot be read.
        images: Folder given by `--images`; None: images are beside the table or in a folder such as images/.
    """

    PLACES = ("images", "image", "imgs", "img", "pictures", "photos", "jpg", "data", *CHINESE_PLACES)

    def __init__(self, tree: Tree, report: Report, images: Tree | None = None) -> None:
        self.tree, self.images, self._report = tree, images, report
        self.archives: dict[str, ZipTree | None] = {}  # zips that were opened; None: unreadable
        self._known_zips: dict[str, list[str]] = {}
        self._known: dict[tuple[str, str], list[str]] = {}  # folders of images by the folder and name of a table
        self._indices: dict[int, dict[str, list[str]]] = {}  # image files by stem, of each tree
        self.absolute = 0  # names that were absolute paths, and found by their ends

    def find(self, folder: str, name: str, table: str = "") -> tuple[Tree, str]:
        """Find an image.

        Args:
            folder: Folder that the names in the table are relative to.
            name: As in the table; backslashes count as slashes, and %20 as a space where there is no file with a %.
            table: Name of the table without extension: train.csv is looked for in train/ too.

        Raises:
            DataError: there is none, or the name leads out of the source; the message suggests a similar file.
        """
        if holds_image(name):
            raise DataError(NO_NAME)
        forms = (name, name.strip(), name.strip().replace("\\", "/"), unquote(name.strip().replace("\\", "/")))
        candidates = [form for form in dict.fromkeys(forms) if form]
        if not candidates:
            raise DataError("no path")
        inside_source = False
        for tree, _, path in self._paths(folder, candidates, table):
            inside_source = inside_source or (path is not None and tree is self.tree)
            if path is not None and _has(tree, path):
                return tree, path
        for candidate in candidates if inside_source else ():
            for archive in self._zips(folder):
                # a.png, or images/a.png, of images.zip may stand in it as a.png and as images/a.png
                for name_in in (candidate, candidate.partition("/")[2], f"{archive.path.stem}/{candidate}"):
                    path = joined("", name_in)
                    if path is not None and archive.has(path):
                        return archive, path
        elsewhere = _tail_of_absolute(candidates[-1])
        for tail in elsewhere:  # the longest first, since its folders may say a split
            for tree, _, path in self._paths(folder, [tail], table):
                if path is not None and _has(tree, path):
                    self.absolute += 1
                    return tree, path
        wanted = elsewhere[-1] if elsewhere else candidates[-1]
        if not inside_source or self._links_out(folder, candidates[-1]):
            raise DataError(f"{name[:200]!r} leads out of the source folder{self._near(wanted) if elsewhere else ''}")
        alike = self._alike(folder, candidates, table)
        if len(alike) == 1:
            return alike[0]
        near = self._near(wanted)
        if not near and name.startswith(("http://", "https://")):
            near = f"; {TO_DOWNLOAD}"
        raise DataError(f"no such image: {shown(name)}{near}")

    def _paths(self, folder: str, names: Sequence[str], table: str) -> Iterator[tuple[Tree, str, str | None]]:
        """List where images of these names may be, the likeliest first: a tree, the name, and the path in the tree."""
        if self.images is not None:
            for name in names:
                yield self.images, name, joined("", name)
        above, _, last = folder.rpartition("/")
        for name in names:
            for place in ("", *self._places(folder, table)):
                yield self.tree, name, joined("/".join(part for part in (folder, place) if part), name)
            if (
                split_of_folder(last) is not None
            ):  # train/captions.txt and val/captions.txt may share images/ beside them
                for place in ("", *self._places(above, table)):
                    yield self.tree, name, joined("/".join(part for part in (above, place) if part), name)
            if folder and "/" in name:  # data/train.csv may name images/a.jpg at the top of the source
                yield self.tree, name, joined("", name)

    def _alike(self, folder: str, names: Sequence[str], table: str) -> list[tuple[Tree, str]]:
        """List the files that a name can only mean, but for case, form of Unicode and, where it has none, extension."""
        found: dict[tuple[int, str], tuple[Tree, str]] = {}
        for tree, name, path in self._paths(folder, names, table):
            if path is None:
                continue
            if found and tree is not next(iter(found.values()))[0]:
                break  # the user's folder comes first
            for other in self._index(tree).get(_stem(name), []):
                forms = (other,) if looks_like_image(name) else (other, stem_of(other))
                if _plain(path) in map(_plain, forms):
                    found[id(tree), other] = tree, other
        return list(found.values())

    def _places(self, folder: str, table: str) -> list[str]:
        """List the folders in a folder that may hold a table's images: images/, and train/ or images/train/ of train.csv."""
        if (folder, table) not in self._known:
            folders = _folders(self.tree, folder)
            usual = [name for name in folders if name.casefold() in self.PLACES]
            own = [name for name in folders if name not in usual and is_of_table(name, table)]
            for name in usual:
                below = _folders(self.tree, f"{folder}/{name}" if folder else name)
                own += [f"{name}/{other}" for other in below if is_of_table(other, table)]
            self._known[folder, table] = usual + own
        return self._known[folder, table]

    def _zips(self, folder: str) -> list[ZipTree]:
        """Open the zips in the folder of a table and at the top of the source."""
        if not isinstance(self.tree, FolderTree):
            return []
        found = []
        for name in dict.fromkeys(self._zip_names(folder) + self._zip_names("")):
            if name not in self.archives:
                try:
                    self.archives[name] = ZipTree(self.tree.path / name, self._report)
                except DataError as error:
                    self.archives[name] = None
                    self._report.skip(self.tree.place(name), str(error))
            archive = self.archives[name]
            if archive is not None:
                found.append(archive)
        return found

    def _zip_names(self, folder: str) -> list[str]:
        if folder not in self._known_zips:
            start = f"{folder}/" if folder else ""
            try:
                with os.scandir(self.tree.path / folder) as entries:
                    names = sorted(start + entry.name for entry in entries if entry.name.casefold().endswith(".zip"))
            except OSError:
                names = []
            self._known_zips[folder] = [name for name in names if not is_hidden(name) and _has(self.tree, name)]
        return self._known_zips[folder]

    def _links_out(self, folder: str, name: str) -> bool:
        path = joined(folder, name)
        if path is None or not isinstance(self.tree, FolderTree):
            return path is None
        return inside(self.tree.path, path, self._report.follow_links) is None

    def _index(self, tree: Tree) -> dict[str, list[str]]:
        """Image files by case-folded stem, built when the first name is not found."""
        index = self._indices.get(id(tree))
        if index is None:
            index = self._indices[id(tree)] = {}
            for name in (tree.again() if isinstance(tree, FolderTree) else tree).names:
                if ending(name) in ENDINGS:
                    index.setdefault(_stem(name), []).append(name)
        return index

    def _near(self, name: str) -> str:
        """Suggest a file with another case, extension or folder for a name that is not found."""
        trees = [tree for tree in (self.images, self.tree) if tree is not None]
        near = [(tree, other) for tree in trees for other in self._index(tree).get(_stem(name), [])]
        if not near:
            return ""
        end = f"/{_plain(name.removeprefix('./'))}"
        named = [
            (tree, other) for tree, other in near if _plain(other).endswith(end) or _plain(stem_of(other)).endswith(end)
        ]
        if len({other for _, other in named}) > 1:  # a flag would give the images of one folder to all tables
            return f" (there are {', '.join(shown(other) for _, other in named[:3])})"
        tree, other = (named or near)[0]
        if not named or _plain(name) in (_plain(other), _plain(stem_of(other))):
            return f" (there is {shown(other)})"
        folder = "/".join(other.split("/")[: -name.removeprefix("./").count("/") - 1])
        return f" (there is {shown(other)}: --images {shell_path(tree.path / folder)})"


def _plain(path: str) -> str:
    return unicodedata.normalize("NFC", path).casefold()


def _tail_of_absolute(name: str) -> list[str]:
    """List the ends of an absolute path, the longest first: `/home/ann/data/a.jpg`, `C:/data/a.jpg`; none of another."""
    if not re.match(r"/|[A-Za-z]:/|file://", name):
        return []
    parts = [part for part in re.sub(r"^(file://|[A-Za-z]:)", "", name).split("/") if part]
    if not parts or any(part in (".", "..") for part in parts):
        return []
    return ["/".join(parts[start:]) for start in range(len(parts))][-8:]


def _stem(name: str) -> str:
    base = unicodedata.normalize("NFC", name).rpartition("/")[2].casefold()
    return base.removesuffix(ending(base)) if ending(base) in ENDINGS else base


def _has(tree: Tree, name: str) -> bool:
    try:
        return tree.has(name)
    except (OSError, ValueError):  # a name that no file system takes
        return False


def _folders(tree: Tree, folder: str) -> list[str]:
    """List the folders in a folder of a tree."""
    if isinstance(tree, FolderTree):
        try:
            with os.scandir(tree.path / folder) as entries:
                return sorted(entry.name for entry in entries if is_folder(entry))
        except OSError:
            return []
    start = f"{folder}/" if folder else ""
    below = (name[len(start) :] for name in tree.names if name.startswith(start))
    return sorted({name.partition("/")[0] for name in below if "/" in name})
