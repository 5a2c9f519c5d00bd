"""Find the images listed in tables: beside the table, in an images folder, in a zip beside it, or in the user's folder."""

import os
import shlex
import unicodedata
from functools import cached_property

from t2i.errors import DataError
from t2i.prepare.items import Report, inside
from t2i.prepare.kinds import ENDINGS, ending, is_hidden
from t2i.prepare.tree import FolderTree, Tree, ZipTree, joined, shown


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
        if not inside_source or self._links_out(folder, candidates[-1]):
            raise DataError(f"{name[:200]!r} leads out of the source folder" if candidates else "no path")
        path = joined(folder, candidates[-1])
        for other in self._index.get(_stem(candidates[-1]), []):  # another form of the same letters, as macOS has it
            if path is not None and unicodedata.normalize("NFC", other) == unicodedata.normalize("NFC", path):
                return self.tree, other
        raise DataError(f"no such image: {shown(name)}{self._near(candidates[-1])}")

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
                return sorted(entry.name for entry in entries if entry.is_dir())
        except OSError:
            return []
    start = f"{folder}/" if folder else ""
    below = (name[len(start) :] for name in tree.names if name.startswith(start))
    return sorted({name.partition("/")[0] for name in below if "/" in name})
