"""The bag of n-grams: its weights by hand, its two forms, and what it does with words it never saw."""

import itertools
import math

import numpy as np
import pytest
import torch

from t2i.config.options import JointOptions, TextOptions
from t2i.errors import CheckpointError, ConfigError
from t2i.text.build import text_encoder, tokenizer_of
from t2i.text.ngrams import NgramEncoder
from t2i.text.tokenizers import AlphabetTokenizer, ByteTokenizer, NgramTokenizer, padded
from t2i.text.wordpieces import WordPieceTokenizer

CAPTIONS = ["a red flower", "a red red flower with yellow stamen", "红色的花", "🌸", "..."]


def encoder(**options):
    torch.manual_seed(0)
    return NgramEncoder(**{"words": 4096, "characters": 1024, "text_dim": 16} | options).eval()


def test_a_caption_is_the_weighted_sum_of_its_tokens():
    """Token by token: idf over the training captions, pieces of words at 0.3 of that, the sum of length 4 = sqrt(16)."""
    bag = encoder()
    training = ["a red flower", "a blue flower", "a red bird"]
    values, offsets = bag.tokenizer.ragged(training)
    bag.fit(torch.from_numpy(values), len(training))
    having = [set(values[a:b].tolist()) for a, b in itertools.pairwise(offsets)]
    tokens = bag.tokenizer.ragged(["a red flower"])[0].tolist()
    weight = {
        token: (math.log(4 / (1 + sum(token in row for row in having))) + 1) * (0.3 if token > 4096 else 1)
        for token in tokens
    }
    total = sum(weight[token] * bag.vectors[token].double() for token in tokens)
    expected = total / total.norm() * 4
    torch.testing.assert_close(bag.embed(["a red flower"])[0].double(), expected, atol=1e-5, rtol=0)


def test_the_form_for_onnx_computes_the_same():
    bag = encoder()
    tokens = bag.tokenize(CAPTIONS)
    torch.testing.assert_close(bag.exportable(tokens), bag(tokens), atol=1e-5, rtol=0)


def test_padding_and_company_change_nothing():
    bag = encoder()
    together = bag.embed(CAPTIONS)
    for row, caption in enumerate(CAPTIONS):
        torch.testing.assert_close(bag.embed([caption])[0], together[row], atol=1e-5, rtol=0)


def test_a_caption_without_a_token_is_zero():
    assert encoder().embed(["..."]).abs().sum() == 0


def test_a_token_of_no_training_caption_adds_nothing():
    bag = encoder(characters=0)
    values, _ = bag.tokenizer.ragged(["a red flower"])
    bag.fit(torch.from_numpy(values), 1)
    torch.testing.assert_close(bag.embed(["red"]), bag.embed(["red zygomorphic"]))


def test_an_unseen_word_is_near_a_word_that_shares_its_pieces():
    bag = encoder(words=1 << 16, characters=1 << 15, text_dim=256)
    values, _ = bag.tokenizer.ragged(["petal", "stamen"])
    bag.fit(torch.from_numpy(values), 2)
    petals, petal, stamen = bag.embed(["petals", "petal", "stamen"])
    assert torch.cosine_similarity(petals, petal, dim=0) > torch.cosine_similarity(petals, stamen, dim=0) + 0.1


def test_the_order_of_words_changes_the_embedding():
    one, other = encoder(characters=0).embed(["red petals yellow centre", "yellow petals red centre"])
    assert torch.cosine_similarity(one, other, dim=0) < 0.9


def test_tokens_are_left_out_only_while_it_learns():
    bag = encoder()
    tokens = bag.tokenize(CAPTIONS)
    assert torch.equal(bag(tokens), bag(tokens))
    bag.train()
    assert not torch.equal(bag(tokens), bag(tokens))


def test_gradients_are_those_of_the_other_form():
    bag = encoder()
    tokens = bag.tokenize(CAPTIONS)
    gradients = []
    for form in (bag, bag.exportable):
        bag.zero_grad()
        (form(tokens) * torch.arange(16.0)).sum().backward()
        gradients.append(bag.vectors.grad.clone())
    torch.testing.assert_close(*gradients, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", ["char-cnn-rnn", "char-cnn-rnn-bytes", "ngrams", "minilm"])
def test_every_kind_describes_itself_and_its_tokenizer(kind):
    options = JointOptions(kind=kind, objective="contrastive", dim=8, width=8, channels=(8, 8), buckets=(64, 32))
    made = text_encoder(options)
    assert made.kind == kind
    assert made.text_dim == 8
    assert tokenizer_of(made.settings()["tokenizer"]) == made.tokenizer


@pytest.mark.parametrize(
    ("tokenizer", "unseen"),
    [
        (AlphabetTokenizer(), {"é", "花", "x" * 202, "花" * 68, "🌸"}),
        (ByteTokenizer(), {"x" * 202, "花" * 68}),  # 204 bytes
        (NgramTokenizer(64, 32), {"..."}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_captions_that_are_not_seen_whole_are_counted(tokenizer, unseen):
    captions = ["a red flower", "é", "花", "x" * 202, "花" * 68, "🌸", "..."]
    assert {caption for caption in captions if tokenizer.unseen([caption])} == unseen
    assert tokenizer.unseen(captions) == len(unseen)


def test_two_thousand_characters_are_seen_to_the_end():
    bag = encoder()
    long = "red petals and more " * 100
    assert not torch.equal(bag.embed([long]), bag.embed([long + " turquoise"]))


def test_half_characters_are_read_as_unknown_ones():
    assert encoder().embed(["a red \ud800 flower"]).isfinite().all()


def test_a_single_string_is_refused():
    with pytest.raises(TypeError, match="takes a list of captions"):
        NgramTokenizer().ragged("a red flower")


@pytest.mark.parametrize("settings", [{"tokenizer": "sentencepiece"}, {}, {"tokenizer": "ngrams", "size": 3}])
def test_an_unknown_tokenizer_is_one_clear_error(settings):
    with pytest.raises(CheckpointError, match="unknown tokenizer settings"):
        tokenizer_of(settings)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "ngrams"}, "--objective sje is the paper's"),
        ({"buckets": (0, 5)}, "--buckets: words need at least 1 bucket"),
        ({"dropout": 1.0}, "--dropout must lie in 0..1"),
        ({"kind": "minilm", "objective": "class-contrastive", "teacher": "runs/a"}, "--teacher: minilm learns no more"),
    ],
)
def test_settings_that_cannot_work_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        JointOptions(**options)


def test_a_teacher_of_an_encoder_that_learns_with_the_gan_is_refused():
    with pytest.raises(ConfigError, match=r"--text\.teacher teaches before the GAN"):
        TextOptions(encoder="end-to-end", teacher="runs/text")


def test_rows_of_any_length_are_padded_with_zeros():
    assert padded(np.array([5, 6, 7], np.int32), np.array([0, 2, 2, 3])).tolist() == [[5, 6], [0, 0], [7, 0]]
    assert padded(np.empty(0, np.int32), np.array([0, 0])).tolist() == [[0]]


def test_tokenizers_have_names_of_their_own():
    kinds = (AlphabetTokenizer(), ByteTokenizer(), NgramTokenizer(), WordPieceTokenizer())
    assert len({each.settings()["tokenizer"] for each in kinds}) == 4
