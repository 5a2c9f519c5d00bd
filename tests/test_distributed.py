"""Several processes: together they compute what one process computes of the joined batch, and they end together."""

import dataclasses
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
from unittest.mock import patch

import numpy as np
import pytest
import torch
from torch import nn

import t2i
from processes import results, together
from promises import TORTURE
from t2i.config.options import TextOptions, TrainConfig
from t2i.data.dataset import PackedDataset
from t2i.data.loader import Loader
from t2i.data.sampler import Sampler
from t2i.distributed import ALONE, Ranks
from t2i.models.encoders import ImageEncoder
from t2i.ops.synchronised_norm import SynchronisedNorm, synchronise
from t2i.text.build import text_encoder
from t2i.training import gan, losses
from t2i.training.step import GanStep
from t2i.training.text_source import FrozenText, LearnedText

pytestmark = [
    pytest.mark.timeout(600),  # several processes on a busy machine
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no torch.distributed"),
]

TEXT = TextOptions(
    encoder="end-to-end", width=8, channels=(8, 8), dim=16, steps=3, batch=8, objective="contrastive", image_width=8
)
CONFIG = TrainConfig(
    size=16,
    generator_width=8,
    discriminator_width=8,
    noise_dim=8,
    projection_dim=8,
    batch=16,
    steps=6,
    precision="float32",
    threads=1,
    device="cpu",
    captions_per_image=2,
    log_every=1,
    halve_every=0,
    ema=0.9,
    interpolation="uniform",
    sync_batch_norm=True,
    text=TEXT,
)


