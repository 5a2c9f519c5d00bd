"""A font for a label: captions are in any language, and Pillow's own font knows little but English."""

import re
import textwrap
import threading
from functools import cache

from PIL import ImageFont

from t2i import console

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
# What is looked for on the system, in this order: Latin, Greek and Cyrillic; Chinese, Japanese and Korean; Arabic; Indic.
INSTALLED = (
    "DejaVuSans.ttf",
    "NotoSans-Regular.ttf",
    "NotoSansCJK-Regular.ttc",
    "NotoSansSC-Regular.otf",
    "wqy-microhei.ttc",
    "wqy-zenhei.ttc",
    "DroidSansFallbackFull.ttf",
    "PingFang.ttc",
    "Hiragino Sans GB.ttc",
    "STHeiti Light.ttc",
    "Arial Unicode.ttf",
    "msyh.ttc",
    "simsun.ttc",
    "msgothic.ttc",
    "malgun.ttf",
    "NotoSansArabic-Regular.ttf",
    "NotoNaskhArabic-Regular.ttf",
    "tahoma.ttf",
    "NotoSansDevanagari-Regular.ttf",
    "Nirmala.ttf",
    "NotoSansThai-Regular.ttf",
    "FreeSans.ttf",
)
NOTHING = "\U0010fffe"  # no font has it: its mask is the box of missing characters
_said = threading.Event()


@cache
def _font(name: str, size: int) -> Font | None:
    try:
        return ImageFont.truetype(name, size) if name else ImageFont.load_default(size=size)
    except OSError:  # not installed
        return None


@cache
def _has(name: str, size: int, character: str) -> bool:
    font = _font(name, size)
    if not isinstance(font, ImageFont.FreeTypeFont):
        return font is not None and character.isascii()
    mask, missing = font.getmask(character), font.getmask(NOTHING)
    return mask.size != missing.size or bytes(mask) != bytes(missing)


def _say_missing(letters: str) -> None:
    """Say it once in a process: the next caption of the language has other letters, and the same to be done about it."""
    if _said.is_set():
        return
    _said.set()
    console.say(
        f"no font on this machine has all characters of the captions ({letters!r}): labels show boxes; install one, "
        "such as fonts-noto-cjk or fonts-noto-core"
    )


def font_for(text: str, size: int) -> Font:
    """Choose Pillow's own font where it has every character, else the installed one that has the most.

    Args:
        text: What it is to show.
        size: In pixels.
    """
    letters = sorted(
        {character for character in text if not character.isspace() and not 0xFE00 <= ord(character) <= 0xFE0F}
    )
    best, missing = "", letters
    for name in ("", *INSTALLED):
        if name and _font(name, size) is None:
            continue
        lacking = [character for character in letters if not _has(name, size, character)]
        if len(lacking) < len(missing):
            best, missing = name, lacking
        if not missing:
            break
    if missing:
        _say_missing("".join(missing[:8]))
    font = _font(best, size)
    assert font is not None
    return font


def wrapped(text: str, font: Font, pixels: float, width: int) -> list[str]:
    """Break a label into lines.

    Args:
        text: A caption.
        font: Of `font_for`.
        pixels: Width of a line, for scripts that are wider than English, or have no spaces.
        width: Characters of a line of English.
    """
    if text.isascii():
        return textwrap.wrap(text, width=width) or [""]
    lines = [""]
    for word in re.findall(r"\S+\s*", text):
        if lines[-1] and font.getlength((lines[-1] + word).rstrip()) > pixels:
            lines.append("")
        for character in word:
            if lines[-1] and not character.isspace() and font.getlength(lines[-1] + character) > pixels:
                lines.append("")
            lines[-1] += character
    return [line.rstrip() for line in lines]
