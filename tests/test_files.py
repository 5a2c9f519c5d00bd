"""Files of strangers: each check alone, where in use another one stands behind it."""

import errno
import functools
import json
import os
import struct
import sys
from pathlib import Path

import pytest

import t2i
from promises import cases
from t2i import files
from t2i.files import (
    MAX_RECORD_BYTES,
    MAX_SPARSE_BYTES,
    check_file,
    read_file,
    read_json,
    replace_together,
    write_atomically,
)
from t2i.weights import read_header, read_tensors

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="pipes and holes are what Linux and macOS have"),
    pytest.mark.timeout(20),  # a pipe that is opened waits for ever
]
READERS = [check_file, read_file, read_json, read_header, read_tensors]


def named(reader):
    return reader.__name__


@pytest.fixture
def opened(monkeypatch):
    """The paths that Python opens from now on."""
    found, real = [], os.open

    def noted(path, *rest, **options):
        found.append(os.fspath(path))
        return real(path, *rest, **options)

    monkeypatch.setattr(os, "open", noted)
    return found


def pipe(path):
    os.mkfifo(path)


def device(path):
    path.symlink_to("/dev/zero")


def folder(path):
    path.mkdir()


@pytest.mark.promise(34)
@pytest.mark.parametrize("read", READERS, ids=named)
def test_what_is_no_plain_file_is_refused_before_it_is_opened(tmp_path, opened, tally, read):
    for make in tally([pipe, device, folder]):
        path = tmp_path / make.__name__
        make(path)
        with pytest.raises(t2i.CheckpointError, match=r"is not a plain file$"):
            read(path)
    assert opened == []


@pytest.mark.promise(34)
def test_a_file_that_becomes_a_pipe_after_it_was_looked_at_is_refused_without_waiting(tmp_path, monkeypatch, tally):
    for number, read in enumerate(tally([read_file, read_json])):
        path = tmp_path / str(number)
        path.write_bytes(b"{}")

        def look_and_swap(path, *rest, real=check_file):
            found = real(path, *rest)
            path.unlink()
            os.mkfifo(path)
            return found

        with monkeypatch.context() as patch:
            patch.setattr(files, "check_file", look_and_swap)
            with pytest.raises(t2i.CheckpointError, match=r"is not a plain file$"):
                read(path)


@pytest.mark.promise(34)
def test_a_longer_file_than_expected_is_refused_unread_and_one_that_grows_is_read_no_further(
    tmp_path, monkeypatch, opened, tally
):
    for most, read in tally([(100, functools.partial(read_file, most=100)), (MAX_RECORD_BYTES, read_json)]):
        path = tmp_path / str(most)
        path.write_bytes(b" " * (most + 1))
        with pytest.raises(t2i.CheckpointError, match=f"has {most + 1:,} bytes; at most {most:,} were expected"):
            read(path)
        assert opened == []
        with monkeypatch.context() as patch:
            patch.setattr(files, "check_file", lambda *_: None)
            with pytest.raises(t2i.CheckpointError, match=f"has more than {most:,} bytes"):
                read(path)
        opened.clear()