def one_step(ranks, folder, config, learned=False):
    """Update both networks once, in float64: gradients, running statistics, weights and measures, by name."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        data = PackedDataset(folder)
        torch.manual_seed(0)
        table = torch.randn(data.captions, config.text.dim)
        text = LearnedText(text_encoder(config.text)) if learned else FrozenText(table, None)
        alignment_encoder = (
            ImageEncoder(16, 8, config.text.dim).eval().requires_grad_(False) if config.alignment_weight else None
        )
        for module in (alignment_encoder, text.encoder):  # these answer in float32 by themselves
            if module is not None:
                module.register_forward_hook(lambda _, __, answer: answer.double())
        sampler = Sampler(
            data, batch=16, crop=16, captions_per_image=2, interpolation="uniform", rank=ranks.rank, world=ranks.world
        )
        loader = Loader(
            sampler,
            torch.device("cpu"),
            batch=ranks.rows(16),
            crop=16,
            captions_per_image=2,
            mismatched_images=True,
            characters=True,
        )
        batch = loader.batch(0)
        batch.images, batch.mismatched_images = batch.images.double(), batch.mismatched_images.double()
        step = GanStep(config, text, torch.device("cpu"), torch.float32, alignment_encoder, ranks)
        if step.stages is not None:
            step.stages.float()
        # Scores and losses are computed in float32, whose rounding varies with the processor: here they stay in float64.
        single = torch.Tensor.float  # a number, such as Adam's factor, may be no other
        with patch.object(torch.Tensor, "float", lambda x: x.double() if x.ndim else single(x)):
            measured = ranks.mean(step(batch, 0))
        out = {f"measured {name}": value for name, value in measured.items()}
        for name, module in step.modules().items():
            out |= {f"gradient {name}.{k}": w.grad for k, w in module.named_parameters() if w.grad is not None}
            out |= {f"statistic {name}.{k}": b for k, b in module.named_buffers()}
            out |= {f"weight {name}.{k}": w for k, w in module.named_parameters()}
        return {name: value.detach().numpy() for name, value in out.items()}
    finally:
        torch.set_default_dtype(before)


STEPS = {
    "GAN-INT-CLS, mismatched pictures": ({}, False),
    "mismatched texts, the joint embedding's verdict, the noise read back": (
        {
            "mismatch": "text",
            "reuse_fakes": True,
            "alignment_weight": 0.7,
            "recovery_weight": 1.0,
            "interpolation_weight": 0.0,
        },
        False,
    ),
    "stages, and a text encoder that learns": ({"stages": True, "realism_steps": 1}, True),
}


@pytest.mark.parametrize("world", [2, 4])
@pytest.mark.parametrize("case", STEPS)
def test_processes_with_joined_statistics_have_the_gradients_of_one_with_the_joined_batch(
    tiny_blossoms_folder, case, world
):
    options, learned = STEPS[case]
    text = dataclasses.replace(TEXT, encoder="end-to-end" if learned else "joint")
    config = dataclasses.replace(CONFIG, text=text, **options)
    expected = one_step(ALONE, tiny_blossoms_folder, config, learned)
    parts = results(world, one_step, tiny_blossoms_folder, config, learned)
    for name, value in expected.items():
        for part in parts:
            assert np.array_equal(part[name], parts[0][name]), f"{name} differs between processes"
        # Measures are averaged in float32, all else is float64; the issue asks for 1e-6.
        limit = 1e-6 if name.startswith("measured") else 1e-9
        assert np.abs(parts[0][name] - value).max() <= limit, name
    assert len([name for name in expected if name.startswith("gradient")]) > 40


def exchanges(ranks, folder, config):
    """Count what a step sends: the numbers in each all-reduce."""
    sent, real = [], torch.distributed.all_reduce

    def counted(tensor, *arguments, **options):
        sent.append(tensor.numel())
        return real(tensor, *arguments, **options)

    torch.distributed.all_reduce = counted
    found = one_step(ranks, folder, config)
    sizes = {
        net: sum(value.size for name, value in found.items() if name.startswith(f"gradient {net}."))
        for net in ("generator", "discriminator")
    }
    return sent, sizes, found


def test_gradients_travel_as_one_all_reduce_a_network_and_all_processes_hold_the_same(tiny_blossoms_folder):
    config = small(text=dataclasses.replace(TEXT, encoder="joint"))
    parts = results(2, exchanges, tiny_blossoms_folder, config)
    for name, value in parts[0][2].items():
        assert np.array_equal(value, parts[1][2][name]), name
    for sent, sizes, _ in parts:
        # Each with the loss behind it; then the running statistics; the last is the measures', which only a log asks for.
        assert sent[:2] == [sizes["discriminator"] + 1, sizes["generator"] + 1]
        assert len(sent) == 4


def drawn(ranks, folder, step):
    """What a process sees of a step's samples and noise."""
    plan = Sampler(PackedDataset(folder), batch=16, crop=16, rank=ranks.rank, world=ranks.world).plan(step)
    config = dataclasses.replace(CONFIG, text=dataclasses.replace(TEXT, encoder="joint"))
    noise = GanStep(
        config, FrozenText(torch.zeros(1, 16), None), torch.device("cpu"), torch.float32, None, ranks
    )._noise
    return plan.image, plan.mismatched_image, plan.caption, noise(24 // ranks.world, step, "generator").numpy()


@pytest.mark.promise(7)
@pytest.mark.parametrize("world", [2, 4])
def test_any_number_of_processes_draws_the_same_samples_and_noise(tiny_blossoms_folder, world):
    expected = drawn(ALONE, tiny_blossoms_folder, 5)
    parts = results(world, drawn, tiny_blossoms_folder, 5)
    for name in range(3):
        assert np.array_equal(np.concatenate([part[name] for part in parts]), expected[name])
    rows, pairs = 16 // world, 8 // world  # the noise of given texts, then that of interpolated ones
    noise = [part[3][:rows] for part in parts] + [part[3][rows : rows + pairs] for part in parts]
    assert np.array_equal(np.concatenate(noise), expected[3])


def train(ranks, folder, out, config, at=None, what=None):
    """Train; in the step that begins after `at` steps, do `what` in the last process."""
    step = GanStep.__call__

    def call(self, batch, number):
        if number == at and ranks.rank == ranks.world - 1:
            what()
        return step(self, batch, number)

    GanStep.__call__ = call
    gan.train(config, PackedDataset(folder), out, ranks)


def terminate():
    os.kill(os.getpid(), signal.SIGTERM)


def fail():
    raise ZeroDivisionError("the last process fails")


def digest(folder):
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def small(**options):
    """Settings of a run of six steps, its own batch statistics in each process."""
    return dataclasses.replace(CONFIG, **({"sync_batch_norm": False, "alignment_weight": 0.0} | options))


@pytest.fixture(scope="module")
def unbroken(tiny_blossoms_folder, tmp_path_factory):
    """The run of two processes that others are compared with; its text encoder is trained first."""
    folder = tmp_path_factory.mktemp("unbroken")
    config = small(text=dataclasses.replace(TEXT, encoder="joint"))
    results(2, train, tiny_blossoms_folder, folder, config)
    return config, folder


def test_two_processes_write_one_run(unbroken):
    _, folder = unbroken
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if row["phase"] == "gan"] == [1, 2, 3, 4, 5, 6]
    assert [row["step"] for row in rows if row["phase"] == "text"] == [1, 2, 3]
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["step-00000006"]
    assert (folder / "samples" / "step-0000006.png").exists()


