"""WebDataset tar shards, as img2dataset writes them: streamed, never extracted; plain, or compressed as .tar.gz and .tgz.

A sample is the members of one name up to the first dot: 000000012.jpg, 000000012.txt, 000000012.json. They usually follow
each other; what lacks an image or a caption then waits for the rest, as in `tar c *.jpg *.txt`. The first pass reads headers
and captions, the second the bytes of each image where it lies in the archive.
"""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from t2i.errors import DataError
from t2i.prepare.accounting import HIDDEN, NO_IMAGE, OTHER_KEY, Account
from t2i.prepare.collect import DEFAULTS, SourceOptions
from t2i.prepare.column_names import CLASSES
from t2i.prepare.columns import class_of, filled, find_column, split_columns, unread_note
from t2i.prepare.items import Item, Report, caption_lines, checked_captions
from t2i.prepare.kinds import CAPTION_ENDINGS, HEAD, TEXT_ENDINGS, ending, image_kind, is_hidden, looks_like_image
from t2i.prepare.leftovers import account_for
from t2i.prepare.lines import MAX_LINE_BYTES, decode
from t2i.prepare.sources.rows import find_in, parse_json
from t2i.prepare.sources.tar import Fault, Member, Reader, members
from t2i.prepare.splits import split_of_file, split_of_folders
from t2i.prepare.tree import FolderTree, shown

MAX_WAITING_BYTES = 64 << 20  # of texts in a compressed archive that wait for their images; more are unpacked again
SHARDS = (".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")


def is_shard(name: str) -> bool:
    """Return whether a file is a tar, plain or compressed, by its name."""
    return name.casefold().endswith(SHARDS)


def webdataset(source: Path, report: Report, options: SourceOptions = DEFAULTS) -> Iterator[Item]:
    """List the samples of one tar, or of every tar in a folder and below.

    Captions: the .txt, one a line; without it the .json's caption (or text, captions). The class is the .cls, else the
    .json's label. A folder or shard named after a split (test-000.tar) is held out.
    """
    counts = Account()
    report.splits.what = "samples"
    if source.is_file():
        counts.add("read")
        yield from _Shard(source, source.name, report, counts, options).items()
    else:
        tree = FolderTree(source, report)
        names = [name for name in tree.names if is_shard(name) and not is_hidden(name)]
        for name in names:
            yield from _Shard(source / name, name, report, counts, options).items()
        account_for(tree, report, (), set(names))
        assert report.account is not None
        counts.include(report.account)
    report.account = counts


def _place(sample: dict[str, Member]) -> int:
    """Return where the image of a sample lies: a compressed archive is unpacked from front to back."""
    return next((member.offset for member in sample.values() if looks_like_image(member.name)), 0)