def with_header(path, length):
    """A sound safetensors file of one tensor, of which nothing but the header is written."""
    header = json.dumps({"text.a": {"dtype": "U8", "shape": [length], "data_offsets": [0, length]}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    os.truncate(path, 8 + len(header) + length)


@pytest.mark.promise(34)
@pytest.mark.parametrize("read", READERS, ids=named)
def test_a_file_of_holes_that_would_fit_the_memory_is_refused(tmp_path, monkeypatch, tally, read):
    """One of hundreds of gigabytes is refused for the memory, too; this one for its holes alone."""
    monkeypatch.setattr(files, "free_memory", lambda: 1 << 50)
    options = {"most": 1 << 50} if read is read_json else {}
    for length in tally([MAX_SPARSE_BYTES + 1, 1 << 30, 1 << 40][: 3 if len(cases(34)) > 20 else 2]):
        path = tmp_path / str(length)
        with_header(path, length)
        with pytest.raises(t2i.CheckpointError, match=r"bytes, of which only [\d,]+ are there: it is mostly holes$"):
            read(path, **options)


@pytest.mark.promise(34)
def test_a_file_that_is_mostly_there_or_compressed_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "MAX_SPARSE_BYTES", 1 << 16)
    path = tmp_path / "half"
    path.write_bytes(bytes(range(256)) * 2048)  # half a megabyte
    os.truncate(path, 1 << 20)
    assert len(read_file(path)) == 1 << 20
    os.truncate(path, 0)
    os.truncate(path, 1 << 20)
    with pytest.raises(t2i.CheckpointError, match="mostly holes"):
        check_file(path)
    monkeypatch.setattr(os, "lseek", lambda descriptor, at, whence: 1 << 20)  # as a file system that compresses says
    assert len(read_file(path)) == 1 << 20


@pytest.mark.promise(34)
@pytest.mark.parametrize("read", READERS, ids=named)
def test_a_file_larger_than_the_free_memory_is_refused_unread(tmp_path, monkeypatch, opened, read):
    monkeypatch.setattr(files, "MAX_SPARSE_BYTES", 1000)
    monkeypatch.setattr(files, "free_memory", lambda: 2000)
    path = tmp_path / "x"
    path.write_bytes(b"x" * 3000)
    with pytest.raises(t2i.CheckpointError, match=r"has 3,000 bytes; 2,000 bytes of memory are free$"):
        read(path)
    assert opened == []


@pytest.mark.promise(34)
def test_the_free_memory_is_known_where_the_system_says_it():
    if not os.path.exists("/proc/meminfo"):
        pytest.skip("this system does not say")
    assert 1 << 20 < files.free_memory() < 1 << 50


@pytest.mark.promise(34)
def test_json_nested_too_deeply_is_one_line(tmp_path, tally):
    for number, text in enumerate(tally([b"[" * 100_000, b'{"a":' * 100_000, b"[" * 100_000 + b"]" * 100_000])):
        path = tmp_path / str(number)
        path.write_bytes(text)
        with pytest.raises(t2i.CheckpointError, match=r"is not JSON: it is nested too deeply$"):
            read_json(path)


@pytest.mark.promise(34)
@pytest.mark.parametrize("read", READERS, ids=named)
def test_a_name_that_no_file_can_have_is_one_line(tmp_path, read):
    for name in ("a\0b", "x" * 5000):
        with pytest.raises(t2i.CheckpointError) as caught:
            read(tmp_path / name)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["x" * 255, "x" * 250 + ".json", "花" * 83 + ".png", "x" * 233, "x" * 234, "x"])
def test_a_file_has_as_long_a_name_as_the_disk_takes(name, tmp_path):
    write_atomically(tmp_path / name, b"content")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {name: b"content"}
    replace_together(tmp_path, {name: b"other", "key": b""}, "key")
    assert (tmp_path / name).read_bytes() == b"other"


@pytest.mark.parametrize("code", [errno.EROFS, errno.EIO, errno.ESTALE])
def test_a_disk_that_takes_neither_a_file_nor_a_deletion_is_one_line(tmp_path, monkeypatch, code):
    """On Linux a read-only file system refuses to delete even what is not there."""

    def refused(*arguments, **options):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(files, "_write_synced", refused)
    monkeypatch.setattr(Path, "unlink", refused)
    for write in (
        lambda: write_atomically(tmp_path / "a", b"x"),
        lambda: replace_together(tmp_path, {"a": b"x", "key": b""}, "key"),
    ):
        with pytest.raises(t2i.CheckpointError, match=f"cannot write .*: {os.strerror(code)}; free some space or"):
            write()


@pytest.mark.parametrize("name", ["n" * 300, "missing/file"])  # the temporary name cannot be removed either
def test_a_name_that_cannot_be_written_is_one_line(tmp_path, name):
    with pytest.raises(t2i.CheckpointError, match=r"^cannot write .*choose another --out$"):
        files.write_atomically(tmp_path / name, b"data")
    with pytest.raises(t2i.CheckpointError, match=r"^cannot write "):
        files.replace_together(tmp_path, {name: b"data", "key": b"1"}, "key")
    assert list(tmp_path.iterdir()) == []
