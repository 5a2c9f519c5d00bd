"""Captions of blossoms in five languages: every one says what it should, in its own script."""

import itertools
import unicodedata

import numpy as np
import pytest

from t2i.blossoms.captions import captions_for, held_out_captions
from t2i.blossoms.classes import CENTRE_COLOURS, PETAL_COLOURS, PETAL_COUNTS, PETAL_SHAPES, BlossomClass
from t2i.blossoms.dataset import make_blossoms
from t2i.blossoms.languages import CODES, LANGUAGES

SCRIPTS = {"zh": "CJK", "es": "LATIN", "ar": "ARABIC", "hi": "DEVANAGARI"}


def kinds():
    for petal, centre in itertools.product(PETAL_COLOURS, CENTRE_COLOURS):
        yield BlossomClass(petal, centre, PETAL_COUNTS[len(petal + centre) % 4], PETAL_SHAPES[len(petal) % 3])


@pytest.mark.parametrize("code", LANGUAGES)
def test_a_language_has_ten_wordings_and_a_form_for_every_attribute(code):
    words = LANGUAGES[code]
    assert len(words.full) == len(set(words.full)) == 10
    assert len(words.short) >= 2
    assert len(words.counts) == len(PETAL_COUNTS)
    assert len(words.shapes) == len(PETAL_SHAPES)
    assert all(len(forms) == len(PETAL_COLOURS) for forms in words.petals.values())
    assert all(len(forms) == len(CENTRE_COLOURS) for forms in words.centres.values())


@pytest.mark.parametrize("code", LANGUAGES)
def test_a_full_wording_has_a_slot_for_each_attribute_and_a_short_one_for_both_colours(code):
    words = LANGUAGES[code]
    for wording in (*words.full, *words.short):
        assert sum(f"{{{slot}}}" in wording for slot in words.petals) == 1
        assert sum(f"{{{slot}}}" in wording for slot in words.centres) == 1
    for wording in words.full:
        assert "{count}" in wording
        assert "{shape}" in wording
    for wording in words.short:
        assert ("{count}" in wording) != ("{shape}" in wording)


@pytest.mark.parametrize("code", LANGUAGES)
def test_a_caption_names_its_colours_and_no_others(code):
    """Read by looking for words: what is left when the true colours are taken out names no colour."""
    words = LANGUAGES[code]
    everything = {form for forms in (*words.petals.values(), *words.centres.values()) for form in forms}
    for row, kind in enumerate(kinds()):
        petal, centre = list(PETAL_COLOURS).index(kind.petal), list(CENTRE_COLOURS).index(kind.centre)
        own = {forms[petal] for forms in words.petals.values()} | {forms[centre] for forms in words.centres.values()}
        for caption in captions_for(kind, np.random.default_rng(row), language=code):
            assert any(forms[petal] in caption for forms in words.petals.values()), caption
            assert any(forms[centre] in caption for forms in words.centres.values()), caption
            left = caption
            for form in sorted(own, key=len, reverse=True):
                left = left.replace(form, " ")
            found = {form for form in everything if form in left.replace("،", " ").replace("，", " ").split()}
            assert found == set(), caption


@pytest.mark.parametrize("code", LANGUAGES)
def test_letters_are_of_the_languages_script(code):
    for caption in captions_for(BlossomClass("red", "yellow", 5, "round"), np.random.default_rng(3), language=code):
        names = {unicodedata.name(letter).split()[0] for letter in caption if unicodedata.category(letter)[0] == "L"}
        assert names == {SCRIPTS[code]}


def test_a_mixed_set_has_two_captions_in_each_language():
    captions = captions_for(BlossomClass("blue", "white", 6, "pointed"), np.random.default_rng(1), language="all")
    scripts = [
        unicodedata.name(next(c for c in text if unicodedata.category(c)[0] == "L")).split()[0] for text in captions
    ]
    assert len(captions) == 10
    assert {script: scripts.count(script) for script in SCRIPTS.values()} == {
        "CJK": 2,
        "LATIN": 4,
        "ARABIC": 2,
        "DEVANAGARI": 2,
    }


def test_images_and_splits_do_not_depend_on_the_language():
    english, chinese = (make_blossoms(12, 16, 5, language=code) for code in ("en", "zh"))
    assert np.array_equal(english.images, chinese.images)
    assert np.array_equal(english.splits, chinese.splits)
    assert all(a != b for a, b in zip(english.captions, chinese.captions, strict=True))


@pytest.mark.parametrize("code", CODES)
def test_held_out_captions_have_the_same_classes_in_every_language(code):
    expected = [attributes for _, attributes in held_out_captions(30, 4)]
    assert [attributes for _, attributes in held_out_captions(30, 4, language=code)] == expected
