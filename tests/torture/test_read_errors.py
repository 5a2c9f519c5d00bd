"""What cannot be read, and what must not be saved: checkpoints that stay where they are, and numbers that are not finite."""

import errno
import itertools
import math
import os
import re
from pathlib import Path

import pytest
import torch

import t2i
from promises import cases
from runs import sha256
from t2i.config.options import StyleConfig, TextOptions, TrainConfig
from t2i.errors import Diverged
from t2i.training.checkpoint import Checkpoints
from t2i.training.guard import CALM, NonFiniteGuard
from victims import small_state

pytestmark = pytest.mark.usefixtures("one_thread")
FAILURES = (
    errno.EIO,
    errno.ESTALE,
    errno.EMFILE,
    errno.EACCES,
    errno.ENFILE,
    errno.EPERM,
    errno.ETIMEDOUT,
    errno.ENOMEM,
)
PLACES = ("state.json", "state.safetensors", "the list")
UNREADABLE = [(code, place, force) for place, code, force in itertools.product(PLACES, FAILURES, (False, True))]


def contents(folder):
    return {str(path.relative_to(folder)): sha256(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def two_checkpoints(folder):
    net, checkpoints = small_state(folder)
    checkpoints.save(10, {"data": "a"})
    net.weight.data.add_(1)
    checkpoints.save(20, {"data": "a"})
    return contents(folder)


def failing(place, code, real_read, real_list):
    def read(self):
        if self.name == place and self.parent.name.startswith("step-"):
            raise OSError(code, os.strerror(code), str(self))
        return real_read(self)

    def listed(folder="."):
        if place == "the list" and Path(folder).name == "checkpoints":
            raise OSError(code, os.strerror(code), str(folder))
        return real_list(folder)

    return read, listed


@pytest.mark.promise(31)
def test_a_checkpoint_that_cannot_be_read_just_now_stops_the_run_and_stays(tmp_path, monkeypatch, tally):
    before = two_checkpoints(tmp_path)
    wanted = cases(31)[: len(cases(31)) // 2]
    for case in tally(wanted):
        code, place, force = UNREADABLE[case * len(UNREADABLE) // len(wanted)]
        read, listed = failing(place, code, Path.read_bytes, os.listdir)
        net, checkpoints = small_state(tmp_path)
        weights = net.weight.detach().clone()
        with monkeypatch.context() as patch:
            patch.setattr(Path, "read_bytes", read)
            patch.setattr(os, "listdir", listed)
            with pytest.raises(
                t2i.CheckpointError, match=rf"cannot read .*{os.strerror(code)}; nothing was changed"
            ) as caught:
                checkpoints.restore({"data": "a"}, force)
        assert "\n" not in str(caught.value)
        assert contents(tmp_path) == before
        assert torch.equal(net.weight, weights)
    assert small_state(tmp_path)[1].restore({"data": "a"})[0] == 20  # once it can be read again


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


def emptied(path):
    path.write_bytes(b"")


def flipped(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def removed(path):
    path.unlink()


def a_folder(path):
    path.unlink()
    path.mkdir()


def deep(path):
    path.write_bytes(b'{"step":' + b"[" * 100_000)


DAMAGES = [(damage, name) for damage in (cut, emptied, flipped, removed, a_folder) for name in PLACES[:2]] + [
    (deep, PLACES[0])
]
BOTH = list(itertools.product(DAMAGES, DAMAGES))


@pytest.mark.promise(31)
def test_where_no_checkpoint_is_sound_the_run_stops_and_force_sets_them_aside(tmp_path, tally):
    wanted = cases(31)[len(cases(31)) // 2 :]
    for number, _ in enumerate(tally(wanted)):
        folder = tmp_path / str(number)
        two_checkpoints(folder)
        for step, (damage, name) in zip((10, 20), BOTH[number * 37 % len(BOTH)], strict=True):
            damage(folder / "checkpoints" / f"step-{step:08d}" / name)
        before = contents(folder)
        _, checkpoints = small_state(folder)
        with pytest.raises(
            t2i.CheckpointError, match=r"no checkpoint of .* can be loaded .*; nothing was changed: .*--force"
        ):
            checkpoints.restore({"data": "a"})
        assert contents(folder) == before
        step, lines = checkpoints.restore({"data": "a"}, force=True)
        assert step == 0
        assert len(lines) == 3
        for later in (10, 20, 30, 40):
            checkpoints.save(later, {"data": "a"})
        after = contents(folder)
        assert {
            name.replace("step-", "damaged-step-"): digest for name, digest in before.items()
        }.items() <= after.items()
        assert checkpoints.restore({"data": "a"})[0] == 40


def test_the_commands_exit_code_is_2_and_force_begins_anew(forge, unbroken, tmp_path):
    folder = tmp_path / "run"
    arguments = {"data": unbroken.data, "folder": folder}
    code, errors = forge("train", **arguments, steps=4)
    assert code == 0, errors
    for path in folder.glob("checkpoints/*/state.safetensors"):
        flipped(path)
    before = contents(folder / "checkpoints")
    code, errors = forge("train", **arguments)
    assert code == 2, errors
    assert "no checkpoint of" in errors
    assert contents(folder / "checkpoints") == before
    code, errors = forge("train", **arguments, force=True)
    assert code == 0, errors
    assert "training starts over" in errors
    assert unbroken.result(folder) == unbroken.hash
    assert set(before.values()) <= set(contents(folder / "checkpoints").values())


SPOILED = list(
    itertools.product(("weight", "buffer", "exp_avg", "exp_avg_sq"), (math.nan, math.inf, -math.inf), (0, -1))
)


@pytest.mark.promise(35)
def test_a_number_that_is_not_finite_is_not_saved_wherever_it_is(tmp_path, tally):
    """In a weight, a running statistic or a moment of the optimizer, at the first place or the last."""
    net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    adam = torch.optim.Adam(net.parameters(), lr=0.01)
    net(torch.randn(8, 3)).sum().backward()
    adam.step()
    checkpoints = Checkpoints(tmp_path, {"net": net}, {"adam": adam})
    checkpoints.save(10, {})
    before = contents(tmp_path)
    found = r"is not finite after step 20, which was not saved; the last good .*step-00000010"
    for case in tally(range(min(len(SPOILED), len(cases(35)) // 2))):
        where, value, at = SPOILED[case * 7 % len(SPOILED)]
        moments = adam.state[net[0].weight]
        tensor = {"weight": net[0].weight.data, "buffer": net[1].running_var}.get(where, moments.get(where)).view(-1)
        held = tensor[at].item()
        tensor[at] = value
        with pytest.raises(Diverged, match=found):
            checkpoints.save(20, {})
        assert contents(tmp_path) == before
        tensor[at] = held
    assert checkpoints.save(20, {}).name == "step-00000020"


@pytest.mark.promise(35)
def test_rates_that_no_training_survives_are_refused_by_name(tally):
    kinds = [TrainConfig, TextOptions, lambda **changes: StyleConfig(model="m", **changes)]
    values = (math.inf, math.nan, 1e30, 1e9, 1.5, 0.0, -1e-3)
    table = [(kind, "learning_rate", value) for value in values for kind in kinds]
    table += [
        (kind, name, value)
        for name in ("beta1", "beta2")
        for value in (1.0, 2.0, math.nan, -0.1)
        for kind in kinds[::2]
    ]
    for kind, name, value in tally(table):
        with pytest.raises(t2i.ConfigError, match=rf"[-.]{name.replace('_', '-')} must"):
            kind(**{name: value})


@pytest.mark.promise(35)
@pytest.mark.parametrize("case", range(8 if len(cases(35)) > 20 else 2))
def test_the_last_good_checkpoint_is_from_before_the_first_skipped_step_and_trains_on(forge, unbroken, tmp_path, case):
    """From update 6, 8, ... of the GAN on nothing is finite; checkpoints come at every step, of which many follow it."""
    folder, first = tmp_path / "run", 5 + 6 + 2 * case  # after the text encoder's five; a step has two updates
    code, errors = forge(
        "spoiled",
        what="gan",
        data=unbroken.data,
        folder=folder,
        place=("loss", "gradient")[case % 2],
        value=("nan", "inf", "-inf")[case % 3],
        calls=list(range(first, 300)),
        steps=40,
        checkpoint_every=1,
    )
    assert code == 2, errors
    named = Path(re.search(r"the last good checkpoint is (\S+?);", errors)[1])
    skipped_from = 3 + case + 1
    assert named.name == f"step-{skipped_from - 1:08d}"
    present = sorted(path.name for path in (folder / "checkpoints").glob("step-*"))
    assert present[-1] == named.name  # later ones are set aside, so that the same command goes back to it
    code, errors = forge("train", data=unbroken.data, folder=folder, steps=40, checkpoint_every=20)
    assert code == 0, errors


@pytest.mark.promise(35)
def test_a_run_that_diverged_from_its_first_step_on_begins_again(forge, unbroken, tmp_path):
    """A model was saved on the way, and no checkpoint is good."""
    folder = tmp_path / "run"
    calls = list(range(5, 300))
    code, errors = forge(
        "spoiled", what="gan", data=unbroken.data, folder=folder, place="loss", value="nan", calls=calls, steps=20
    )
    assert code == 2, errors
    assert "there is no checkpoint from before" in errors
    assert (folder / "model.safetensors").exists()
    code, errors = forge("train", data=unbroken.data, folder=folder)
    assert code == 0, errors
    assert unbroken.result(folder) == unbroken.hash


@pytest.mark.promise(35)
def test_what_was_saved_after_a_skipped_step_is_good_once_a_hundred_steps_were_calm():
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer, guard = torch.optim.Adam([weight]), NonFiniteGuard([], torch.device("cpu"))

    def steps(count, gradient=1.0):
        for _ in range(count):
            guard.begin()
            weight.grad = torch.full((2,), gradient)
            guard.step(optimizer, weight.grad.sum())
            guard.end()
        return guard.first_skipped()

    assert steps(3) == 0
    assert steps(1, float("nan")) == 4
    assert steps(50) == 4
    assert steps(1, float("inf")) == 4  # the first of them, until all is calm
    assert steps(CALM - 1) == 4
    assert steps(1) == 0
