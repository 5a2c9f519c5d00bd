"""Texts that show nothing: white space, and characters that no one sees."""

import unicodedata

# Zero-width and formatting characters, spaces, and marks without a letter to stand on.
UNSEEN = {"Cf", "Zs", "Zl", "Zp", "Mn", "Me"}
FILLERS = (
    "\u115f\u1160\u2800\u3164\uffa0"  # letters and symbols that are drawn as a space: Hangul's fillers, blank braille
)


def is_blank(text: str) -> bool:
    """Return whether a text is empty or shows nothing, as U+200B (a zero-width space) or U+3000 (a full-width one).

    Source: the general categories of the Unicode Character Database (UAX 44).
    """
    return not text or text.isspace() or all(each in FILLERS or unicodedata.category(each) in UNSEEN for each in text)
