"""Long runs, runs of one seed, and numbers that are not finite."""

import json

import pytest
import torch
import torch.nn.functional as F

from promises import TORTURE, cases, count
from runs import sha256
from t2i.ops.convolution import convolution, transposed_convolution
from t2i.ops.one_hot_convolution import one_hot_convolution
from t2i.weights import read_tensors


@pytest.mark.promise(22)
def test_memory_and_open_files_do_not_grow(forge, tiny_blossoms_folder, tmp_path, tally):
    """After a quarter of the steps the library has allocated what it keeps; then nothing may come on top."""
    out, steps = tmp_path / "seen.json", count(22)
    arguments = {"data": tiny_blossoms_folder, "folder": tmp_path / "run", "steps": steps, "out": out}
    for _ in tally(range(steps)[:1]):
        code, errors = forge("measured", deadline=3600 if TORTURE else 100, **arguments)
        assert code == 0, errors
        seen = json.loads(out.read_text())[4:]
        assert len(seen) == 16
        memory, files = zip(*seen, strict=True)
        assert max(memory) < 1.01 * memory[0], memory
        assert len(set(files)) == 1
    tally.seen[:] = [steps, steps]


def unspoiled(folder):
    """Every tensor that a run saved is finite."""
    for path in folder.rglob("*.safetensors"):
        for name, tensor in read_tensors(path).items():
            assert torch.isfinite(tensor.float()).all(), f"{path}: {name}"


def skipped(folder, phase):
    """How many skipped steps the last line of a phase tells of."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line.get("skipped", 0) for line in lines if line["phase"] == phase][-1]


PHASES = {"text": (0, 5), "gan": (5, 17), "style": (0, 6)}  # which updates of a run are a phase's


@pytest.mark.promise(23)
@pytest.mark.parametrize("case", cases(23))
def test_a_number_that_is_not_finite_is_skipped_counted_and_never_saved(forge, request, tmp_path, case):
    """A loss or a gradient, NaN or infinity, in one update of the GAN (of D or G), of the text or of the style encoder."""
    phase = ("gan", "gan", "text", "style")[case % 4]
    run = request.getfixturevalue("unbroken_style" if phase == "style" else "unbroken")
    folder, (first, last) = run.begin(tmp_path / "run"), PHASES[phase]
    at = first + (case * 5 // 4) % (last - first)
    place, value = ("loss", "gradient")[(case + case // 4) % 2], ("nan", "inf", "-inf")[case % 3]
    code, errors = forge("spoiled", what=run.what, data=run.data, folder=folder, place=place, value=value, calls=[at])
    assert code == 0, errors
    assert skipped(folder, phase) == 1
    assert run.result(folder) != run.hash  # the update was really left out
    unspoiled(folder)


@pytest.mark.promise(23)
@pytest.mark.parametrize("phase", PHASES if TORTURE else ["gan"])
def test_ten_in_a_row_stop_the_run_at_its_last_good_checkpoint(forge, request, tmp_path, phase):
    run = request.getfixturevalue("unbroken_style" if phase == "style" else "unbroken")
    folder, first = run.begin(tmp_path / "run"), PHASES[phase][0]
    calls = list(range(first + 6, 100))  # a checkpoint comes every second step before them
    changes = {"text": {"steps": 40}} if phase == "text" else {"steps": 40}
    code, errors = forge(
        "spoiled", what=run.what, data=run.data, folder=folder, place="loss", value="nan", calls=calls, **changes
    )
    assert code == 2, errors
    assert "not finite in 10 steps in a row" in errors
    assert "the last good checkpoint is" in errors
    unspoiled(folder)


@pytest.mark.promise(23)
def test_a_run_of_which_every_second_step_is_skipped_goes_on(forge, unbroken, tmp_path):
    """Ten in a row end a run, and ten in all do not."""
    folder, calls = tmp_path / "run", list(range(PHASES["gan"][0], 100, 4))  # a step has two updates
    arguments = {"data": unbroken.data, "folder": folder, "place": "loss", "value": "nan", "calls": calls}
    code, errors = forge("spoiled", what="gan", steps=30, **arguments)
    assert code == 0, errors
    assert skipped(folder, "gan") == 15


@pytest.mark.promise(25)
@pytest.mark.parametrize("case", cases(25))
def test_two_runs_of_one_seed_are_equal_to_the_bit(forge, tiny_blossoms_folder, tmp_path, case):
    """Odd cases learn the text end to end; every third has two threads."""
    changes = {"seed": case, "threads": 2 if case % 3 == 2 else 1}
    if case % 2:
        changes |= {"text": {"encoder": "end-to-end"}, "alignment_weight": 0.0, "mismatch": "text", "stages": True}
    ends = []
    for name in ("one", "two"):
        folder = tmp_path / name
        code, errors = forge("train", data=tiny_blossoms_folder, folder=folder, **changes)
        assert code == 0, errors
        state = folder / "checkpoints" / "step-00000006" / "state.safetensors"
        picture = folder / "samples" / "step-0000006.png"
        ends.append([sha256(path) for path in (folder / "model.safetensors", state, picture)])
    assert ends[0] == ends[1]


@pytest.mark.promise(24)
def test_fused_operations_have_the_gradients_of_their_references_in_float64(tally):
    """Shapes of chance, the same in every session."""
    rng = torch.Generator().manual_seed(24)

    def pick(low, high):
        return int(torch.randint(low, high + 1, (), generator=rng))

    def normal(*shape):
        return torch.randn(shape, generator=rng, dtype=torch.float64)

    for case in tally(range(count(24) - 2)):  # test_speed_paths.py compares two trainings, compiled and eager
        batch, before, after, taps = pick(1, 4), pick(1, 5), pick(1, 5), pick(1, 4)
        if case % 3 == 2:
            captions = torch.randint(0, 73, (batch, pick(taps, 30)), generator=rng)
            weight, bias = normal(after, 70, taps).requires_grad_(), normal(after).requires_grad_()
            ours, theirs = (one_hot_convolution(captions, weight, bias, impl=i) for i in ("gather", "reference"))
            inputs = (weight, bias)
        else:
            stride, padding = pick(1, 2), pick(0, taps - 1)
            x = normal(batch, before, pick(taps, 9), pick(taps, 9)).requires_grad_()
            shape = (after, before, taps, taps) if case % 3 == 0 else (before, after, taps, taps)
            weight = normal(*shape).requires_grad_()
            if case % 3 == 0:
                ours = convolution(x, weight, None, stride, padding, impl="product")
                theirs = F.conv2d(x, weight, None, stride, padding)
            else:
                padding = min(padding, (taps - 1) // 2)  # a larger one may leave no output
                ours = transposed_convolution(x, weight, None, stride, padding, impl="product")
                theirs = F.conv_transpose2d(x, weight, None, stride, padding)
            inputs = (x, weight)
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
        grad = normal(*ours.shape)
        pairs = zip(torch.autograd.grad(ours, inputs, grad), torch.autograd.grad(theirs, inputs, grad), strict=True)
        for mine, reference in pairs:
            torch.testing.assert_close(mine, reference, rtol=1e-10, atol=1e-10)
