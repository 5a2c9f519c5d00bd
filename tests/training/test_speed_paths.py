"""The faster ways of a step against the plain one: compiled, joined, by kernels, from data that lies on the device."""

import copy
import dataclasses
import functools

import numpy as np
import pytest
import torch

from promises import TORTURE
from small_steps import batch_of, tiny
from t2i import runtime
from t2i.config.options import TrainConfig
from t2i.config.presets import preset
from t2i.data import device_loader
from t2i.data.dataset import PackedDataset
from t2i.data.loader import Batch, Loader
from t2i.data.sampler import Sampler
from t2i.training.counters import Counters
from t2i.training.step import GanStep
from t2i.training.text_source import FrozenText, LearnedText

CPU = torch.device("cpu")
CARD = torch.device(
    "cuda" if torch.cuda.is_available() else "cpu"
)  # where kernels run: the interpreter is off on a card


def made(config: TrainConfig, text_dim: int = 1024) -> GanStep:
    torch.manual_seed(0)
    table = torch.randn(40, text_dim, generator=torch.Generator().manual_seed(1))
    return GanStep(config, FrozenText(table, None), CPU, torch.float32)


def run(gan: GanStep, steps: int) -> list[dict[str, float]]:
    return [{name: float(value) for name, value in gan(batch_of(step), step).items()} for step in range(steps)]


def state(gan: GanStep) -> dict[str, torch.Tensor]:
    return {
        f"{name}.{key}": value for name, module in gan.modules().items() for key, value in module.state_dict().items()
    }


VARIANTS = [
    {"mismatch": "image"},
    {"mismatch": "text", "reuse_fakes": True, "interpolation_weight": 0.0, "recovery_weight": 1.0},
    {"mismatch": "text", "discriminator_text_norm": False, "mismatch_weight": 0.0},
]


@pytest.mark.parametrize("changes", VARIANTS)
def test_one_pass_over_all_kinds_of_pictures_is_a_pass_a_kind(changes, one_thread):
    apart, joined = made(tiny(**changes)), made(tiny(**changes))
    assert not apart.joined
    joined.joined, joined.counters = True, Counters(joined._batches())  # as on a GPU
    for ours, theirs in zip(run(joined, 1), run(apart, 1), strict=True):
        assert ours == pytest.approx(theirs, abs=1e-4)
    # Gradients, not weights: Adam's first step is as large for a gradient that is wrong as for the right one.
    for name in ("generator", "discriminator"):
        for (place, mine), other in zip(
            getattr(joined, name).named_parameters(), getattr(apart, name).parameters(), strict=True
        ):
            largest = other.grad.abs().max()
            assert (mine.grad - other.grad).abs().max() <= 1e-3 * largest + 1e-7, f"{name}.{place}"
        for mine, other in zip(getattr(joined, name).buffers(), getattr(apart, name).buffers(), strict=True):
            torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5)


