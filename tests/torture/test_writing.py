"""What a writer leaves when it is stopped, when the disk is full, when a bit flips; and in which order it writes."""

import contextlib
import itertools
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from promises import cases, count
from runs import leftovers, sha256
from t2i.training.checkpoint import Checkpoints
from victims import small_state


def restored(folder):
    """Restore into a fresh network: (step, lines, weights)."""
    net = torch.nn.Linear(8, 2, bias=False)
    torch.nn.init.zeros_(net.weight)
    adam = torch.optim.Adam(net.parameters(), lr=0.0)
    step, lines = Checkpoints(folder, {"net": net}, {"adam": adam}).restore()
    return step, lines, net.weight.detach()


FIRST = torch.linspace(0, 1, 16).view(2, 8)
SAVED = {10: FIRST, 20: FIRST + 1}


@pytest.mark.promise(2)
def test_the_newest_whole_checkpoint_loads_wherever_its_writer_was_stopped(forge, tmp_path, tally):
    code, errors = forge("stopped_writer", folder=tmp_path / "whole", at=None)
    assert code == 0, errors
    units = int((tmp_path / "whole" / "units.txt").read_text())
    found = []
    for case in tally(cases(2)):
        folder = tmp_path / str(case)
        code, errors = forge("stopped_writer", folder=folder, at=1 + case * (units - 1) // max(1, count(2) - 1))
        assert code == -9, errors
        step, lines, weights = restored(folder)
        assert lines == []
        assert torch.equal(weights, SAVED[step])
        assert not leftovers(folder)  # cleared away by the one that restored
        found.append(step)
        shutil.rmtree(folder)
    assert found == sorted(found)
    assert set(found) == {10, 20}  # the last units come after the rename


@contextlib.contextmanager
def small_disk(folder, size):
    """Mount a file system of `size` bytes in memory; skips where that is not allowed."""
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def files_of(folder):
    return {str(path.relative_to(folder)): sha256(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def checkpoints_of(folder):
    return {str(path.relative_to(folder)): sha256(path) for path in sorted(folder.rglob("checkpoints/step-*/*"))}


@pytest.mark.promise(3)
@pytest.mark.parametrize("case", cases(3))
def test_a_full_disk_keeps_the_checkpoint_before_and_says_what_to_do(forge, unbroken, tmp_path, case):
    """The disk fills up after four of six steps, with room for 0 to 23/24 of a checkpoint: in metrics, a picture or a save."""
    with small_disk(tmp_path / "disk", 64 << 20) as disk:
        folder = disk / "run"
        arguments = {"data": unbroken.data, "folder": folder}
        code, errors = forge("train", **arguments, steps=4)
        assert code == 0, errors
        before = checkpoints_of(folder)
        newest = "checkpoints/step-00000004/state.safetensors"
        room = (folder / newest).stat().st_size * (case * 5 % 24) // 24
        with open(disk / "filler", "wb") as filler, contextlib.suppress(OSError):
            for _ in range(1 << 20):
                filler.write(bytes(1 << 16))
                filler.flush()
        os.truncate(disk / "filler", (disk / "filler").stat().st_size // 4096 * 4096 - room // 4096 * 4096)
        code, errors = forge("train", **arguments)
        assert code == 2, errors
        assert "No space left on device; free some space" in errors
        assert "Traceback" not in errors
        assert checkpoints_of(folder) == before
        assert not leftovers(folder)
        (disk / "filler").unlink()
        code, errors = forge("train", **arguments)
        assert code == 0, errors
        assert unbroken.result(folder) == unbroken.hash


@pytest.mark.promise(3)
@pytest.mark.parametrize(
    ("name", "at"),
    [
        ("metrics.jsonl", 1),
        ("state.safetensors", 1),
        ("state.json", 1),
        ("model.safetensors", 1),
        ("step-0000006.png", 1),
        ("config.json", 1),
    ],
)
def test_whichever_file_the_disk_is_full_at_is_left_as_it_was(forge, unbroken, tmp_path, name, at):
    """After four of six steps, half of it is written; of metrics.jsonl only that half line may be there."""
    folder = tmp_path / "run"
    arguments = {"data": unbroken.data, "folder": folder}
    code, errors = forge("train", **arguments, steps=4)
    assert code == 0, errors
    before, lines = files_of(folder), (folder / "metrics.jsonl").read_bytes()
    code, errors = forge("full_disk_at", name=name, at=at, **arguments)
    assert code == 2, errors
    assert "No space left on device; free some space" in errors
    assert "Traceback" not in errors
    after = files_of(folder)
    again = {"metrics.jsonl", "config.json", ".holder"} - {name}  # what was written before the disk was full
    if name == "model.safetensors":  # the checkpoint of step 6 is there, for which that of step 2 has gone
        again |= {path for path in before if "step-00000002" in path}
    assert {path for path in before.keys() - again if before[path] != after.get(path)} <= {"metrics.jsonl"}
    assert (folder / "metrics.jsonl").read_bytes().startswith(lines)
    assert not leftovers(folder)
    code, errors = forge("train", **arguments)
    assert code == 0, errors
    assert unbroken.result(folder) == unbroken.hash


@pytest.mark.promise(4)
@pytest.mark.parametrize("case", cases(4))
def test_every_save_is_flushed_before_it_is_renamed_and_its_folder_after(forge, request, tmp_path, case):
    run = request.getfixturevalue("unbroken_style" if case == 2 else "unbroken")
    text = {"encoder": "end-to-end"} if case == 1 else {}
    changes = {"text": text, "alignment_weight": 0.0} if text else {}
    folder, out = run.begin(tmp_path / "run"), tmp_path / "events.json"
    code, errors = forge("recorded", what=run.what, data=run.data, folder=folder, out=out, **changes)
    assert code == 0, errors
    events = [tuple(event) for event in json.loads(out.read_text())]
    renames = [index for index, event in enumerate(events) if event[0] == "rename"]
    made = [Path(path) for operation, path, _ in events if operation == "make" and "checkpoints" in path]
    assert {"checkpoints", "step-00000006"} <= {path.name for path in made} | {Path(event[2]).name for event in events}
    for path in made:  # before anything is put into it
        begun = events.index(("make", str(path), ""))
        inside = next(index for index, event in enumerate(events) if event[1].startswith(f"{path}/"))
        assert ("flush folder", str(path.parent)) in [event[:2] for event in events[begun:inside]]
    targets = {Path(events[index][2]).name for index in renames}
    assert {run.model, "state.safetensors", "state.json", "step-00000006"} <= targets
    for index, following in itertools.zip_longest(renames, renames[1:], fillvalue=len(events)):
        _, source, target = events[index]
        if not Path(target).suffix:  # step-..., a folder, of files that were saved in the same way
            assert ("flush folder", source) in [event[:2] for event in events[:index]]
        else:
            own = [event[0] for event in events[:index] if event[1] == source]
            assert own[-2:] == ["write", "flush file"]
        assert ("flush folder", str(Path(target).parent)) in [event[:2] for event in events[index:following]]


@pytest.mark.promise(5)
def test_one_flipped_bit_of_a_checkpoint_is_refused_for_the_one_before(tmp_path, tally):
    """Half of the bits in state.json, which is small, and half in state.safetensors; spread evenly."""
    net, checkpoints = small_state(tmp_path)
    for step in (10, 20):
        net.weight.data.copy_(SAVED[step])
        checkpoints.save(step, {"data": "of a test", "settings": {"batch": 8}})
    newest = tmp_path / "checkpoints" / "step-00000020"
    files = [newest / "state.json", newest / "state.safetensors"]
    for case in tally(cases(5)):
        path = files[case % 2]
        whole = path.read_bytes()
        bit = (case // 2) * (len(whole) * 8 - 1) // max(1, count(5) // 2 - 1)
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        step, lines, weights = restored(tmp_path)
        assert step == 10, (path.name, bit)
        assert torch.equal(weights, SAVED[10])
        assert len(lines) == 1
        assert "skipped a damaged checkpoint" in lines[0]
        path.write_bytes(whole)
    assert restored(tmp_path)[0] == 20


@pytest.mark.promise(5)
def test_one_good_checkpoint_remains_whatever_is_damaged_between_two_saves(tmp_path, tally):
    """Each save is followed by a flipped bit in the newest checkpoint, and each restore by a save at or after that step."""
    for case in tally(range(20 if len(cases(5)) > 100 else 4)):
        folder = tmp_path / str(case)
        net, checkpoints = small_state(folder)
        checkpoints.save(10, {"data": "of a test"})
        good, step = 10, 10
        for turn in range(6):
            step += (10, 10, 5)[(case + turn) % 3]
            net.weight.data.fill_(step)
            checkpoints.save(step, {"data": "of a test"})
            newest = (
                folder / "checkpoints" / f"step-{step:08d}" / ("state.safetensors", "state.json")[(case + turn) % 2]
            )
            if turn % 3 == 2:  # whole this time
                good = step
                continue
            damaged = bytearray(newest.read_bytes())
            damaged[(case * 97 + turn * 31) % len(damaged)] ^= 1
            newest.write_bytes(damaged)
            net, checkpoints = small_state(folder)  # the same command again
            step, _ = checkpoints.restore({"data": "of a test"})
            assert step == good, (case, turn)
            assert good == 10 or (net.weight == good).all()


@pytest.mark.promise(5)
def test_a_checkpoint_newer_than_the_one_that_is_saved_is_set_aside(tmp_path):
    """Left in place, it would be resumed from next time, and the one that was just saved be forgotten."""
    net, checkpoints = small_state(tmp_path)
    checkpoints.save(30, {"data": "of a test"})
    net.weight.data.fill_(7)
    small = Checkpoints(tmp_path, {"net": net}, checkpoints.optimizers)  # which has restored nothing
    small.save(20, {"data": "of a test"})
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == [
        "damaged-step-00000030",
        "step-00000020",
    ]
    step, lines, weights = restored(tmp_path)
    assert (step, lines) == (20, [])
    assert (weights == 7).all()
