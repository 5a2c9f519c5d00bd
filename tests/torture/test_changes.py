"""A run goes on only with the settings and the data that it was made with; a change is refused and shown."""

import dataclasses
import shutil

import pytest

import t2i
from promises import cases
from runs import sha256
from t2i.config.options import TextOptions
from t2i.config.presets import PRESETS
from t2i.config.records import RUNTIME_ONLY, from_json, model_settings, to_json
from t2i.data.dataset import PackedDataset
from t2i.pipeline import Pipeline
from t2i.training import gan
from t2i.training.resume import check_resume
from victims import config_of

pytestmark = pytest.mark.usefixtures("one_thread")

OTHER = {  # where twice the number, or the opposite, is not another valid value
    "init": "elsewhere",
    "augmentation": 0.5,
    "condition_ramp": 5,
    "feature_weight": 1.0,
    "diversity_weight": 1.0,
    "feature_diversity_weight": 0.25,
    "moment_weight": 0.25,
    "contrastive_weight": 0.1,
    "hard_mismatch": 0.5,
    "text_mixing": 0.5,
    "mismatch_weight": 0.25,
    "realism_goal": 0.25,
    "realism_steps": 7,
    "ema": 0.5,
    "beta1": 0.25,
    "beta2": 0.9,
    "interpolation_coefficient": 0.25,
    "mismatch": "text",
    "interpolation": "uniform",
    "precision": "bfloat16",
    "preset": "flowers",
    "crop_low": 1,
    "seed": 5,
    "alignment_weight": 0.0,
    "interpolation_weight": 0.5,
    "recovery_weight": 0.5,
    "text.variant": "long",
    "text.channels": (8, 16),
    "text.objective": "sje",
    "text.decay": 0.5,
    "text.max_epochs": 3,
    "halve_every": 3,
    "text.image_features": "googlenet",
    "text.encoder": "end-to-end",
}
BASE = config_of(steps=1, alignment_weight=0.0)


def other(name):
    """Another valid value of a setting."""
    value = model_settings(BASE)[name]
    if name == "alignment_weight":
        return 0.3
    if name in OTHER:
        return OTHER[name]
    return not value if isinstance(value, bool) else 2 * value


def changed(name):
    if name.startswith("text."):
        return dataclasses.replace(BASE, text=dataclasses.replace(BASE.text, **{name[5:]: other(name)}))
    return dataclasses.replace(BASE, **{name: other(name)})


NAMES = list(model_settings(BASE))
TRIED = [name for name in NAMES if name != "text.teacher"]  # which is refused before, where its folder is not there


@pytest.fixture(scope="module")
def begun(blossoms, tmp_path_factory):
    """A run of one step, on pictures with room for a larger size."""
    folder = tmp_path_factory.mktemp("begun")
    gan.train(BASE, blossoms, folder)
    return folder


@pytest.mark.promise(8)
def test_every_setting_that_makes_another_model_is_compared(begun, blossoms, tmp_path, tally):
    """First by config.json; then, as if that were lost, by what the checkpoint itself was made from."""
    before = sha256(begun / "model.safetensors")
    for case in tally(cases(8)):
        name = TRIED[(case * 7) % len(TRIED)]  # 7 has no factor in common with their number
        says = f"{name}: {model_settings(BASE)[name]} -> {other(name)}"
        with pytest.raises(t2i.ConfigError, match="choose another --out or add --force") as caught:
            gan.train(changed(name), blossoms, begun)
        assert f"({says})" in str(caught.value)
        assert "\n" not in str(caught.value)
        assert sha256(begun / "model.safetensors") == before
        assert from_json(begun / "config.json") == BASE


def test_the_folder_of_another_preset_is_refused_by_its_name_and_a_few_settings(tiny_blossoms, tmp_path):
    (tmp_path / "config.json").write_text(to_json(PRESETS["modern"]))
    with pytest.raises(t2i.ConfigError) as caught:
        check_resume(PRESETS["drawings"], tmp_path, tiny_blossoms)
    said = str(caught.value)
    assert "other settings (preset: modern -> drawings; size: 64 -> 32; " in said
    assert said.endswith(" more); take --preset modern to resume it, choose another --out or add --force")
    assert said.count(" -> ") == 5


@pytest.mark.promise(8)
@pytest.mark.parametrize("name", ["batch", "seed", "learning_rate", "mismatch"])
def test_a_checkpoint_whose_settings_were_lost_is_not_taken_for_another_runs(begun, blossoms, tmp_path, name):
    folder = shutil.copytree(begun, tmp_path / "run")
    for lost in ("config.json", "data.json"):
        (folder / lost).unlink()
    if name == "seed":
        (folder / "text.json").unlink()  # the seed is the text encoder's too, and would be refused for it
    with pytest.raises(t2i.ConfigError, match="was made from something else") as caught:
        gan.train(dataclasses.replace(changed(name), steps=2), blossoms, folder)
    assert f"settings.{name}: {model_settings(BASE)[name]} -> {other(name)}" in str(caught.value)
    assert sha256(folder / "model.safetensors") == sha256(begun / "model.safetensors")
    assert not (folder / "config.json").exists()  # or the right command would be refused next


