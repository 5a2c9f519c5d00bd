"""What a model does not know of a caption is said when it is asked for an image of it."""

import dataclasses

import pytest
import torch

import t2i
from helpers import call
from t2i.config.presets import preset
from t2i.data.dataset import record_dataset
from t2i.data.examples import examples, first_captions
from t2i.models.modern import ModernGenerator
from t2i.text.ngrams import NgramEncoder
from t2i.text.protocol import unread_warnings
from t2i.text.tokenizers import AlphabetTokenizer, ByteTokenizer, NgramTokenizer, quoted

LEARNED = ["a red flower with five petals", "the blue flower has round petals", "一朵有五片红色花瓣的花"]


@pytest.fixture(scope="module")
def encoder():
    made = NgramEncoder(1 << 16, 1 << 15)
    values, _ = made.tokenizer.ragged(LEARNED)
    made.fit(torch.from_numpy(values), len(LEARNED))
    return made


@pytest.mark.parametrize(
    ("caption", "unknown"),
    [
        ("a RED flower, with five petals!", ""),
        ("a blue flower has five round petals", ""),  # words in another order
        ("一朵有五片红色花瓣的花", ""),
        ("一朵红色的花", ""),  # part of it in another order
        ("a xyzzy flower by qwrt", "'xyzzy', 'by', 'qwrt'"),
        ("海上风筝", "'海上风筝'"),
        ("一朵紫色的花，有五片花瓣", "'紫'"),  # one word, all but a letter of it known
        ("红色的风筝和花", "'风筝和'"),
        ("花瓣红色的有五片", ""),
        ("flower花qwrt🌸红", "'qwrt🌸'"),  # no space between scripts
        ("花！（红色）ＲＥＤ", ""),
        ("قطة حمراء", "'قطة', 'حمراء'"),
        ("🌸", "'🌸'"),
        ("!!!", "'!!!'"),
        ("… ", "'… '"),
        (" ".join(f"w{n}" for n in range(9)), "'w0', 'w1', 'w2', 'w3', 'w4' and 4 more"),
    ],
)
def test_ngrams_name_the_words_no_training_caption_has(encoder, caption, unknown):
    assert encoder.unread(caption) == unknown


def test_a_word_that_shares_its_hash_with_a_known_one_is_named_all_the_same():
    small = NgramEncoder(64, 1 << 15)  # so few buckets that most are taken
    values, _ = small.tokenizer.ragged(LEARNED[:2] * 3)
    small.fit(torch.from_numpy(values), 6)
    words = [f"word{n}" for n in range(40)]
    shared = [word for word in words if small.idf[small.tokenizer.ragged([word])[0][0]] > 0]
    assert len(shared) > 3
    assert all(small.unread(word) for word in words)
    assert not any(map(small.unread, LEARNED[:2]))


@pytest.mark.parametrize(
    ("tokenizer", "caption", "unknown"),
    [
        (AlphabetTokenizer(), "A red flower.", ""),
        (AlphabetTokenizer(), "a 红花, 红", "'红', '花'"),
        (AlphabetTokenizer(), "é" + "x" * 201, "'é' and what comes after 201 characters"),
        (AlphabetTokenizer(), "x" * 201, ""),
        (ByteTokenizer(), "花" * 67, ""),
        (ByteTokenizer(), "花" * 68, "what comes after 201 bytes"),
        (NgramTokenizer(), "xyzzy", ""),  # which words were learned is not in a tokenizer
        (NgramTokenizer(), "!!!", "'!!!'"),
    ],
)
def test_a_tokenizer_names_what_has_no_token(tokenizer, caption, unknown):
    assert tokenizer.unread(caption) == unknown
    assert bool(tokenizer.unread(caption)) == bool(tokenizer.unseen([caption]))


def test_word_pieces_name_what_is_unknown():
    pytest.importorskip("tokenizers")
    pytest.importorskip("all_minilm_l6_v2")
    from t2i.text.wordpieces import WordPieceTokenizer

    tokenizer = WordPieceTokenizer()
    assert tokenizer.unread("a red flower") == ""
    assert tokenizer.unread("a 🪻 flower") == repr("🪻")
    assert tokenizer.unread("red " * 300) == "what comes after 256 word pieces"


def test_long_captions_are_cut_in_the_message_and_each_is_named_once(encoder):
    (warning,) = unread_warnings(["y" * 500, "y" * 500, "a red flower"], encoder)
    assert "y" * 40 + "..." in warning
    assert len(warning) < 250
    assert quoted(["it's"]) == '"it\'s"'


def test_letters_of_scripts_without_spaces_keep_their_marks():
    thai = NgramEncoder(1 << 16, 1 << 15)
    values, _ = thai.tokenizer.ragged(["ดอกไม้สีแดง"])
    thai.fit(torch.from_numpy(values), 1)
    assert thai.unread("ดอกไม้สีแดง") == ""
    assert thai.unread("ดอกไม้สีม่วง") == "'ม่ว'"


def test_an_empty_caption_is_not_one_of_unknown_words(encoder):
    assert unread_warnings(["", "  ", "\u3000"], encoder) == []


def test_generate_says_what_the_model_does_not_know(encoder, tmp_path):
    config = preset("drawings")
    generator = ModernGenerator(config.size, 8, config.noise_dim, encoder.text_dim)
    config = dataclasses.replace(
        config, generator_width=8, text=dataclasses.replace(config.text, buckets=(1 << 16, 1 << 15))
    )
    t2i.Pipeline(generator, encoder, config).save_pretrained(tmp_path / "model")
    words = ["t2i-generate", "--model", tmp_path / "model", "--out", tmp_path / "a.png"]
    code, _, err = call(*words, "a red flower", "a 红 flower", "a flower by xyzzy")
    assert code == 0, err
    assert "does not know 'by', 'xyzzy' in 'a flower by xyzzy'" in err
    assert err.count("warning: the model") == 1  # 红 is known
    code, _, err = call(*words, "--interpolate-text", "a red flower", "qwrt")
    assert code == 0, err
    assert "does not know 'qwrt': the image" in err


def test_generate_shows_training_captions_where_it_does_not_know_a_word(encoder, tiny_blossoms, tmp_path):
    folder, config = tmp_path / "model", preset("drawings")
    generator = ModernGenerator(config.size, 8, config.noise_dim, encoder.text_dim)
    text = dataclasses.replace(config.text, buckets=(1 << 16, 1 << 15))
    t2i.Pipeline(generator, encoder, dataclasses.replace(config, generator_width=8, text=text)).save_pretrained(folder)
    record_dataset(folder, tiny_blossoms)
    words = ["t2i-generate", "--model", folder, "--count", 1, "--out", tmp_path / "a.png"]
    known = f"training captions of this model: {', '.join(map(repr, examples(first_captions(tiny_blossoms), 3)))}\n"
    for caption, expected in (("xyzzy", True), ("a red flower", False)):
        code, _, err = call(*words, caption)
        assert (code, known in err) == (0, expected)
