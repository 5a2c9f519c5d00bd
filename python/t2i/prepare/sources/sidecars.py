"""Which text files are the captions of an image: beside it, or by its name in a folder of texts elsewhere."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import lru_cache

from t2i.prepare.finder import Finder
from t2i.prepare.kinds import CAPTION_ENDINGS, ending, folder_of, is_hidden, looks_like_image, stem_of
from t2i.prepare.splits import CHINESE_PLACES, split_of_folder

# Words in the name of a folder that holds texts of images: text_c10, train_captions.
TEXT_FOLDERS = frozenset(
    form
    for word in ("text", "txt", "caption", "label", "annotation", "description", "prompt", "sentence", "tag")
    for form in (word, f"{word}s")
) | frozenset(("文本", "文字", "描述", "说明", "說明", "标注", "標註", "标签", "標籤"))
CONTAINERS = frozenset({"image", "images", "img", "imgs", "picture", "pictures", "photos", "data"})
CONTAINERS |= frozenset(CHINESE_PLACES)
IMAGE_FOLDERS = CONTAINERS | frozenset(Finder.PLACES)
NO_HOME = TEXT_FOLDERS | IMAGE_FOLDERS
_Mirror = tuple[str, tuple[str, ...]]


class Texts:
    """Finds the caption files of an image: beside it, otherwise by name in a folder of texts.

    In another folder a text is an image's, in this order, where
    1. one tree mirrors the other: `captions/2024/01/a.txt` of `images/2024/01/a.jpg`,
    2. the folder is called one of texts and names no other class or split: `text_c10/red/a.txt` of `jpg/a.jpg`,
    3. the folder has one text for most images of another, each of a name that one image alone has: `blip/a.txt`.
    """

    def __init__(self, names: Iterable[str], images: list[str]) -> None:
        """Sort the files of a source; `images` are those of which no table has captions."""
        names = list(names)
        self._present = set(names)
        # The stem of an image by its name without case; None where several images have that name.
        self._folded: dict[str, str | None] = {}
        for image in images:
            for form in (stem_of(image), image):
                key, stem = _fold(form), stem_of(image)
                self._folded[key] = stem if self._folded.get(key, stem) == stem else None
        # Texts by their names without ending; those that no image claims by that name without case, by the name of an image
        # in any folder, and, where their folder holds no captioned images, by folder and name too.
        self._beside, self._alike, self._lonely = _lists(), _lists(), _lists()
        self._elsewhere: dict[str, dict[str, list[str]]] = {}
        self._images: dict[str, dict[str, set[str]]] = {}  # stems of images by name and folder
        claims = {form for name in images for form in (stem_of(name), name)}
        for name in names:
            if ending(name) in CAPTION_ENDINGS and not is_hidden(name):
                self._add_text(name, claims)
        for name in images:
            self._images.setdefault(base_of(name), {}).setdefault(folder_of(name), set()).add(stem_of(name))
        seen, alone = [name for name in names if looks_like_image(name) and not is_hidden(name)], set(images)
        self._captioned = {folder_of(name) for name in (*images, *seen) if name not in alone or self._own(name)}
        for base, texts in self._lonely.items():
            for text in texts:
                if folder_of(text) not in self._captioned:
                    self._elsewhere.setdefault(base, {}).setdefault(folder_of(text), []).append(text)
        with_images = {folder_of(name) for name in (*images, *seen)}
        self._homes = frozenset(part for folder in with_images for part in _home(folder))
        self._mirror(sorted({folder_of(name) for name in images}))
        self._trusted = frozenset(self._one_to_one(images))

    def of(self, image: str) -> list[str]:
        """Return its caption files, the one to read first."""
        return self._own(image) or self._mirrored(image) or self._parallel(image) or self._only(image)

    def near(self, image: str) -> list[str]:
        """List texts that no image claims and that could be its own by their names."""
        texts = [text for form in (stem_of(image), image) for text in self._alike.get(_fold(form), ())]
        return list(dict.fromkeys(texts + self._lonely.get(base_of(image), [])))

    def _add_text(self, name: str, claims: set[str]) -> None:
        stem = stem_of(name)
        self._beside[stem].append(name)
        if stem not in claims and stem not in self._present:
            self._alike[_fold(stem)].append(name)
            self._lonely[base_of(stem)].append(name)

    def _own(self, image: str) -> list[str]:
        """Find the texts beside an image."""
        forms = dict.fromkeys((stem_of(image), image))
        found = [text for form in forms for text in sorted(self._beside.get(form, ()), key=_rank)]
        for form in forms:
            if self._folded[_fold(form)] is not None:
                found += sorted(self._alike.get(_fold(form), ()), key=_rank)
        return found or [text for text in (f"{form}.json" for form in forms) if text in self._present][:1]

    def _mirror(self, folders: list[str]) -> None:
        """Find which folders of images the folders of texts mirror."""
        by_key: dict[_Mirror, list[tuple[str, str]]] = defaultdict(list)
        for folder in folders:
            for key, left in _image_mirrors(_parts(folder)):
                by_key[key].append((left, folder))
        self._images_of: dict[str, set[str]] = {}
        self._texts_of: dict[str, set[str]] = defaultdict(set)
        for text in sorted({folder for texts in self._elsewhere.values() for folder in texts}):
            self._images_of[text] = {
                image
                for key, left in _text_mirrors(_parts(text))
                for other, image in by_key.get(key, ())
                if left == other or (not other and left not in self._homes and split_of_folder(left) is None)
            }
            for image in self._images_of[text]:
                self._texts_of[image].add(text)

    def _mirrored(self, image: str) -> list[str]:
        """Find its texts in a tree that has the same folders: `captions/2024/01/a.txt` of `images/2024/01/a.jpg`."""
        base, texts = base_of(image), self._elsewhere.get(base_of(image), {})
        mine = [other for other in sorted(self._texts_of.get(folder_of(image), ())) if other in texts]
        return [text for other in mine if self._mirrors(base, other) == {stem_of(image)} for text in texts[other]]

    def _mirrors(self, base: str, text: str) -> set[str]:
        images = self._images.get(base, {})
        return {stem for folder in self._images_of[text] for stem in images.get(folder, ())}

    def _parallel(self, image: str) -> list[str]:
        """Find its texts in folders of texts, where no other image could be meant: `train/text/a.txt` of `train/red/a.png`."""
        base, home = base_of(image), _home(folder_of(image))
        # A folder that mirrors one of images, and not as `captions` does `images`, has texts of that one's only.
        texts = {
            other: found
            for other, found in self._elsewhere.get(base, {}).items()
            if ("/" not in other or not self._images_of[other]) and not self._mirrors(base, other)
        }
        same = [other for other in texts if _home(other) == home]
        mine = same or [other for other in texts if self._fits(_home(other), home) and _is_of_texts(other)]
        return [
            text for other in mine if self._claimants(base, _home(other)) == {stem_of(image)} for text in texts[other]
        ]

    def _claimants(self, base: str, home: frozenset[str]) -> set[str]:
        images = self._images[base]
        same = [other for other in images if _home(other) == home]
        fitting = same or [other for other in images if self._fits(home, _home(other))]
        return {stem for other in fitting for stem in images[other]}

    def _fits(self, text: frozenset[str], image: frozenset[str]) -> bool:
        """Return whether the folders of a text do not say another class or split than those of an image."""
        more = text - image
        return not more or (
            image < text and more.isdisjoint(self._homes) and all(split_of_folder(name) is None for name in more)
        )

    def _only(self, image: str) -> list[str]:
        """Find its text in a folder of any name that has texts for most images of its folder."""
        texts = self._elsewhere.get(base_of(image), {})
        if len(texts) != 1 or len(self._images[base_of(image)]) != 1:
            return []
        [(folder, found)] = texts.items()
        return found if (folder, folder_of(image)) in self._trusted else []

    def _one_to_one(self, images: list[str]) -> Iterator[tuple[str, str]]:
        """List the folders of texts with those of images that they caption, whatever they are called.

        Each text's name is of one image at most, and of most texts it is of one without another text; most images of a folder
        have such a text, and none has one beside it; the folders name no two classes or splits.
        """
        texts, ambiguous, matched = _counts(), set[str](), _counts()
        pairs, of_folder = dict[tuple[str, str], int](), _counts()
        for image in images:
            of_folder[folder_of(image)] += 1
        for base, folders in self._elsewhere.items():
            places = self._images.get(base, {})
            for folder in folders:
                texts[folder] += 1
            if sum(map(len, places.values())) > 1:
                ambiguous.update(folders)
            elif places and len(folders) == 1:
                [folder], [place] = folders, places
                if place not in self._captioned:
                    matched[folder] += 1
                    pairs[folder, place] = pairs.get((folder, place), 0) + 1
        good = [
            (folder, place)
            for folder, place in pairs
            if folder not in ambiguous and 2 * matched[folder] > texts[folder] and self._agree(folder, place)
        ]
        covered = _counts()
        for folder, place in good:
            covered[place] += pairs[folder, place]
        return ((folder, place) for folder, place in good if 2 * covered[place] > of_folder[place])

    def _agree(self, text: str, image: str) -> bool:
        """Return whether a folder of texts names no folder of other images and no other split than a folder of images."""
        more = _home(text) - _home(image)
        splits = [_splits(folder) for folder in (text, image)]
        return more.isdisjoint(self._homes) and (not all(splits) or splits[0] == splits[1])


def _lists() -> dict[str, list[str]]:
    return defaultdict(list)


def _counts() -> dict[str, int]:
    return defaultdict(int)


def _plain(name: str) -> str:
    """Write a name without case, in one of the two forms that Unicode has for accented letters (macOS writes the other)."""
    return unicodedata.normalize("NFC", name).casefold()


def base_of(name: str) -> str:
    """Return the name of a file without its folders and its extension; of a file that has none, all of it."""
    return stem_of(name.rpartition("/")[2]) if looks_like_image(name) else name.rpartition("/")[2]


def _fold(name: str) -> str:
    """Write a name with the last part of it plain."""
    folder, slash, base = name.rpartition("/")
    return f"{folder}{slash}{_plain(base)}"


def _rank(text: str) -> tuple[int, bool]:
    return CAPTION_ENDINGS.index(ending(text)), not text.endswith(ending(text))


def _parts(folder: str) -> tuple[str, ...]:
    return tuple(folder.split("/")) if folder else ()


def _words(folder: str) -> list[str]:
    """Split into words; a number behind a word is one: images1."""
    plain = _plain(re.sub(r"(?<=[a-z])(?=[A-Z])", " ", folder))
    return [word for word in re.split(r"[\W_]+|(?<=[^\W\d_])(?=\d+(?:[\W_]|$))", plain) if word]


def _left(part: str, taken: frozenset[str]) -> str | None:
    """Return what the name of a folder says beside such words; None where it has none of them."""
    words = _words(part)
    return None if taken.isdisjoint(words) else "_".join(word for word in words if word not in taken)


@lru_cache(maxsize=10_000)
def _home(folder: str) -> frozenset[str]:
    """Return what a path says beside images and texts: `train_images/red` is of train and red."""
    lefts = ((part, _left(part, NO_HOME)) for part in _parts(folder))
    return frozenset(_plain(part) if left is None else left for part, left in lefts if left != "")


def _is_of_texts(folder: str) -> bool:
    """Return whether a path is called one of texts."""
    return any(_left(part, TEXT_FOLDERS) is not None for part in _parts(folder))


def _splits(folder: str) -> set[bool]:
    found = (split_of_folder(name) for name in (*_parts(folder), *_home(folder)))
    return {split for split in found if split is not None}


def _image_mirrors(parts: tuple[str, ...]) -> Iterator[tuple[_Mirror, str]]:
    """List what mirrors a folder of images, with its `images` replaced or taken out or a folder more; and what is left."""
    plain = tuple(map(_plain, parts))
    yield ("more", plain), ""
    for place, part in enumerate(parts):
        left = _left(part, IMAGE_FOLDERS)
        if left is not None:
            yield ("replaced", (*plain[:place], "", *plain[place + 1 :])), left
        if left == "":
            yield ("out", plain[:place] + plain[place + 1 :]), ""


def _text_mirrors(parts: tuple[str, ...]) -> Iterator[tuple[_Mirror, str]]:
    """List what mirrors a folder of texts, in the same form."""
    plain = tuple(map(_plain, parts))
    yield ("out", plain), ""
    for place, part in enumerate(parts):
        left = _left(part, TEXT_FOLDERS)
        if left is not None:
            yield ("replaced", (*plain[:place], "", *plain[place + 1 :])), left
            yield ("more", plain[:place] + plain[place + 1 :]), left
