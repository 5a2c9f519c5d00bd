"""Weights and training state: whole or not at all, and back to the bit."""

import hashlib
import json
import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import t2i
from t2i.files import write_atomically
from t2i.locks import RunLock
from t2i.training import checkpoint
from t2i.training.checkpoint import Checkpoints
from t2i.weights import load_weights, read_tensors, save_weights


def network(seed, width=4):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(3, width), nn.BatchNorm1d(width), nn.Linear(width, 1))


def state(folder, seed=0, width=4):
    """Make a network, its optimizer after some steps, and their checkpoints."""
    net = network(seed, width)
    adam = torch.optim.Adam(net.parameters(), lr=0.01)
    return net, adam, Checkpoints(folder, {"net": net}, {"adam": adam})


def train(net, adam, steps):
    for _ in range(steps):
        x = torch.linspace(-1, 1, 24).reshape(8, 3)
        adam.zero_grad()
        (net(x) ** 2).mean().backward()
        adam.step()


def equal(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


def files(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_weights_come_back_under_their_names(tmp_path):
    one, other = network(1), network(2)
    save_weights(tmp_path / "model.safetensors", {"generator": one, "text": network(3)})
    load_weights(tmp_path / "model.safetensors", {"generator": other})
    assert equal(one, other)
    assert "text.0.weight" in read_tensors(tmp_path / "model.safetensors")


@pytest.mark.parametrize(
    ("prefix", "width", "says"),
    [
        ("net", 5, r"net\.0\.weight must be \(5, 3\), got \(4, 3\): it was made with other sizes"),
        ("text", 4, r"no tensor 'text\.0\.weight'"),
    ],
)
def test_weights_of_another_shape_are_refused_by_name_and_change_nothing(tmp_path, prefix, width, says):
    save_weights(tmp_path / "model.safetensors", {"net": network(1)})
    other = network(2, width)
    with pytest.raises(t2i.CheckpointError, match=says):
        load_weights(tmp_path / "model.safetensors", {prefix: other})
    assert equal(other, network(2, width))


@pytest.mark.parametrize("damage", [b"", b"\x08", b"PK\x03\x04 a pickle", b"\xff" * 64])
def test_a_file_that_is_not_safetensors_is_refused_with_its_path(tmp_path, damage):
    path = tmp_path / "model.safetensors"
    path.write_bytes(damage)
    with pytest.raises(t2i.CheckpointError, match=r"model\.safetensors is not a readable safetensors file") as caught:
        read_tensors(path)
    assert "\n" not in str(caught.value)
    with pytest.raises(t2i.CheckpointError, match="no such weight file"):
        read_tensors(tmp_path / "other.safetensors")


def test_training_goes_on_from_a_checkpoint_to_the_bit(tmp_path):
    unbroken, adam, _ = state(tmp_path)
    train(unbroken, adam, 10)
    net, adam, checkpoints = state(tmp_path)
    train(net, adam, 7)
    checkpoints.save(7, {})
    restored, adam, checkpoints = state(tmp_path, seed=9)
    assert checkpoints.restore() == (7, [])
    assert equal(restored, net)
    train(restored, adam, 3)
    assert equal(restored, unbroken)


@pytest.mark.parametrize("fused", [False, True])
def test_channels_last_weights_go_on_to_the_bit_too(tmp_path, fused):
    def made(seed):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            net = nn.Conv2d(3, 5, 4).to(memory_format=torch.channels_last)
        adam = torch.optim.Adam(net.parameters(), lr=0.01, fused=fused)
        return net, adam, Checkpoints(tmp_path, {"net": net}, {"adam": adam})

    def step(net, adam, count):
        for _ in range(count):
            adam.zero_grad()
            (net(torch.linspace(-1, 1, 96).reshape(2, 3, 4, 4)) ** 2).mean().backward()
            adam.step()

    unbroken, adam, _ = made(0)
    step(unbroken, adam, 4)
    net, adam, checkpoints = made(0)
    step(net, adam, 2)
    checkpoints.save(2, {})
    restored, adam, checkpoints = made(1)
    assert checkpoints.restore() == (2, [])
    step(restored, adam, 2)
    assert equal(restored, unbroken)


def test_no_checkpoint_is_step_zero(tmp_path):
    net, _, checkpoints = state(tmp_path)
    assert checkpoints.restore() == (0, [])
    assert equal(net, network(0))


def test_the_two_newest_checkpoints_are_kept(tmp_path):
    _, _, checkpoints = state(tmp_path)
    for step in (5, 10, 15, 100):
        checkpoints.save(step, {})
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["step-00000015", "step-00000100"]
    assert checkpoints.restore() == (100, [])


def test_a_checkpoint_says_its_step_its_checksum_and_the_facts(tmp_path):
    _, _, checkpoints = state(tmp_path)
    folder = checkpoints.save(3, {"data": "fingerprint"})
    checksum = hashlib.sha256((folder / "state.safetensors").read_bytes()).hexdigest()
    record = json.loads((folder / "state.json").read_text())
    own = record.pop("checksum")
    assert record == {"step": 3, "sha256": checksum, "data": "fingerprint"}
    assert own == hashlib.sha256(json.dumps(record, indent=2).encode()).hexdigest()


@pytest.mark.parametrize("kept", [("step", "sha256", "data"), ("step", "sha256", "data", "settings")])
def test_a_checkpoint_whose_record_has_no_checksum_is_skipped_as_damaged(tmp_path, kept):
    _, _, checkpoints = state(tmp_path)
    record = checkpoints.save(3, {"data": "fingerprint", "settings": {}}) / "state.json"
    without = {name: value for name, value in json.loads(record.read_text()).items() if name in kept}
    record.write_text(json.dumps(without, indent=2) + "\n")
    with pytest.raises(
        t2i.CheckpointError, match=r"no checkpoint .* can be loaded \(.*the checksum of state\.json differs\)"
    ):
        checkpoints.restore({"data": "fingerprint"})


def test_a_checkpoint_made_from_other_metadata_is_refused_with_the_difference_and_changes_nothing(tmp_path):
    _, _, checkpoints = state(tmp_path)
    checkpoints.save(3, {"data": "a" * 64, "settings": {"batch": 8, "text": {"channels": (8, 8)}}})
    net, _, checkpoints = state(tmp_path, seed=9)
    facts = {"data": "b" * 64, "settings": {"batch": 16, "text": {"channels": (8, 8)}}, "new": 1}
    with pytest.raises(t2i.ConfigError) as caught:
        checkpoints.restore(facts)
    assert f"(data: {'a' * 12} -> {'b' * 12}; settings.batch: 8 -> 16)" in str(caught.value)
    assert equal(net, network(9))
    assert checkpoints.restore() == (3, [])  # --force asks no questions
    assert checkpoints.restore({"data": "a" * 64, "settings": {"batch": 8, "text": {"channels": (8, 8)}}}) == (3, [])


def test_a_damaged_checkpoint_does_not_count_among_the_two_that_are_kept(tmp_path):
    _, _, checkpoints = state(tmp_path)
    for step in (10, 20, 30):
        checkpoints.save(step, {})
    flip(tmp_path / "checkpoints" / "step-00000030" / "state.safetensors", 500)
    assert checkpoints.restore()[0] == 20
    checkpoints.save(25, {})
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == ["damaged-step-00000030", "step-00000020", "step-00000025"]  # it may still be of use to somebody


def test_weights_with_a_flipped_bit_are_refused_or_the_bit_was_not_in_a_weight(tmp_path):
    path, refused = tmp_path / "model.safetensors", 0
    save_weights(path, {"net": network(1)})
    offsets = range(8, len(path.read_bytes()), 7)
    for offset in offsets:
        flip(path, offset)
        net = network(2)
        try:
            load_weights(path, {"net": net})
        except t2i.CheckpointError:
            refused += 1
        else:
            assert equal(net, network(1))  # it was in the name of the format, or of the checksum
        flip(path, offset)
    assert refused > 0.9 * len(offsets)


def flip(path, offset):
    data = bytearray(path.read_bytes())
    data[offset % len(data)] ^= 1 << offset % 8
    path.write_bytes(data)


def rewrite(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    "damage",
    [
        *(pytest.param(lambda f, n=n: flip(f / "state.safetensors", n), id=f"bit {n}") for n in (0, 9, 500, 1001, -3)),
        lambda f: (f / "state.safetensors").write_bytes((f / "state.safetensors").read_bytes()[:-1]),
        lambda f: (f / "state.safetensors").unlink(),
        lambda f: (f / "state.json").unlink(),
        lambda f: (f / "state.json").write_text("{"),
        lambda f: (f / "state.json").write_text("[]"),
        lambda f: (f / "state.json").write_text("{}"),
        lambda f: rewrite(f / "state.json", sha256="0" * 64),
        lambda f: rewrite(f / "state.json", step=21),
        lambda f: rewrite(f / "state.json", step=None),
        lambda f: rewrite(f / "state.json", step="many"),
    ],
)
def test_a_damaged_checkpoint_falls_back_to_the_one_before_and_says_so(tmp_path, damage):
    net, adam, checkpoints = state(tmp_path)
    train(net, adam, 1)
    checkpoints.save(10, {})
    before = network(0)
    before.load_state_dict(net.state_dict())
    train(net, adam, 1)
    damage(checkpoints.save(20, {}))
    restored, _, checkpoints = state(tmp_path, seed=9)
    step, lines = checkpoints.restore()
    assert step == 10
    assert equal(restored, before)
    assert len(lines) == 1
    assert lines[0].startswith("skipped a damaged checkpoint")
    assert "step-00000020" in lines[0]


def test_a_checkpoint_of_another_shape_is_kept_aside_by_force_alone(tmp_path):
    _, _, checkpoints = state(tmp_path)
    written = checkpoints.save(10, {}) / "state.safetensors"
    content = written.read_bytes()
    net, _, checkpoints = state(tmp_path, seed=2, width=6)
    with pytest.raises(t2i.CheckpointError, match=r"net\.0\.weight must be \(6, 3\), got \(4, 3\).*add --force"):
        checkpoints.restore()
    assert written.read_bytes() == content
    step, lines = checkpoints.restore(force=True)
    assert step == 0
    assert "skipped a checkpoint of other sizes" in lines[0]
    assert "training starts over; the old checkpoints are" in lines[1]
    assert (tmp_path / "checkpoints" / "old-step-00000010" / "state.safetensors").read_bytes() == content
    assert equal(net, network(2, 6))
    for step in (5, 10, 15, 20):
        checkpoints.save(step, {})
    assert (tmp_path / "checkpoints" / "old-step-00000010" / "state.safetensors").read_bytes() == content


class DiskFull:
    """Fail the nth write as a full disk does."""

    def __init__(self, after):
        self.left = after

    def __call__(self, descriptor):
        self.left -= 1
        if self.left < 0:
            raise OSError(28, "No space left on device")


def test_a_full_disk_leaves_the_old_file_and_nothing_half_written(tmp_path, monkeypatch):
    path = tmp_path / "model.safetensors"
    write_atomically(path, b"old")
    monkeypatch.setattr(checkpoint.os, "fsync", DiskFull(0))
    with pytest.raises(t2i.CheckpointError, match=r"cannot write .*model\.safetensors: No space left.*free some space"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert files(tmp_path) == ["model.safetensors"]


@pytest.mark.parametrize("after", range(4))  # state.safetensors and its folder, state.json and its folder
def test_a_full_disk_keeps_the_checkpoint_before(tmp_path, monkeypatch, after):
    _, _, checkpoints = state(tmp_path)
    checkpoints.save(10, {})
    kept = {path: path.read_bytes() for path in (tmp_path / "checkpoints").rglob("*") if path.is_file()}
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.os, "fsync", DiskFull(after))
        with pytest.raises(t2i.CheckpointError, match="No space left"):
            checkpoints.save(20, {})
    found = {path: path.read_bytes() for path in (tmp_path / "checkpoints").rglob("*") if path.is_file()}
    assert found == kept
    assert checkpoints.restore() == (10, [])


def test_every_file_is_flushed_before_it_is_renamed_and_its_folder_after(tmp_path, monkeypatch):
    events = []
    fsync, replace = os.fsync, checkpoint.Path.replace

    def recorded_fsync(descriptor):
        target = os.readlink(f"/proc/self/fd/{descriptor}")
        events.append("folder" if os.path.isdir(target) else "file")
        fsync(descriptor)

    def recorded_replace(self, target):
        events.append("rename")
        return replace(self, target)

    monkeypatch.setattr(checkpoint.os, "fsync", recorded_fsync)
    monkeypatch.setattr(checkpoint.Path, "replace", recorded_replace)
    write_atomically(tmp_path / "a.json", b"{}")
    assert events == ["file", "rename", "folder"]


def test_what_a_killed_process_left_is_never_loaded_and_is_cleared_away(tmp_path):
    _, _, checkpoints = state(tmp_path)
    checkpoints.save(10, {})
    half = tmp_path / "checkpoints" / ".partial-1"
    half.mkdir()
    (half / "state.safetensors").write_bytes(b"half")
    (tmp_path / ".model.safetensors.0123456789ab.partial").write_bytes(b"half")
    with RunLock(tmp_path):
        assert checkpoints.restore() == (10, [])
    assert files(tmp_path) == [".lock", "state.json", "state.safetensors"]


HOLD = """
import fcntl, sys
file = open(sys.argv[1], "a+")
fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
print("held", flush=True)
sys.stdin.read()
"""


def test_a_second_run_is_refused_and_the_lock_of_a_dead_one_is_free(tmp_path):
    command = [sys.executable, "-c", HOLD, str(tmp_path / ".lock")]
    with RunLock(tmp_path):
        with pytest.raises(t2i.CheckpointError, match=r"in use by another run \(process \d+\); .* another --out"):
            RunLock(tmp_path)
        assert subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True).returncode == 1
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(t2i.CheckpointError, match="in use by another run"):
            RunLock(tmp_path)
        other.kill()
        other.wait()
    with RunLock(tmp_path):
        pass


def test_a_run_folder_that_cannot_be_made_is_refused_in_one_line(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(t2i.CheckpointError, match=r"cannot use .* as a run folder: .*; choose another --out"):
        RunLock(tmp_path / "file")


def test_a_foreign_safetensors_file_is_refused_for_what_it_lacks(tmp_path):
    save_file({"weight": torch.zeros(2)}, tmp_path / "model.safetensors")
    with pytest.raises(t2i.CheckpointError, match=r"has no tensor 'net\.0\.weight': it was not made by these settings"):
        load_weights(tmp_path / "model.safetensors", {"net": network(0)})


def test_a_network_without_tensors_is_no_reason_to_call_a_checkpoint_damaged(tmp_path):
    """The image side of a joint embedding on frozen features as long as the embedding."""
    modules = {"net": network(0), "image": nn.Identity()}
    Checkpoints(tmp_path, modules, {}).save(3, {})
    assert Checkpoints(tmp_path, modules, {}).restore() == (3, [])
