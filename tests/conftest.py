"""What several test files need: small data sets drawn by the program, and the real data beside the checkout."""

import json
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # kernels run in the interpreter; read when triton is first imported

import t2i
from helpers import SHARED
from t2i import runtime
from t2i.blossoms.pack import pack_blossoms
from t2i.config.options import TextOptions, TrainConfig
from t2i.config.records import to_json
from t2i.data.dataset import PackedDataset
from t2i.demo.app import Server
from t2i.pipeline import Pipeline
from t2i.pretrained.folder import model_hash
from t2i.weights import save_weights

pytest_plugins = ["promises"]  # the failure tests' counts and table

torch.set_num_threads(1 if "PYTEST_XDIST_WORKER" in os.environ else 2)  # of two workers, each has a core
if torch.cuda.is_available():
    runtime.pick_device(
        "cuda"
    )  # float32 is IEEE's from here on, as in the commands; torch starts with TF32 in convolutions
hypothesis.settings.register_profile("t2i", max_examples=40, deadline=None, database=None, derandomize=True)
hypothesis.settings.load_profile("t2i")  # the same cases on every machine, whatever its speed


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """One thread: networks of width 8 gain nothing from a second one, which mostly waits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def blossoms_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """800 packed blossoms of 38 px: enough classes for every property of the sampler."""
    folder = tmp_path_factory.mktemp("blossoms")
    pack_blossoms(folder, images=800, size=38, show_progress=False)
    return folder


@pytest.fixture(scope="session")
def blossoms(blossoms_folder: Path) -> PackedDataset:
    return PackedDataset(blossoms_folder)


@pytest.fixture(scope="session")
def tiny_blossoms_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """150 packed blossoms of 19 px, for trainings of a few steps at 16 px."""
    folder = tmp_path_factory.mktemp("tiny-blossoms")
    pack_blossoms(folder, images=150, size=19, show_progress=False)
    return folder


@pytest.fixture(scope="session")
def tiny_blossoms(tiny_blossoms_folder: Path) -> PackedDataset:
    return PackedDataset(tiny_blossoms_folder)


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with random weights of width 8 at 16 px, and batch statistics that a training would leave."""
    folder = tmp_path_factory.mktemp("run")
    text = TextOptions(width=8, channels=(8, 8), dim=16)
    config = TrainConfig(size=16, generator_width=8, noise_dim=8, projection_dim=8, alignment_weight=0.0, text=text)
    torch.manual_seed(0)
    generator = t2i.Generator(16, 8, 8, 16, 8)
    encoder = t2i.CharCnnRnn("short", 8, 16, (8, 8))
    for _ in range(20):
        generator(torch.randn(16, 8), 5 * torch.randn(16, 16))
    with torch.no_grad():
        generator.to_rgb.weight *= 50  # contrast, as a trained one has
    save_weights(folder / "model.safetensors", {"generator": generator, "text": encoder})
    (folder / "config.json").write_text(to_json(config))
    return folder


@pytest.fixture(scope="session")
def tiny_run_with_style(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run, with a style encoder of random weights."""
    folder = tmp_path_factory.mktemp("run-with-style")
    for name in ("config.json", "model.safetensors"):
        (folder / name).write_bytes((tiny_run / name).read_bytes())
    torch.manual_seed(1)
    save_weights(folder / "style.safetensors", {"style": t2i.StyleEncoder(16, 8, 8)})
    facts = {"settings": {"width": 8, "blur": 0.5}, "model_sha256": model_hash(folder)}
    (folder / "style.json").write_text(json.dumps(facts))
    return folder


@pytest.fixture(scope="session")
def demo(tiny_run_with_style: Path) -> Iterator[Server]:
    """The web demo of that run, served from a thread."""
    for module in ("starlette", "uvicorn"):
        pytest.importorskip(module, reason="the extra is not installed: pip install 't2i[demo]'")
    with Server(Pipeline.from_pretrained(tiny_run_with_style)) as running:
        yield running


@pytest.fixture(scope="session")
def oxford102(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first 200 pictures' worth of Oxford-102 in the official layout; skips where ../shared is not there."""
    archive = SHARED / "oxford102-96px.tar.gz"
    if not archive.exists():
        pytest.skip("../shared/data/oxford102-96px.tar.gz is not on this machine")
    folder = tmp_path_factory.mktemp("oxford102")
    with tarfile.open(archive) as tar:
        # As an attribute: Python 3.11.2, Debian's, has neither the filter nor the argument.
        tar.extraction_filter = getattr(tarfile, "data_filter", None)
        everything = tar.getmembers()
        members = [m for m in everything if "class_0000" in m.name or not ("/jpg/" in m.name or "text_c10" in m.name)]
        wanted = {Path(m.name).stem for m in members if m.name.endswith(".txt") and "image_" in m.name}
        pictures = [m for m in everything if "/jpg/" in m.name and Path(m.name).stem in wanted]
        tar.extractall(folder, members + pictures)
    return folder / "oxford102"
