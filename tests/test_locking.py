"""The lock of a run folder where the disk has none, where nothing can be written, and what a refused process sees."""

import errno
import os
import sys

import pytest

import t2i
from t2i.locks import RunLock

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="flock is what Linux and macOS have")


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_disk_without_locks_is_refused_by_name_and_not_called_in_use(tmp_path, monkeypatch, code):
    def without(descriptor, operation):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("fcntl.flock", without)
    with pytest.raises(t2i.CheckpointError, match="choose an --out on a disk that has locks") as caught:
        RunLock(tmp_path)
    assert str(caught.value).startswith(f"cannot lock {tmp_path}: ")


def test_the_third_process_is_told_of_the_holder_as_the_second_was(tmp_path):
    with RunLock(tmp_path):
        for _ in range(3):
            with pytest.raises(t2i.CheckpointError, match=rf"in use by another run \(process {os.getpid()}\); wait"):
                RunLock(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


@pytest.mark.parametrize("left", [b"", b"none\n", b"\xff\xfe"])
def test_a_holder_that_cannot_be_read_is_left_out_of_the_message(tmp_path, left):
    with RunLock(tmp_path):
        (tmp_path / ".holder").write_bytes(left)
        with pytest.raises(t2i.CheckpointError, match="in use by another run; wait for it"):
            RunLock(tmp_path)


def test_the_note_of_a_dead_holder_neither_locks_nor_names(tmp_path):
    (tmp_path / ".lock").touch()
    (tmp_path / ".holder").write_text("1\n")
    with RunLock(tmp_path):
        assert (tmp_path / ".holder").read_text() == f"{os.getpid()}\n"


@pytest.mark.parametrize("name", [".lock", ".holder"])
@pytest.mark.parametrize("there", [True, False])
def test_a_link_in_the_place_of_a_file_of_ours_is_not_written_through(tmp_path, name, there):
    """A run folder from a stranger, whose link leads to a file of the user's."""
    precious, run = tmp_path / "precious", tmp_path / "run"
    run.mkdir()
    (run / name).symlink_to(precious)
    if there:
        precious.write_text("mine\n")
    if name == ".lock":
        with pytest.raises(t2i.CheckpointError, match=r"cannot use .* as a run folder"):
            RunLock(run)
    else:
        with RunLock(run):
            pass
    assert precious.read_text() == "mine\n" if there else not precious.exists()


@pytest.mark.timeout(20)  # a pipe that is opened waits for ever
def test_pipes_in_the_places_of_our_files_are_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / ".holder")
    with RunLock(tmp_path), pytest.raises(t2i.CheckpointError, match="in use by another run; wait for it"):
        RunLock(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / ".lock").unlink()
    (tmp_path / "pipe").rename(tmp_path / ".lock")
    with pytest.raises(t2i.CheckpointError, match=r"cannot use .* as a run folder"):
        RunLock(tmp_path)
