"""Killed or signalled at any moment, the same command ends with the weights of the run that was not."""

import json
import signal
from pathlib import Path

import pytest

from promises import cases
from runs import leftovers, moment, sha256, steps_saved

STEPS = [*(("text", step) for step in range(1, 6)), *(("gan", step) for step in range(1, 7))]


def logged(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [(line["phase"], line["step"]) for line in lines]


def chosen(case, request):
    """Every seventh case trains a style encoder."""
    return request.getfixturevalue("unbroken_style" if case % 7 == 6 else "unbroken")


@pytest.mark.promise(1)
@pytest.mark.parametrize("case", cases(1))
def test_a_run_that_was_killed_ends_with_the_weights_of_the_unbroken_one(forge, request, tmp_path, case):
    """Two of five cases, 20 of 50, die inside what is written, after a byte of chance; a third of all die twice."""
    run = chosen(case, request)
    folder = run.begin(tmp_path / "run")
    arguments = {"what": run.what, "data": run.data, "folder": folder}
    kind, limit = ("killed_in_write", run.units) if case % 5 < 2 else ("killed_at_call", run.calls)
    code, errors = forge(kind, at=moment(case, limit), **arguments)
    assert code == -signal.SIGKILL, errors
    if case % 3 == 0:
        code, errors = forge("killed_at_call", at=moment(case, run.calls) // 2 + 1, **arguments)
        assert code in (-signal.SIGKILL, 0), errors  # what was left to do may have been less than that
    code, errors = forge("train", **arguments)
    assert code == 0, errors
    assert run.result(folder) == run.hash
    assert not leftovers(folder)
    assert logged(folder) == logged(run.folder)


@pytest.mark.promise(1)
@pytest.mark.parametrize(
    ("name", "at"),
    [("config.json", 1), ("text.safetensors", 1), ("step-0000003.png", 1), ("model.safetensors", 3)],
)
def test_what_was_not_yet_in_its_place_is_put_there_by_the_next_run(forge, unbroken, tmp_path, name, at):
    """The last: every step was done and saved, and the model of the folder is still that of step 4."""
    folder = tmp_path / "run"
    arguments = {"data": unbroken.data, "folder": folder}
    code, errors = forge("killed_before_rename", name=name, at=at, **arguments)
    assert code == -signal.SIGKILL, errors
    assert [path for path in leftovers(folder) if name in path]
    code, errors = forge("train", **arguments)
    assert code == 0, errors
    assert unbroken.result(folder) == unbroken.hash
    assert not leftovers(folder)
    assert logged(folder) == logged(unbroken.folder)


@pytest.mark.promise(6)
@pytest.mark.parametrize("case", cases(6))
def test_a_signal_ends_the_run_within_a_step_with_all_of_it_saved(forge, request, tmp_path, case):
    """Half are SIGTERM, half SIGINT; every fourth sends the signal twice and ends where it is."""
    run = chosen(case, request)
    folder, out = run.begin(tmp_path / "run"), tmp_path / "seen.json"
    number, twice = (signal.SIGTERM, signal.SIGINT)[case % 2], case % 4 == 3
    arguments = {"what": run.what, "data": run.data, "folder": folder}
    at = moment(f"signal {case}", run.calls)
    if case % 4 < 2:  # half of them in the second half of the calls, where it is in a loop nearly always
        at = (run.calls + at) // 2
    code, errors = forge("signalled", at=at, number=number, out=out, twice=twice, **arguments)
    if twice:
        assert code == -number or (code == 130 and "stopped" not in errors), (
            errors
        )  # outside a loop, the first ended it
    elif code != 0:  # 0: it came while the last step's weights were written
        inside = Path(f"{out}.inside").read_text() == "True"
        assert code == 130 or (not inside and code == -signal.SIGTERM), (inside, errors)
        assert not inside or "run the same command to resume" in errors
        if out.exists():
            seen = json.loads(out.read_text())
            assert seen["after"] <= 1
            if run.what == "gan":
                assert steps_saved(folder) == (seen["text"], seen["gan"])
    code, errors = forge("train", **arguments)
    assert code == 0, errors
    assert run.result(folder) == run.hash
    assert logged(folder) == logged(run.folder)


def test_the_unbroken_run_logs_every_step_once(unbroken):
    assert logged(unbroken.folder) == STEPS
    assert sha256(unbroken.folder / "model.safetensors") == unbroken.hash
