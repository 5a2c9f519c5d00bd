"""The probe that reads attributes from pictures: it learns, is measured rightly, and its file is checked."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from t2i.blossoms.dataset import Blossoms, make_blossoms
from t2i.errors import CheckpointError, ConfigError
from t2i.metrics.attributes import ATTRIBUTES, AttributeProbe, caption_accuracy, probe_accuracy, train_probe


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Batches this small are faster on one thread, and several wait for each other where the cores are shared."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def blossoms() -> Blossoms:
    return make_blossoms(400, 36, seed=0)


@pytest.fixture(scope="module")
def probe(blossoms: Blossoms) -> AttributeProbe:
    seen = blossoms.splits == 0
    return train_probe(blossoms.images[seen], blossoms.attributes[seen], crop=32, steps=60, batch=32)


class Oracle(AttributeProbe):
    """Stands where a probe does and answers what it was told to."""

    def __init__(self, answers: list[list[int]]) -> None:
        super().__init__()
        self.answers = torch.tensor(answers)

    def read(self, pictures: torch.Tensor) -> torch.Tensor:
        return self.answers[: len(pictures)]


def test_sixty_small_steps_read_unseen_classes_far_better_than_chance(probe, blossoms):
    held = blossoms.splits == 1
    accuracy = probe_accuracy(probe, blossoms.images[held], blossoms.attributes[held], crop=32)
    assert accuracy["petal_colour"] > 0.5, "chance is 1/8"
    assert accuracy["centre_colour"] > 0.35, "chance is 1/6"
    assert accuracy["shape"] > 0.48, "chance is 1/3"
    shuffled = np.roll(blossoms.attributes[held], 7, axis=0)
    assert probe_accuracy(probe, blossoms.images[held], shuffled, crop=32)["petal_colour"] < 0.35, "the truth matters"


def test_training_repeats_for_a_seed_leaves_the_global_generator_alone_and_reports_steps(blossoms):
    steps: list[int] = []
    torch.manual_seed(11)
    expected = torch.rand(1)
    torch.manual_seed(11)
    arguments = (blossoms.images[:50], blossoms.attributes[:50])
    first = train_probe(*arguments, crop=32, steps=2, batch=16, seed=5, progress=steps.append)
    assert torch.equal(torch.rand(1), expected)
    assert steps == [1, 2]
    again, other = (train_probe(*arguments, crop=32, steps=2, batch=16, seed=seed) for seed in (5, 6))
    assert torch.equal(first.heads[0].weight, again.heads[0].weight)
    assert not torch.equal(first.heads[0].weight, other.heads[0].weight)


@pytest.mark.parametrize("side", [16, 32, 38, 64, 128])
def test_any_size_of_picture_gives_logits_of_every_attribute(side):
    logits = AttributeProbe().eval()(torch.zeros(2, 3, side, side))
    assert [tuple(part.shape) for part in logits] == [(2, values) for values in ATTRIBUTES.values()]
    assert list(ATTRIBUTES.items()) == [("petal_colour", 8), ("centre_colour", 6), ("count", 4), ("shape", 3)]


def test_accuracy_counts_each_attribute_and_all_four_at_once():
    asked = np.array([[0, 1, 2, 0], [3, 1, 2, 0], [4, 0, 1, 2], [5, 5, 3, 1]], np.int32)
    read = [[0, 1, 2, 0], [3, 2, 2, 0], [0, 2, 1, 0], [5, 5, 0, 1]]
    accuracy = caption_accuracy(Oracle(read), torch.zeros(4, 3, 32, 32), asked)
    assert accuracy == {"petal_colour": 0.75, "centre_colour": 0.5, "count": 0.75, "shape": 0.75, "all": 0.25}


def test_real_pictures_are_scaled_as_generated_ones_are(probe, blossoms):
    cut = blossoms.images[:64, 2:34, 2:34]
    scaled = torch.from_numpy(cut.transpose(0, 3, 1, 2).astype(np.float32) / 255 * 2 - 1)
    expected = caption_accuracy(probe, scaled, blossoms.attributes[:64])
    assert probe_accuracy(probe, blossoms.images[:64], blossoms.attributes[:64], crop=32) == expected


def test_a_saved_probe_reads_the_same_and_a_file_of_another_shape_is_refused(probe, tmp_path):
    path = tmp_path / "probe.safetensors"
    probe.save(path)
    pictures = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    for mine, loaded in zip(probe(pictures), AttributeProbe.load(path)(pictures), strict=True):
        assert torch.equal(mine, loaded)

    tensors = load_file(path)
    name = next(name for name in tensors if name.endswith("heads.0.weight"))
    save_file({**tensors, name: torch.zeros(9, 256)}, tmp_path / "wide.safetensors")
    with pytest.raises(CheckpointError, match=r"must be \(8, 256\), got \(9, 256\)"):
        AttributeProbe.load(tmp_path / "wide.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(path.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match=r"broken\.safetensors"):
        AttributeProbe.load(tmp_path / "broken.safetensors")
    with pytest.raises(CheckpointError, match="no such weight file"):
        AttributeProbe.load(tmp_path / "none.safetensors")


@pytest.mark.parametrize(
    ("shape", "rows", "crop", "message"),
    [
        ((4, 36, 36, 3), 3, None, r"attributes must be \(4, 4\), got \(3, 4\)"),
        ((4, 36, 36, 3), 4, 37, r"crop must be in 1\.\.36, .* got 37"),
        ((4, 36, 36, 4), 4, 32, r"uint8 \(N, S, S, 3\) .* got uint8 \(4, 36, 36, 4\)"),
        ((0, 36, 36, 3), 0, 32, "N of at least 1"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(shape, rows, crop, message):
    with pytest.raises(ConfigError, match=message):
        train_probe(np.zeros(shape, np.uint8), np.zeros((rows, 4), np.int32), crop=crop, steps=1)
