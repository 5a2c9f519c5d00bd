"""The caption of the command to try after a training."""

import shlex

import pytest

from t2i.cli.next_step import caption_to_try
from t2i.config.presets import EXAMPLE

LONG = "a flower with long red petals " * 400


@pytest.mark.parametrize(
    ("captions", "expected"),
    [
        (["a red flower", "blue"], "a red flower"),  # the first
        ([LONG, "a red flower"], "a red flower"),
        ([LONG], "a flower with long red petals a flower with long red petals a flower with long"),
        (["x" * 10_000], "x" * 80),  # no words
        (["花" * 10_000], "花" * 80),
        (["!", "...", "a red flower"], "a red flower"),
        (["!", "?!"], EXAMPLE),
        (["\N{SUNFLOWER}"], "\N{SUNFLOWER}"),
        (["两朵花"], "两朵花"),
        (["--out a", "one\ntwo", "three"], "three"),  # a flag, and two lines
        (['it\'s $5 `or` "0"'], 'it\'s $5 `or` "0"'),
    ],
)
def test_the_caption_to_try_is_short_and_says_something(captions, expected):
    quoted = caption_to_try(captions)
    assert shlex.split(quoted) == [expected]
    assert "\n" not in quoted
