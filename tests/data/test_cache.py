"""Tensors that are kept beside a pack: damaged ones are made again, old ones go."""

import os
from pathlib import Path

import pytest
import torch

from t2i.data.cache import cached_tensor
from t2i.weights import read_tensors


def test_a_damaged_file_of_kept_tensors_is_replaced(tmp_path):
    first = cached_tensor(tmp_path, "things", {"a": 1}, (2,), lambda: torch.tensor([1.0, 2.0]))
    (file,) = tmp_path.glob("things-*.safetensors")
    file.write_bytes(file.read_bytes()[:-3])
    second = cached_tensor(tmp_path, "things", {"a": 1}, (2,), lambda: torch.tensor([3.0, 4.0]))
    assert (first.tolist(), second.tolist()) == ([1.0, 2.0], [3.0, 4.0])
    assert cached_tensor(tmp_path, "things", {"a": 1}, (2,), lambda: pytest.fail("kept")).tolist() == [3.0, 4.0]
    assert cached_tensor(tmp_path, "things", {"a": 2}, (2,), lambda: torch.zeros(2)).tolist() == [0.0, 0.0]


def test_a_flipped_bit_of_kept_tensors_is_noticed(tmp_path):
    cached_tensor(tmp_path, "things", {"a": 1}, (2,), lambda: torch.tensor([1.0, 2.0]))
    (file,) = tmp_path.glob("things-*.safetensors")
    data = bytearray(file.read_bytes())
    data[-1] ^= 1  # the sign or the exponent of a number: still finite
    file.write_bytes(data)
    assert cached_tensor(tmp_path, "things", {"a": 1}, (2,), lambda: torch.tensor([1.0, 2.0])).tolist() == [1.0, 2.0]


def test_what_a_writer_that_was_killed_left_beside_a_pack_goes_when_it_is_old(tmp_path):
    old, new = tmp_path / ".things-1.safetensors.7.partial", tmp_path / ".things-2.safetensors.8.partial"
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    cached_tensor(tmp_path, "things", {"a": 1}, (1,), lambda: torch.zeros(1))
    assert [old.exists(), new.exists()] == [False, True]  # another run may be writing the new one


def test_a_clock_that_was_set_back_leaves_what_was_just_computed(tmp_path):
    for number in range(4):
        cached_tensor(tmp_path, "things", {"a": number}, (1,), lambda: torch.zeros(1))
    for path in tmp_path.glob("things-*"):
        os.utime(path, (4e9, 4e9))  # years ahead of the clock
    cached_tensor(tmp_path, "things", {"a": 4}, (1,), lambda: torch.ones(1))
    assert cached_tensor(tmp_path, "things", {"a": 4}, (1,), lambda: pytest.fail("computed again")) == 1
    assert len(list(tmp_path.glob("things-*"))) == 4


def test_another_process_that_clears_the_same_folder_is_no_failure(tmp_path, monkeypatch, capsys):
    for number in range(6):
        (tmp_path / f"things-{number}.safetensors").write_bytes(b"old")
        (tmp_path / f".things-{number}.partial").write_bytes(b"old")
    stat = Path.stat

    def vanishing(path, **options):
        if path.name in ("things-3.safetensors", ".things-2.partial"):
            path.unlink(missing_ok=True)
        return stat(path, **options)

    monkeypatch.setattr(Path, "stat", vanishing)
    cached_tensor(tmp_path, "things", {"a": 1}, (1,), lambda: torch.ones(1))
    assert cached_tensor(tmp_path, "things", {"a": 1}, (1,), lambda: pytest.fail("computed again")) == 1
    assert capsys.readouterr().err == ""


def test_only_the_newest_kept_tensors_stay(tmp_path):
    for number in range(6):
        cached_tensor(tmp_path, "things", {"a": number}, (1,), lambda value=number: torch.tensor([float(value)]))
    stored = sorted(float(read_tensors(path)["things"]) for path in tmp_path.glob("things-*"))
    assert stored == [2, 3, 4, 5]
