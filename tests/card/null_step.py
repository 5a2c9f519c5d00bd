"""A GAN step on the null device: what it launches, captures, moves and forbids, as one JSON object.

Run by the tests beside it in a process of its own, under `../shared/nullcard` (a CUDA device that computes nothing):

    python null_step.py '{"preset": "fast", "batch": 64, "compile": "on"}'
"""

import collections
import ctypes
import dataclasses
import json
import os
import re
import sys
import tempfile
import warnings
from pathlib import Path

warnings.filterwarnings("ignore")

import torch  # noqa: E402
from torch._inductor.graph import GraphLowering  # noqa: E402

from t2i import runtime  # noqa: E402
from t2i.blossoms.pack import pack_blossoms  # noqa: E402
from t2i.config.presets import preset  # noqa: E402
from t2i.data.dataset import PackedDataset  # noqa: E402
from t2i.data.loader import Batch  # noqa: E402
from t2i.models.build import image_encoder  # noqa: E402
from t2i.training.steps import make_step  # noqa: E402
from t2i.training.text_source import FrozenText  # noqa: E402

DEVICE = torch.device("cuda")
NULL = ctypes.CDLL(os.path.join(os.environ["NULLCARD"], "libnullcuda.so"))
for name in ("launches", "violations", "graph_nodes", "graph_launches"):
    getattr(NULL, f"nullcuda_{name}").restype = ctypes.c_long
KINDS = (  # the first that is found in a kernel's name
    ("convolution", "cudnn"),
    ("product", "cublas"),
    ("copy", "memcpy"),
    ("set", "memset"),
    ("pointwise", "triton_poi"),
    ("reduction", "triton_red"),
    ("reduction", "triton_per"),
    ("foreach", "triton_for"),
    ("own kernel", "triton:"),
    ("optimizer", "Adam"),
    ("foreach", "multi_tensor"),
    ("norm", "lpnorm"),
    ("fill", "FillFunctor"),
    ("where", "where"),
    ("layout", "nchw"),
)


def report() -> tuple[list[tuple[int, int, str]], list[str]]:
    """Read what was launched, as (outside, captured, name), and what a capture forbids."""
    rows, forbidden = [], []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "report.txt"
        NULL.nullcuda_report(str(path).encode())
        for line in path.read_text(errors="replace").splitlines():
            parts = line.split("\t")
            if parts[0] == "VIOLATION":
                forbidden.append(parts[1])
            else:
                rows.append((int(parts[0]), int(parts[1]), parts[2]))
    return rows, forbidden


def kind(name: str) -> str:
    """Say what a kernel does, by its name."""
    return next((said for said, part in KINDS if part.lower() in name.lower()), "other")


def batch_of(config) -> Batch:
    """Make a batch on the device, of nothing."""
    rows, captions, half = config.batch, config.captions_per_image, config.batch // 2

    def images():
        return torch.empty(rows, config.size, config.size, 3, device=DEVICE).permute(0, 3, 1, 2)

    def numbers(*shape):
        return torch.zeros(*shape, dtype=torch.int64, device=DEVICE)

    wrong = images() if config.mismatch_weight and config.mismatch == "image" else None
    return Batch(
        images(),
        wrong,
        numbers(rows),
        numbers(rows, captions),
        numbers(rows, captions),
        None,
        None,
        numbers(half),
        torch.full((half,), 0.5, device=DEVICE),
    )


def bytes_of(code: str) -> float:
    """Add up the bytes that Inductor's kernels read and write, as it counts them itself."""
    total = 0.0
    body = code[code.rindex("class Runner") if "class Runner" in code else code.rindex("def call(") :]
    body = body.partition("def benchmark_compiled_module")[0]
    for made in re.finditer(r"^(triton_\w+) = async_compile\.triton\('\w+', '''(.*?)'''", code, re.S | re.M):
        found = re.search(r"'kernel_num_gb': ([0-9.e+-]+)", made[2])
        calls = len(re.findall(rf"^\s+{made[1]}\.run\(", body, re.MULTILINE))
        total += float(found[1]) * calls if found else 0.0
    return total


def make(config, precision):
    """Make the step as t2i-train does, with a frozen table of texts."""
    text = FrozenText(torch.zeros(80_000, config.text.dim, device=DEVICE), None)
    encoder = None
    if config.alignment_weight:
        encoder = image_encoder(config.text, config.size).requires_grad_(False).eval()
        encoder = encoder.to(DEVICE, memory_format=torch.channels_last)
    if config.network == "paper":
        return make_step(config, text, DEVICE, precision, encoder)
    with (
        tempfile.TemporaryDirectory() as folder
    ):  # what the modern step reads of a data set: the bank, the classes' texts
        pack_blossoms(Path(folder), images=60, size=config.size, show_progress=False)
        return make_step(config, text, DEVICE, precision, encoder, data=PackedDataset(folder))


def main() -> None:
    """Run six steps and print what they did."""
    changes = json.loads(sys.argv[1])
    steps, deterministic = changes.pop("steps", 6), changes.pop("deterministic", False)
    if deterministic:
        runtime.make_deterministic()
    codes: list[str] = []
    warned: list[str] = []
    runtime.print = lambda *words, **_: warned.append(" ".join(map(str, words)))
    GraphLowering.save_output_code = staticmethod(codes.append)
    config = dataclasses.replace(preset(changes.pop("preset")), **changes)
    precision = runtime.pick_precision("auto", DEVICE)
    gan, found = make(config, precision), []
    batch = batch_of(config)
    for step in range(steps):
        NULL.nullcuda_reset()
        measured = gan(batch, step)
        rows, forbidden = report()
        kinds: collections.Counter[str] = collections.Counter()
        for _, captured, name in rows:
            kinds[kind(name)] += captured
        if os.environ.get("NULL_NAMES") and any(row[1] for row in rows):
            Path(os.environ["NULL_NAMES"]).write_text("".join(f"{row[1]}\t{row[2]}\n" for row in rows if row[1]))
        waits = {name: outside + inside for outside, inside, name in rows if name.startswith("stream-sync")}
        found.append(
            {
                "launches": sum(row[0] for row in rows),
                "captured": sum(row[1] for row in rows),
                "kinds": {k: n for k, n in kinds.items() if n},
                "replays": NULL.nullcuda_graph_launches(),
                "violations": forbidden,
                "waits": waits,
            }
        )
    state = {
        f"{name}.{key}": value for name, module in gan.modules().items() for key, value in module.state_dict().items()
    }
    for name, optimizer in gan.optimizers().items():
        for number, moments in enumerate(optimizer.state.values()):
            state |= {f"{name}.{number}.{key}": value for key, value in moments.items()}
    off = [name for name, value in (state | measured).items() if value.device.type != "cuda"]
    gigabytes = sum(map(bytes_of, codes))
    print(
        json.dumps(
            {
                "precision": str(precision),
                "captured": gan.captured is not None and gan.captured.graph is not None,
                "steps": found,
                "off_device": off,
                "gigabytes": round(gigabytes, 3),
                "graphs": len(codes),
                "warnings": warned,
            }
        )
    )


if __name__ == "__main__":
    main()
