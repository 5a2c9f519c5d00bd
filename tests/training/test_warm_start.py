"""--init: what is taken from another model, and that a resume needs nothing of it."""

import dataclasses
import shutil

import pytest
import torch

from helpers import TINY, call, tiny_config
from t2i.config.records import from_json
from t2i.errors import CheckpointError, ConfigError
from t2i.models.build import generator
from t2i.training.gan import train
from t2i.training.warm_start import take
from t2i.weights import read_tensors

pytestmark = pytest.mark.usefixtures("one_thread")
MODERN = {
    "network": "modern",
    "interpolation_weight": 0.0,
    "pixel_size": 16,
    "mismatch": "text",
    "recovery_weight": 0.5,
}
NGRAMS = {"encoder": "joint", "kind": "ngrams", "buckets": (256, 64), "objective": "class-contrastive", "captions": 2}


def modern(**options):
    return tiny_config(text=NGRAMS, **(MODERN | options))


@pytest.fixture(scope="module", params=["paper", "modern"])
def source(request, tiny_blossoms, tmp_path_factory):
    """A run of three steps, and the settings of it."""
    folder = tmp_path_factory.mktemp("source")
    config = modern(steps=3) if request.param == "modern" else tiny_config(text={"encoder": "joint"}, steps=3)
    train(config, tiny_blossoms, folder)
    return config, folder


def checkpoint(folder):
    (state,) = sorted((folder / "checkpoints").glob("step-*/state.safetensors"))[-1:]
    return state.read_bytes()


def test_the_networks_begin_as_the_source_ended(source, tiny_blossoms, tmp_path, monkeypatch, capsys):
    config, folder = source
    seen = {}
    monkeypatch.setattr(
        "t2i.training.gan._train_gan",
        lambda gan, *_: seen.update(
            {n: {k: t.clone() for k, t in m.state_dict().items()} for n, m in gan.modules().items()}
        ),
    )
    train(dataclasses.replace(config, init=str(folder)), tiny_blossoms, tmp_path)
    saved = read_tensors(folder / "model.safetensors")
    for name in ("generator", "ema"):
        for key, tensor in seen[name].items():
            if key not in ("text_mean", "text_scale"):
                assert torch.equal(tensor, saved[f"generator.{key}"]), key
    from safetensors.torch import load

    state = load(checkpoint(folder))
    assert all(torch.equal(t, state[f"discriminator/{k}"]) for k, t in seen["discriminator"].items())
    said = capsys.readouterr().err
    assert f"discriminator: all from {folder}" in said
    assert f"text encoder: all from {folder}" in said or "text encoder: 9" in said  # all but the idf


def test_a_model_folder_without_checkpoints_gives_its_generator(source, tiny_blossoms, tmp_path, capsys):
    config, folder = source
    for name in ("config.json", "model.safetensors"):
        (tmp_path / "model").mkdir(exist_ok=True)
        shutil.copy(folder / name, tmp_path / "model" / name)
    train(dataclasses.replace(config, init=str(tmp_path / "model"), steps=1), tiny_blossoms, tmp_path / "run")
    said = capsys.readouterr().err
    assert "\ndiscriminator: nothing from" in said
    assert "generator: nothing" not in said


def test_a_resume_needs_neither_the_flag_nor_the_source(source, tiny_blossoms, tmp_path):
    config, folder = source
    copy = tmp_path / "source"
    shutil.copytree(folder, copy)
    started = dataclasses.replace(config, init=str(copy), steps=4)
    train(started, tiny_blossoms, tmp_path / "whole")
    train(dataclasses.replace(started, steps=2), tiny_blossoms, tmp_path / "halves")
    shutil.rmtree(copy)
    train(dataclasses.replace(started, init=""), tiny_blossoms, tmp_path / "halves")
    assert checkpoint(tmp_path / "halves") == checkpoint(tmp_path / "whole")
    assert from_json(tmp_path / "halves" / "config.json").init == str(copy)
    with pytest.raises(ConfigError, match="init: "):
        train(dataclasses.replace(started, init=str(folder)), tiny_blossoms, tmp_path / "halves")


def test_a_warm_start_changes_what_is_learned(source, tiny_blossoms, tmp_path):
    config, folder = source
    train(dataclasses.replace(config, steps=1), tiny_blossoms, tmp_path / "cold")
    train(dataclasses.replace(config, init=str(folder), steps=1), tiny_blossoms, tmp_path / "warm")
    assert checkpoint(tmp_path / "cold") != checkpoint(tmp_path / "warm")


@pytest.mark.parametrize("network", ["paper", "modern"])
@pytest.mark.parametrize(("small", "large"), [(16, 32), (32, 64)])
def test_a_model_of_twice_the_size_takes_the_levels_next_to_the_image(network, small, large):
    config = tiny_config() if network == "paper" else modern()
    source, target = (generator(dataclasses.replace(config, size=size)) for size in (small, large))
    taken, of = take(target, source.state_dict(), shift=1)
    assert 0 < taken < of
    last = len(target.up) - 1
    ours, theirs = target.up[last].state_dict(), source.up[last - 1].state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_another_architecture_is_refused(source, tiny_blossoms, tmp_path):
    config, folder = source
    other = tiny_config(text={"encoder": "joint"}) if config.network == "modern" else modern()
    with pytest.raises(ConfigError, match=f"--init .* has --network {config.network}.*--preset"):
        train(dataclasses.replace(other, init=str(folder)), tiny_blossoms, tmp_path)
    assert not (tmp_path / "text.safetensors").exists()  # before a text encoder is trained


def test_shapes_that_fit_nowhere_are_refused(source, tiny_blossoms, tmp_path):
    config, folder = source
    wide = dataclasses.replace(config, init=str(folder), generator_width=12, projection_dim=12, noise_dim=6)
    with pytest.raises(ConfigError, match="of its generator has the shapes of these settings; take its preset"):
        train(wide, tiny_blossoms, tmp_path)


def test_no_such_source_is_one_line(tiny_blossoms_folder, tmp_path):
    code, _, err = call(
        "t2i-train", *TINY, "--data", tiny_blossoms_folder, "--init", tmp_path / "none", "--out", tmp_path / "r"
    )
    assert code == 2
    assert f"no such run folder: {tmp_path / 'none'}" in err
    assert issubclass(CheckpointError, ValueError)