def test_a_signal_to_one_process_stops_all_after_the_same_step_and_they_resume_to_the_same_bits(
    unbroken, tiny_blossoms_folder, tmp_path
):
    config, folder = unbroken
    answers = together(2, train, tiny_blossoms_folder, tmp_path, config, 3, terminate)
    assert [error for _, error in answers] == ["Stopped: stopped after step 4 of 6; run the same command to resume"] * 2
    results(2, train, tiny_blossoms_folder, tmp_path, config)
    assert digest(tmp_path) == digest(folder)


def test_a_process_that_fails_takes_the_others_with_it(tiny_blossoms_folder, tmp_path):
    answers = together(4, train, tiny_blossoms_folder, tmp_path, small(), 2, fail)
    assert answers[3][1] == "ZeroDivisionError: the last process fails"
    for _, error in answers[:3]:
        assert error.startswith("PeerLost: another process of this run has ended; its own message says why")
        assert "\n" not in error


def prepare(ranks, what):
    with ranks.main_process_first():
        if ranks.is_main:
            what()
    return "not reached"


def test_where_process_0_cannot_prepare_the_others_do_not_wait(tmp_path):
    first, second = together(2, prepare, fail)
    assert first[1] == "ZeroDivisionError: the last process fails"
    assert re.match("PeerLost: .*; its own message says why", second[1])


def in_turn(ranks, folder):
    with ranks.main_process_first():
        order = sorted(path.name for path in folder.iterdir())
        (folder / str(ranks.rank)).touch()
    return order


def test_process_0_goes_first(tmp_path):
    found = results(4, in_turn, tmp_path)
    assert found[0] == []
    assert all("0" in names for names in found[1:])


def disagree(ranks):
    ranks.assert_same({"settings": "same", "data": f"pack {min(ranks.rank, 1)}"})


def test_processes_with_other_data_are_refused_by_all():
    for _, error in together(3, disagree):
        assert error.startswith("ConfigError: processes 0 and 1 differ in data (pack 0 and pack 1): all machines need")


def hold(ranks, folder):
    """Averages, in several types and shapes; what any process says; what one writes."""
    values = [torch.full((2, 3), float(ranks.rank)), torch.tensor(ranks.rank + 0.5, dtype=torch.float64)]
    ranks.average(values)
    rows = torch.full((2, 2), float(ranks.rank), dtype=torch.bfloat16)
    said = ranks.any(ranks.rank == 1), ranks.any(False)
    return values, ranks.gather(rows), said, ranks.write(str, "written"), ranks.local_rows(torch.arange(6)).tolist()


def test_what_processes_say_to_each_other(tmp_path):
    for rank, (values, rows, said, written, part) in enumerate(results(3, hold, tmp_path)):
        assert torch.equal(values[0], torch.ones(2, 3))
        assert values[1] == 1.5
        assert torch.equal(rows, torch.tensor([0.0, 0, 1, 1, 2, 2])[:, None].expand(6, 2))
        assert said == (True, False)
        assert written == ("written" if rank == 0 else None)
        assert part == [2 * rank, 2 * rank + 1]


def compare_rows(ranks, joined):
    """The gradient of a loss that compares all rows with each other, at this process's rows, and averaged."""
    rows = ranks.local_rows(joined).clone().requires_grad_(True)
    scale = torch.ones(1, requires_grad=True, dtype=torch.float64)
    losses.contrastive_loss(ranks.gather(rows * scale), joined.flip(0)).backward()
    ranks.average([scale.grad])
    return rows.grad / ranks.world, scale.grad


