"""The rows of t2i-bench: what each does, what its rival does, and that their answers agree."""

import dataclasses
import itertools
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from t2i import _native, prepare, runtime
from t2i.bench.timing import Row, copy_speed, environment, memory_speed, product_speed, rivals, row
from t2i.blossoms.pack import pack_blossoms
from t2i.config.options import TrainConfig
from t2i.config.presets import preset
from t2i.config.sizes import MAX_PIXELS
from t2i.data.dataset import PackedDataset
from t2i.data.loader import Batch
from t2i.data.sampler import Sampler
from t2i.errors import ConfigError, DataError
from t2i.models.build import generator
from t2i.pipeline import Pipeline
from t2i.training.graph import WARM
from t2i.training.step import GanStep
from t2i.training.text_source import FrozenText

What = Literal["data", "step", "generate"]
CAPTIONS = 1024
SENTENCE = "this flower has petals that are pink and has a yellow center with many thin stamens. "


# Operations per image of one update of D and one of G at the paper's sizes, shared trunk: with fresh fakes, with reused ones.
STEP_OPERATIONS = {"step_paper": 6.08e9, "step_fast": 5.05e9}
GENERATOR_OPERATIONS = 1.031e9
# Bytes that a compiled step moves outside its convolutions and products, counted on a device that computes nothing
# (docs/method.md): weights, moments, gradients and the EMA once a step, and the maps of each image.
STEP_BYTES = {"step_fast": (1.27e9, 11.6e6)}


def data_rows(data: str | None, rivals: dict[str, ModuleType], rounds: int, files: Sequence[Path]) -> list[Row]:
    """Measure the data path on one core: tokenize, one_hot, fill; and prepare on all cores where files are given."""
    rival = rivals.get("tokenizer")
    rows = [_tokenize(rival, rounds), _tokenize_ngrams(rival, rounds), _one_hot(rival, rounds)]
    with tempfile.TemporaryDirectory() as folder:
        if data is None:
            pack_blossoms(Path(folder) / "pack", images=1000, size=76, show_progress=False)
        pack = PackedDataset(data if data is not None else Path(folder) / "pack")
        rows.append(_fill(pack, rivals.get("loader"), rounds, Path(folder), files))
        if files:
            rows.append(_prepare(files, rivals.get("prepare"), rounds))
    return rows


def _tokenize(rival: ModuleType | None, rounds: int) -> Row:
    captions = [(SENTENCE + f"number {number}. " + SENTENCE)[:201] for number in range(CAPTIONS)]
    few = captions[:64]  # the rival's share: it takes long
    own = np.zeros((CAPTIONS, _native.CAPTION_LENGTH), np.uint8)
    other: list[np.ndarray[tuple[int, ...], np.dtype[np.int64]]] = []

    def usual() -> None:
        assert rival is not None
        other[:] = [rival.tokenize(caption) for caption in few]

    size = sum(map(len, captions))
    found = row(
        "tokenize",
        "bytes",
        size,
        lambda: _native.encode(captions, own),
        usual if rival else None,
        rounds,
        rival_amount=sum(map(len, few)),
        note="one core",
    )
    if rival:
        assert np.array_equal(own[: len(few)], np.stack(other)), "tokenizers disagree"
    return found


def _tokenize_ngrams(rival: ModuleType | None, rounds: int) -> Row:
    """Hash the n-grams of captions; the two hashes differ, so that what must agree is how many tokens each caption has."""
    captions = [f"{SENTENCE}number {number}" for number in range(CAPTIONS)]
    few = captions[:64]
    values, offsets = np.empty(CAPTIONS * 512, np.int32), np.empty(CAPTIONS + 1, np.int64)
    buckets = 1 << 24  # so many that two n-grams of a caption do not meet
    other: list[int] = []

    def usual() -> None:
        assert rival is not None
        other[:] = [len(rival.ngrams(caption, 65536, 32768)) for caption in few]

    size = sum(map(len, captions))
    found = row(
        "tokenize_ngrams",
        "bytes",
        size,
        lambda: _native.ngrams(captions, values, offsets, 65536, 32768),
        usual if rival else None,
        rounds,
        rival_amount=sum(map(len, few)),
        note="all cores",
    )
    if rival:
        _native.ngrams(few, values, offsets[: len(few) + 1], buckets, buckets)
        exact = [len(rival.ngrams(caption, 1 << 30, 1 << 30)) for caption in few]
        assert np.diff(offsets[: len(few) + 1]).tolist() == exact, "n-gram tokenizers disagree"
    return found


