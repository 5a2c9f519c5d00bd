"""A preparation that is stopped goes on; one in parts makes the same pack: both to the checksum of one undisturbed run."""

import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
from PIL import Image

import t2i
from promises import cases
from t2i import prepare
from t2i.data.dataset import PackedDataset
from t2i.prepare.packing import read_shard


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """29 pictures of three classes; two are broken, so that shards have holes, and one has no caption."""
    root = tmp_path_factory.mktemp("source") / "mine"
    rng = random.Random(0)
    for number in range(29):
        path = root / "abc"[number % 3] / f"{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 20), (rng.randrange(256), number, 9)).save(path)
        path.with_suffix(".txt").write_text(f"picture {number}\nagain {number}\n" if number != 17 else "")
        if number in (4, 20):
            path.write_bytes(path.read_bytes()[:-20])
    return root


OPTIONS = {"size": 16, "shard_images": 4, "show_progress": False}


def sums(folder):
    """The checksum of every file of a folder, with its name."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def whole(source, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "pack"
    report = prepare.pack("folder", source, out, **OPTIONS)
    assert len(report.skipped) == 3
    assert report.missing == 0
    return sums(out)


def test_the_undisturbed_pack_holds_the_pictures_in_order_and_only_they(source, tmp_path, whole):
    prepare.pack("folder", source, tmp_path / "pack", size=16, show_progress=False)  # all in one shard
    one, many = PackedDataset(tmp_path / "pack"), {name for name in whole if name.startswith("shard-")}
    assert len(one) == 26
    assert len(many) == 7  # 28 listed pictures by four, whatever could not be read of them


@pytest.mark.parametrize("parts", [1, 2, 3, 7, 11])  # the last with parts that have nothing to do
def test_parts_in_one_folder_are_joined_by_whoever_comes_last(source, tmp_path, whole, parts):
    order = list(range(parts))
    random.Random(parts).shuffle(order)
    reports = [prepare.pack("folder", source, tmp_path / "p", shard=f"{part}/{parts}", **OPTIONS) for part in order]
    assert [bool(report.missing) for report in reports[:-1]].count(False) <= max(0, parts - 7)
    assert reports[-1].missing == 0
    assert sums(tmp_path / "p") == whole


def test_parts_of_other_machines_are_merged_to_the_same_checksums(source, tmp_path, whole):
    copy = tmp_path / "another machine" / "mine"
    shutil.copytree(source, copy)  # other paths, other times
    prepare.pack("folder", source, tmp_path / "a", shard="0/2", **OPTIONS)
    prepare.pack("folder", copy, tmp_path / "b", shard="1/2", **OPTIONS)
    report = prepare.merge([tmp_path / "b", tmp_path / "a"], tmp_path / "out")
    found = sums(tmp_path / "out")
    assert {name for name in found if found[name] != whole[name]} <= {"report.json"}  # it names other paths
    assert found.keys() == whole.keys()
    assert (report.images, len(report.skipped)) == (26, 3)
    assert len(PackedDataset(tmp_path / "out", verify=True)) == 26


def test_a_part_can_be_merged_into_its_own_folder(source, tmp_path, whole):
    for part in range(2):
        prepare.pack("folder", source, tmp_path / str(part), shard=f"{part}/2", **OPTIONS)
    prepare.merge([tmp_path / "0", tmp_path / "1"], tmp_path / "0")
    assert sums(tmp_path / "0") == whole


def test_what_does_not_fit_together_is_refused(source, tmp_path):
    a, b, c = tmp_path / "a", tmp_path / "b", tmp_path / "c"
    prepare.pack("folder", source, a, shard="0/2", **OPTIONS)
    prepare.pack("folder", source, b, shard="1/2", **{**OPTIONS, "size": 17})
    with pytest.raises(t2i.DataError, match="parts of another preparation"):
        prepare.pack("folder", source, a, shard="1/2", **{**OPTIONS, "size": 17})
    with pytest.raises(t2i.DataError, match="parts of different preparations"):
        prepare.merge([a, b], c)
    with pytest.raises(t2i.DataError, match=r"4 of 7 shards are in none of the parts, or are damaged: 3, 4, 5, 6"):
        prepare.merge([a], c)
    with pytest.raises(t2i.DataError, match="holds no part of a preparation"):
        prepare.merge([tmp_path], c)
    prepare.pack("folder", source, tmp_path / "w", **OPTIONS)
    with pytest.raises(t2i.DataError, match="it is whole already"):
        prepare.merge([tmp_path / "w"], c)
    with pytest.raises(t2i.DataError, match="already holds a packed data set"):
        prepare.merge([a], tmp_path / "w")
    with pytest.raises(t2i.ConfigError, match="exclude each other"):
        prepare.pack("folder", source, a, shard="0/2", force=True, **OPTIONS)


def test_two_parts_that_come_last_together_both_say_that_it_is_whole(source, tmp_path, whole, monkeypatch):
    prepare.pack("folder", source, tmp_path / "p", shard="0/2", **OPTIONS)
    find, asked, other = prepare.parts.find_done, [], []

    def overtaken(out, number, digest):
        found = find(out, number, digest)
        asked.append(number)
        if (
            asked.count(3) == 2 and not other
        ):  # asked at the beginning, and now, in the middle of joining: another part joins
            other.append(True)
            prepare.pack("folder", source, tmp_path / "p", shard="0/2", **OPTIONS)
        return found

    prepare.pack("folder", source, tmp_path / "q", shard="1/2", **OPTIONS)
    for path in (tmp_path / "q").rglob("*[0-9].*"):
        shutil.copy(path, tmp_path / "p" / path.relative_to(tmp_path / "q"))
    monkeypatch.setattr("t2i.prepare.parts.find_done", overtaken)
    report = prepare.pack("folder", source, tmp_path / "p", shard="1/2", **OPTIONS)
    assert other == [True]
    assert (report.missing, report.images, len(report.skipped)) == (0, 26, 3)
    assert sums(tmp_path / "p") == whole


@pytest.mark.promise(19)
@pytest.mark.parametrize("damage", ["shard", "cut", "gone", "note", "foreign"])
def test_a_damaged_shard_of_a_part_is_made_again(source, tmp_path, whole, damage):
    out = tmp_path / "p"
    prepare.pack("folder", source, out, shard="0/2", **OPTIONS)
    shard, note = out / "shard-00001.safetensors", out / ".preparing" / "00001.json"
    data = shard.read_bytes()
    if damage == "shard":
        shard.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    elif damage == "cut":
        shard.write_bytes(data[: len(data) // 2])
    elif damage == "gone":
        shard.unlink()
    elif damage == "note":
        note.write_text("{")
    else:
        note.write_text(json.dumps({**json.loads(note.read_text()), "digest": "another"}))
    prepare.pack("folder", source, out, shard="1/2", **OPTIONS)
    assert not (out / "pack.json").exists()
    prepare.pack("folder", source, out, **OPTIONS)
    assert sums(out) == whole


def test_what_is_done_is_not_done_again(source, tmp_path, whole, monkeypatch):
    prepare.pack("folder", source, tmp_path / "p", shard="0/2", **OPTIONS)
    decoded = []
    load = prepare.packing.load_images
    monkeypatch.setattr(
        "t2i.prepare.packing.load_images", lambda items, *rest: decoded.extend(items) or load(items, *rest)
    )
    prepare.pack("folder", source, tmp_path / "p", **OPTIONS)
    assert len(decoded) == 16  # the last four of seven shards
    assert sums(tmp_path / "p") == whole


def test_a_preparation_of_changed_pictures_starts_anew(source, tmp_path, whole):
    copy = tmp_path / "mine"
    shutil.copytree(source, copy)
    (copy / "a" / "00.txt").write_text("another caption\n")
    prepare.pack("folder", copy, tmp_path / "p", shard="0/2", **OPTIONS)
    (copy / "a" / "00.txt").write_text("picture 0\nagain 0\n")
    prepare.pack("folder", copy, tmp_path / "p", **OPTIONS)
    found = sums(tmp_path / "p")
    assert {name for name in whole if found[name] != whole[name]} == {"report.json"}


@pytest.mark.parametrize("text", ["", "1", "2/2", "-1/2", "0/0", "a/b", "1/2/3", "0x1/2", "1 /2", "0/99999999"])
def test_a_part_that_is_none_is_refused(text):
    with pytest.raises(t2i.ConfigError, match="--shard must be i/n"):
        read_shard(text)


# Killed. A child is killed at the k-th of the moments at which the disk changes, in the middle of a write among them; and
# at moments of the clock.

KILLED = """
import builtins, os, pathlib, signal, sys
from t2i import files, prepare
left, wanted = int(sys.argv[3]), sys.argv[4:]
def named(path, when):
    if wanted == [path.name, when]:
        os.kill(os.getpid(), signal.SIGKILL)
