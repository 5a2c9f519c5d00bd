"""One step of the GAN on tiny networks: who learns from what, batch statistics, and steps that are skipped."""

import copy

import pytest
import torch
from torch import nn

from helpers import tiny_config as config
from t2i.data.loader import Loader
from t2i.data.sampler import Sampler
from t2i.text.build import text_encoder
from t2i.training import losses
from t2i.training.step import GanStep
from t2i.training.text_source import FrozenText, LearnedText

pytestmark = pytest.mark.usefixtures("one_thread")


def step_and_batch(config, data, frozen=True):
    """Make one step of the GAN, and the batch of step 0."""
    torch.manual_seed(0)
    table = torch.randn(data.captions, config.text.dim)
    text = FrozenText(table, None) if frozen else LearnedText(text_encoder(config.text))
    sampler = Sampler(
        data, batch=8, crop=16, captions_per_image=2, interpolation=config.interpolation, seed=config.seed
    )
    loader = Loader(
        sampler, torch.device("cpu"), batch=8, crop=16, captions_per_image=2, mismatched_images=True, characters=True
    )
    return GanStep(config, text, torch.device("cpu"), torch.float32), loader.batch(0)


def changed(before, after):
    """Name the parameters that moved."""
    return {name for name, weight in after.named_parameters() if not torch.equal(weight, before[name])}


def weights(module):
    return {name: weight.detach().clone() for name, weight in module.named_parameters()}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"mismatch": "text"},
        {"mismatch_weight": 0.0},  # the plain GAN
        {"mismatch_weight": 1.0},  # GAN-CLS without fakes for the discriminator
        {"interpolation_weight": 0.0},
        {"interpolation": "uniform"},
        {"interpolation": "extrapolate"},
        {"reuse_fakes": True},
        {"reuse_fakes": True, "mismatch": "text", "interpolation_weight": 0.0},
        {"discriminator_text_norm": False, "discriminator_late_activation": True},
    ],
    ids=str,
)
def test_one_step_moves_every_weight_of_both_networks_and_measures_finite_losses(tiny_blossoms, options):
    step, batch = step_and_batch(config(**options), tiny_blossoms)
    generator, discriminator, average = weights(step.generator), weights(step.discriminator), weights(step.ema)
    measured = step(batch, 0)
    assert changed(generator, step.generator) == set(generator)
    assert changed(discriminator, step.discriminator) == set(discriminator)
    assert changed(average, step.ema) == set(average)
    expected = {"d_loss", "g_loss", "matching", "fake"} | (
        {"mismatched"} if options.get("mismatch_weight") != 0 else set()
    )
    assert set(measured) == expected
    assert all(torch.isfinite(value) for value in measured.values())
    assert all(weight.requires_grad for weight in step.discriminator.parameters())


@pytest.mark.parametrize("mismatch", ["image", "text"])
def test_a_learned_text_encoder_learns_from_the_discriminators_loss(tiny_blossoms, mismatch):
    step, batch = step_and_batch(config(mismatch=mismatch), tiny_blossoms, frozen=False)
    before = weights(step.text.encoder)
    step(batch, 0)
    assert changed(before, step.text.encoder) == set(before)


def test_the_generators_loss_does_not_reach_the_text_encoder_nor_the_discriminator(tiny_blossoms):
    step, batch = step_and_batch(config(), tiny_blossoms, frozen=False)
    text = step.text(batch.captions, batch.caption_ids).detach()
    noise = torch.randn(8, 8)
    drawn = step.generator(noise, text)
    before = weights(step.discriminator) | {f"text.{k}": v for k, v in weights(step.text.encoder).items()}
    step.discriminator_adam.zero_grad(set_to_none=True)
    step.update_generator(drawn, noise, text, 8, batch.classes)
    after = weights(step.discriminator) | {f"text.{k}": v for k, v in weights(step.text.encoder).items()}
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(weight.grad is None for weight in step.discriminator.parameters())


