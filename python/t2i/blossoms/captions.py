"""Captions of the embedded data set, in English here; `languages.py` has the words of the other languages."""

from typing import Final

import numpy as np
from numpy.random import Generator

from t2i.blossoms.classes import (
    CENTRE_COLOURS,
    PETAL_COLOURS,
    PETAL_COUNTS,
    PETAL_SHAPES,
    BlossomClass,
    Purpose,
    blossom_classes,
    class_generator,
    held_out_classes,
)
from t2i.blossoms.languages import CODES, LANGUAGES, CaptionLanguage, LanguageCode

COUNT_WORDS: Final[dict[int, str]] = {4: "four", 5: "five", 6: "six", 8: "eight"}
SHAPE_WORDS: Final[dict[str, tuple[str, ...]]] = {
    "round": ("round", "rounded", "broad"),
    "pointed": ("pointed", "sharp", "star-like"),
    "narrow": ("narrow", "thin", "slender"),
}


# {a petal} is the petal colour with its article; {middle} is "yellow centre", "yellow heart", ...
FULL_WORDINGS: Final[tuple[str, ...]] = (
    "a flower with {count} {shape} {petal} petals and {a middle}",
    "this flower has {count} {shape} {petal} petals and {a middle}",
    "{count} {shape} {petal} petals around {a middle}",
    "a {petal} flower with {count} {shape} petals and {a middle}",
    "the petals of this flower are {petal} and {shape}, there are {count} of them, and the {place} is {centre}",
    "{a middle} surrounded by {count} {shape} {petal} petals",
    "this {petal} flower has {count} petals that are {shape}, and its {place} is {centre}",
    "a blossom of {count} {shape} petals in {bright}{petal}, with {a middle}",
    "the flower shown has {a middle} and {count} {shape} petals, which are {bright}{petal}",
    "{count} petals, {shape} and {petal}, with {a middle}",
    "a bloom whose {count} {shape} petals are {petal} and whose {place} is {centre}",
    "this is a flower with {a middle}, its {count} {petal} petals are {shape}",
    "{petal} in {colour} with {count} {shape} petals, this flower has {a middle}",
    "the {place} of this flower is {centre}, and its {count} {shape} petals are {petal}",
    "a pretty flower that has {count} {petal} petals of a {shape} shape and {a middle}",
    "a single flower: {count} {shape} {petal} petals, {centre} {place}",
)
SHORT_WORDINGS: Final[tuple[str, ...]] = (
    "a flower with {count} {petal} petals and {a middle}",
    "this flower has {shape} {petal} petals and {a middle}",
    "a {petal} flower with {a middle} and {count} petals",
    "{shape} {petal} petals around {a middle}",
    "this flower is {petal} with {a middle}, and its petals are {shape}",
    "{count} {bright}{petal} petals and {a middle}",
)


def _article(words: str) -> str:
    return f"an {words}" if words[0] in "aeiou" else f"a {words}"


def _caption(blossom: BlossomClass, wording: str, rng: Generator) -> str:
    """Fill one wording; spelling (centre, colour) is British or American throughout a caption."""
    british = bool(rng.integers(2))
    centre_word = "centre" if british else "center"
    places = (centre_word, centre_word, "middle", "heart", "disc" if british else "disk")
    place = places[rng.integers(len(places))]
    words = SHAPE_WORDS[blossom.shape]
    shape = words[rng.integers(len(words))]
    bright = ("", "", "bright ", "bright " if blossom.petal == "white" else "vivid ")[rng.integers(4)]
    filled = wording
    for slot, value in (
        ("a {petal}", _article(blossom.petal)),
        ("a {shape}", _article(shape)),
        ("{a middle}", _article(f"{blossom.centre} {place}")),
        ("{count}", COUNT_WORDS[blossom.count] if rng.random() < 0.7 else str(blossom.count)),
        ("{shape}", shape),
        ("{bright}", bright),
        ("{petal}", blossom.petal),
        ("{place}", place),
        ("{centre}", blossom.centre),
        ("{colour}", "colour" if british else "color"),
    ):
        filled = filled.replace(slot, value)
    return filled