def moment(written=None):
    global left
    left -= 1
    if left == 0:
        if written is not None:
            written[0].write(written[1][: len(written[1]) // 2])
            written[0].flush()
        os.kill(os.getpid(), signal.SIGKILL)
sync, replace, make = os.fsync, pathlib.Path.replace, pathlib.Path.mkdir
class Slow:
    def __init__(self, file): self.file = file
    def write(self, data): moment((self.file, data)); return self.file.write(data)
    def __getattr__(self, name): return getattr(self.file, name)
    def __enter__(self): self.file.__enter__(); return self
    def __exit__(self, *error): return self.file.__exit__(*error)
def opened(file, mode="r", *rest, **options):
    made = builtins.open(file, mode, *rest, **options)
    return Slow(made) if mode == "wb" else made
files.open = opened
os.fsync = lambda file: (moment(), sync(file))
def renamed(self, to):
    named(to, "before")
    moment()
    replace(self, to)
    named(to, "after")
    moment()
pathlib.Path.replace = renamed
unlink = pathlib.Path.unlink
pathlib.Path.unlink = lambda self, *a, **k: (unlink(self, *a, **k), moment())
pathlib.Path.mkdir = lambda self, *a, **k: (make(self, *a, **k), moment())
prepare.pack("folder", pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), size=16, shard_images=4, show_progress=False)
print("moments", int(sys.argv[3]) - left)
"""


def killed(source, out, *moment):
    command = [sys.executable, "-c", KILLED, str(source), str(out), *map(str, moment)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@pytest.fixture(scope="module")
def moments(source, tmp_path_factory):
    done = killed(source, tmp_path_factory.mktemp("count") / "p", 10**9)
    return int(done.stdout.split()[1])


@pytest.mark.promise(19)
@pytest.mark.parametrize("case", cases(19))
def test_a_preparation_killed_at_any_moment_goes_on_to_the_same_checksums(source, tmp_path, whole, moments, case):
    out, count = tmp_path / "p", len(cases(19))
    done = killed(source, out, 1 + case * (moments - 1) // max(1, count - 1))
    assert done.returncode == -signal.SIGKILL
    notes = {".lock", ".holder"}  # of the dead process
    if (out / "pack.json").exists() and not (out / ".preparing" / "listing.json").exists():
        assert case >= 0.9 * (count - 1)  # it had only its notes left to remove, which takes a few moments
    else:
        prepare.pack("folder", source, out, **OPTIONS)
        notes = set()
    found = sums(out)
    assert {name: found.pop(name) for name in whole} == whole
    assert {name for name in found if not name.startswith(".preparing/")} <= notes
    assert moments >= 50


@pytest.mark.promise(19)
@pytest.mark.parametrize(
    ("name", "when"),
    [
        ("shard-00003.safetensors", "before"),
        ("00003.json", "before"),
        ("report.json", "before"),
        ("pack.json", "before"),
        ("pack.json", "after"),
    ],
)
def test_a_preparation_killed_beside_a_rename_goes_on_and_leaves_nothing(
    source, tmp_path, whole, monkeypatch, name, when
):
    """Each of these is a moment of the test above, which its sample need not hit; the lock clears nothing away here."""
    monkeypatch.setattr("t2i.locks.LEFT", re.compile("nothing"))
    done = killed(source, tmp_path / "p", 10**9, name, when)
    assert done.returncode == -signal.SIGKILL, done.stderr
    prepare.pack("folder", source, tmp_path / "p", **OPTIONS)
    assert sums(tmp_path / "p") == whole


def test_the_moments_of_the_clock_are_no_other(source, tmp_path, whole):
    running = subprocess.Popen([sys.executable, "-c", KILLED, str(source), str(tmp_path / "p"), str(10**9)])
    deadline = time.monotonic() + 60
    while not (tmp_path / "p" / "shard-00000.safetensors").exists() and time.monotonic() < deadline:
        os.sched_yield()
    running.kill()
    running.wait()
    prepare.pack("folder", source, tmp_path / "p", force=(tmp_path / "p" / "pack.json").exists(), **OPTIONS)
    assert sums(tmp_path / "p") == whole
