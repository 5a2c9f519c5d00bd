"""Texts that show nothing are no captions, wherever they come from."""

import pytest

import t2i
from t2i.data.blank import is_blank
from t2i.pipeline import check_captions
from t2i.prepare.columns import is_empty
from t2i.prepare.items import caption_lines, checked_captions

BLANK = ["", " ", "\t\n", "\u3000", "\u200b", "\ufeff", "\u200e \u200d", "\u2800", "\u3164", "\ufe0f", "\u00ad"]
SEEN = ["a", "花", "。", "1", "🌸", "☕\ufe0f", "👨\u200d👩\u200d👧", "न\u0940", "\u200bflower", "-", "\ud83c"]


@pytest.mark.parametrize("text", BLANK)
def test_what_shows_nothing_is_blank_and_no_caption(text):
    assert is_blank(text)
    assert is_empty(text)
    with pytest.raises(t2i.ConfigError, match="a caption is empty"):
        check_captions(["a flower", text])
    with pytest.raises(t2i.DataError, match="no captions"):
        checked_captions([text])
    assert checked_captions([text, "a flower"]) == ("a flower",)
    assert caption_lines(f"{text}\na flower\n".encode()) == ["a flower"]


@pytest.mark.parametrize("text", SEEN)
def test_what_shows_something_is_not_blank(text):
    assert not is_blank(text)
    assert check_captions(text) == [text]
