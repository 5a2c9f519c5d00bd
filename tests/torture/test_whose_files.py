"""Whose files are deleted, and who may use a folder: run folders, packs, and the cache of a fresh machine."""

import errno
import itertools
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import t2i
from promises import cases
from runs import sha256
from t2i import locks, prepare
from t2i.blossoms.pack import pack_blossoms
from t2i.data.dataset import PackedDataset
from t2i.locks import InUse, RunLock, check_held
from t2i.training.checkpoint import has_checkpoint
from t2i.training.resume import check_record
from victims import small_state

pytestmark = pytest.mark.usefixtures("one_thread")


def contents(folder):
    return {str(path.relative_to(folder)): sha256(path) for path in sorted(folder.rglob("*")) if path.is_file()}


# What somebody may have beside and inside a run folder. Every name is nearly one of ours.
STRANGERS = [
    "checkpoints/step-best/state.safetensors",
    "checkpoints/step-5/state.json",
    "checkpoints/step-00000005-backup/state.json",
    "checkpoints/step-00000005.tar",
    "checkpoints/old-step-00000005/state.json",
    "checkpoints/.partial-notes/a.txt",
    "checkpoints/.partial-notes/state.json",
    "checkpoints/.partial-1/mine.txt",
    "checkpoints/step-00000004/state.json",
    "checkpoints/step-00000003/notes.md",
    "checkpoints/notes.md",
    ".notes.partial",
    ".config.json.partial",
    ".a.b.partial",
    "samples/.x.partial",
    "samples/mine.png",
    "step-00000001/state.json",
    "notes.txt",
    "text/checkpoints/step-1/x",
    "model.safetensors.bak",
    "checkpoints/STEP-00000001/state.json",
]


@pytest.mark.promise(32)
def test_what_is_not_t2is_survives_a_run_folder_that_rotates_its_checkpoints(tmp_path, tally):
    for number, name in enumerate(tally(STRANGERS)):
        folder = tmp_path / str(number)
        place = folder / name
        place.parent.mkdir(parents=True)
        place.write_text("mine")
        with RunLock(folder):
            _, checkpoints = small_state(folder)
            for step in (6, 7, 8, 9):
                checkpoints.save(step, {})
            assert checkpoints.restore() == (9, []), name
        assert place.read_text() == "mine", name  # where it was


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("source") / "mine"
    folder.mkdir()
    for number in range(6):
        Image.new("RGB", (20, 20), (40 * number, 9, 9)).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(f"caption {number}")
    return folder


def packed(source, out, **options):
    return prepare.pack("folder", source, out, size=16, show_progress=False, shard_images=2, **options)


PACK_STRANGERS = [
    ("shard-00000.safetensors", "mine"),
    ("shard-00007.safetensors", "mine"),
    ("shard-00001-b.safetensors", "mine"),
    ("report.json", "mine"),
    ("pack.json", "mine"),
    ("pack.json", '{"format": "of another program", "shards": []}'),
]
BESIDE = [
    "shard-1.safetensors",
    "shard-00000.safetensors.bak",
    ".mine.partial",
    ".shard-00000.safetensors.partial",
    "notes.md",
    ".preparing/mine.txt",
    "shard-x.safetensors",
    "images/a.png",
    "SHARD-00000.safetensors",
    "old-shard-00000.safetensors",
]


@pytest.mark.promise(32)
@pytest.mark.parametrize("force", [False, True])
def test_what_is_in_the_way_of_a_pack_is_refused_and_what_is_beside_it_stays(source, tmp_path, tally, force):
    for number, (name, content) in enumerate(tally(PACK_STRANGERS)):
        out = tmp_path / f"in the way {number}"
        out.mkdir()
        (out / name).write_text(content)
        for make in (
            lambda out=out: packed(source, out, force=force),
            lambda out=out: pack_blossoms(out, images=30, force=force),
        ):
            with pytest.raises(t2i.DataError, match="choose another --out"):
                make()
            assert {name for name in contents(out) if name != ".lock"} == {name}
            assert (out / name).read_text() == content
    for name in tally(BESIDE):
        out = tmp_path / f"beside {name.replace('/', ' ')}"
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text("mine")
        packed(source, out)
        packed(source, out, force=True)
        assert (out / name).read_text() == "mine"
        assert len(PackedDataset(out, verify=True)) == 6


