"""The n-gram tokenizer of the native module against a slow reading of its definition."""

import itertools
import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from t2i import ConfigError, _native

WORDS, CHARACTERS = 1 << 16, 1 << 15
SPACELESS = (
    (0x0E00, 0x0EFF),
    (0x1000, 0x109F),
    (0x1780, 0x17FF),
    (0x1950, 0x19DF),
    (0x1A20, 0x1AAF),
    (0x2E80, 0x2FDF),
    (0x3005, 0x3007),
    (0x3040, 0x30FF),
    (0x3100, 0x312F),
    (0x31A0, 0x31FF),
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xA9E0, 0xAADF),
    (0xF900, 0xFAFF),
    (0x1AFF0, 0x1B16F),
    (0x20000, 0x3FFFF),
)


def extend(value, number):
    return (value * 0x9E3779B97F4A7C15 + number + 1) % 2**64


def bucket(value, count):
    mixed = (value ^ value >> 32) * 0xD6E8FEB86659FD93 % 2**64
    mixed ^= mixed >> 29
    return (mixed >> 32) * count >> 32


def fold(numbers, start=0):
    for number in numbers:
        start = extend(start, number)
    return start


def units(caption):
    """Cut a caption into (letters, kind, whether it follows the one before at once)."""
    text = "".join(character.lower() for character in unicodedata.normalize("NFKC", caption))
    found, current, kind, touching = [], "", None, False
    for character in text + "\0":
        code, category = ord(character), unicodedata.category(character)
        if 0xFE00 <= code <= 0xFE0F or 0xE0100 <= code <= 0xE01EF or category == "Cf":
            continue
        if category[0] in "LN":
            new = "spaceless" if any(first <= code <= last for first, last in SPACELESS) else "word"
        else:
            new = "mark" if category[0] == "M" else "symbol" if category in ("So", "Sk") else None
        if current and (new == "mark" or new == kind == "word"):
            current += character
            continue
        if current:
            found.append((current, kind, touching))
            touching = True
        current, kind = (character, "word" if new == "mark" else new) if new else ("", None)
        touching = touching and new is not None
    return found


def tokens(caption, words=WORDS, characters=CHARACTERS):
    """List the tokens of a caption as the definition has it."""
    out, before, run = [], None, []
    for text, kind, touching in units(caption):
        hashed = fold(map(ord, text))
        out.append(1 + bucket(hashed, words))
        if before is not None:
            out.append(1 + bucket(fold([before, hashed], 0xA5A55A5A12345677), words))
        run = [*run, hashed] if kind == "spaceless" and touching else [hashed] if kind == "spaceless" else []
        pieces = []
        if kind == "spaceless":
            pieces = [fold(run[-length:], 0x5A5AA5A576543211) for length in (3, 4, 5) if len(run) >= length]
        elif kind == "word":
            whole = [ord("<"), *map(ord, text), ord(">")]
            pieces = [
                fold(whole[start : start + length])
                for start in range(len(whole))
                for length in (3, 4, 5)
                if start + length <= len(whole)
            ]
        out += [1 + words + bucket(piece, characters) for piece in pieces if characters]
        before = hashed
    return list(dict.fromkeys(out))


def native(captions, words=WORDS, characters=CHARACTERS, capacity=1 << 16):
    values, offsets = np.zeros(capacity, np.int32), np.full(len(captions) + 1, -1, np.int64)
    total = _native.ngrams(captions, values, offsets, words, characters)
    assert total == offsets[-1] <= capacity
    return [values[first:last].tolist() for first, last in itertools.pairwise(offsets)]


# Of the Unicode that both Python and the native module know: what is unassigned to one may be a letter to the other.
CHARACTER = st.characters(exclude_categories=("Cs", "Cn", "Co"))
LIKELY = st.sampled_from(
    "aAbz09 ,'-_^~éİſßΣςǅﬁＡ①½花瓣红のカﾊﾞーกำเี้ᄀ가각한नमस्ते\u0301\u0308\u200d\ufe0f❤🌸👩🏽\u3000\u00a0"
)


@settings(max_examples=400, deadline=None)
@given(st.lists(st.text(st.one_of(CHARACTER, LIKELY), max_size=40), max_size=4), st.sampled_from([0, 1, 7, CHARACTERS]))
def test_tokens_are_those_of_the_definition(captions, characters):
    assert native(captions, characters=characters) == [tokens(caption, WORDS, characters) for caption in captions]


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("A red, red flower's petal", ["a", "red", "red", "flower", "s", "petal"]),
        ("4-petaled café", ["4", "petaled", "café"]),
        ("cafe\u0301", ["café"]),  # composed: one way to write it
        ("ＲＥＤ ﬁne", ["red", "fine"]),  # full width, a ligature
        ("红色花瓣，黄色", list("红色花瓣黄色")),
        ("ดอกไม้", ["ด", "อ", "ก", "ไ", "ม้"]),  # a tone mark stays with its letter
        ("लाल फूल", ["लाल", "फूल"]),
        ("빨간 꽃", ["빨간", "꽃"]),
        ("🌸❤️ red", ["🌸", "❤", "red"]),
        ("“red”…", ["red"]),
        ("\u200d \ufe0f ,.", []),
    ],
)
def test_words_are_cut_where_a_reader_would_cut_them(caption, expected):
    assert [text for text, _, _ in units(caption)] == expected
    assert native([caption]) == [tokens(caption)]


def test_a_word_is_the_same_token_wherever_it_stands_and_a_pair_knows_its_order():
    red, yellow, one, other = native(["red", "yellow", "red yellow", "yellow red"], characters=0)
    assert {*red, *yellow} < set(one)
    assert {*red, *yellow} < set(other)
    assert set(one) != set(other)


def test_many_threads_give_the_tokens_of_one():
    captions = [f"flower {n} with {n % 7} petals 花{n}" for n in range(3000)]
    assert native(captions, capacity=1 << 20) == [row for caption in captions for row in native([caption])]


def test_a_buffer_that_is_too_small_says_how_many_tokens_there_are():
    values, offsets = np.full(3, -5, np.int32), np.zeros(2, np.int64)
    assert _native.ngrams(["a red flower"], values, offsets, WORDS, CHARACTERS) == len(tokens("a red flower"))
    assert (values == -5).all()
    assert offsets.tolist() == [0, len(tokens("a red flower"))]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((0, 1), ConfigError, "word buckets must be from 1 to 16777216, got 0"),
        ((1, 2**24 + 1), ConfigError, "character buckets must be from 0 to 16777216, got 16777217"),
    ],
)
def test_numbers_of_buckets_out_of_range_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        _native.ngrams(["a"], np.zeros(9, np.int32), np.zeros(2, np.int64), *arguments)


@pytest.mark.parametrize(
    ("values", "offsets", "message"),
    [
        (np.zeros(9, np.int64), np.zeros(2, np.int64), r"n-gram values must be int32 \(V,\), got int64 \(9,\)"),
        (np.zeros(9, np.int32), np.zeros(3, np.int64), r"n-gram offsets must be int64 \(2,\), got int64 \(3,\)"),
    ],
)
def test_buffers_of_another_kind_are_refused(values, offsets, message):
    with pytest.raises(ValueError, match=message):
        _native.ngrams(["a"], values, offsets, WORDS, CHARACTERS)
