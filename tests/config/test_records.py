"""What a run was made from: which settings are recorded, how two records differ, and which are refused."""

import dataclasses
import json

import pytest

from t2i.config.options import JointOptions, StyleConfig, TextConfig, TextOptions, TrainConfig
from t2i.config.presets import PRESETS
from t2i.config.records import (
    FORMAT,
    differences,
    from_json,
    listed,
    model_settings,
    runtime_only,
    text_options,
    text_settings,
    text_size,
    to_json,
)
from t2i.errors import CheckpointError

EVERYWHERE = {"out", "log_every", "checkpoint_every", "device", "threads", "force", "data"}


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        (TextConfig, {"preset"}),
        (StyleConfig, {"model"}),
        (
            TrainConfig,
            {
                "steps",
                "epochs",
                "sample_every",
                "report_to",
                "compile",
                "cuda_graph",
                "kernels",
                "loader",
                "eval_every",
                "keep",
            }
            | {"deterministic"},
        ),
    ],
)
def test_only_places_devices_and_durations_may_change_on_resuming(kind, more):
    assert runtime_only(kind) == EVERYWHERE | more


def test_the_settings_of_a_model_name_those_of_its_text_encoder():
    found = model_settings(PRESETS["flowers"])
    assert (found["text.dim"], found["noise_dim"], "text" in found, "out" in found) == (256, 32, False, False)
    assert set(model_settings(StyleConfig(model="x"))) == {
        "steps",
        "batch",
        "width",
        "learning_rate",
        "beta1",
        "beta2",
        "interpolated",
        "blur",
        "noise",
        "seed",
        "precision",
    }


def test_a_text_encoder_has_the_same_settings_in_a_gans_run_and_alone():
    options = {"dim": 8, "width": 4}
    gan = TrainConfig(size=32, seed=3, flip=False, text=TextOptions(encoder="joint", **options))
    alone = TextConfig(size=32, seed=3, flip=False, text=JointOptions(**options))
    assert text_settings(gan) == text_settings(alone)
    assert set(text_settings(alone)) == {"size", "flip", "seed", "precision", "text"}
    assert text_settings(alone)["text"]["dim"] == 8


@pytest.mark.parametrize(
    ("before", "after", "changed"),
    [
        ({"a": 1}, {"a": 1}, []),
        ({"a": 1}, {"a": 2}, ["a: 1 -> 2"]),
        ({"text": {"dim": 1, "width": 2}}, {"text": {"dim": 3, "width": 2}}, ["text.dim: 1 -> 3"]),
        ({"a": 1, "gone": 2}, {"a": 1, "new": 3}, []),  # another version did not write it
        ({"sha": "ab" * 32}, {"sha": "cd" * 32}, ["sha: abababababab -> cdcdcdcdcdcd"]),
        ({"a": None}, {"a": 0}, ["a: None -> 0"]),
    ],
)
def test_the_difference_of_two_records_names_each_value(before, after, changed):
    assert differences(before, after) == changed


def test_a_message_names_a_few_differences_the_preset_first_and_counts_the_others():
    changed = differences(model_settings(PRESETS["modern"]), model_settings(PRESETS["drawings"]))
    assert len(changed) > 15
    assert listed(changed).startswith("preset: modern -> drawings; size: 64 -> 32; batch: 16 -> 32; ")
    assert listed(changed).endswith(f"; and {len(changed) - 5} more")
    assert listed(["beta1: 0 -> 1", "settings.seed: 0 -> 1"]) == "settings.seed: 0 -> 1; beta1: 0 -> 1"
    assert listed(list("abcdef")) == "a; b; c; d; e; f"  # all of six: to count one takes as much room


@pytest.mark.parametrize("name", PRESETS)
def test_settings_are_read_back_as_they_were_written(tmp_path, name):
    (tmp_path / "config.json").write_text(to_json(PRESETS[name]))
    assert from_json(tmp_path / "config.json") == PRESETS[name]


REFUSED = {
    "an older folder": ({"format": None}, r"folder format 1, this t2i reads \d+: .* train the model again"),
    "a newer folder": ({"format": FORMAT + 1}, "written by a newer t2i: update t2i"),
    "a setting that was renamed": (
        {"interpolation_loss": 1.0},
        "this version of t2i has no setting interpolation_loss; train again, or use the version that made it",
    ),
    "a setting of the text encoder": ({"text": {"colour": 1}}, r"has no setting text\.colour; train again"),
    "a value of another type": ({"batch": "64"}, "batch must be a whole number, got '64'"),
    "a number for a switch": ({"flip": 1}, "flip must be true or false, got 1"),
    "a choice that there is not": ({"text": {"variant": "none"}}, r"text\.variant must be one of short, long, got"),
    "a value out of bounds": ({"ema": 1.5}, r"--ema must lie in 0\.\.1 \(1 excluded\), got 1.5"),
    "text options that are none": ({"text": 3}, r"text must be a table"),
    "no text options": ({"text": None}, "'text'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_settings_that_cannot_be_used_are_refused_by_name(tmp_path, case):
    changes, says = REFUSED[case]
    record = json.loads(to_json(TrainConfig()))
    for name, value in changes.items():
        record[name] = record[name] | value if isinstance(value, dict) else value
        if value is None:
            del record[name]
    path = tmp_path / "config.json"
    path.write_text(json.dumps(record))
    with pytest.raises(CheckpointError, match=says) as caught:
        from_json(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_text_encoder_is_described_by_its_own_record_or_by_the_run(tmp_path):
    run = TrainConfig(size=32, text=TextOptions(dim=8, channels=(3, 4)))
    (tmp_path / "config.json").write_text(to_json(run))
    assert (text_options(tmp_path), text_size(tmp_path)) == (JointOptions(dim=8, channels=(3, 4)), 32)
    alone = TextConfig(size=16, text=JointOptions(dim=9))
    (tmp_path / "text.json").write_text(json.dumps({"settings": text_settings(alone)}))
    assert (text_options(tmp_path), text_size(tmp_path)) == (JointOptions(dim=9), 16)


@pytest.mark.parametrize(
    ("record", "says"),
    [
        ("{", "cannot be read as the settings of a text encoder"),
        ("{}", "cannot be read as the settings of a text encoder: 'settings'"),
        ('{"settings": {"text": {"size": 3}}}', "this version of t2i has no setting size; train again"),
        ('{"settings": {"text": {"dim": 0}}}', "--dim must be at least 1, got 0"),
        ('{"settings": []}', "cannot be read as the settings of a text encoder"),
    ],
)
def test_a_damaged_record_of_a_text_encoder_is_refused(tmp_path, record, says):
    (tmp_path / "text.json").write_text(record)
    with pytest.raises(CheckpointError, match=says):
        text_options(tmp_path)


def test_a_record_of_a_run_keeps_every_field(tmp_path):
    written = json.loads(to_json(TrainConfig()))
    assert set(written) == {field.name for field in dataclasses.fields(TrainConfig)} | {"format"}