class _Shard:
    """One archive: its members gathered into samples."""

    def __init__(self, file: Path, name: str, report: Report, counts: Account, options: SourceOptions) -> None:
        self.file, self.report, self.counts, self.options = file, report, counts, options
        self.waiting: dict[tuple[str, str], dict[str, Member]] = {}  # samples that were not whole
        self.waiting_bytes = 0
        self.folders = tuple(name.split("/")[:-1])
        self.split = split_of_file(name.rpartition("/")[2])
        self.unread = set[str]()  # keys of a .json that may hold captions

    def items(self) -> Iterator[Item]:
        """Walk the archive, sample by sample."""
        sample: dict[str, Member] = {}
        key = ("", "")
        try:
            # Closed in the end: members that are no text may have been read, to know what they are.
            with closing(Reader(self.file)) as self.reader:
                for member in members(self.file):
                    if isinstance(member, Fault):
                        self._skip(member.name, member.reason)
                        continue
                    if is_hidden(member.name):
                        self.counts.add(HIDDEN)
                        continue
                    folder, _, base = member.name.rpartition("/")
                    stem, _, last = base.partition(".")
                    if key != (folder, stem):
                        yield from self._whole(key, sample)
                        sample, key = {}, (folder, stem)
                    if last.lower() in sample:
                        self._skip(member.name, "a second member of this name in its sample")
                    else:
                        sample[last.lower()] = member
                yield from self._whole(key, sample)
                for apart in sorted(self.waiting.values(), key=_place):
                    yield from self._item(apart)
        except OSError as error:
            self.report.skip(self.file, error.strerror or str(error))
        self.report.notes += [note for note in unread_note(self.unread) if note not in self.report.notes]

    def _whole(self, key: tuple[str, str], sample: dict[str, Member]) -> Iterator[Item]:
        """Convert members that follow each other to an item; without an image or a caption they wait for the end."""
        if not sample:
            return
        text = any(name == "json" or f".{name.rpartition('.')[2]}" in CAPTION_ENDINGS for name in sample)
        if text and any(map(self._is_image, sample.values())):
            yield from self._item(sample)
            return
        kept = self.waiting.setdefault(key, {})
        for name, member in sample.items():
            if name in kept:
                self._skip(member.name, "a second member of this name in its sample")
                continue
            length = len(member.data or b"")
            kept[name] = member if self.waiting_bytes + length <= MAX_WAITING_BYTES else replace(member, data=None)
            self.waiting_bytes += len(kept[name].data or b"")

    def _skip(self, name: str, reason: str) -> None:
        self.report.skip(f"{self.file}: {shown(name)}", reason)
        self.counts.add("skipped")

    def _is_image(self, member: Member) -> bool:
        kind = ending(member.name)
        if looks_like_image(member.name) or kind in TEXT_ENDINGS or kind == ".cls":
            return looks_like_image(member.name)
        return (
            image_kind(self._bytes(member)[:HEAD] if member.size <= MAX_LINE_BYTES else self._head(member)) is not None
        )

    def _head(self, member: Member) -> bytes:
        return self.reader.read(member.offset, min(HEAD, member.size), HEAD)

    def _bytes(self, member: Member) -> bytes:
        return member.data if member.data is not None else self.reader.read(member.offset, member.size, MAX_LINE_BYTES)

    def _item(self, sample: dict[str, Member]) -> Iterator[Item]:
        """Convert a sample to an item, and count its members."""
        images = [key for key, member in sample.items() if self._is_image(member)]
        wanted = (self.options.image_column or "").lower().lstrip(".")
        others = [key for key in sample if key not in images]
        if wanted in images:
            self.counts.add(OTHER_KEY, len(images) - 1)
            images = [wanted]
        elif wanted:
            others, images = list(sample), []
        if not images:
            first = next(iter(sample.values()))
            self._skip(
                first.name,
                f"no image {wanted!r} in its sample: {', '.join(sample)[:200]}" if wanted else "no image in its sample",
            )
            self.counts.add(NO_IMAGE, len(sample) - 1)
            return
        try:
            texts = self._texts(sample, images)
            captions, used, facts = self._captions(sample, texts)
            class_name = self._class(sample, facts)
        except (DataError, TypeError, UnicodeError) as error:
            for key in images:
                self._skip(sample[key].name, str(error))
            self.counts.add(NO_IMAGE, len(others))
            return
        used |= {"cls"} & sample.keys()
        self.counts.add("read", len(used))
        self.counts.add(NO_IMAGE, len([key for key in others if key not in used]))
        for key in images[1:]:
            self._skip(sample[key].name, f"a second image of its sample, after {sample[images[0]].name}")
        yield self._made(sample[images[0]], captions, class_name, facts)

    def _made(self, image: Member, captions: tuple[str, ...], class_name: str | None, facts: dict[str, Any]) -> Item:
        split = self.report.splits.read(facts, split_columns(list(facts)))
        if split is None:
            split = self.split
        if split is None:
            split, _ = split_of_folders((*self.folders, *image.name.split("/")[:-1]))
        self.counts.add("images")
        self.reader.expected.append((image.offset, image.size))
        read = partial(self.reader.read, image.offset, image.size)
        return Item(self.file, captions, class_name, bool(split), member=image.name, length=image.size, read=read)

    def _texts(self, sample: dict[str, Member], images: list[str]) -> list[str]:
        """Find the key of the captions: the user's, txt, or the only one with that extension (output.txt).

        Raises:
            DataError: there are several, and they cannot be assigned to the images.
        """
        wanted = (self.options.caption_column or "").lower().lstrip(".")
        texts = [key for key in sample if f".{key.rpartition('.')[2]}" in CAPTION_ENDINGS]
        if wanted in sample:
            return [wanted]
        plain = [key for key in texts if f".{key}" in CAPTION_ENDINGS]
        if len(texts) > 1 and not plain:
            key = sample[images[0]].name.rpartition("/")[2].partition(".")[0]
            raise DataError(
                f"its sample, {key}, has {len(images)} images and {len(texts)} captions: a sample is told by its name up to "
                "the first dot; choose by --image-column and --caption-column"
            )
        return plain or texts

    def _captions(
        self, sample: dict[str, Member], texts: list[str]
    ) -> tuple[tuple[str, ...], set[str], dict[str, Any]]:
        """Return captions, the keys that were read, and the content of the .json."""
        facts: dict[str, Any] = {}
        fault = None
        if "json" in sample:
            try:
                content = parse_json(decode(self._text(sample["json"])))
                if not isinstance(content, dict):
                    raise ValueError("an object was expected")
                facts = content
            except (ValueError, RecursionError) as error:
                fault = str(error) if isinstance(error, DataError) else f"broken .json: {error}"
        used = {"json"} & sample.keys()
        if texts:
            try:
                return checked_captions(caption_lines(self._text(sample[texts[0]]))), used | {texts[0]}, facts
            except DataError:
                if "json" not in sample:
                    raise
        if "json" not in sample:
            raise DataError("no captions: neither a .txt nor a .json in its sample")
        if fault is not None:
            raise DataError(fault)
        try:
            columns = find_in(facts | {"file_name": "json"}, "file_name", self.options.caption_column)
        except DataError as error:
            raise DataError(f"no captions in its .json: {error}") from error
        self.unread.update(columns.unread)
        return checked_captions(columns.captions(facts)), used, facts

    def _class(self, sample: dict[str, Member], facts: dict[str, Any]) -> str | None:
        if "cls" in sample:
            return class_of({"cls": decode(self._text(sample["cls"]))}, "cls")
        value = facts.get(find_column(filled(facts), CLASSES) or "")
        return class_of({"class": value}, "class") if isinstance(value, (str, int)) else None

    def _text(self, member: Member) -> bytes:
        try:
            data = self._bytes(member)
            decode(data)
        except DataError as error:
            reason = f"{member.name} is not UTF-8 text" if "UTF-8" in str(error) else str(error)
            raise DataError(reason) from error
        return data
