"""The lock of a run folder, as Linux and macOS have it and as Windows has it."""

import errno
import importlib
import sys
import types

import pytest

from t2i import locks


class FakeWindows(types.ModuleType):
    """msvcrt as documented: a byte that is locked through one file cannot be locked through another, until that is closed."""

    LK_NBLCK = 2

    def __init__(self):
        super().__init__("msvcrt")
        self.files, self.held = [], {}

    def locking(self, descriptor, mode, count):
        import os

        place = os.lseek(descriptor, 0, os.SEEK_CUR)
        assert (mode, count) == (self.LK_NBLCK, 1)
        key = (os.fstat(descriptor).st_ino, place)
        if self.held.setdefault(key, descriptor) != descriptor:
            raise PermissionError(errno.EACCES, "Permission denied")


@pytest.fixture(params=["here", "windows"])
def lock(request, monkeypatch):
    if request.param == "here":
        yield locks.lock
        return
    monkeypatch.setitem(sys.modules, "msvcrt", FakeWindows())
    monkeypatch.setattr(sys, "platform", "win32")
    yield importlib.reload(locks).lock
    monkeypatch.undo()
    importlib.reload(locks)


def test_a_second_holder_is_refused_and_the_text_stays_readable(lock, tmp_path):
    path = tmp_path / ".lock"
    with open(path, "a+") as first, open(path, "a+") as second:
        lock(first)
        first.write("12\n")
        first.flush()
        with pytest.raises(BlockingIOError):
            lock(second)
        second.seek(0)
        assert second.read() == "12\n"
