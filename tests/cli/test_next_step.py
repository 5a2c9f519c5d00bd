"""The caption of the command to try after a training: one that the model can read."""

import shlex
import shutil
import types
from pathlib import Path

import pytest

from helpers import call
from t2i.cli import main as cli
from t2i.cli.next_step import caption_to_try, next_command
from t2i.config.presets import EXAMPLE
from t2i.data.dataset import PackedDataset, record_dataset
from t2i.data.examples import examples, examples_of_run, first_captions
from t2i.demo.model import EXAMPLES, DemoModel
from t2i.errors import CheckpointError
from t2i.pipeline import Pipeline

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


def test_several_examples_are_distinct_and_the_short_ones_come_first():
    assert examples(["x" * 90, "a kite", "a kite", "!", "风筝", "a ship"], 3) == ["a kite", "风筝", "a ship"]
    assert examples(["x" * 90, "a kite"], 3) == ["a kite", "x" * 80]
    assert examples(["", "?"], 3) == []


def test_the_examples_of_a_run_are_of_its_data(tmp_path, tiny_blossoms):
    record_dataset(tmp_path, tiny_blossoms)
    found = examples_of_run(tmp_path, 3)
    assert len(found) == 3
    assert set(found) <= set(first_captions(tiny_blossoms))
    assert examples_of_run(None, 3) == examples_of_run(tmp_path / "nowhere", 3) == []
    gone = tmp_path / "gone"
    shutil.copytree(tiny_blossoms.path, gone)
    record_dataset(tmp_path, PackedDataset(gone))
    shutil.rmtree(gone)
    assert examples_of_run(tmp_path, 3) == []


@pytest.fixture
def run(tiny_run, tiny_blossoms, tmp_path):
    """A run whose data set is here."""
    shutil.copytree(tiny_run, tmp_path / "run")
    record_dataset(tmp_path / "run", tiny_blossoms)
    return tmp_path / "run"


def test_the_command_after_an_export_has_a_caption_of_the_data(run, tiny_blossoms, monkeypatch, capsys):
    exported = types.SimpleNamespace(summary=lambda: "a.onnx: 1 MB")
    monkeypatch.setattr("t2i.export.onnx.export", lambda *_: exported)
    cli._export(["--model", str(run), "--out", "a.onnx"])
    assert f"{caption_to_try(first_captions(tiny_blossoms))} --out picture.png" in capsys.readouterr().out


def test_the_command_after_a_style_encoder_has_a_caption_of_the_data(run, tiny_blossoms):
    small = ("--steps", 1, "--batch", 4, "--width", 8, "--threads", 1, "--precision", "float32")
    code, out, err = call("t2i-train", "style", "--model", run, *small)
    assert code == 0, err
    assert f"--style IMAGE {caption_to_try(first_captions(tiny_blossoms))} --out picture.png" in out


def test_the_demo_offers_captions_of_the_data(run, tiny_run, tiny_blossoms):
    assert set(DemoModel(Pipeline.from_pretrained(run)).examples) <= set(first_captions(tiny_blossoms))
    assert DemoModel(Pipeline.from_pretrained(tiny_run)).examples == list(EXAMPLES)  # where they are not here


@pytest.mark.parametrize("name", ["a b", "-dash", "--out", "数据", "it's $5", "line\nbreak", "-"])
def test_the_folder_of_the_command_to_try_is_one_word_and_no_flag(name):
    _, flag, path, *_ = shlex.split(next_command(Path(name), 38))
    assert flag == "--data"
    assert not path.startswith("-")
    assert Path(path) == Path(name)


def test_the_advice_of_a_missing_style_encoder_is_a_command_that_runs(tiny_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny_run, "-my run")
    with pytest.raises(CheckpointError) as caught:
        Pipeline.from_pretrained("-my run").style  # noqa: B018 (a property that loads)
    assert shlex.split(str(caught.value).rpartition(": ")[2]) == ["t2i-train", "style", "--model", "./-my run"]