def recorded(discriminator, monkeypatch):
    """Note the (picture features, text) that every judgement of a discriminator is made on."""
    seen = []
    judge = discriminator.score

    def noted(features, text):
        seen.append((features.detach().clone(), text.detach().clone()))
        return judge(features, text)

    monkeypatch.setattr(discriminator, "score", noted)
    return seen


def test_the_mismatched_pair_is_another_picture_or_another_text_as_asked(tiny_blossoms, monkeypatch):
    for mismatch in ("image", "text"):
        step, batch = step_and_batch(config(mismatch=mismatch), tiny_blossoms)
        seen = recorded(step.discriminator, monkeypatch)
        step(batch, 0)
        (real, text), (mismatched, other), (fake, again) = seen[:3]
        table = step.text.table
        assert torch.equal(text, table[batch.captions].mean(dim=1))  # K captions, averaged
        assert torch.equal(again, text)
        assert not torch.equal(fake, real)
        if mismatch == "image":
            assert torch.equal(other, text)
            assert not torch.equal(mismatched, real)
        else:
            assert torch.equal(mismatched, real)
            assert torch.equal(other, table[batch.mismatched_captions].mean(dim=1))


def test_the_generator_step_is_one_pass_over_texts_and_midpoints(tiny_blossoms, monkeypatch):
    step, batch = step_and_batch(config(), tiny_blossoms)
    seen = recorded(step.discriminator, monkeypatch)
    step(batch, 0)
    assert [len(features) for features, _ in seen] == [8, 8, 8, 12]
    _, texts = seen[3]
    own = step.text.table[batch.captions].mean(dim=1)
    torch.testing.assert_close(texts, torch.cat([own, (own[:4] + own[4:]) / 2]))


@pytest.mark.parametrize(("reuse", "distinct"), [(False, True), (True, False)])
def test_noise_is_fresh_for_the_generator_unless_fakes_are_reused(tiny_blossoms, monkeypatch, reuse, distinct):
    step, batch = step_and_batch(config(reuse_fakes=reuse, interpolation_weight=0.0), tiny_blossoms)
    drawn = []
    step.generator.register_forward_hook(lambda module, inputs, output: drawn.append(inputs[0].clone()))
    step(batch, 0)
    step(batch, 1)
    assert len(drawn) == (4 if distinct else 2)
    assert len({tuple(noise.flatten().tolist()) for noise in drawn}) == len(drawn)


def normalisations(module):
    return {n: m for n, m in module.named_modules() if isinstance(m, (nn.BatchNorm1d, nn.BatchNorm2d))}


