"""What several test files share. It imports no torch: some tests measure the memory of a process without it."""

import contextlib
import dataclasses
import importlib.util
import io
import re
import shlex
import sys
from pathlib import Path
from types import ModuleType
from unittest import mock

import numpy as np

from t2i.cli import main as cli
from t2i.config.options import TextOptions, TrainConfig

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared" / "data"
TINY = shlex.split(
    "--preset blossoms --size 16 --generator-width 8 --discriminator-width 8 --noise-dim 8 --projection-dim 8 --batch 8"
    " --precision float32 --threads 1 --device cpu --log-every 1 --alignment-weight 0 --captions-per-image 1"
    " --text.encoder end-to-end --text.width 8 --text.channels 8 8 --text.dim 16"
)
TEXT = TextOptions(
    encoder="end-to-end", width=8, channels=(8, 8), dim=16, steps=3, batch=8, objective="contrastive", image_width=8
)
SLOTS = "abcdefghijklmnopqrstuvwxyz0123456789-,;.!?:'\"/\\|_@#$%^&*~`+-=<>()[]{} "
DASH, SPACE, UNKNOWN = 60, 70, 71


def load_script(path: str) -> ModuleType:
    """Import a script of this repository without running it; as when it runs, it finds the scripts beside it."""
    file = ROOT / path
    spec = importlib.util.spec_from_file_location(f"script_{file.stem}", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    with mock.patch.object(sys, "path", [str(file.parent), *sys.path]):
        spec.loader.exec_module(module)
    return module


def random_efficientnet():
    """An EfficientNet-lite0 of random weights, the same each time: for tests that need no extra installed."""
    import torch

    from t2i.models.efficientnet import EfficientNetLite0

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        network = EfficientNetLite0()
        for layer in network.modules():  # torch's default fades from block to block, to rounding errors in the last
            if isinstance(layer, torch.nn.Conv2d):
                torch.nn.init.kaiming_normal_(layer.weight)
        return network.eval().requires_grad_(False)


def call(command, *arguments):
    """Run a command in this process: its exit code, stdout and stderr."""
    out, err, before = io.StringIO(), io.StringIO(), sys.argv
    code = 0
    sys.argv = [command, *map(str, arguments)]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            getattr(cli, {"eval": "evaluate"}.get(command[4:], command[4:]))()
        except SystemExit as stop:
            code = stop.code
        finally:
            sys.argv = before
    return code, out.getvalue(), err.getvalue()


def tiny_config(text=None, **options):
    """Settings of a run of seconds: 16 px, networks of width 8."""
    small = {
        "size": 16,
        "generator_width": 8,
        "discriminator_width": 8,
        "noise_dim": 8,
        "projection_dim": 8,
        "batch": 8,
        "steps": 6,
        "precision": "float32",
        "threads": 1,
        "device": "cpu",
        "captions_per_image": 2,
        "log_every": 1,
        "crop_low": 0,
        "halve_every": 0,
        "alignment_weight": 0.0,
        "ema": 0.9,
    }
    return TrainConfig(**(small | options), text=dataclasses.replace(TEXT, **(text or {})))


def peak():
    """The most memory that this process has had, in bytes; getrusage would count that of the process it came from."""
    return int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024


def forget_peak():
    """Let `peak` begin again at what the process holds now: what it had before hides what is tested."""
    Path("/proc/self/clear_refs").write_text("5")


def assert_all_accounted(report):
    """Images packed, files read, files skipped and files ignored by a rule are all the files of the source."""
    counts = report.account
    if counts is not None:  # a single table is a source without other files
        assert counts.images + counts.read + counts.skipped + sum(counts.ignored.values()) == counts.files
        assert counts.images == report.images
        assert counts.skipped == 0 or report.skipped


def slow_encode(captions):
    """Build the table in order, so that the later of the two dashes wins, and look every character up."""
    table = {}
    for slot, character in enumerate(SLOTS, 1):
        table[character] = slot
    rows = []
    for caption in captions:
        ids = []
        for character in caption[:201]:
            ids.append(table.get(character.lower(), UNKNOWN))
        rows.append(ids + [0] * (201 - len(ids)))
    return np.array(rows, np.uint8).reshape(-1, 201)


def tiny_pipeline(kind):
    """A pipeline of random networks at 16 px whose text encoder is of a kind."""
    import torch  # only here

    import t2i
    from t2i.pipeline import Pipeline
    from t2i.text.build import text_encoder

    text = TextOptions(kind=kind, objective="contrastive", width=8, channels=(8, 8), dim=16, buckets=(512, 256))
    config = TrainConfig(size=16, generator_width=8, noise_dim=8, projection_dim=8, alignment_weight=0.0, text=text)
    torch.manual_seed(0)
    return Pipeline(t2i.Generator(16, 8, 8, 16, 8), text_encoder(text), config)


def packed(kind, source, tmp_path, **options):
    """Pack a source at 16 px, with every file accounted for; returns the data set, whole by its checksums, and the report."""
    from t2i import prepare  # only here: they import torch
    from t2i.data.dataset import PackedDataset

    report = prepare.pack(kind, source, tmp_path / "pack", size=16, show_progress=False, force=True, **options)
    assert_all_accounted(report)
    return PackedDataset(tmp_path / "pack", verify=True), report


def write_pack(folder, rows, size=16, classes=True):
    """Pack rows of (class name, captions, test) with pictures of random pixels."""
    from t2i import prepare  # only here: they import torch
    from t2i.data.dataset import PackedDataset

    rng = np.random.default_rng(0)
    writer = prepare.PackWriter(folder, "made", size, {})
    for number, (name, captions, test) in enumerate(rows):
        image = rng.integers(0, 256, (size, size, 3), dtype=np.uint8)
        writer.add(image, captions, name if classes else None, test, f"picture {number}")
    writer.close()
    return PackedDataset(folder, verify=True)