class Failing:
    """Fail, or die, at the n-th file operation of a preparation."""

    def __init__(self, at, act):
        self.left, self.act = at, act

    def __call__(self, function):
        def call(*arguments, **options):
            self.left -= 1
            if self.left == 0:
                self.act()
            return function(*arguments, **options)

        return call


def full():
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.promise(32)
def test_a_force_that_fails_at_any_point_leaves_the_old_pack_or_the_new_one(source, tmp_path, tally):
    """At each flush, rename and deletion in turn; the old pack is read from start to end after the failure."""
    other = tmp_path / "other"
    shutil.copytree(source, other)
    Image.new("RGB", (20, 20), (1, 2, 3)).save(other / "0.png")
    (tmp_path / "whole").mkdir()
    packed(other, tmp_path / "whole")
    expected = contents(tmp_path / "whole")
    points = list(itertools.takewhile(lambda at: fails(source, other, tmp_path / str(at), at), range(1, 100)))
    assert len(points) >= 20
    for at in tally(points):
        out = tmp_path / str(at)
        packed(other, out, force=True)
        assert {name: digest for name, digest in contents(out).items() if name != ".lock"} == expected, at
    assert contents(tmp_path / str(points[-1] + 1)) == expected


def fails(source, other, out, at):
    """Replace a pack by another one, failing at a point; False where there is no such point any more."""
    packed(source, out)
    before = PackedDataset(out).fingerprint
    with pytest.MonkeyPatch.context() as patch:
        failing = Failing(at, full)
        for place, name in ((os, "fsync"), (Path, "replace"), (os, "link"), (Path, "unlink")):
            patch.setattr(place, name, failing(getattr(place, name)))
        try:
            packed(other, out, force=True)
        except (t2i.T2IError, OSError):
            pass
        else:
            if failing.left > 0:
                return False
    found = PackedDataset(out, verify=True)
    assert len(found) == 6
    assert found.fingerprint == before or found.read_images([0])[0, 0, 0].tolist() == [1, 2, 3]
    return True


@pytest.mark.promise(32)
def test_a_force_that_is_killed_leaves_the_old_pack_or_the_new_one(forge, source, tmp_path, tally):
    out = tmp_path / "out"
    packed(source, out)
    for case in tally(range(4 if len(cases(32)) > 10 else 2)):
        code, errors = forge("killed_while_replacing", source=source, out=out, at=1 + 7 * case)
        assert code == -signal.SIGKILL, errors
        assert len(PackedDataset(out, verify=True)) == 6


def test_force_with_a_part_missing_leaves_the_pack_that_is_there(source, tmp_path):
    packed(source, tmp_path / "out")
    before = contents(tmp_path / "out")
    packed(source, tmp_path / "part", shard="0/3")
    with pytest.raises(t2i.DataError, match="shards are in none of the parts"):
        prepare.merge([tmp_path / "part"], tmp_path / "out", force=True)
    assert before.items() <= contents(tmp_path / "out").items()
    assert len(PackedDataset(tmp_path / "out", verify=True)) == 6


# One process holds a folder; something happens to it; another comes.
def nothing(folder):
    pass


def without_lock_file(folder):
    (folder / ".lock").unlink()


def another_lock_file(folder):
    (folder / ".lock").unlink()
    (folder / ".lock").write_text("1\n")


def git_clean(folder):
    for path in folder.iterdir():
        path.unlink()


def through_a_link(folder):
    link = folder.with_name("link")
    link.symlink_to(folder)
    return link


def renamed(folder):
    folder.rename(folder.with_name("elsewhere"))
    return folder.with_name("elsewhere")


def relative(folder):
    return Path(os.path.relpath(folder))


