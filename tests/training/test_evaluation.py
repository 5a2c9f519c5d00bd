"""--eval-every and --keep best: they judge a run and do not change it."""

import json
import shutil

import pytest
import torch

from helpers import TINY, call, tiny_config, write_pack
from t2i.errors import ConfigError
from t2i.training import evaluation, loop
from t2i.training.evaluation import Evaluation
from t2i.training.gan import train
from t2i.training.progress import read_phase
from t2i.training.scorer import SCORER, independent_scorer
from t2i.weights import read_tensors, save_weights

pytestmark = pytest.mark.usefixtures("one_thread")
FIGURES = {"kid", "kid_real", "kid_pixels", "kid_pixels_real", "copies", "copies_real", "diversity"}


@pytest.fixture(scope="module")
def judged(tiny_blossoms, tmp_path_factory):
    """A run of 6 steps with three evaluations, which keeps the best."""
    folder = tmp_path_factory.mktemp("judged")
    train(tiny_config(eval_every=2, keep="best"), tiny_blossoms, folder)
    return folder


def test_each_evaluation_is_a_line_with_figures_of_generated_and_real_images(judged):
    lines = read_phase(judged / "metrics.jsonl", "evaluation")
    assert [line["step"] for line in lines] == [2, 4, 6]
    assert all(line.keys() >= FIGURES for line in lines)
    assert len({line["kid_real"] for line in lines}) == 1  # the same real images each time
    assert len({line["kid"] for line in lines}) == 3


@pytest.mark.promise(37)
def test_the_weights_are_those_of_a_run_that_nobody_judged(judged, tiny_blossoms, tmp_path):
    train(tiny_config(), tiny_blossoms, tmp_path)
    name = "checkpoints/step-00000006/state.safetensors"
    assert (judged / name).read_bytes() == (tmp_path / name).read_bytes()


