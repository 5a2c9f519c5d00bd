"""Cells of text that hold a list or an object as a program wrote it: JSON, or what Python and numpy print."""

import ast
import json
import re
import warnings
from collections.abc import Callable
from typing import Any

_STRING = r"""(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")"""
_PRINTED = re.compile(rf"\[\s*{_STRING}(?:\s+{_STRING})+\s*\]", re.DOTALL)  # by numpy, without commas
_EMPTY = ("[]", "{}", "()")
_BRACKETS = {"[": "]", "{": "}", "(": ")"}
_BEGINNING = re.compile(r"""[\[({][\s\[({]*(?:['"]|None\b|null\b)""")


def captions_in_cell(cell: object) -> object:
    """Parse a cell that is all a list or an object of captions; return anything else unchanged.

    >>> captions_in_cell("['a', 'b']"), captions_in_cell("['a' 'b']"), captions_in_cell('{"en": "a"}')
    (['a', 'b'], ['a', 'b'], {'en': 'a'})
    >>> captions_in_cell("[a]"), captions_in_cell("(a, b)"), captions_in_cell("[1, 2]"), captions_in_cell("[]")
    ('[a]', '(a, b)', '[1, 2]', [])
    """
    text = cell.strip() if isinstance(cell, str) else ""
    if text in _EMPTY:
        return []
    if not text or _BRACKETS.get(text[0]) != text[-1] or not _BEGINNING.match(text):
        return cell
    if _PRINTED.fullmatch(text):  # Python would join these to one string
        return [_parsed(part, ast.literal_eval) for part in re.findall(_STRING, text)]
    for parse in (json.loads, ast.literal_eval):
        value = _parsed(text, parse)
        value = list(value) if isinstance(value, tuple) else value
        if _holds_captions(value):
            return value
    return cell


def _parsed(text: str, parse: Callable[[str], Any]) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a backslash that begins no escape
            return parse(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return None


def _holds_captions(value: object) -> bool:
    """Return whether a value is an object with texts in it, or a list of texts or of such objects, some of them empty."""
    if isinstance(value, dict):
        return all(isinstance(key, str) for key in value) and any(
            isinstance(text, (str, list)) for text in value.values()
        )
    if not isinstance(value, list):
        return False
    return any(part is not None for part in value) and all(
        part is None or isinstance(part, str) or (isinstance(part, dict) and _holds_captions(part)) for part in value
    )
