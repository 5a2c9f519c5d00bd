"""How a run computes: threads and precision, measured at its start and kept in config.json for a resume to compute the same.

* Two threads meet at every small operation: alone on two cores they are 1.4 times as fast as one, beside another busy
  process three times slower. So a few steps are timed.
* bfloat16 is an instruction of many CPUs and faster than float32 on few (`runtime.pick_precision`).
"""

import dataclasses
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from t2i import console, runtime
from t2i.config.options import TrainConfig
from t2i.data.loader import Batch
from t2i.distributed import ALONE, Ranks
from t2i.models.build import image_encoder
from t2i.training.resume import recorded_settings
from t2i.training.steps import make_step
from t2i.training.text_source import FrozenText

ROUNDS = 3  # of timing: each number of threads once a round, in turn
LONG = 1.0  # seconds that a step takes and is timed in one round only
GAIN = 0.95  # of the time of fewer threads: more of them must be below it


class AnyText(FrozenText):
    """Random embeddings of the right size, where only shapes matter."""

    def __init__(self, dim: int) -> None:
        super().__init__(torch.empty(0, dim), None)

    def __call__(self, rows: Tensor, ids: Tensor | None) -> Tensor:
        """Sample (B, T), on the device of the (B, K) caption rows."""
        return torch.randn(len(rows), self.table.shape[1], device=rows.device)


def resolve_machine(config: TrainConfig, folder: Path, ranks: Ranks = ALONE) -> TrainConfig:
    """Decide precision and threads where the settings leave them open: as the run folder says, else by timing.

    Args:
        config: The settings; what they name is taken, and a line says so where the run began with something else.
        folder: The run folder.
        ranks: The processes that train together; all get the same precision.

    Returns:
        The settings with a precision, and on a CPU with a number of threads, which are also set.
    """
    device = runtime.pick_device(ranks.device(config.device))
    before = recorded_settings(folder)
    precision = config.precision
    if precision == "auto":
        slow = runtime.pick_precision("auto", device) is torch.float32
        precision = before.precision if before else ("float32" if ranks.any(slow) else "bfloat16")
    config = dataclasses.replace(config, precision=precision)
    if device.type != "cpu":
        return config
    threads = config.threads or (before.threads if before else 0)
    if not threads and ranks.world > 1:
        threads = torch.get_num_threads()  # torchrun's choice; timed numbers could differ between processes
    elif not threads:
        threads = fastest_threads(step_timer(config), candidates(torch.get_num_threads()))
    elif before and before.threads and before.threads != threads:
        ranks.write(
            console.say,
            f"the run began with --threads {before.threads} and resumes with {threads}: its last bits will differ from those"
            " of a run that was never stopped",
        )
    runtime.use_threads(threads)
    return dataclasses.replace(config, threads=threads)


def candidates(most: int) -> list[int]:
    """List the numbers of threads to try, ascending: one, half of them, all but one, all."""
    return sorted({1, max(1, most // 2), max(1, most - 1), most})


def fastest_threads(seconds: Callable[[int], float], numbers: Sequence[int]) -> int:
    """Choose a number of threads by time, the fewest of those that are about equally fast.

    Args:
        seconds: Times a step with so many threads.
        numbers: Those to choose from, ascending.
    """
    if len(numbers) == 1:
        return numbers[0]
    times: dict[int, list[float]] = {number: [] for number in numbers}
    for _ in range(ROUNDS):
        for number in numbers:
            times[number].append(seconds(number))
        if sum(found[-1] for found in times.values()) > LONG * len(numbers):
            break
    best = numbers[0]
    for number in numbers[1:]:
        if statistics.median(times[number]) < GAIN * statistics.median(times[best]):
            best = number
    return best


def step_timer(config: TrainConfig) -> Callable[[int], float]:
    """Make a function that times a step with so many threads, on networks and images that are thrown away.

    Leaves torch's random state as it was.
    """
    device, precision = torch.device("cpu"), runtime.pick_precision(config.precision, torch.device("cpu"))
    with torch.random.fork_rng([]):
        alignment = None
        if config.alignment_weight:
            alignment = image_encoder(config.text, config.size).requires_grad_(False).eval()
            alignment = alignment.to(memory_format=torch.channels_last)
        plain = dataclasses.replace(config, text=dataclasses.replace(config.text, encoder="joint"), compile="off")
        step = make_step(plain, AnyText(config.text.dim), device, precision, alignment)
    batch = _any_batch(config)
    done = 0

    def seconds(threads: int) -> float:
        nonlocal done
        torch.set_num_threads(threads)
        with torch.random.fork_rng([]):
            repeats = 1 if done else 2  # the first step of all allocates and chooses kernels
            for _ in range(repeats):
                start = time.perf_counter()
                step(batch, done)
                done += 1
        return time.perf_counter() - start

    return seconds


def _any_batch(config: TrainConfig) -> Batch:
    """Make a batch of grey images, as the settings shape it."""
    rows = config.batch
    images = torch.zeros(rows, 3, config.size, config.size).contiguous(memory_format=torch.channels_last)
    captions = torch.zeros(rows, config.captions_per_image, dtype=torch.int64)
    return Batch(
        images=images,
        mismatched_images=images if config.mismatch == "image" else None,
        classes=torch.arange(rows),
        captions=captions,
        mismatched_captions=captions,
        caption_ids=None,
        mismatched_caption_ids=None,
        interpolation_partner=torch.zeros(rows // 2, dtype=torch.int64),
        interpolation_weight=torch.full((rows // 2,), 0.5),
    )