def test_joined_in_float64_the_running_statistics_are_those_of_passes_in_order(one_thread):
    apart, joined = made(tiny(mismatch="image")), made(tiny(mismatch="image"))
    joined.joined = True
    for gan in (apart, joined):
        gan.discriminator.double()
    rng = torch.Generator().manual_seed(0)
    pictures = [torch.rand(8, 3, 16, 16, generator=rng, dtype=torch.float64) for _ in range(3)]
    text = torch.randn(8, 1024, generator=rng, dtype=torch.float64)
    losses = [gan.score_pairs(pictures[0], pictures[1], text, None, pictures[2], 0.5)[0] for gan in (apart, joined)]
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-12, atol=1e-12)
    for mine, theirs in zip(joined.discriminator.buffers(), apart.discriminator.buffers(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12)
    for loss in losses:
        loss.backward()
    for mine, theirs in zip(joined.discriminator.parameters(), apart.discriminator.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-6, atol=1e-7)  # scores are float32


@pytest.mark.promise(24)
# Maps of 32 channels and more: of these, compiled code keeps the side of 0 in bits.
@pytest.mark.parametrize(
    "changes", [*VARIANTS[: 2 * TORTURE], VARIANTS[1] | {"generator_width": 32, "discriminator_width": 32}]
)
@pytest.mark.timeout(900)
def test_compiled_training_is_eager_training(changes, monkeypatch, one_thread):
    """Where all promises are tested in full, by torch's own code generator and over a hundred steps; else traced whole, with
    its backward pass, and run operation by operation over a few: generating code takes a minute."""
    if not TORTURE:
        monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    warned: list[str] = []
    monkeypatch.setattr(runtime, "print", lambda *words, **_: warned.append(" ".join(map(str, words))), raising=False)
    eager, compiled = made(tiny(**changes)), made(tiny(**changes, compile="on"))
    for step in range(100 if TORTURE else 5):
        # From equal state: left alone, two trainings that differ in the last bit are 1e-7 apart for about forty steps and then
        # part ways, as Adam divides small gradients by small moments.
        for name, module in compiled.modules().items():
            module.load_state_dict(eager.modules()[name].state_dict())
        for name, optimizer in compiled.optimizers().items():
            optimizer.load_state_dict(copy.deepcopy(eager.optimizers()[name].state_dict()))
        ours, theirs = ({k: float(v) for k, v in gan(batch_of(step), step).items()} for gan in (compiled, eager))
        assert ours == pytest.approx(theirs, abs=1e-5)
    assert not warned  # nothing fell back to eager


def test_what_cannot_be_compiled_runs_as_it_is_with_one_warning(capsys):
    def printing(x):
        torch._dynamo.graph_break()
        return x + 1

    run_it = runtime.compiled(printing, "this function")
    assert float(run_it(torch.tensor(1.0))) == 2.0
    assert float(run_it(torch.tensor(2.0))) == 3.0
    warnings = capsys.readouterr().err.splitlines()
    assert len([line for line in warnings if line.startswith("warning: this function could not be compiled")]) == 1


@pytest.mark.parametrize("kernels", ["reference", "triton"])
def test_a_batch_from_the_device_is_the_hosts_to_the_bit(kernels, tiny_blossoms: PackedDataset):
    sampler = Sampler(tiny_blossoms, batch=6, crop=16, seed=3, captions_per_image=2, interpolation="uniform")
    options = {"batch": 6, "crop": 16, "captions_per_image": 2, "mismatched_images": True, "characters": True}
    host = Loader(sampler, CPU, **options)
    device = device_loader.DeviceLoader(sampler, CARD, **options, kernels=kernels)
    for step in (0, 1, 10**6):
        ours, theirs = device.batch(step), host.batch(step)
        for field in dataclasses.fields(Batch):
            mine, expected = getattr(ours, field.name).cpu(), getattr(theirs, field.name)
            assert torch.equal(mine, expected), field.name
            assert mine.dtype == expected.dtype, field.name
            assert mine.stride() == expected.stride(), field.name


def test_the_loader_is_chosen_by_what_is_asked_for(tiny_blossoms: PackedDataset):
    sampler = Sampler(tiny_blossoms, batch=4, crop=16)
    options = {"batch": 4, "crop": 16, "captions_per_image": 1, "mismatched_images": False, "characters": False}
    assert isinstance(device_loader.make_loader("auto", sampler, CPU, **options), Loader)
    assert isinstance(device_loader.make_loader("device", sampler, CPU, **options), device_loader.DeviceLoader)


def test_a_learned_encoder_trains_from_the_device_as_from_the_host(tiny_blossoms: PackedDataset, one_thread):
    from t2i.text.char_cnn_rnn import CharCnnRnn

    config, found = tiny(mismatch="text", batch=4, text=dataclasses.replace(TrainConfig().text, dim=16)), []
    sampler = Sampler(tiny_blossoms, batch=4, crop=16)
    for kind in ("host", "device"):
        torch.manual_seed(0)
        gan = GanStep(config, LearnedText(CharCnnRnn(width=8, text_dim=16, first_channels=(8, 8))), CPU, torch.float32)
        loader = device_loader.make_loader(
            kind, sampler, CPU, batch=4, crop=16, captions_per_image=1, mismatched_images=False, characters=True
        )
        found.append([{k: float(v) for k, v in gan(loader.batch(step), step).items()} for step in range(2)])
    assert found[0] == found[1]


def test_the_preset_fast_does_no_work_twice_and_keeps_the_papers_networks():
    paper, fast = preset("paper"), preset("fast")
    assert (fast.mismatch, fast.reuse_fakes, fast.interpolation_weight) == ("text", True, 0.0)
    for name in ("size", "generator_width", "discriminator_width", "noise_dim", "batch", "learning_rate", "epochs"):
        assert getattr(fast, name) == getattr(paper, name), name


def test_ring_and_plan_carry_weights_as_bits(tiny_blossoms: PackedDataset):
    sampler = Sampler(tiny_blossoms, batch=4, crop=16, interpolation="extrapolate", seed=1)
    device = device_loader.DeviceLoader(sampler, CPU, batch=4, crop=16)
    expected = np.asarray(sampler.plan(7).interpolation_weight)
    assert np.array_equal(device.batch(7).interpolation_weight.numpy(), expected)