SAME = [nothing, without_lock_file, another_lock_file, git_clean, through_a_link, renamed, relative]
USERS = ["run", "t2i-prepare"]


@pytest.mark.promise(33)
@pytest.mark.parametrize("user", USERS)
def test_a_second_process_is_refused_whatever_became_of_the_lock_file(tmp_path, tally, user):
    for act in tally(SAME):
        folder = tmp_path / act.__name__ / "held"
        with RunLock(folder, user):
            there = act(folder) or folder
            with pytest.raises(InUse, match=rf"is in use by another {user}.*; wait for it or choose another --out"):
                RunLock(there, user)
        with RunLock(there, user):
            pass


def deleted(folder):
    shutil.rmtree(folder)


def made_again(folder):
    shutil.rmtree(folder)
    folder.mkdir()


def taken_over(folder):
    folder.rename(folder.with_name("elsewhere"))
    folder.mkdir()
    (folder / ".lock").write_text("")


@pytest.mark.promise(33)
def test_a_run_stops_where_its_folder_is_no_longer_the_one_it_was_started_in(tmp_path, tally):
    for act in tally([renamed, deleted, made_again, taken_over]):
        folder = tmp_path / act.__name__ / "held"
        with RunLock(folder):
            _, checkpoints = small_state(folder)
            checkpoints.save(10, {})
            check_held(folder / "checkpoints")
            act(folder)
            before = contents(tmp_path / act.__name__)
            with pytest.raises(t2i.CheckpointError, match="is no longer the folder that this run was started in"):
                checkpoints.save(20, {})
            assert contents(tmp_path / act.__name__) == before


@pytest.mark.promise(33)
def test_a_lock_file_that_was_deleted_is_made_again_and_the_run_goes_on(tmp_path, monkeypatch, tally):
    """By the new file alone, too, where the disk locks no folders."""
    for act, folders in tally(list(itertools.product([without_lock_file, another_lock_file], [True, False]))):
        folder = tmp_path / f"{act.__name__} {folders}"
        with monkeypatch.context() as patch:
            if not folders:
                patch.setattr(locks, "_lock_folder", lambda *_: None)
            with RunLock(folder):
                act(folder)
                check_held(folder)
                with pytest.raises(InUse):
                    RunLock(folder)


@pytest.mark.promise(33)
def test_a_folder_that_was_replaced_between_opening_and_locking_is_locked_as_it_is_now(tmp_path, monkeypatch, tally):
    lock = locks._lock_folder
    for act in tally([made_again, taken_over]):
        folder, left = tmp_path / act.__name__, [act]

        def late(*arguments, folder=folder, left=left):
            if left:
                left.pop()(folder)
            lock(*arguments)

        with monkeypatch.context() as patch:
            patch.setattr(locks, "_lock_folder", late)
            held = RunLock(folder)
        with held:
            check_held(folder)
            with pytest.raises(InUse):
                RunLock(folder)


@pytest.mark.promise(33)
def test_a_training_stops_within_a_step_where_its_folder_is_gone(forge, unbroken, tmp_path, tally):
    for how in tally(["deleted", "renamed"]):
        folder = tmp_path / how / "run"
        seldom = {"steps": 40, "log_every": 100, "checkpoint_every": 100, "sample_every": 100}  # nothing is written
        at, out = unbroken.calls * 3 // 4, tmp_path / f"{how}.txt"
        code, errors = forge("folder_gone", data=unbroken.data, folder=folder, at=at, how=how, out=out, **seldom)
        assert code == 2, errors
        assert int(out.read_text()) <= 1
        assert "is no longer the folder that this run was started in" in errors
        assert not (folder / "model.safetensors").exists()


PREPARE = """
import sys, os
from pathlib import Path
from t2i import locks, prepare
from t2i.prepare import packing
write = packing.write_shard
def slow(*arguments, **options):
    print("writing", flush=True)
    sys.stdin.readline()
    return write(*arguments, **options)
packing.write_shard = slow
prepare.pack("folder", Path(sys.argv[1]), Path(sys.argv[2]), size=16, show_progress=False, shard_images=2)
"""


