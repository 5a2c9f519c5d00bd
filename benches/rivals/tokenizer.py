"""The usual tokenizer: a dictionary and a loop, as the ports of the released program to PyTorch have it."""

import itertools
import re
import zlib

import numpy as np
import torch

ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789-,;.!?:'\"/\\|_@#$%^&*~`+-=<>()[]{} "
LENGTH = 201
INDEX = {character: number + 1 for number, character in enumerate(ALPHABET)}


def tokenize(caption: str) -> np.ndarray:
    """Turn a caption into ids (201,) int64, character by character."""
    ids = np.zeros(LENGTH, dtype=np.int64)
    for place, character in enumerate(caption.lower()[:LENGTH]):
        ids[place] = INDEX.get(character, 71)
    return ids


def one_hot(ids: np.ndarray) -> torch.Tensor:
    """Turn ids (201,) into columns (70, 201) float32, one assignment a character."""
    columns = torch.zeros(len(ALPHABET), LENGTH)
    for place, number in enumerate(ids):
        if 1 <= number <= len(ALPHABET):
            columns[int(number) - 1, place] = 1.0
    return columns


def ngrams(caption: str, words: int, characters: int) -> set[int]:
    """Hash words, pairs of words and pieces of 3 to 5 characters: a regular expression, slices and crc32."""
    found = re.findall(r"[^\W_]+", caption.lower())
    pairs = [f"{first} {second}" for first, second in itertools.pairwise(found)]
    tokens = {1 + zlib.crc32(text.encode()) % words for text in found + pairs}
    for word in set(found):
        marked = f"<{word}>"
        for length in (3, 4, 5):
            for start in range(len(marked) - length + 1):
                tokens.add(1 + words + zlib.crc32(marked[start : start + length].encode()) % characters)
    return tokens