def _one_hot(rival: ModuleType | None, rounds: int) -> Row:
    """Fill one-hot columns of a training batch; the roofline is writing the same bytes with zeros, in the same round."""
    captions = [SENTENCE * 2] * 64
    ids = np.zeros((len(captions), _native.CAPTION_LENGTH), np.uint8)
    _native.encode(captions, ids)
    own = np.empty((len(captions), _native.ALPHABET_SIZE, _native.CAPTION_LENGTH), np.float32)
    zeros = np.zeros_like(own)
    bytes_ = zeros.view(np.uint8)
    repeats = 20  # a call takes a fraction of a millisecond

    def ours() -> None:
        for _ in range(repeats):
            _native.one_hot(ids, own)

    def memset() -> None:
        for _ in range(repeats):
            bytes_.fill(0)

    found = row("one_hot", "bytes", own.nbytes * repeats, ours, memset, rounds, note="rival: memset of the same bytes")
    if rival:
        assert np.array_equal(own[0], rival.one_hot(ids[0]).numpy()), "one-hot columns disagree"
    return found


def _fill(pack: PackedDataset, rival: ModuleType | None, rounds: int, folder: Path, originals: Sequence[Path]) -> Row:
    """Execute a plan: two images a row (matching and mismatched) and a caption, one core against one core.

    The rival decodes image files: `originals`, or, where there are none, the pack's images written as JPEGs.
    """
    from PIL import Image

    batch, crop = 512, min(64, pack.image_size)
    sampler = Sampler(pack, batch=batch, crop=crop, seed=0)
    images, wrong = (np.empty((batch, crop, crop, 3), np.uint8) for _ in range(2))
    captions = np.empty((batch, 1, _native.CAPTION_LENGTH), np.uint8)
    steps = iter(range(1 << 30))

    def ours() -> None:
        plan = sampler.plan(next(steps))
        pack.native.fill(plan, images=images, mismatched_images=wrong, captions=captions, threads=1)

    usual, few = None, min(32, len(originals) or 32)
    if rival:
        files = list(originals)
        for number, picture in enumerate(pack.read_images(range(min(256, len(pack)))) if not files else []):
            files.append(folder / f"{number}.jpg")
            Image.fromarray(picture).save(files[-1], quality=90)
        classes = [number % 20 for number in range(len(files))]
        dataset = rival.UsualDataset(files, [[SENTENCE]] * len(files), classes, pack.image_size, crop)
        batches = rival.usual_loader(dataset, few)

        def usual_batch() -> None:
            next(iter(batches))

        usual = usual_batch
    floor = memory_speed() / (crop * crop * 3)
    note = f"one core; the rival decodes {'the files given' if originals else 'JPEGs of the size of the pack'}"
    found = row("fill", "images", 2 * batch, ours, usual, rounds, rival_amount=2 * few, floor=floor, note=note)
    plan = sampler.plan(0)
    pack.native.fill(plan, images=images, threads=1)
    top, left = plan.crop[0]
    expected = pack.read_images(plan.image[:1])[0, top : top + crop, left : left + crop]
    assert np.array_equal(images[0], expected[:, ::-1] if plan.flip[0] else expected), "a filled image is wrong"
    return found


def _prepare(files: Sequence[Path], rival: ModuleType | None, rounds: int) -> Row:
    items = [prepare.Item(path, ("a flower",)) for path in files]
    found: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.uint8]]] = {}

    def ours() -> None:
        found["own"], reasons = prepare.load_images(items, 76, "stretch", MAX_PIXELS)
        assert not any(reasons), reasons

    def usual() -> None:
        assert rival is not None
        found["rival"] = rival.prepare(files)

    result = row("prepare", "images", len(files), ours, usual if rival else None, rounds, note="all cores")
    if rival:
        difference = np.abs(found["own"].astype(int) - found["rival"].astype(int)).mean()
        assert difference < 2, f"prepared images differ by {difference:.2f} grey levels"
    return result


def random_batch(rows: int, device: torch.device, texts: int) -> Batch:
    """Make a batch of noise and of random rows of `texts` captions: (B, 3, 64, 64) images, on `device`."""
    rng = torch.Generator().manual_seed(0)
    images = (torch.rand(rows, 3, 64, 64, generator=rng) * 2 - 1).to(device, memory_format=torch.channels_last)
    captions, others = (torch.randint(0, texts, (rows, 1), generator=rng).to(device) for _ in range(2))
    half = rows // 2
    partner = torch.arange(half, device=device) + half
    weight = torch.full((half,), 0.5, device=device)
    return Batch(images, None, torch.arange(rows, device=device), captions, others, None, None, partner, weight)


def step_rows(rivals: dict[str, ModuleType], rounds: int, rows: int, device: torch.device) -> list[Row]:
    """Measure whole GAN-CLS steps at the paper's sizes: step_paper in float32, step_fast as the preset `fast`."""
    return [_step(name, rivals.get("step"), rounds, rows, device) for name in STEP_OPERATIONS]