@pytest.mark.promise(33)
def test_a_second_preparation_is_refused_at_every_shard_of_the_first(source, tmp_path, tally):
    """Another process prepares the folder and stops before each of its shards, where somebody else tries to."""
    other = tmp_path / "other"
    shutil.copytree(source, other)
    (other / "0.txt").write_text("another caption")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", PREPARE, str(source), str(tmp_path / "out")]
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        for number in tally(range(3)):
            assert process.stdout.readline() == "writing\n"
            attempts = [
                lambda: packed(other, tmp_path / "out"),
                lambda: packed(source, tmp_path / "out", shard="0/2"),
                lambda: pack_blossoms(tmp_path / "out", images=30),
            ]
            with pytest.raises(InUse, match=rf"in use by another t2i-prepare \(process {process.pid}\)"):
                attempts[number]()
            process.stdin.write("\n")
            process.stdin.flush()
        process.communicate(timeout=100)
    assert process.returncode == 0
    packed(source, tmp_path / "whole")
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


FIRST = """
import sys
from pathlib import Path
from t2i.blossoms import pack
from t2i.data.dataset import PackedDataset
print(PackedDataset(pack.embedded_blossoms(16, Path(sys.argv[1]), images=60), verify=True).fingerprint, flush=True)
"""


@pytest.mark.promise(33)
def test_first_runs_on_a_fresh_machine_share_one_cache(tmp_path, tally):
    for case in tally(range(2 if len(cases(33)) <= 12 else 8)):
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            "OMP_NUM_THREADS": "1",
            "XDG_CACHE_HOME": str(tmp_path / f"cache{case}"),
        }
        commands = [[sys.executable, "-c", FIRST, str(tmp_path / f"run{case}-{number}")] for number in range(3)]
        running = [
            subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for command in commands
        ]
        found = [process.communicate(timeout=100)[0] for process in running]
        assert [process.returncode for process in running] == [0, 0, 0]
        assert len(set(found)) == 1
        assert not list(tmp_path.glob(f"run{case}-*"))
        (place,) = (tmp_path / f"cache{case}" / "t2i").iterdir()
        assert sorted(path.name for path in place.iterdir()) == ["pack.json", "report.json", "shard-00000.safetensors"]


@pytest.mark.promise(32)
@pytest.mark.parametrize("kind", ["text", "style"])
def test_an_encoder_that_is_trained_anew_by_force_takes_its_own_files_alone(tmp_path, kind):
    """Notes lie beside its checkpoints, in one of them and in the folder that both are in; one is a link to elsewhere."""
    elsewhere, record = tmp_path / "elsewhere", tmp_path / f"{kind}.json"
    saved = tmp_path / kind / "checkpoints"
    for step in (1, 2):
        folder = saved / f"step-{step:08d}"
        folder.mkdir(parents=True)
        for name in ("state.json", "state.safetensors"):
            (folder / name).write_bytes(b"ours")
    elsewhere.mkdir()
    mine = [tmp_path / kind / "notes.txt", saved / "notes.txt", saved / "step-00000002" / "notes.txt", elsewhere / "a"]
    for path in mine:
        path.write_text("mine")
    (elsewhere / "state.json").write_text("mine too")
    (saved / "step-00000003").symlink_to(elsewhere)
    record.write_text('{"settings": {"width": 1}}')
    (tmp_path / f"{kind}.safetensors").write_bytes(b"ours")
    with pytest.raises(t2i.ConfigError, match="made from something else"):
        check_record(record, {"settings": {"width": 2}}, force=False)
    assert (saved / "step-00000001" / "state.json").exists()
    check_record(record, {"settings": {"width": 2}}, force=True)
    mine[2] = saved / "old-step-00000002" / "notes.txt"
    assert [path.read_text() for path in mine] == ["mine"] * 4
    assert not has_checkpoint(tmp_path / kind)
    assert not (tmp_path / f"{kind}.safetensors").exists()
    assert sorted(tmp_path.rglob("state.*")) == [elsewhere / "state.json"]
