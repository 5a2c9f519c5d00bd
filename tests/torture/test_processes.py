"""Several processes: on one data set, on one folder, forked after threads ran; and places where little is allowed."""

import multiprocessing
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import natives
from promises import TORTURE, cases, count
from runs import HERE, Forge
from t2i.blossoms.pack import pack_blossoms

# The other half of promise 7, training with ranks of which one is killed, is tests/test_distributed.py's.
SAMPLED = count(7) // 2


@pytest.mark.promise(7)
def test_1_2_and_4_processes_see_the_same_samples(forge, tiny_blossoms_folder, tmp_path, tally):
    for world in (1, 2, 4):
        for rank in range(world):
            code, errors = forge(
                "natives:write_plans",
                data=tiny_blossoms_folder,
                out=tmp_path / f"{world}-{rank}.npz",
                rank=rank,
                world=world,
                cases=SAMPLED,
            )
            assert code == 0, errors
    plans = {(w, r): np.load(tmp_path / f"{w}-{r}.npz") for w in (1, 2, 4) for r in range(w)}
    for case in tally(range(SAMPLED)):
        for name in natives.PLAN:
            expected = plans[1, 0][f"{case}.{name}"]
            for world in (2, 4):
                parts = [plans[world, rank][f"{case}.{name}"] for rank in range(world)]
                assert np.array_equal(np.concatenate(parts), expected), (world, name)
    first, second = (plans[1, 0][f"{case}.image"] for case in (0, 1))
    assert not np.array_equal(first, second)


@pytest.mark.promise(9)
def test_a_second_run_is_refused_and_a_dead_one_is_followed(forge, unbroken, tmp_path, tally):
    """Every fifth case is refused by a run in training, the others by a process that holds the lock; killed or ended.

    Where the lock file is gone the folder's lock refuses, and where the disk locks no folders the file's.
    """
    for case in tally(cases(9)):
        way = ("killed", "ended", "without its lock file", "training", "on a disk that locks no folders")[case % 5]
        code, errors = forge("two_runs", data=unbroken.data, folder=tmp_path / str(case), way=way)
        assert code == 0, errors


@pytest.fixture(scope="module")
def picture_files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for number in range(6):
        Image.fromarray(rng.integers(0, 256, (40, 30, 3), np.uint8)).save(folder / f"{number}.png")
    return [str(path) for path in sorted(folder.iterdir())]


@pytest.mark.promise(21)
def test_a_process_forked_after_native_threads_ran_works_on(forge, tiny_blossoms_folder, picture_files, tally):
    forks = count(21) - 2 * STARTS
    batch = min(10, forks)  # forks of one child
    for _ in tally(range(0, forks, batch)):
        code, errors = forge("forks_after_threads", data=tiny_blossoms_folder, paths=picture_files, times=batch)
        assert code == 0, errors
    tally.seen[:] = [forks, forks]  # each of which is a case


STARTS = 5 if TORTURE else 1


@pytest.mark.promise(21)
@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_process_started_after_native_threads_ran_works(tiny_blossoms_folder, picture_files, tally, method):
    expected = natives.work(tiny_blossoms_folder, picture_files)
    context = multiprocessing.get_context(method)
    for _ in tally(range(STARTS)):
        queue = context.SimpleQueue()
        process = context.Process(target=natives.put_work, args=(queue, tiny_blossoms_folder, picture_files))
        process.start()
        process.join(100)
        assert process.exitcode == 0
        assert queue.get() == expected


FLAGS = shlex.split(
    "--steps 10 --size 16 --batch 8 --generator-width 8 --discriminator-width 8 --noise-dim 8 --projection-dim 8 "
    "--text.width 8 --text.channels 8 8 --text.dim 16 --text.image-width 8 --text.batch 8 --text.steps 2 --log-every 1 "
    "--threads 1 --precision float32"
)
HARDSHIPS = ["home", "network", "language", "files"]


@pytest.mark.promise(28)
@pytest.mark.parametrize("case", cases(28))
def test_ten_steps_where_little_is_allowed(tmp_path, case):
    """Case 0 is all at once, 1 to 4 one each, 5 another user than root with nothing but a folder of its own.

    Captions, of which one is printed at the end, and the folder's name are no ASCII.
    """
    data = tmp_path / "data"
    pack_blossoms(data, images=150, size=19, language="zh", show_progress=False)
    if case == 5:
        not_root(data)
        return
    chosen = HARDSHIPS if case == 0 else [HARDSHIPS[case - 1]]
    folder = tmp_path / "Blütenstaub"
    command = [sys.executable, str(HERE / "hardship.py"), ",".join(chosen), "--data", str(data)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}
    if "language" in chosen:
        plain = {"LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
        environment = {name: value for name, value in environment.items() if not name.startswith("LC_")} | plain
    done = subprocess.run([*command, "--out", str(folder), *FLAGS], env=environment, capture_output=True)
    errors = done.stderr.decode(errors="replace")
    if done.returncode == 77:
        pytest.skip(errors.strip().splitlines()[-1])
    assert done.returncode == 0, errors
    assert (folder / "model.safetensors").exists()
    assert (folder / "checkpoints" / "step-00000010" / "state.json").exists()


def not_root(data):
    if os.getuid() != 0:
        pytest.skip("this already is not root: every other test shows it")
    place = Path(tempfile.mkdtemp())  # pytest's own folders are closed to others
    forge = Forge()
    try:
        place.chmod(0o755)
        (place / "own").mkdir()
        os.chown(place / "own", 65534, 65534)
        shutil.copytree(data, place / "data")
        (place / "data").chmod(0o755)
        code, errors = forge("not_root", data=place / "data", folder=place / "own" / "run")
        assert code == 0, errors
        assert (place / "own" / "run" / "model.safetensors").stat().st_uid == 65534
    finally:
        forge.close()
        shutil.rmtree(place)
