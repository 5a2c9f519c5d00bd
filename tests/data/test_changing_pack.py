"""A packed data set that changes under a running job: noticed at the next batch, a checkpoint written, the shard named."""

import json
import os
import pickle
import shutil

import numpy as np
import pytest

import t2i
from helpers import tiny_config as config
from promises import cases
from t2i.blossoms.pack import pack_blossoms
from t2i.data.dataset import PackedDataset
from t2i.data.loader import Loader
from t2i.training import gan

pytestmark = pytest.mark.usefixtures("one_thread")


def cut(shard):
    os.truncate(shard, 100)


def emptied(shard):
    os.truncate(shard, 0)


def replaced(shard):
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.with_name("new").write_bytes(data)
    shard.with_name("new").replace(shard)


def rewritten(shard):
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)


def rewritten_with_its_times_set_back(shard):
    """As cp -p and rsync -t leave it."""
    before = shard.stat()
    rewritten(shard)
    os.utime(shard, ns=(before.st_atime_ns, before.st_mtime_ns))


def deleted(shard):
    shard.unlink()


def unreadable(shard):
    shard.chmod(0)


def folder_gone(shard):
    shutil.rmtree(shard.parent)


def folder_renamed(shard):
    shard.parent.rename(shard.parent.with_name("elsewhere"))


CHANGES = [
    cut,
    replaced,
    deleted,
    unreadable,
    emptied,
    rewritten,
    folder_gone,
    folder_renamed,
    rewritten_with_its_times_set_back,
]
MEMORY = [2 * 2**30, 0]  # a copy in memory; read from the file, batch by batch


@pytest.mark.promise(15)
@pytest.mark.parametrize("case", cases(15)[:18])
def test_a_run_whose_data_set_changes_stops_with_a_checkpoint_and_goes_on(
    tiny_blossoms_folder, tmp_path, monkeypatch, case
):
    change, memory = CHANGES[case % len(CHANGES)], MEMORY[(case // len(CHANGES) + case) % 2]
    shutil.copytree(tiny_blossoms_folder, tmp_path / "pack")
    shard = tmp_path / "pack" / "shard-00000.safetensors"
    stop, run, batch = 1 + case % 3, tmp_path / "run", Loader.batch

    def changing(self, step):
        if step == stop:
            change(shard)
        return batch(self, step)

    monkeypatch.setattr(Loader, "batch", changing)
    with pytest.raises(
        t2i.DataError, match=rf"shard-00000\.safetensors: changed while in use.*after step {stop}, with a"
    ):
        gan.train(config(), PackedDataset(tmp_path / "pack", memory=memory), run)
    assert [path.name for path in (run / "checkpoints").iterdir()] == [f"step-{stop:08d}"]
    monkeypatch.setattr(Loader, "batch", batch)
    if case == 0:  # put back, the run goes on from there, to the bytes of one that nothing happened to
        shutil.rmtree(tmp_path / "pack")
        shutil.copytree(tiny_blossoms_folder, tmp_path / "pack")
        gan.train(config(), PackedDataset(tmp_path / "pack"), run)
        gan.train(config(), PackedDataset(tmp_path / "pack"), tmp_path / "unbroken")
        weights = [(path / "model.safetensors").read_bytes() for path in (run, tmp_path / "unbroken")]
        assert weights[0] == weights[1]
        steps = [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]
        assert steps == sorted(set(steps))


def test_further_tensors_are_those_of_the_pack_that_was_opened(tmp_path):
    """`t2i-prepare --force` puts another pack in its place: its attributes belong to other images."""
    pack = tmp_path / "pack"
    pack_blossoms(pack, images=60, size=19, show_progress=False)
    data = PackedDataset(pack)
    before = data.extra("attributes")
    assert len(before) == 60
    pack_blossoms(pack, images=60, size=19, seed=1, force=True, show_progress=False)
    with pytest.raises(t2i.DataError, match=r"shard-00000[.]safetensors changed while in use"):
        data.extra("attributes")
    (pack / "pack.json").unlink()
    with pytest.raises(t2i.DataError, match="changed while in use"):
        data.extra("attributes")
    pack_blossoms(tmp_path / "again", images=60, size=19, show_progress=False)
    assert (PackedDataset(tmp_path / "again").extra("attributes") == before).all()


def test_a_data_set_that_is_sent_to_another_process_is_the_same_one_there_or_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pack_blossoms(tmp_path / "pack", images=20, size=19, show_progress=False)
    data = PackedDataset("pack", memory=0)
    sent, pixels, captions = pickle.dumps(data), data.read_images(range(20)), data.captions_of(3)
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")  # the other process may be elsewhere
    there = pickle.loads(sent)
    assert np.array_equal(there.read_images(range(20)), pixels)
    assert there.captions_of(3) == captions
    pack_blossoms(tmp_path / "pack", images=20, size=19, seed=1, force=True, show_progress=False)
    with pytest.raises(t2i.DataError, match="has changed since another process opened it"):
        pickle.loads(sent)
