"""Saving a model: whole or not at all, over nothing but a saved model, and nothing that could not be loaded."""

import contextlib
import copy
import dataclasses
import os
from pathlib import Path

import pytest
import torch

import t2i
from t2i import files
from t2i.locks import RunLock
from t2i.pipeline import Pipeline

pytestmark = pytest.mark.usefixtures("one_thread")
RED = "a flower with red petals"
OLD, NEW = 1, 2  # seeds in the settings, which tell the two models apart as their weights do


class Killed(BaseException):
    """The process ends here."""


@pytest.fixture(scope="module")
def models(tiny_run_with_style):
    """Two models of equal shapes; the second one has no style encoder."""
    old = Pipeline.from_pretrained(tiny_run_with_style)
    old.config = dataclasses.replace(old.config, seed=OLD)
    new = Pipeline(copy.deepcopy(old.generator), old.encoder, dataclasses.replace(old.config, seed=NEW))
    with torch.no_grad():
        new.generator.to_rgb.weight.mul_(-1)
    return {OLD: old, NEW: new}


def stop_at(monkeypatch, number, error):
    """Let the `number`-th change of a file raise an error in place of being made."""
    left = [number]

    def counted(real):
        def change(*arguments, **options):
            left[0] -= not str(arguments[0]).endswith((".lock", ".holder"))
            if left[0] == 0:
                left[0] = -1
                raise error
            return real(*arguments, **options)

        return change

    monkeypatch.setattr(files, "_write_synced", counted(files._write_synced))
    for name in ("replace", "unlink"):
        monkeypatch.setattr(Path, name, counted(getattr(Path, name)))


@pytest.mark.parametrize("number", range(1, 13))
def test_a_kill_while_a_model_is_replaced_leaves_the_old_one_the_new_one_or_says_that_it_is_not_complete(
    models, tmp_path, monkeypatch, number
):
    models[OLD].save_pretrained(tmp_path / "m")
    with monkeypatch.context() as patch:
        stop_at(patch, number, Killed())
        with contextlib.suppress(Killed):
            models[NEW].save_pretrained(tmp_path / "m")
    if not (tmp_path / "m" / "config.json").exists():
        with pytest.raises(t2i.CheckpointError, match=r"is not complete: it has no config\.json"):
            Pipeline.from_pretrained(tmp_path / "m")
    else:
        found = Pipeline.from_pretrained(tmp_path / "m")
        assert torch.equal(found(RED).tensor, models[found.config.seed](RED).tensor)
        assert found.has_style == (found.config.seed == OLD)
        _ = found.style if found.has_style else None  # its hash is that of the model
    models[NEW].save_pretrained(tmp_path / "m")  # again, and it is whole, without what the kill left
    assert Pipeline.from_pretrained(tmp_path / "m").config.seed == NEW
    assert {path.name for path in (tmp_path / "m").iterdir()} == {
        "README.md",
        "config.json",
        "data.json",
        "model.safetensors",
    }


def test_a_kill_while_a_first_model_is_written_says_what_to_do(models, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        stop_at(patch, 2, Killed())
        with pytest.raises(Killed):
            models[OLD].save_pretrained(tmp_path / "m")
    with pytest.raises(t2i.CheckpointError, match=r"is not complete: .*; save it, copy it or download it again"):
        Pipeline.from_pretrained(tmp_path / "m")


@pytest.mark.parametrize("number", [1, 3, 4])
def test_a_full_disk_leaves_the_model_that_was_there(models, tmp_path, monkeypatch, number):
    models[OLD].save_pretrained(tmp_path / "m")
    before = {path.name: path.read_bytes() for path in (tmp_path / "m").iterdir()}
    with monkeypatch.context() as patch:
        stop_at(patch, number, OSError(28, "No space left on device"))
        with pytest.raises(t2i.CheckpointError, match=r"cannot write .*No space left on device; free some space"):
            models[NEW].save_pretrained(tmp_path / "m")
    assert {path.name: path.read_bytes() for path in (tmp_path / "m").iterdir()} == before


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("README.md", "# My project"),
        ("config.json", '{"architectures": ["Other"]}'),
        ("config.json", "half a fi"),
        ("checkpoints", None),
        ("style.json", None),
    ],
)
def test_what_is_no_saved_model_is_not_written_over(models, tmp_path, name, content):
    if content is None:
        (tmp_path / name).mkdir()
    else:
        (tmp_path / name).write_text(content)
    with pytest.raises(t2i.CheckpointError) as caught:
        models[OLD].save_pretrained(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert os.listdir(tmp_path) == [name]
    assert content is None or (tmp_path / name).read_text() == content


def test_a_folder_in_use_by_another_save_is_refused(models, tmp_path):
    with RunLock(tmp_path, "model", keep=False), pytest.raises(t2i.CheckpointError, match="is in use by another model"):
        models[OLD].save_pretrained(tmp_path)
    assert os.listdir(tmp_path) == []


def test_weights_that_are_not_finite_are_not_saved(models, tmp_path):
    broken = Pipeline(copy.deepcopy(models[OLD].generator), models[OLD].encoder, models[OLD].config)
    with torch.no_grad():
        broken.generator.to_rgb.weight[0] = torch.nan
    with pytest.raises(t2i.CheckpointError, match=r"generator\.to_rgb\.weight holds NaN or infinity"):
        broken.save_pretrained(tmp_path / "m")
    assert not (tmp_path / "m").exists()
