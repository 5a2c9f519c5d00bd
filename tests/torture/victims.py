"""What the forge's children do: train a run of seconds, and be killed, signalled or starved at a chosen moment.

A moment is counted, not timed: the n-th call of a function since the training began, or the k-th byte that a checkpoint
writer hands to the disk. So every case happens at the same place on every machine, however fast.
"""

import builtins
import codecs
import dataclasses
import errno
import fcntl
import itertools
import json
import math
import os
import shutil
import signal
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from t2i import files
from t2i.config.options import StyleConfig, TextOptions, TrainConfig
from t2i.data.dataset import PackedDataset
from t2i.errors import CheckpointError
from t2i.locks import RunLock
from t2i.training import checkpoint
from t2i.training.progress import Progress

TEXT = TextOptions(
    encoder="joint", width=8, channels=(8, 8), dim=16, steps=5, batch=8, objective="contrastive", image_width=8
)
RUN = TrainConfig(
    size=16,
    generator_width=8,
    discriminator_width=8,
    noise_dim=8,
    projection_dim=8,
    batch=8,
    steps=6,
    device="cpu",
    precision="float32",
    threads=1,
    captions_per_image=1,
    log_every=1,
    checkpoint_every=2,
    sample_every=3,
    halve_every=0,
    alignment_weight=0.2,
    ema=0.9,
    text=TEXT,
)
STYLE_RUN = StyleConfig(
    model="", steps=6, batch=8, width=8, device="cpu", precision="float32", log_every=1, checkpoint_every=2
)


def config_of(**changes):
    text = dataclasses.replace(TEXT, **changes.pop("text", {}))
    return dataclasses.replace(RUN, **changes, text=text)


def train(data, folder, what="gan", **changes):
    """Train the small run: text encoder and GAN, or the style encoder of one that is there."""
    from t2i.training import gan, style

    if what == "gan":
        gan.train(config_of(out=folder, **changes), PackedDataset(data), Path(folder))
    else:
        style.train_style(dataclasses.replace(STYLE_RUN, model=folder, data=data, **changes))


class CallCounter:
    """Count calls of Python and C functions in this thread; at the n-th, act once."""

    def __init__(self, at=None, act=None):
        self.count, self.at, self.act = 0, at, act

    def __call__(self, frame, event, argument):
        if event in ("call", "c_call"):
            self.count += 1
            if self.count == self.at:
                self.act()

    def __enter__(self):
        sys.setprofile(self)
        return self

    def __exit__(self, *exception):
        sys.setprofile(None)


def count_calls(data, folder, out, **changes):
    """Train to the end and write down how many calls that took."""
    with CallCounter() as counter:
        train(data, folder, **changes)
    Path(out).write_text(str(counter.count))


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


def killed_at_call(data, folder, at, **changes):
    """Train, and die of SIGKILL at call `at`."""
    with CallCounter(at, kill):
        train(data, folder, **changes)


class Disk:
    """Count what the module that writes files hands to the disk: each byte is one unit, each other operation one too.

    At unit `at`, `act` is called: in the middle of a write the bytes before it have reached the file.
    """

    def __init__(self, at=None, act=kill):
        self.units, self.at, self.act = 0, at, act

    def pass_by(self, units=1):
        """Count units; returns how many of them come before the moment, or None where it is not among them."""
        before = self.units
        self.units += units
        if self.at is not None and before < self.at <= self.units:
            return self.at - before - 1
        return None

    def operation(self, function):
        def counted(*arguments, **options):
            if self.pass_by() is not None:
                self.act()
            return function(*arguments, **options)

        return counted

    def open(self, path, mode="r", *arguments, **options):
        file = builtins.open(path, mode, *arguments, **options)  # noqa: SIM115 (the caller closes it)
        if "w" in mode:
            if self.pass_by() is not None:
                self.act()
            write = file.write

            def counted(data):
                left = self.pass_by(len(data))
                if left is not None:
                    write(data[:left])
                    file.flush()
                    self.act()
                return write(data)

            return Proxy(file, counted)
        return file

    def install(self):
        """Put this disk under the module that writes files of this process, which is a child and ends with it."""
        files.open = self.open
        for name in ("fsync", "rename", "replace", "unlink", "rmdir", "mkdir"):
            setattr(os, name, self.operation(getattr(os, name)))
        return self