def _translated(blossom: BlossomClass, language: LanguageCode, wording: str, rng: Generator) -> str:
    """Fill one wording of another language than English."""
    words = LANGUAGES[language]
    petal, centre = list(PETAL_COLOURS).index(blossom.petal), list(CENTRE_COLOURS).index(blossom.centre)
    synonyms = words.shapes[PETAL_SHAPES.index(blossom.shape)]
    numeral = words.counts[PETAL_COUNTS.index(blossom.count)]
    return wording.format(
        count=numeral if rng.random() < 0.7 else blossom.count,
        shape=synonyms[rng.integers(len(synonyms))],
        place=words.places[rng.integers(len(words.places))],
        **{slot: forms[petal] for slot, forms in words.petals.items()},
        **{slot: forms[centre] for slot, forms in words.centres.items()},
    )


def captions_for(blossom: BlossomClass, rng: Generator, count: int = 10, language: CaptionLanguage = "en") -> list[str]:
    """Word a class `count` times, differently; one in five leaves out count or shape, none leaves out a colour.

    Args:
        blossom: The class.
        rng: Chooses wordings and synonyms.
        count: Captions.
        language: Of all captions; "all" takes the languages of `languages.CODES` in turn.

    >>> captions_for(BlossomClass("red", "yellow", 5, "round"), np.random.default_rng(0), count=1)
    ['five broad red petals around a yellow centre']
    """
    if language == "all":
        shares = np.bincount(np.arange(count) % len(CODES), minlength=len(CODES))
        several = [captions_for(blossom, rng, int(n), code) for code, n in zip(CODES, shares, strict=True) if n]
        together = [caption for captions in several for caption in captions]
        return [together[index] for index in rng.permutation(count)]
    short = count // 5
    full, shorter = _choices(language)
    wordings = [*_wordings(full, count - short, rng), *_wordings(shorter, short, rng)]
    return [_worded(blossom, language, wordings[index], rng) for index in rng.permutation(count)]


def _choices(language: LanguageCode) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Full and short wordings of a language."""
    if language == "en":
        return FULL_WORDINGS, SHORT_WORDINGS
    return LANGUAGES[language].full, LANGUAGES[language].short


def _worded(blossom: BlossomClass, language: LanguageCode, wording: str, rng: Generator) -> str:
    return _caption(blossom, wording, rng) if language == "en" else _translated(blossom, language, wording, rng)


def _wordings(choices: tuple[str, ...], count: int, rng: Generator) -> list[str]:
    """Draw wordings without repeating one before all were used."""
    rounds = -(-count // len(choices))
    order = [int(index) for _ in range(rounds) for index in rng.permutation(len(choices))]
    return [choices[index] for index in order[:count]]


def held_out_captions(
    count: int, seed: int, split_seed: int = 0, *, seen: bool = False, language: LanguageCode = "en"
) -> list[tuple[str, tuple[int, int, int, int]]]:
    """Word held-out classes anew for evaluation, evenly over the classes; every caption names all four attributes.

    Args:
        count: how many captions.
        seed: of the wordings and the order of classes.
        split_seed: of `held_out_classes`; the same as the training set's, or seen classes slip in.
        seen: word the classes of training instead, to compare with.
        language: of the wordings.

    Returns:
        Caption and attributes (petal colour, centre colour, count, shape) of each.
    """
    held = held_out_classes(split_seed)
    if seen:
        held = tuple(kind for kind in blossom_classes() if kind not in held)
    rng = class_generator(seed, Purpose.EVALUATION)
    order = [held[index] for _ in range(-(-count // len(held))) for index in rng.permutation(len(held))]
    wordings = _wordings(_choices(language)[0], count, rng)
    pairs = zip(order, wordings, strict=False)
    return [(_worded(kind, language, wording, rng), kind.attributes) for kind, wording in pairs]
