"""Lines of text that begin with the name of an image: `a.jpg#0 a kite`, `2954461906_b289a4a14a#zhc#0 ...`, `a.jpg: a kite`."""

import re
from collections.abc import Iterable, Iterator

from t2i.prepare.kinds import ENDINGS

FORMS = "NAME.jpg, a tab and its caption; NAME.jpg#0 and its caption; or NAME.jpg: and its caption"
# Flickr8k: 1000268201_693b08cb0e.jpg#0; Flickr8k-CN: ...jpg#zhm#0; COCO-CN: COCO_val2014_000000123599#0, without the extension.
_TOKEN = re.compile(r"(?P<name>.+?\.\w{2,5})(?:#[A-Za-z]\w*)*#\d+")
_STEM = re.compile(r"(?P<name>(?=[^#]*\d)[^\s#|,;:\"'{}\[\]]+)(?:#[A-Za-z]\w*)*#\d+")
_SPACE = re.compile(r"(?P<token>[^\t|#]*[^\s|#](?:#\w+)*#\d+)(?P<gap>[ \t]+)(?P<text>[^\s|,;:].*|)")
_COLON = re.compile(
    rf"(?P<name>[^\s\"'{{\[(<][^\t|：]*?(?:{'|'.join(re.escape(end) for end in sorted(ENDINGS))}))\s*[:：](?P<text>.*)",
    re.IGNORECASE,
)


def image_of_token(cell: str, stems: bool = True) -> str | None:
    """Return the image that `a.jpg#0`, `a.jpg#zhm#0` or, with `stems`, `img_7#0` names; None for any other cell.

    >>> image_of_token("a.jpg#zhm#0"), image_of_token("img_7#enc2zhm#12"), image_of_token("a.jpg"), image_of_token("caption#1")
    ('a.jpg', 'img_7', None, None)
    """
    match = _TOKEN.fullmatch(cell) or (_STEM.fullmatch(cell) if stems else None)
    return match["name"] if match else None


def named_line(line: str) -> tuple[str, str] | None:
    """Split a line into the image and its caption, where a colon or, behind `a.jpg#0`, white space is between them."""
    line = line.strip()
    match = _SPACE.fullmatch(line) or _SPACE.fullmatch(f"{line} ")
    name = image_of_token(match["token"].strip()) if match else None
    if match and name:
        return name, match["text"]
    match = _COLON.fullmatch(line)
    return (match["name"].rstrip(), match["text"].strip()) if match else None


def split_named_lines(lines: Iterable[tuple[int, str]]) -> Iterator[tuple[int, tuple[str, str] | None]]:
    """Split lines into image and caption; None for a line of another form. Empty lines are left out."""
    for number, line in lines:
        if line.strip():
            yield number, named_line(line)
