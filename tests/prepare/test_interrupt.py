"""Ctrl-C in native calls: seen after a few megabytes of images, and after one shard of a pack that is opened."""

import os
import signal
import traceback

import numpy as np
import pytest
from PIL import Image

from helpers import packed
from t2i.data.dataset import PackedDataset
from t2i.errors import DataError
from t2i.prepare import images
from t2i.prepare.items import Item


@pytest.fixture
def pictures(tmp_path):
    """24 files of 90 kB: noise does not compress."""
    pixels = np.random.default_rng(0).integers(0, 256, (173, 173, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "0.png")
    data = (tmp_path / "0.png").read_bytes()
    for number in range(1, 24):
        (tmp_path / f"{number}.png").write_bytes(data)
    return [Item(tmp_path / f"{number}.png", ("a caption",), None, False) for number in range(24)]


def test_a_native_call_decodes_a_few_megabytes_and_the_result_is_the_same(pictures, monkeypatch):
    whole, reasons = images.load_images(pictures, 16, "stretch", 10**6)
    sizes = []
    native = images._native.load_images

    def counted(paths, *rest):
        sizes.append(sum(os.path.getsize(path) for path in paths))
        return native(paths, *rest)

    monkeypatch.setattr(images._native, "load_images", counted)
    monkeypatch.setattr(images, "GROUP_BYTES", 300_000)
    again, also = images.load_images(pictures, 16, "stretch", 10**6)
    assert np.array_equal(whole, again)
    assert reasons == also == [None] * 24
    assert len(sizes) == 8
    assert max(sizes) <= 300_000


def test_a_file_larger_than_a_group_is_a_group_and_a_missing_one_is_named(pictures, monkeypatch, tmp_path):
    monkeypatch.setattr(images, "GROUP_BYTES", 1)
    items = [pictures[0], Item(tmp_path / "none.png", ("a caption",), None, False), pictures[1]]
    _, reasons = images.load_images(items, 16, "stretch", 10**6)
    assert reasons[0] is None
    assert reasons[2] is None
    assert reasons[1].startswith("unreadable")


@pytest.mark.promise(38)
@pytest.mark.parametrize("place", [0, 3, 7])
def test_ctrl_c_ends_after_the_native_call_it_came_in(pictures, monkeypatch, place):
    calls = []
    native = images._native.load_images

    def interrupted(paths, *rest):
        if len(calls) == place:
            os.kill(os.getpid(), signal.SIGINT)
        calls.append(len(paths))
        return native(paths, *rest)

    monkeypatch.setattr(images._native, "load_images", interrupted)
    monkeypatch.setattr(images, "GROUP_BYTES", 300_000)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
    try:
        with pytest.raises(KeyboardInterrupt):
            images.load_images(pictures, 16, "stretch", 10**6)
    finally:
        signal.signal(signal.SIGINT, before)
    assert len(calls) <= place + 1


def where_interrupted(pack, memory, delay):
    """Open a pack, and ask for an end after `delay` seconds: the line that was interrupted, or None if none was."""
    try:
        try:
            signal.setitimer(signal.ITIMER_REAL, delay)
            PackedDataset(pack, memory=memory)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    except KeyboardInterrupt as interrupt:
        return traceback.extract_tb(interrupt.__traceback__)[-1].line
    except DataError:
        return None


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timers of this kind on Windows")
@pytest.mark.promise(38)
@pytest.mark.parametrize("memory", [2**30, 0])
def test_ctrl_c_ends_the_opening_of_a_pack_before_its_last_shard(pictures, tmp_path, memory):
    for item in pictures:
        item.path.with_suffix(".txt").write_text("a caption of " + item.path.stem)
    packed("folder", tmp_path, tmp_path / "out", shard_images=1)
    pack = tmp_path / "out" / "pack"
    sorted(pack.glob("shard-*"))[-1].unlink()  # whoever reads as far as that ends with another error
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        found = {where_interrupted(pack, memory, delay * 5e-5) for delay in range(1, 400)}
    finally:
        signal.signal(signal.SIGALRM, before)
    assert "self.native = _native.Pack(str(self.path), verify, memory)" in found