def _step(name: str, rival: ModuleType | None, rounds: int, rows: int, device: torch.device) -> Row:
    fast = name == "step_fast"
    table = torch.randn(200, 1024, generator=torch.Generator().manual_seed(0)).to(device)
    batch = random_batch(rows, device, len(table))
    precision = runtime.pick_precision("auto", device) if fast else torch.float32
    config = dataclasses.replace(
        preset("fast"), reuse_fakes=fast, batch=rows, compile="auto" if fast else "off", cuda_graph=fast
    )
    torch.manual_seed(0)
    gan = GanStep(config, FrozenText(table, None), device, precision)
    usual = rival.UsualStep(gan.generator, gan.discriminator) if rival else None
    own_steps, rival_steps = itertools.count(), itertools.count()
    answers: dict[str, tuple[Tensor, Tensor]] = {}

    def noise(step: int, purpose: str) -> Tensor:
        return runtime.noise((rows, config.noise_dim), device, config.seed, step, purpose)

    def ours() -> None:
        measured = gan(batch, next(own_steps))
        answers["own"] = (measured["d_loss"], measured["g_loss"])

    def theirs() -> None:
        assert usual is not None
        step, text, other = next(rival_steps), table[batch.captions[:, 0]], table[batch.mismatched_captions[:, 0]]
        shared = noise(step, "generator")
        drawn_from = shared if fast else noise(step, "discriminator")
        answers["rival"] = usual(batch.images, other, text, drawn_from, shared)

    if usual is not None:  # the first step, from equal weights
        ours()
        theirs()
        difference = [abs(float(a) - float(b)) for a, b in zip(answers["own"], answers["rival"], strict=True)]
        if fast:  # bfloat16, and G learns from the fakes that D has seen, not from new ones
            assert difference[0] < 0.05, f"losses of D differ by {difference[0]}"
        else:
            # G's loss is taken behind D's first step of Adam, which is as long for a gradient near 0 as for a large one:
            # what rounding makes of its sign depends on the order of sums, which a GPU's library chooses anew each time.
            assert difference[0] < 1e-4, f"losses of D differ by {difference[0]}"
            assert difference[1] < (1e-4 if device.type == "cpu" else 2e-3), f"losses of G differ by {difference[1]}"
    if gan.captured is not None:  # these calls choose algorithms and record the step: no round may time them
        for _ in range(WARM + 1):
            ours()
    floor = product_speed(device, precision) / STEP_OPERATIONS[name]
    byte_floor = None
    if gan.captured is not None and name in STEP_BYTES:  # counted of the step that is compiled and recorded
        once, each = STEP_BYTES[name]
        byte_floor = copy_speed(device) / (once / rows + each)
    note = f"batch {rows}, {str(precision).removeprefix('torch.')}"
    run = theirs if usual is not None else None
    found = row(name, "images", rows, ours, run, rounds, floor=floor, device=device, note=note)
    return dataclasses.replace(found, byte_floor=byte_floor)


@torch.no_grad()
def generate_rows(model: str | None, rounds: int, rows: int, device: torch.device) -> list[Row]:
    """Measure image generation: by a run's generator, or the paper's with random weights."""
    precision = runtime.pick_precision("auto", device)
    made = Pipeline.from_pretrained(model, str(device)).generator if model else generator(TrainConfig()).to(device)
    made = made.eval().to(memory_format=torch.channels_last)
    noise = torch.randn(rows, made.noise_dim, generator=torch.Generator().manual_seed(0)).to(device)
    text = torch.randn(rows, made.text_dim, generator=torch.Generator().manual_seed(1)).to(device)

    def draw() -> None:
        with runtime.autocast(device, precision):
            made(noise, text)

    def usual() -> None:
        made(noise, text)

    floor = None if model else product_speed(device, precision) / GENERATOR_OPERATIONS
    note = f"batch {rows}, {str(precision).removeprefix('torch.')}; rival: the same in float32"
    return [row("generate", "images", rows, draw, usual, rounds, floor=floor, device=device, note=note)]


def measure(
    what: Iterable[What],
    *,
    data: str | None,
    model: str | None,
    device: str,
    rounds: int,
    batch: int,
    folder: str | None,
    threads: int = 0,
    pictures: str | None = None,
) -> tuple[list[Row], dict[str, Any]]:
    """Measure the chosen parts beside their rivals.

    Args:
        what: "data", "step", "generate".
        data: Packed data set for the data rows; None renders blossoms.
        model: Run folder for "generate"; None: a generator of the paper's size with random weights.
        device: "auto", "cpu", "cuda" or "cuda:N".
        rounds: Timed rounds of each row.
        batch: Images per step.
        folder: Of the rivals.
        threads: Of torch; 0 leaves them.
        pictures: Folder of image files for the row `prepare`; None leaves the row out.

    Raises:
        ConfigError: no such device, folder of rivals or model, or too many threads.
        DataError: no such images or data set.
    """
    if rounds < 1:
        raise ConfigError(f"--rounds must be at least 1, got {rounds}")
    runtime.use_threads(threads)
    on, others = runtime.pick_device(device), rivals(folder)
    rows: list[Row] = []
    for part in what:
        if part == "data":
            files = _files(pictures)
            rows += data_rows(data, others, rounds, files)
        elif part == "step":
            rows += step_rows(others, rounds, batch, on)
        else:
            rows += generate_rows(model, rounds, batch, on)
    return rows, environment(on)


def _files(folder: str | None) -> Sequence[Path]:
    if folder is None:
        return []
    files = sorted(path for path in Path(folder).rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
    if not files:
        raise DataError(f"{folder} has no JPEG files to prepare")
    return files