class Proxy:
    """A file whose `write` is another."""

    def __init__(self, file, write):
        self.file, self.write = file, write

    def __enter__(self):
        self.file.__enter__()
        return self

    def __exit__(self, *exception):
        return self.file.__exit__(*exception)

    def __getattr__(self, name):
        return getattr(self.file, name)


def count_disk(data, folder, out, **changes):
    """Train to the end and write down how many units went to the disk."""
    disk = Disk().install()
    train(data, folder, **changes)
    units = disk.units
    Path(out).write_text(str(units))


def killed_in_write(data, folder, at, **changes):
    """Train, and die of SIGKILL at unit `at` of what goes to the disk."""
    Disk(at).install()
    train(data, folder, **changes)


def killed_before_rename(data, folder, name, at, **changes):
    """Train, and die of SIGKILL just before a file takes its place as `name` for the `at`-th time."""
    replace, count = os.replace, itertools.count(1)

    def counted(source, target, **options):
        if os.path.basename(target) == name and next(count) == at:
            kill()
        replace(source, target, **options)

    os.replace = counted
    train(data, folder, **changes)


def full_disk_at(data, folder, name, at, **changes):
    """Train, and have no space left after half of what is written into `name`, or what becomes it, for the `at`-th time."""
    from t2i.training import progress

    count = itertools.count(1)

    def opened(path, mode="r", *rest, **options):
        file = builtins.open(path, mode, *rest, **options)  # noqa: SIM115 (the caller closes it)
        mine = ("w" in mode or "a" in mode) and name in os.path.basename(path)
        if not mine or next(count) != at:
            return file
        write = file.write

        def half(data):
            write(data[: len(data) // 2])
            file.flush()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        return Proxy(file, half)

    files.open = progress.open = opened
    train(data, folder, **changes)


def signalled(data, folder, at, number, out, twice=False, **changes):
    """Train, and send oneself a signal at call `at`; write down how many steps began before it and after it."""
    from t2i.training.loop import Loop
    from t2i.training.step import GanStep
    from t2i.training.style import StyleStep
    from t2i.training.text_objectives import ClassContrastiveObjective, JointObjective

    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
    seen = {"text": 0, "gan": 0, "style": 0, "after": 0}
    sent, active = [], [False]
    enter, leave = Loop.__enter__, Loop.__exit__

    def entered(self):
        enter(self)
        active[0] = True
        return self

    def left(self, *exception):
        active[0] = False
        return leave(self, *exception)

    Loop.__enter__, Loop.__exit__ = entered, left

    def send():
        sent.append(number)
        Path(f"{out}.inside").write_text(str(active[0]))  # now: the process may not outlive the signal
        os.kill(os.getpid(), number)
        if twice:
            os.kill(os.getpid(), number)

    def noted(name, function):
        def begin(*arguments):
            seen[name] += 1
            seen["after"] += bool(sent)
            return function(*arguments)

        return begin

    for kind in (JointObjective, ClassContrastiveObjective):
        kind.read = noted("text", kind.read)
    for name, kind in {"gan": GanStep, "style": StyleStep}.items():
        kind.__call__ = noted(name, kind.__call__)
    try:
        with CallCounter(at, send):
            train(data, folder, **changes)
    finally:
        Path(out).write_text(json.dumps(seen))


def muted(data, folder, at, how, both, **changes):
    """Train, and from call `at` on have a stderr (and stdout) that takes nothing."""

    def mute():
        if how == "closed pipe":
            reading, writing = os.pipe()
            os.close(reading)
        else:
            writing = os.open("/dev/full", os.O_WRONLY)
        for descriptor in (1, 2) if both else (2,):
            if how == "closed":
                os.close(descriptor)
            else:
                os.dup2(writing, descriptor)

    with CallCounter(at, mute):
        train(data, folder, **changes)


def folder_gone(data, folder, at, how, out, **changes):
    """Train, and at call `at` have the run folder deleted or renamed under it; write down how many steps began after that."""
    from t2i.training.step import GanStep

    gone, after, step = [], [], GanStep.__call__

    def act():
        gone.append(how)
        if how == "deleted":
            shutil.rmtree(folder)
        else:
            os.rename(folder, folder + "-elsewhere")

    def noted(*arguments):
        after.extend(gone)
        return step(*arguments)

    GanStep.__call__ = noted
    try:
        with CallCounter(at, act):
            train(data, folder, **changes)
    finally:
        Path(out).write_text(str(len(after)))


def killed_while_replacing(source, out, at):
    """Replace a pack of the same source at another fit, and die of SIGKILL at the n-th flush, rename, link or deletion."""
    from t2i import prepare

    count = itertools.count(1)

    def counted(function):
        def call(*arguments, **options):
            if next(count) == at:
                kill()
            return function(*arguments, **options)

        return call

    for name in ("fsync", "replace", "rename", "unlink", "link"):
        setattr(os, name, counted(getattr(os, name)))
    prepare.pack(
        "folder", Path(source), Path(out), size=16, fit="crop", show_progress=False, shard_images=2, force=True
    )


def stopped_writer(folder, at):
    """Save a checkpoint of step 10 and die at unit `at` of that of step 20; without `at`, return after both."""
    net, checkpoints = small_state(folder)
    checkpoints.save(10, {"data": "of a test"})
    net.weight.data.add_(1)
    disk = Disk(at).install()
    checkpoints.save(20, {"data": "of a test"})
    units = disk.units
    (Path(folder) / "units.txt").write_text(str(units))


def small_state(folder):
    """A network of 16 weights in 0..1, its optimizer after one step, and their checkpoints."""
    net = nn.Linear(8, 2, bias=False)
    net.weight.data.copy_(torch.linspace(0, 1, 16).view(2, 8))
    adam = torch.optim.Adam(net.parameters(), lr=0.0)
    net(torch.ones(1, 8)).sum().backward()
    adam.step()
    return net, checkpoint.Checkpoints(Path(folder), {"net": net}, {"adam": adam})


def recorded(data, folder, out, **changes):
    """Train, and write down what reaches the disk in which order: [operation, path, target]."""
    events = []
    fsync, rename, replace, mkdir = os.fsync, os.rename, os.replace, os.mkdir

    def noted_fsync(descriptor):
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        events.append(["flush folder" if os.path.isdir(path) else "flush file", path, ""])
        fsync(descriptor)

    def noted_rename(real):
        def call(source, target, **options):
            events.append(["rename", os.fspath(source), os.fspath(target)])
            real(source, target, **options)

        return call

    def noted_mkdir(path, *rest, **options):
        mkdir(path, *rest, **options)
        events.append(["make", os.fspath(path), ""])

    os.fsync, os.rename, os.replace, os.mkdir = noted_fsync, noted_rename(rename), noted_rename(replace), noted_mkdir

    def noted_open(path, mode="r", *rest, **options):
        if "w" in mode:
            events.append(["write", os.fspath(path), ""])
        return builtins.open(path, mode, *rest, **options)

    files.open = noted_open
    train(data, folder, **changes)
    Path(out).write_text(json.dumps(events))


def lock_files_alone():
    """Have the file system of this process lock no folders, as some network disks do not."""
    flock = fcntl.flock

    def refusing(descriptor, operation):
        if os.path.isdir(f"/proc/self/fd/{descriptor if isinstance(descriptor, int) else descriptor.fileno()}"):
            raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))
        return flock(descriptor, operation)

    fcntl.flock = refusing


