"""The paper's alphabet: ids written out by hand, a slow reference of dictionaries and loops, and round trips."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import t2i
from helpers import DASH, SLOTS, SPACE, UNKNOWN, slow_encode
from t2i import _native


def slow_one_hot(ids):
    out = np.zeros((len(ids), 70, 201))
    for row in range(len(ids)):
        for column in range(201):
            if 1 <= ids[row, column] <= 70:
                out[row, ids[row, column] - 1, column] = 1
    return out


def test_the_alphabet_is_the_papers_70_slots_with_the_space_last():
    assert t2i.ALPHABET == SLOTS
    assert len(t2i.ALPHABET) == 70
    assert len(set(t2i.ALPHABET)) == 69
    assert (t2i.ALPHABET[36], t2i.ALPHABET[59], t2i.ALPHABET[69]) == ("-", "-", " ")


@pytest.mark.parametrize(
    ("caption", "ids"),
    [
        ("", []),
        ("abc", [1, 2, 3]),
        ("A Red z", [1, SPACE, 18, 5, 4, SPACE, 26]),
        ("0 9", [27, SPACE, 36]),
        ("-", [DASH]),  # slot 37 holds a dash too, and never fires
        (",;.!?:'\"/\\|_@#$%^&*~`+", list(range(38, 60))),
        ("=<>()[]{}", list(range(61, 70))),
        ("caf\u00e9s", [3, 1, 6, UNKNOWN, 19]),  # keeps its place
        ("\u212a", [11]),  # the Kelvin sign is a k in lower case
        ("\u0130x", [UNKNOWN, 24]),  # two characters in lower case
        ("a\tb\n", [1, UNKNOWN, 2, UNKNOWN]),
        ("\U0001f33b!", [UNKNOWN, 41]),  # one character, four bytes
        ("a\ud83cb", [1, UNKNOWN, 2]),  # half a character, as a terminal passes bytes that are no text
    ],
)
def test_captions_encode_to_the_ids_written_here(caption, ids):
    encoded = t2i.encode([caption])
    assert encoded.shape == (1, 201)
    assert encoded.dtype == np.uint8
    assert encoded[0].tolist() == ids + [0] * (201 - len(ids))


@pytest.mark.parametrize(
    ("caption", "last"),
    [
        ("a" * 200 + "b" + "c" * 50, 2),
        ("\u00e9" * 200 + "b" + "c", 2),  # 201 characters, not bytes
        ("a" * 200 + "\u00e9", UNKNOWN),
        ("a" * 201 + "\u00e9", 1),
    ],
)
def test_captions_are_cut_at_201_characters(caption, last):
    encoded = t2i.encode([caption])[0]
    assert np.count_nonzero(encoded) == 201
    assert encoded[200] == last


CAPTIONS = st.lists(st.text(max_size=230), max_size=4)


@given(CAPTIONS)
@example(["x" * 300, "", "\u00df\u1e9e\u01c5"])
def test_encode_equals_the_slow_reference(captions):
    assert np.array_equal(t2i.encode(captions), slow_encode(captions))


@given(st.lists(st.text(SLOTS, max_size=201), max_size=4))
def test_decode_undoes_encode_for_every_caption_of_the_alphabet(captions):
    assert t2i.decode(t2i.encode(captions)) == captions


@given(CAPTIONS)
def test_encode_undoes_decode(captions):
    ids = t2i.encode(captions)
    assert np.array_equal(t2i.encode(t2i.decode(ids)), ids)


def test_an_unknown_character_decodes_to_the_replacement_mark():
    assert t2i.decode(t2i.encode(["Caf\u00e9 Au Lait"])) == ["caf\ufffd au lait"]


@pytest.mark.parametrize("dtype", [np.float32, np.uint8])
def test_one_hot_equals_the_slow_reference(dtype):
    ids = t2i.encode(["a red flower - really!", "", "caf\u00e9", "z" * 201])
    spread = t2i.one_hot(ids, dtype)
    assert spread.dtype == dtype
    assert spread.shape == (4, 70, 201)
    assert np.array_equal(spread, slow_one_hot(ids))
    assert spread[0, :, 22:].sum() == 0  # zeros after the caption
    assert spread[2].sum() == 3  # and in the column of the unknown character
    assert spread[:, 36].sum() == 0  # the first dash


def test_no_captions_give_no_rows():
    assert t2i.encode([]).shape == (0, 201)
    assert t2i.decode(t2i.encode([])) == []
    assert t2i.one_hot(t2i.encode([])).shape == (0, 70, 201)


ROW = np.zeros((1, 201), np.uint8)


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda: t2i.encode("a flower"), TypeError, "write encode"),  # B characters otherwise
        (lambda: t2i.encode(["a", 3]), TypeError, "int"),
        (lambda: t2i.one_hot(np.zeros((2, 200), np.uint8)), ValueError, r"201.*got uint8 \(2, 200\)"),
        (lambda: t2i.one_hot(ROW, np.float64), ValueError, r"float32.*got float64"),
        (lambda: t2i.one_hot(np.full((1, 201), 72, np.uint8)), ValueError, "at most 71, got 72"),
        (lambda: t2i.decode(np.zeros((1, 201), np.float32)), ValueError, r"uint8.*got float32 \(1, 201\)"),
        (lambda: t2i.decode(np.full((1, 201), 72, np.uint8)), ValueError, "at most 71, got 72 at row 0, column 0"),
        (lambda: _native.encode(["a"], np.zeros((1, 200), np.uint8)), ValueError, r"\(1, 201\), got uint8 \(1, 200\)"),
        (lambda: _native.encode(["a"], np.zeros((1, 201), np.float32)), ValueError, r"uint8.*got float32"),
        (lambda: _native.encode(["a"] * 2, ROW), ValueError, r"\(2, 201\), got uint8 \(1, 201\)"),
        (lambda: _native.encode(["a"] * 2, np.zeros((201, 2), np.uint8).T), ValueError, "contiguous"),
    ],
)
def test_wrong_arguments_are_named_with_what_was_expected(call, error, says):
    with pytest.raises(error, match=says):
        call()