def test_a_loss_over_joined_rows_has_the_gradient_of_one_process():
    joined = torch.randn(8, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = compare_rows(ALONE, joined)
    parts = results(2, compare_rows, joined)
    torch.testing.assert_close(torch.cat([part[0] for part in parts]), expected[0], rtol=0, atol=1e-12)
    torch.testing.assert_close(parts[0][1], expected[1], rtol=0, atol=1e-12)


def normalised(ranks, joined, kind):
    """Output, gradients and statistics of a batch normalisation that sees a part of the rows."""
    torch.manual_seed(0)
    net = nn.Sequential(kind(3)).double()
    nn.init.normal_(net[0].weight)
    synchronise(net, ranks, torch.device("cpu"))
    rows = ranks.local_rows(joined).clone().requires_grad_(True)
    y = net(rows)
    (y * ranks.local_rows(torch.arange(joined.numel(), dtype=torch.float64).view_as(joined).sin())).sum().backward()
    shares = [net[0].weight.grad, net[0].bias.grad]
    ranks.average(shares)
    statistics = [net[0].running_mean, net[0].running_var, net[0].num_batches_tracked]
    net.eval()
    return y.detach(), rows.grad, [share * ranks.world for share in shares], statistics, net(rows).detach()


@pytest.mark.parametrize(("kind", "shape"), [(nn.BatchNorm1d, (6, 3)), (nn.BatchNorm2d, (6, 3, 4, 5))])
def test_a_synchronised_normalisation_is_torchs_of_the_joined_rows(kind, shape):
    # Far from 0, where sums of squares would lose their digits.
    joined = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64) + 1e4
    y, by_x, by_weights, statistics, evaluated = normalised(ALONE, joined, kind)
    parts = results(3, normalised, joined, kind)
    for index, expected in ((0, y), (1, by_x), (4, evaluated)):
        torch.testing.assert_close(torch.cat([part[index] for part in parts]), expected, rtol=0, atol=1e-9)
    for part in parts:
        torch.testing.assert_close(part[2], by_weights, rtol=0, atol=1e-9)
        torch.testing.assert_close(part[3], statistics, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("world", "device", "kind"),
    [
        (2, "cuda", nn.SyncBatchNorm),
        (2, "cpu", SynchronisedNorm),
        (1, "cuda", nn.BatchNorm2d),
        (1, "cpu", nn.BatchNorm2d),
    ],
)
def test_a_gpu_takes_torchs_own_synchronised_normalisation_of_the_same_tensors(world, device, kind):
    norm = nn.BatchNorm2d(3)
    net = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Sequential(norm))
    synchronise(net, Ranks(0, world), torch.device(device))
    assert type(net[1][0]) is kind
    assert net[1][0].weight is norm.weight
    assert net[1][0].running_var is norm.running_var


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: Ranks(0, 3).rows(64), "--batch must be a multiple of 6 for 3 processes .*, got 64"),
        (lambda: Ranks(0, 4).rows(20), "--batch must be a multiple of 8 for 4 processes .*, got 20"),
        (lambda: Ranks(0, 2).device("cuda:1"), "--device cuda:1 names one device for 2 processes; use --device cuda"),
    ],
)
def test_what_cannot_be_shared_out_is_refused(call, says):
    with pytest.raises(t2i.ConfigError, match=says):
        call()


def test_each_process_of_a_machine_takes_its_own_gpu():
    assert Ranks(5, 8, local=1).device("cuda") == "cuda:1"
    assert Ranks(5, 8, local=1).device("cpu") == "cpu"
    assert ALONE.device("cuda:3") == "cuda:3"
    assert (ALONE.rows(5), Ranks(1, 4).rows(16)) == (5, 4)


@pytest.mark.parametrize(("name", "value"), [("WORLD_SIZE", "two"), ("RANK", "")])
def test_half_a_launcher_is_refused(monkeypatch, name, value):
    from t2i import distributed

    for key, number in {"WORLD_SIZE": "2", "RANK": "0", name: value}.items():
        monkeypatch.setenv(key, number)
    with (
        pytest.raises(
            t2i.ConfigError, match=f"{name} must be a number, got '{value}': start several processes with torchrun"
        ),
        distributed.join("cpu"),
    ):
        pass


KILLED = """
import os, signal
from t2i.training.step import GanStep
step = GanStep.__call__
def call(self, batch, number):
    if number == {at} and os.environ["RANK"] == "{rank}" and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
        os.kill(os.getpid(), signal.SIGKILL)
    return step(self, batch, number)
GanStep.__call__ = call
from t2i.cli.main import train
train()
"""


def flags(config):
    """Write settings as flags."""
    words = []
    for prefix, part in (("--", config), ("--text.", config.text)):
        for field in dataclasses.fields(part):
            value = getattr(part, field.name)
            if value is None or field.name in ("text", "preset"):
                continue
            name = field.name.replace("_", "-")
            if isinstance(value, bool):
                words.append(f"{prefix}{name}" if value else f"{prefix}no-{name}")
            else:
                words += [f"{prefix}{name}", *(map(str, value) if isinstance(value, tuple) else [str(value)])]
    return words


@pytest.mark.promise(7)
@pytest.mark.parametrize("moment", range(58 if TORTURE else 1))
def test_a_killed_process_is_started_again_by_torchrun_and_the_run_ends_with_the_same_bits(
    unbroken, tiny_blossoms_folder, tmp_path, moment
):
    config, folder = unbroken
    script = tmp_path / "train.py"
    script.write_text(KILLED.format(at=(3 + moment) % 6, rank=(1 + moment) % 2))
    chosen = dataclasses.replace(config, checkpoint_every=2, data=str(tiny_blossoms_folder), out=str(tmp_path / "run"))
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--max-restarts=1", str(script)]
    done = subprocess.run([*command, *flags(chosen)], capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    assert re.search("SIGKILL|exitcode.*-9|Signal 9", done.stderr), done.stderr
    assert digest(tmp_path / "run") == digest(folder)
