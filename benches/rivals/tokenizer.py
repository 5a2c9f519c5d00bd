"""The usual tokenizer: a dictionary and a loop, as the ports of the released program to PyTorch have it."""

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