def two_runs(data, folder, way):
    """Hold a folder in another process, be refused, see that one end as `way` says, and take the folder over."""
    folder = Path(folder)
    if way == "on a disk that locks no folders":
        lock_files_alone()
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            if way == "training":
                Progress.advance = lambda self: os.write(writing, b"held")
                train(data, str(folder), steps=10**6)
            with RunLock(folder):
                os.write(writing, b"held")
                signal.pause()
        finally:
            os._exit(0 if way == "ended" else 1)
    assert os.read(reading, 4) == b"held"
    with pytest.raises(CheckpointError) as caught:
        train(data, str(folder))
    if way == "without its lock file":
        (folder / ".lock").unlink()
        with pytest.raises(CheckpointError):
            train(data, str(folder))
    expected = f"{folder} is in use by another run (process {pid}); wait for it or choose another --out"
    require(expected in str(caught.value), str(caught.value))
    os.kill(pid, signal.SIGTERM if way == "ended" else signal.SIGKILL)
    os.waitpid(pid, 0)
    with RunLock(folder):
        pass


def forks_after_threads(data, paths, times):
    """Let native threads run, then fork `times` times; every child does the same work and must get the same."""
    import natives

    expected = natives.work(data, paths)
    for _ in range(times):
        code = natives.in_child(lambda: require(natives.work(data, paths) == expected, "other bytes"))
        require(code == 0, f"the forked child {'hung' if code is None else f'ended with {code}'}")


