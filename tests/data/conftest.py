"""Small packs that the tests of data share."""

import pytest

from helpers import write_pack


@pytest.fixture(scope="module")
def uneven(tmp_path_factory):
    """Four training classes of 1, 2, 10 and 30 pictures with 1 to 4 captions, and a held-out one."""
    rows = []
    for name, count, test in (("a", 1, False), ("b", 2, False), ("c", 10, False), ("d", 30, False), ("e", 5, True)):
        rows += [(name, [f"{name} {i} {j}" for j in range(i % 4 + 1)], test) for i in range(count)]
    return write_pack(tmp_path_factory.mktemp("uneven"), rows)


@pytest.fixture(scope="module")
def classless(tmp_path_factory):
    rows = [(None, [f"caption {i // 2}", f"again {i // 2}"], False) for i in range(12)]  # pairs share their captions
    return write_pack(tmp_path_factory.mktemp("classless"), rows, classes=False)