@pytest.mark.parametrize("mismatch", ["image", "text"])
def test_each_kind_of_pair_is_normalised_by_its_own_batch(tiny_blossoms, mismatch):
    """Three separate passes, as the released program has: not one joined batch of 3 B."""
    step, batch = step_and_batch(config(mismatch=mismatch), tiny_blossoms)
    reference = copy.deepcopy(step.discriminator)
    inputs = {name: [] for name in normalisations(reference)}
    for name, layer in normalisations(reference).items():
        layer.register_forward_pre_hook(lambda module, arguments, name=name: inputs[name].append(arguments[0].detach()))
    text = step.text.table[batch.captions].mean(dim=1)
    other = step.text.table[batch.mismatched_captions].mean(dim=1)
    fakes = step.generator(torch.randn(8, 8), text).detach()
    with torch.no_grad():
        matching = reference(batch.images, text)
        pair = (batch.mismatched_images, text) if mismatch == "image" else (batch.images, other)
        mismatched = reference(*pair)
        fake = reference(fakes, text)
    measured = step.update_discriminator(step.inputs(batch, 0), text, fakes, 0.5)
    expected = losses.discriminator_loss(matching, mismatched, fake, 0.5)
    assert measured["d_loss"].item() == pytest.approx(expected.item(), rel=1e-5)
    for name, layer in normalisations(step.discriminator).items():
        passes = inputs[name]
        assert len(passes) == 3
        if mismatch == "text" and not name.startswith(("text_norm", "join_norm")):
            passes = [passes[0], passes[2]]  # the trunk runs once for the real picture, whatever the text
        mean, variance = torch.zeros(layer.num_features), torch.ones(layer.num_features)
        for x in passes:
            columns = x.transpose(0, 1).flatten(1)
            mean = 0.9 * mean + 0.1 * columns.mean(dim=1)
            variance = 0.9 * variance + 0.1 * columns.var(dim=1, unbiased=True)
        torch.testing.assert_close(layer.running_mean, mean, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(layer.running_var, variance, rtol=1e-4, atol=1e-5)
        assert layer.num_batches_tracked == len(passes)


def test_the_average_follows_the_generator_with_its_decay(tiny_blossoms):
    step, batch = step_and_batch(config(ema=0.9), tiny_blossoms)
    average = weights(step.ema)
    for number in (0, 200):  # while it warms up, (1 + step) / (10 + step); later the decay itself
        step(batch, number)
        decay = min(0.9, (1 + number) / (10 + number))
        for name, weight in step.generator.named_parameters():
            average[name] = decay * average[name] + (1 - decay) * weight.detach()
    for name, weight in step.ema.named_parameters():
        torch.testing.assert_close(weight, average[name])
    assert not step.ema.training


def test_a_step_is_a_pure_function_of_weights_batch_seed_and_number(tiny_blossoms):
    results = []
    for number in (3, 3, 4):
        step, batch = step_and_batch(config(), tiny_blossoms)
        measured = step(batch, number)
        results.append((measured["g_loss"].item(), measured["d_loss"].item()))
    assert results[0] == results[1]
    assert results[0] != results[2]


@pytest.mark.promise(23)
def test_a_skipped_step_leaves_weights_moments_and_statistics_alone(tiny_blossoms):
    step_of, batch = step_and_batch(config(), tiny_blossoms)
    step_of(batch, 0)
    batch.images[0, 0, 0, 0] = float("nan")  # reaches batch statistics, loss and gradients of the discriminator
    before = copy.deepcopy([step_of.discriminator.state_dict(), step_of.discriminator_adam.state_dict()["state"]])
    step_of(batch, 1)
    after = [step_of.discriminator.state_dict(), step_of.discriminator_adam.state_dict()["state"]]
    counters = {name for name in before[0] if name.endswith("num_batches_tracked")}
    assert all(torch.equal(before[0][name], after[0][name]) for name in set(before[0]) - counters)
    for slot, values in before[1].items():
        assert all(torch.equal(value, after[1][slot][name]) for name, value in values.items())
    assert int(step_of.guard.skipped) == 1


def test_reading_the_noise_back_reaches_the_generator_and_its_own_head_only(tiny_blossoms):
    step, batch = step_and_batch(config(recovery_weight=1.0), tiny_blossoms)
    assert step.recovery is not None
    discriminator, head, drawing = weights(step.discriminator), weights(step.recovery), weights(step.generator)
    noise = torch.randn(8, 8)
    text = step.text(batch.captions, None)
    measured = step.update_generator(step.generator(noise, text), noise, text, 8, batch.classes)
    assert changed(head, step.recovery) == set(head)
    assert changed(drawing, step.generator) >= {"project.weight", "to_rgb.weight"}
    assert not {
        name for name in changed(discriminator, step.discriminator) if "running" not in name and "num" not in name
    }
    assert measured["recovery"] > 0.5  # nothing can be read back yet: the mean square of the noise itself is 1


def test_the_generator_that_has_to_give_its_noise_back_uses_it(tiny_blossoms):
    step, batch = step_and_batch(config(recovery_weight=5.0, noise_dim=2), tiny_blossoms)
    first = [float(step(batch, number)["recovery"]) for number in range(60)]
    assert sum(first[-10:]) < 0.7 * sum(first[:10])
