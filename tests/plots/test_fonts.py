"""Labels in any language: a font that has the letters, lines that fit, and a word where no font does."""

import numpy as np
import pytest
from PIL import Image, ImageFont

from t2i.plots import fonts, grids
from t2i.plots.fonts import font_for, wrapped

DEJAVU = "DejaVuSans.ttf"
needs_dejavu = pytest.mark.skipif(fonts._font(DEJAVU, 13) is None, reason="DejaVu Sans is not installed")


@pytest.fixture(autouse=True)
def forgotten():
    """Nothing is remembered from test to test: what is installed differs."""
    for remembered in (fonts._font, fonts._has):
        remembered.cache_clear()
    fonts._said.clear()
    yield
    for remembered in (fonts._font, fonts._has):
        remembered.cache_clear()
    fonts._said.clear()


def test_english_is_in_pillows_own_font(monkeypatch):
    monkeypatch.setattr(fonts, "INSTALLED", ("not-a-font.ttf",))
    assert font_for("a red flower, 5 petals", 13).getname() == ImageFont.load_default(size=13).getname()


@needs_dejavu
@pytest.mark.parametrize("text", ["una flor con pétalos morados", "цветок с красными лепестками", "λουλούδι"])
def test_other_letters_are_in_an_installed_font(text):
    font = font_for(text, 13)
    assert font.getname()[0] == "DejaVu Sans"
    assert all(fonts._has(DEJAVU, 13, character) for character in text if character != " ")


def test_where_no_font_has_them_it_is_said_once(monkeypatch, capsys):
    monkeypatch.setattr(fonts, "INSTALLED", ())
    for caption in ("红色的花", "红色的花", "一朵有五片花瓣的花", "🌸"):  # a grid has many labels
        font_for(caption, 13)
    (line,) = capsys.readouterr().err.splitlines()
    assert "no font on this machine has all characters" in line
    assert "fonts-noto-cjk" in line


def test_the_font_with_the_most_letters_is_taken(monkeypatch):
    has = {"one.ttf": "ab", "two.ttf": "abc", "three.ttf": "a"}
    own = ImageFont.load_default(size=13)
    monkeypatch.setattr(fonts, "INSTALLED", tuple(has))
    monkeypatch.setattr(fonts, "_font", lambda name, size: own if not name else f"font {name}")
    monkeypatch.setattr(fonts, "_has", lambda name, size, character: character in has.get(name, ""))
    monkeypatch.setattr(fonts, "_say_missing", lambda letters: None)
    assert font_for("abcd", 13) == "font two.ttf"
    assert font_for("ab", 13) == "font one.ttf"


@pytest.mark.parametrize("text", ["é" * 200, "una flor " * 20 + "ñ", "Ü", "é " + "x" * 90 + " y"])
def test_lines_fit_and_lose_nothing(text):
    font = ImageFont.load_default(size=13)
    lines = wrapped(text, font, 120, 18)
    assert all(font.getlength(line) <= 120 for line in lines)
    assert "".join("".join(lines).split()) == "".join(text.split())


def test_a_grid_of_another_script_is_not_one_of_boxes():
    """Two captions of the same length in a script without spaces have different labels, where a font for them is there."""
    images = np.zeros((2, 1, 16, 16, 3), np.uint8)
    sheet = np.asarray(grids.grid(images, ["pétalos ñandú", "pêtälos ñandü"], side=64))
    first, second = sheet[10:74, :200], sheet[78:142, :200]
    if fonts._font(DEJAVU, 13) is None:
        pytest.skip("DejaVu Sans is not installed")
    assert not np.array_equal(first, second)
    assert isinstance(Image.fromarray(sheet), Image.Image)
