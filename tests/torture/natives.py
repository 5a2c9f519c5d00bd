"""What processes do with the native module alone: light to import, so that spawn costs little."""

import hashlib
import os
import select
import signal
import traceback

import numpy as np

from t2i import _native

THREADS = 4


def plan_of(pack, step, **options):
    return _native.Sampler(pack, batch=8, crop=16, captions_per_image=2, **options).plan(step)


def work(data, paths, step=0):
    """Decode pictures and fill a batch on several threads, and hash what came out."""
    pack = _native.Pack(str(data), False)
    images = np.empty((8, 16, 16, 3), np.uint8)
    captions = np.empty((8, 2, _native.CAPTION_LENGTH), np.uint8)
    pack.fill(plan_of(pack, step), images=images, captions=captions, threads=THREADS)
    loaded = np.empty((len(paths), 16, 16, 3), np.uint8)
    assert _native.load_images(paths, None, "crop", 1 << 20, loaded) == [None] * len(paths)
    return hashlib.sha256(images.tobytes() + captions.tobytes() + loaded.tobytes()).hexdigest()


def put_work(queue, *arguments):
    queue.put(work(*arguments))


def waited(pid, deadline):
    """Wait for a child: its exit code, or None where it hung and was killed."""
    pidfd = os.pidfd_open(pid)
    try:
        if not select.select([pidfd], [], [], deadline)[0]:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return None
    finally:
        os.close(pidfd)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def in_child(function, *arguments, deadline=60):
    """Call a function in a forked child; returns its exit code, 0 where it returned."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            function(*arguments)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return waited(pid, deadline)


def write_plans(data, out, rank, world, cases):
    """Write what one of `world` processes plans for every case: seed and step are the case's number."""
    pack = _native.Pack(str(data), False)
    plans = {}
    for case in range(cases):
        plan = plan_of(pack, case * 7, seed=case, rank=rank, world=world, interpolation="uniform")
        for name in PLAN:
            plans[f"{case}.{name}"] = getattr(plan, name)
    np.savez(out, **plans)


PLAN = (
    "image",
    "mismatched_image",
    "caption",
    "mismatched_caption",
    "crop",
    "mismatched_crop",
    "flip",
    "mismatched_flip",
)