def require(true, message):
    if not true:
        raise AssertionError(message)


def not_root(data, folder):
    """Train ten steps as nobody."""
    codecs.lookup("ascii")  # loaded when first used, from a Python that may lie where nobody can read
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
    os.environ["HOME"] = "/nonexistent"
    train(data, folder, steps=10)


def measured(data, folder, steps, out):
    """Train `steps` steps, and write down resident memory (KB) and open files at every twentieth of them."""
    seen, advance = [], Progress.advance

    def noted(self):
        advance(self)
        if self.name == "gan" and self.bar.n % (steps // 20) == 0:
            (memory,) = [line for line in Path("/proc/self/status").read_text().splitlines() if "VmRSS" in line]
            seen.append([int(memory.split()[1]), len(os.listdir("/proc/self/fd"))])

    Progress.advance = noted
    every = max(20, steps // 100)
    lean = {"batch": 4, "alignment_weight": 0.0, "mismatch": "text", "reuse_fakes": True, "interpolation_weight": 0.0}
    train(data, folder, steps=steps, log_every=every, checkpoint_every=every, sample_every=5 * every, **lean)
    Path(out).write_text(json.dumps(seen))


VALUES = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


def spoiled(data, folder, what, place, value, calls, **changes):
    """Train, and put a value that is not finite into losses or gradients, at the given updates counted from 0.

    Args:
        place: "loss", or "gradient" for one element of one weight's gradient.
        calls: Of all updates in the order in which they come; a step of the GAN has two.
    """
    from t2i.training.guard import NonFiniteGuard

    step, count, value = NonFiniteGuard.step, itertools.count(), VALUES[value]

    def noted(self, optimizer, loss):
        number = next(count)
        if number in calls and place == "loss":
            loss = loss + value
        elif number in calls:
            weights = [weight for group in optimizer.param_groups for weight in group["params"]]
            gradients = [weight.grad for weight in weights if weight.grad is not None]
            gradient = gradients[number % len(gradients)]
            gradient[(0,) * gradient.dim()] = value
        step(self, optimizer, loss)

    NonFiniteGuard.step = noted
    train(data, folder, what, **changes)


def command(arguments, out):
    """Run a command as a process would; write down the seconds it took, and the memory it took on top, in bytes."""
    import time

    from t2i.cli import main

    def peak():
        (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
        return int(line.split()[1]) * 1024

    Path("/proc/self/clear_refs").write_text("5")
    before, began = peak(), time.perf_counter()
    sys.argv = list(arguments)
    try:
        getattr(main, {"t2i-eval": "evaluate"}.get(arguments[0], arguments[0].removeprefix("t2i-")))()
    finally:
        Path(out).write_text(json.dumps([time.perf_counter() - began, peak() - before]))
