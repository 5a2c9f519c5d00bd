"""Other ways to be asked to end than Ctrl-C, and output that nobody takes."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from promises import cases, count
from runs import moment, steps_saved
from test_kill import chosen, logged
from test_processes import FLAGS

SIGNALS = (signal.SIGHUP, signal.SIGXCPU, signal.SIGUSR1)
OUTPUTS = ("full disk", "closed pipe", "closed")


@pytest.mark.promise(36)
@pytest.mark.parametrize("case", cases(36)[: count(36) // 2])
def test_a_terminal_that_is_closed_or_a_time_limit_leaves_a_checkpoint(forge, request, tmp_path, case):
    """Inside a loop each is as SIGTERM, and comes twice in every other case, as a closed terminal sends it."""
    run = chosen(case, request)
    folder, out = run.begin(tmp_path / "run"), tmp_path / "seen.json"
    number, twice = SIGNALS[case % 3], case % 2 == 1
    arguments = {"what": run.what, "data": run.data, "folder": folder}
    at = moment(f"end {case}", run.calls)
    code, errors = forge("signalled", at=at, number=number, out=out, twice=twice, **arguments)
    if code == 130:
        seen = json.loads(out.read_text())
        assert seen["after"] <= 1
        assert "run the same command to resume" in errors
        if run.what == "gan":
            assert steps_saved(folder) == (seen["text"], seen["gan"])
    else:  # outside a loop everything is on the disk; or it came while the last weights were written
        assert code == 0 or (code == -number and Path(f"{out}.inside").read_text() == "False"), errors
    code, errors = forge("train", **arguments)
    assert code == 0, errors
    assert run.result(folder) == run.hash
    assert logged(folder) == logged(run.folder)


@pytest.mark.promise(36)
@pytest.mark.parametrize("case", cases(36)[count(36) // 2 :])
def test_output_that_nobody_takes_is_no_reason_to_end(forge, request, tmp_path, case):
    """stderr, and every other time stdout, is a full disk, a pipe without a reader, or closed, from a moment on."""
    run = chosen(case, request)
    folder = run.begin(tmp_path / "run")
    code, errors = forge(
        "muted",
        what=run.what,
        data=run.data,
        folder=folder,
        at=moment(f"muted {case}", run.calls),
        how=OUTPUTS[case % 3],
        both=case % 2 == 1,
    )
    assert code == 0, errors
    assert run.result(folder) == run.hash
    assert logged(folder) == logged(run.folder)


@pytest.mark.promise(36)
@pytest.mark.parametrize("target", ["/dev/full", "head"])
def test_the_command_trains_to_its_end_when_its_reader_leaves(tiny_blossoms_folder, tmp_path, target):
    program = "import sys; sys.argv = ['t2i-train', *sys.argv[1:]]; from t2i.cli.main import train; train()"
    command = [
        sys.executable,
        "-c",
        program,
        "--data",
        str(tiny_blossoms_folder),
        "--out",
        str(tmp_path / "run"),
        *FLAGS,
    ]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}
    if target == "head":
        reading, writing = os.pipe()
        os.close(reading)
    else:
        writing = os.open(target, os.O_WRONLY)
    done = subprocess.run(command, env=environment, stdout=writing, stderr=writing)
    os.close(writing)
    assert done.returncode == 0
    assert (tmp_path / "run" / "checkpoints" / "step-00000010" / "state.json").exists()