@pytest.mark.promise(37)
def test_a_generator_that_is_judged_itself_goes_on_training_as_before(tiny_blossoms, tmp_path):
    for name, options in (
        ("judged", {"eval_every": 2}),
        ("alone", {}),
    ):  # without an average the generator is the model
        train(tiny_config(ema=0.0, **options), tiny_blossoms, tmp_path / name)
    name = "checkpoints/step-00000006/state.safetensors"
    assert (tmp_path / "judged" / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()


@pytest.mark.promise(37)
def test_a_run_killed_between_an_evaluation_and_its_checkpoint_writes_the_line_once(
    judged, tiny_blossoms, tmp_path, monkeypatch
):
    class Killed(BaseException):
        pass

    save = loop.Loop.save_if_due

    def killed(self, *arguments):
        if self.done == 4:
            raise Killed
        save(self, *arguments)

    config = tiny_config(eval_every=2, keep="best", checkpoint_every=1)
    with monkeypatch.context() as patch:
        patch.setattr(loop.Loop, "save_if_due", killed)
        with pytest.raises(Killed):
            train(config, tiny_blossoms, tmp_path)
    train(config, tiny_blossoms, tmp_path)
    lines = [
        [line for line in (run / "metrics.jsonl").read_text().splitlines() if '"evaluation"' in line]
        for run in (tmp_path, judged)
    ]
    assert lines[0] == lines[1]


@pytest.mark.promise(37)
def test_a_resumed_run_knows_what_was_the_best_unless_that_is_damaged(judged, tiny_blossoms, tmp_path):
    folder = shutil.copytree(judged, tmp_path / "run")
    arguments = (tiny_config(eval_every=2, keep="best"), tiny_blossoms, folder, torch.device("cpu"), torch.float32)
    assert Evaluation(*arguments).best == json.loads((judged / "best.json").read_text())
    (folder / "best.safetensors").write_bytes((judged / "best.safetensors").read_bytes()[:-1])
    assert Evaluation(*arguments).best is None


def test_the_model_is_the_best_and_the_checkpoint_the_last(judged):
    best = json.loads((judged / "best.json").read_text())
    assert best["step"] in (2, 4, 6)
    assert (judged / "model.safetensors").read_bytes() == (judged / "best.safetensors").read_bytes()


@pytest.mark.promise(37)
@pytest.mark.parametrize("place", [1, 2])
def test_a_run_killed_in_an_evaluation_ends_as_the_unbroken_one(judged, tiny_blossoms, tmp_path, monkeypatch, place):
    class Killed(BaseException):
        pass

    measure = evaluation.LiveFigures.__call__
    calls = []

    def killed(self, *arguments):
        calls.append(1)
        if len(calls) == place:
            raise Killed
        return measure(self, *arguments)

    monkeypatch.setattr(evaluation.LiveFigures, "__call__", killed)
    config = tiny_config(eval_every=2, keep="best", checkpoint_every=1)
    with pytest.raises(Killed):
        train(config, tiny_blossoms, tmp_path)
    train(config, tiny_blossoms, tmp_path)
    for name in ("model.safetensors", "best.safetensors", "best.json", "checkpoints/step-00000006/state.safetensors"):
        assert (tmp_path / name).read_bytes() == (judged / name).read_bytes(), name
    assert read_phase(tmp_path / "metrics.jsonl", "evaluation") == read_phase(judged / "metrics.jsonl", "evaluation")


VALUES = {"kid": 5.0, "kid_pixels": 5.0, "r_precision": 0.5, "copies": 0.01, "copies_real": 0.01}


@pytest.mark.parametrize(
    ("later", "better"),
    [
        ({"kid": 4.0}, True),
        ({"kid": 6.0}, False),
        ({"kid": 4.0, "kid_pixels": 7.0}, False),  # their sum counts
        ({"kid": 4.0, "r_precision": 0.49}, True),  # lower by less than a standard error of 500
        ({"kid": 4.0, "r_precision": 0.47}, False),
        ({"kid": 4.0, "copies": 0.031}, False),
        ({"kid": 6.0, "r_precision": 0.9}, False),
    ],
)
def test_the_rule_of_the_best(later, better):
    judge = object.__new__(Evaluation)
    judge.count, judge.best = 500, {"step": 10.0, **VALUES}
    assert judge._is_better(20, VALUES | later) is better
    assert judge._is_better(5, VALUES | later) is False  # decided before the kill
    assert judge._is_better(10, VALUES | later) is True  # written again


def test_a_damaged_best_is_forgotten(judged, tiny_blossoms, tmp_path):
    train(tiny_config(eval_every=6, keep="best"), tiny_blossoms, tmp_path)
    damaged = bytearray((tmp_path / "best.safetensors").read_bytes())
    damaged[-1] ^= 1
    (tmp_path / "best.safetensors").write_bytes(damaged)
    judge = object.__new__(Evaluation)
    judge.folder = tmp_path
    assert judge._read_best() is None
    judge.folder = judged
    assert judge._read_best() is not None


@pytest.mark.parametrize(
    ("changes", "kept"),
    [({}, True), ({"kid": float("nan")}, False), ({"copies": None}, False), ({"kid": "worse"}, False), (None, False)],
)
def test_a_best_without_the_figures_it_was_chosen_by_is_forgotten(tmp_path, changes, kept):
    """It would end the run at the next evaluation; one of NaN would never be replaced."""
    save_weights(tmp_path / "best.safetensors", {"generator": torch.nn.Linear(2, 2)})
    figures = {"step": 2.0, **VALUES} | (changes or {})
    (tmp_path / "best.json").write_text(json.dumps({} if changes is None else figures))
    evaluated = object.__new__(Evaluation)
    evaluated.folder = tmp_path
    assert evaluated._read_best() == (figures if kept else None)


@pytest.mark.parametrize("command", ["train", "dry run"])
def test_data_of_too_few_images_to_judge_by_are_refused_before_anything_is_trained(tmp_path, command):
    write_pack(tmp_path / "few", [("a", ["red"], False), ("b", ["blue"], False)])
    code, _, err = call(
        "t2i-train", *TINY, "--data", tmp_path / "few", "--out", tmp_path / "run", "--steps", 2, "--eval-every", 1,
        *(["--dry-run"] if command == "dry run" else []),
    )  # fmt: skip
    assert code == 2
    assert "--eval-every needs at least 6 training images" in err
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_the_scorer_is_trained_once(tiny_blossoms, tmp_path, monkeypatch):
    arguments = (tiny_blossoms, 16, 0, tmp_path / "scorer", torch.device("cpu"), torch.float32)
    first = independent_scorer(*arguments)
    written = (tmp_path / "scorer" / "text.safetensors").read_bytes()
    monkeypatch.setattr("t2i.training.scorer._trained", lambda *_: pytest.fail("trained again"))
    again = independent_scorer(*arguments)
    assert (tmp_path / "scorer" / "text.safetensors").read_bytes() == written
    assert torch.equal(first.text.vectors, again.text.vectors)


def test_a_scorer_whose_weights_are_gone_is_trained_again(tiny_blossoms, tmp_path):
    arguments = (tiny_blossoms, 16, 0, tmp_path / "scorer", torch.device("cpu"), torch.float32)
    first = independent_scorer(*arguments)
    (tmp_path / "scorer" / "text.safetensors").unlink()
    assert torch.equal(independent_scorer(*arguments).text.vectors, first.text.vectors)


def test_a_text_encoder_in_the_place_of_the_scorer_is_left_alone(tiny_blossoms, tmp_path):
    arguments = (tiny_blossoms, 16, 0, tmp_path / "scorer", torch.device("cpu"), torch.float32)
    independent_scorer(*arguments)
    record = json.loads((tmp_path / "scorer" / "text.json").read_text())
    del record["images"]  # that of t2i-train text
    (tmp_path / "scorer" / "text.json").write_text(json.dumps(record))
    before = (tmp_path / "scorer" / "text.safetensors").stat().st_mtime_ns
    with pytest.raises(ConfigError, match=r"scorer holds a text encoder.*move it elsewhere"):
        independent_scorer(*arguments)
    assert (tmp_path / "scorer" / "text.safetensors").stat().st_mtime_ns == before


def test_half_of_the_training_images_are_enough_for_a_scorer_that_tells_captions_apart(judged):
    values = read_phase(judged / "metrics.jsonl", "evaluation")[0]
    assert values.get("r_precision_real", 1.0) > 0.03  # chance 0.01
    assert SCORER.kind == "ngrams"


def test_the_best_needs_evaluations():
    with pytest.raises(ConfigError, match="--keep best needs evaluations"):
        tiny_config(keep="best")


def test_the_verdict_is_printed_at_the_end(tiny_blossoms_folder, tmp_path):
    code, _, err = call(
        "t2i-train", *TINY, "--data", tiny_blossoms_folder, "--steps", 2, "--eval-every", 2, "--keep", "best",
        "--out", tmp_path / "run",
    )  # fmt: skip
    assert code == 0, err
    assert "copies: " in err
    assert "the model is that of step 2" in err
    assert set(read_tensors(tmp_path / "run" / "model.safetensors"))
