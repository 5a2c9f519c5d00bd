"""Find the images listed in tables: beside the table, in an images folder, in a zip beside it, or in the user's folder."""

import os
import re
import shlex
import unicodedata
from functools import cached_property

from t2i.errors import DataError
from t2i.prepare.items import Report, inside
from t2i.prepare.kinds import ENDINGS, ending, is_hidden, looks_like_image, stem_of
from t2i.prepare.tree import FolderTree, Tree, ZipTree, is_folder, joined, shown


class Finder:
    """Finds the images listed in tables.

    Args:
        tree: The source.
        report: Receives zips that cannot be read.
        images: Folder given by `--images`; None: images are beside the table or in a folder such as images/.
    """

    PLACES = ("images", "image", "imgs", "img", "pictures", "photos", "jpg", "data")

    def __init__(self, tree: Tree, report: Report, images: Tree | None = None) -> None:
        self.tree, self.images, self._report = tree, images, report
        self.archives: dict[str, ZipTree | None] = {}  # zips that were opened; None: unreadable
        self._known_zips: dict[str, list[str]] = {}
        self._known: dict[str, list[str]] = {}  # folders of images by the folder that they lie in
        self.absolute = 0  # names that were absolute paths, and found by their ends

    def find(self, folder: str, name: str) -> tuple[Tree, str]:
        """Find an image.

        Args:
            folder: Folder of the table.
            name: As in the table; backslashes count as slashes.

        Raises:
            DataError: there is none, or the name leads out of the source; the message suggests a similar file.
        """
        forms = (name, name.strip(), name.strip().replace("\\", "/"))
        candidates = [form for form in dict.fromkeys(forms) if form]
        if self.images is not None:
            for candidate in candidates:
                path = joined("", candidate)
                if path is not None and _has(self.images, path):
                    return self.images, path
        inside_source = False
        for candidate in candidates:
            for place in ("", *self._places(folder)):
                path = joined("/".join(part for part in (folder, place) if part), candidate)
                inside_source = inside_source or path is not None
                if path is not None and _has(self.tree, path):
                    return self.tree, path
        for candidate in candidates if inside_source else ():
            for archive in self._zips(folder):
                # a.png, or images/a.png, of images.zip may stand in it as a.png and as images/a.png
                for name_in in (candidate, candidate.partition("/")[2], f"{archive.path.stem}/{candidate}"):
                    path = joined("", name_in)
                    if path is not None and archive.has(path):
                        return archive, path
        if not candidates:
            raise DataError("no path")
        elsewhere = _tail_of_absolute(candidates[-1])
        if elsewhere:
            found = self._of_another_machine(folder, elsewhere)
            if found is not None:
                return self.tree, found
        if not inside_source or self._links_out(folder, candidates[-1]):
            raise DataError(
                f"{name[:200]!r} leads out of the source folder{self._near(elsewhere[-1]) if elsewhere else ''}"
            )
        alike = self._alike(folder, candidates[-1])
        if len(alike) == 1:
            return self.tree, alike[0]
        raise DataError(f"no such image: {shown(name)}{self._near(candidates[-1])}")

    def _alike(self, folder: str, name: str) -> list[str]:
        """List the files that a name can only mean, but for case, form of Unicode and, where it has none, extension."""
        wanted = set()
        for place in ("", *self._places(folder)):
            path = joined("/".join(part for part in (folder, place) if part), name)
            if path is not None:
                wanted.add(_plain(path))
        return [
            other
            for other in self._index.get(_stem(name), [])
            if _plain(other) in wanted or (not looks_like_image(name) and _plain(stem_of(other)) in wanted)
        ]

    def _of_another_machine(self, folder: str, tails: list[str]) -> str | None:
        """Find an absolute path of another machine: the longest end of it that is a file of the source."""
        for tail in tails:
            for place in ("", *self._places(folder)):
                path = joined("/".join(part for part in (folder, place) if part), tail)
                if path is not None and _has(self.tree, path):
                    self.absolute += 1
                    return path
        return None

    def _places(self, folder: str) -> list[str]:
        if folder not in self._known:
            self._known[folder] = [name for name in _folders(self.tree, folder) if name.casefold() in self.PLACES]
        return self._known[folder]

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

    @cached_property
    def _index(self) -> dict[str, list[str]]:
        """Image files by case-folded stem, built when the first name is not found."""
        index: dict[str, list[str]] = {}
        tree = self.tree.again() if isinstance(self.tree, FolderTree) else self.tree
        for name in tree.names:
            if ending(name) in ENDINGS:
                index.setdefault(_stem(name), []).append(name)
        return index

    def _near(self, name: str) -> str:
        """Suggest a file with another case, extension or folder for a name that is not found."""
        near = self._index.get(_stem(name), [])
        if not near:
            return ""
        folder, _, base = near[0].rpartition("/")
        if folder and base == name.rpartition("/")[2]:
            return f" (there is {shown(near[0])}: --images {shlex.quote(str(self.tree.path / folder))})"
        return f" (there is {shown(near[0])})"


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