@pytest.mark.promise(8)
def test_a_text_encoder_that_was_replaced_is_noticed(begun, blossoms, tmp_path):
    folder = shutil.copytree(begun, tmp_path / "run")
    (folder / "text.safetensors").unlink()
    gan.train(dataclasses.replace(BASE, seed=3), blossoms, tmp_path / "other")
    shutil.copy(tmp_path / "other" / "text.safetensors", folder)
    with pytest.raises(t2i.ConfigError, match=r"\(text_sha256: [0-9a-f]{12} -> [0-9a-f]{12}\)"):
        gan.train(dataclasses.replace(BASE, steps=2), blossoms, folder)


@pytest.mark.promise(8)
@pytest.mark.parametrize("lost", [False, True])
def test_another_data_set_is_refused(begun, tiny_blossoms, tmp_path, lost):
    folder = shutil.copytree(begun, tmp_path / "run")
    if lost:
        for name in ("config.json", "data.json", "text.json"):
            (folder / name).unlink()
    said = "was made from something else.*data" if lost else "holds a run with other settings .data set"
    with pytest.raises(t2i.ConfigError, match=rf"{said}: [0-9a-f]{{12}} -> [0-9a-f]{{12}}"):
        gan.train(dataclasses.replace(BASE, steps=2), tiny_blossoms, folder)
    assert sha256(folder / "model.safetensors") == sha256(begun / "model.safetensors")


@pytest.mark.promise(8)
def test_force_goes_on_with_another_setting_and_another_data_set(begun, tiny_blossoms_folder, tmp_path):
    folder = shutil.copytree(begun, tmp_path / "run")
    data = PackedDataset(tiny_blossoms_folder)
    gan.train(dataclasses.replace(BASE, steps=2, learning_rate=1e-3, force=True), data, folder)
    assert (folder / "checkpoints" / "step-00000002").exists()
    gan.train(dataclasses.replace(BASE, steps=3, learning_rate=1e-3), data, folder)  # and is then the run's own


def saved(begun, folder):
    """What `save_pretrained` writes: a model for others, and nothing to resume from."""
    Pipeline.from_pretrained(begun).save_pretrained(folder)


def freed(begun, folder):
    """Its checkpoints take the most room of a run that has ended."""
    shutil.copytree(begun, folder)
    shutil.rmtree(folder / "checkpoints")


def without_settings(begun, folder):
    freed(begun, folder)
    (folder / "config.json").unlink()


@pytest.mark.promise(8)
@pytest.mark.parametrize("made", [saved, freed, without_settings])
def test_a_model_without_a_checkpoint_is_replaced_by_force_alone(begun, blossoms, tmp_path, made):
    folder = tmp_path / "run"
    made(begun, folder)
    before = {path: sha256(path) for path in folder.rglob("*") if path.is_file()}
    config = dataclasses.replace(BASE, steps=2)
    with pytest.raises(
        t2i.ConfigError, match=f"{folder} holds a model but no checkpoint.*--out, or add --force"
    ) as caught:
        gan.train(config, blossoms, folder)
    assert "\n" not in str(caught.value)
    assert {path: sha256(path) for path in before} == before
    gan.train(dataclasses.replace(config, force=True), blossoms, folder)
    assert sha256(folder / "model.safetensors") != before[folder / "model.safetensors"]
    gan.train(dataclasses.replace(config, steps=3), blossoms, folder)  # which has a checkpoint now


@pytest.mark.promise(8)
def test_a_run_without_a_model_and_a_checkpoint_begins_again(begun, blossoms, tmp_path):
    """Killed before its first checkpoint, when the text encoder and the best model may be there."""
    folder = shutil.copytree(begun, tmp_path / "run")
    shutil.copy(folder / "model.safetensors", folder / "best.safetensors")
    shutil.rmtree(folder / "checkpoints")
    (folder / "model.safetensors").unlink()
    gan.train(BASE, blossoms, folder)
    assert sha256(folder / "model.safetensors") == sha256(begun / "model.safetensors")


@pytest.mark.parametrize("name", sorted(RUNTIME_ONLY))
def test_where_how_long_and_on_what_device_may_change(begun, blossoms, name):
    value = getattr(BASE, name)
    words = {"data": "elsewhere", "out": "elsewhere", "device": "auto", "compile": "on", "kernels": "triton"} | {
        "loader": "host",
        "epochs": 7,
        "force": True,
        "cuda_graph": not value,
        "report_to": "tensorboard",
        "deterministic": True,
        "keep": "best",
    }
    beside = {"eval_every": 5} if name == "keep" else {}
    config = dataclasses.replace(BASE, **beside, **{name: words[name] if name in words else value + 1})
    assert config != BASE
    assert model_settings(config) == model_settings(BASE)
    check_resume(config, begun, blossoms)  # raises nothing
    with pytest.raises(
        t2i.ConfigError, match="seed: "
    ):  # which is no accident: what makes another model is seen beside it
        check_resume(dataclasses.replace(config, seed=BASE.seed + 1, force=False), begun, blossoms)


def test_every_setting_is_one_or_the_other():
    fields = {field.name for field in dataclasses.fields(BASE)} - {"text"}
    text = {f"text.{field.name}" for field in dataclasses.fields(TextOptions)}
    assert set(NAMES) | RUNTIME_ONLY == fields | text
