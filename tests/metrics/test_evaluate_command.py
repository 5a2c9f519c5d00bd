"""`t2i-eval` of unlucky users: flags out of range, data that are too few, runs without what a measure needs, full disks."""

import json
import types

import numpy as np
import pytest
import torch

import t2i
from helpers import call
from t2i.cli.evaluate import as_json
from t2i.config.options import TextOptions, TrainConfig
from t2i.config.records import to_json
from t2i.data.dataset import PackedDataset
from t2i.errors import CheckpointError, ConfigError, DataError
from t2i.metrics import captions, images, scoring, style, zero_shot
from t2i.metrics.inputs import embed_rows
from t2i.metrics.table import image_table
from t2i.models.encoders import ImageEncoder
from t2i.pretrained.folder import model_hash
from t2i.training.report import evaluated
from t2i.weights import save_weights

pytestmark = pytest.mark.usefixtures("one_thread")
TEXT = TextOptions(width=8, channels=(8, 8), dim=16, image_width=4, objective="contrastive")
CONFIG = TrainConfig(size=16, generator_width=8, noise_dim=4, projection_dim=8, alignment_weight=0.0, text=TEXT)


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny_blossoms):
    """A run folder of random networks, with a joint embedding and a style encoder."""
    folder = tmp_path_factory.mktemp("run")
    torch.manual_seed(0)
    text = t2i.CharCnnRnn("short", 8, 16, (8, 8))
    save_weights(folder / "model.safetensors", {"generator": t2i.Generator(16, 8, 4, 16, 8), "text": text})
    save_weights(folder / "text.safetensors", {"text": text, "image": ImageEncoder(16, 4, 16)})
    save_weights(folder / "style.safetensors", {"style": t2i.StyleEncoder(16, 8, 4)})
    facts = {"settings": {"width": 8, "blur": 0.5}, "model_sha256": model_hash(folder)}
    (folder / "style.json").write_text(json.dumps(facts))
    (folder / "config.json").write_text(to_json(CONFIG))
    facts = {"fingerprint": tiny_blossoms.fingerprint, "path": str(tiny_blossoms.path), "images": tiny_blossoms.images}
    (folder / "data.json").write_text(json.dumps(facts))
    return folder


def first(data, count, test):
    """Let a data set be its first `count` images, the last `test` of them held out, of two classes in turn."""
    small = PackedDataset(data.path)
    small.images = count
    small.classes = np.arange(count, dtype=np.int32) % 2
    small.splits = (np.arange(count) >= count - test).astype(np.uint8)
    small.caption_offsets = data.caption_offsets[: count + 1]
    return small


def without_blossoms(monkeypatch):
    """Take the data for photographs: no probe, no recorded style."""
    plain = {"name": "photographs", "provenance": {"kind": "folder"}}
    monkeypatch.setattr(images, "manifest", lambda pack: plain)

    def nothing(pack, name):
        raise DataError("no tensor")

    monkeypatch.setattr(PackedDataset, "extra", nothing)


OUT_OF_RANGE = {
    "a negative seed": (["images", "--seed", -1], "--seed must lie in 0..18446744073709551615, got -1"),
    "a seed of 129 bits": (["images", "--seed", 2**128], "--seed must lie in"),
    "a negative seed of style": (["style", "--seed", -1], "--seed must lie in"),
    "no captions": (["images", "--captions", 0], "--captions must be at least 1, got 0"),
    "more images than fit": (["images", "--split", "all", "--count", 10**12], "GB are free; choose fewer"),
    "a scorer that is not there": (["images", "--scorer", "none-such"], "none-such is not a run folder"),
    "a folder for curves": (["style", "--out", "{folder}/folder.png"], "--out must name a file"),
    "one image of style": (["style", "--images", 2], "style verification needs 3 images, two of one style"),
}


@pytest.mark.parametrize("name", OUT_OF_RANGE)
def test_a_flag_out_of_range_is_one_line_before_anything_is_generated(run, tmp_path, monkeypatch, name):
    def generate(*arguments, **named):
        raise AssertionError("generated")

    monkeypatch.setattr(scoring, "generate", generate)
    (tmp_path / "folder.png").mkdir()
    (kind, *flags), message = OUT_OF_RANGE[name]
    flags = [str(flag).format(folder=tmp_path) for flag in flags]
    code, _, err = call("t2i-eval", kind, "--model", run, "--device", "cpu", *flags)
    assert code == 2, err
    assert message in err
    assert len(err.strip().splitlines()) == 1


def test_json_has_no_token_that_is_not_json():
    figures = {"a": {"value": float("nan"), "real": [float("-inf"), 1.5, None, "x", True]}, "b": (2, float("inf"))}
    line = as_json(figures)
    assert json.loads(line, parse_constant=pytest.fail) == {
        "a": {"value": None, "real": [None, 1.5, None, "x", True]},
        "b": [2, None],
    }


def test_a_figure_that_is_not_finite_is_not_written_to_the_run(tmp_path):
    (tmp_path / "metrics.jsonl").write_text("")
    figures = {"kid": {"value": 0.5}, "fid": {"value": float("nan")}, "copies": {"value": None}, "measure": "images"}
    evaluated(tmp_path, CONFIG, figures)
    assert json.loads((tmp_path / "metrics.jsonl").read_text()) == {"phase": "eval", "step": 0, "kid": 0.5}


@pytest.mark.parametrize(
    ("count", "split", "advice"),
    [(40, "test", "try --split all"), (4, "test", "pack more images"), (4, "all", "pack more images")],
)
def test_a_split_that_is_too_small_is_told_what_helps(run, tiny_blossoms, count, split, advice):
    pack = first(tiny_blossoms, count, 2)
    with pytest.raises(ConfigError, match=f"at least 6 are needed; {advice}$"):
        scoring.sample_images(t2i.Pipeline.from_pretrained(run), pack, split, 10, 0)


def test_copies_without_training_images_are_said_to_be_missing(run, tiny_blossoms, monkeypatch):
    without_blossoms(monkeypatch)
    pack = first(tiny_blossoms, 30, 29)
    found = images.images_of_pipeline(t2i.Pipeline.from_pretrained(run), pack, count=10).figures
    assert "copies" not in found
    assert "2 training images" in found["not_measured"]["copies"]
    assert "not measured: copies: they need 2 training images" in image_table(found)


def test_a_damaged_embedding_of_the_run_costs_r_precision_alone(run, tiny_blossoms, monkeypatch):
    def damaged(*arguments):
        raise CheckpointError("text.safetensors is damaged")

    without_blossoms(monkeypatch)
    monkeypatch.setattr(images, "retrieval_precision", damaged)
    pipe = t2i.Pipeline.from_pretrained(run)
    found = images.images_of_pipeline(pipe, tiny_blossoms, split="all", count=10, scorer=run).figures
    assert found["not_measured"]["R-precision"] == "text.safetensors is damaged"
    assert "kid_pixels" in found


def test_the_swap_test_says_why_it_is_left_out(run, tiny_blossoms, monkeypatch):
    table = types.SimpleNamespace(figures={}, table=lambda: "")
    monkeypatch.setattr(images.accuracy, "caption_accuracy_of_run", lambda run, **named: table)
    how = {"captions": 4, "seed": 0, "device": "cpu", "language": "zh"}
    pipe = t2i.Pipeline.from_pretrained(run)
    found = images.images_of_pipeline(pipe, tiny_blossoms, split="all", count=10, accuracy=how).figures
    assert "--language en" in found["not_measured"]["colours exchanged"]


def test_a_model_without_a_text_encoder_says_that_it_cannot_read_captions(run, tiny_blossoms):
    pipe = t2i.Pipeline.from_pretrained(run)
    pipe.encoder = None
    with pytest.raises(ConfigError, match="has no text encoder: captions cannot be read"):
        embed_rows(pipe, tiny_blossoms, np.arange(3))


@pytest.mark.parametrize(
    ("value", "real", "warns"),
    [(0.06, 0.01, True), (0.04, 0.01, False), (0.30, 0.30, False), (0.30, 0.1, True)],  # the data hold images twice
)
def test_the_table_warns_of_copies_beyond_those_of_real_images(value, real, warns):
    copies = {"value": value, "real": real, "ratio": None, "protocol": {"training_images": 100}}
    protocol = dict.fromkeys(("generated", "real", "real_images", "split", "data_name", "classes", "size", "seed"), 1)
    protocol |= {"further_real": 0, "further_real_from": "nowhere"}
    table = image_table({"copies": copies, "not_measured": {}, "protocol": protocol})
    assert ("the model memorises" in table) == warns
    assert "of 100 training images\n" in table  # no distance where real images have none


def test_the_probe_is_used_where_it_cannot_be_kept(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("")
    probe, accuracy = object(), dict.fromkeys(captions.MIN_ACCURACY, 1.0)
    monkeypatch.setattr(captions, "cache_folder", lambda: tmp_path / "file" / "t2i")
    monkeypatch.setattr(captions, "real_blossoms", lambda images, seed: (None, None))
    monkeypatch.setattr(captions, "_train", lambda device: probe)
    monkeypatch.setattr(captions, "probe_accuracy", lambda *arguments, **named: accuracy)
    assert captions.load_probe(torch.device("cpu")) == (probe, accuracy)
    assert "the probe is not cached" in capsys.readouterr().err


def test_zero_shot_of_few_images_leaves_out_the_depths_that_they_do_not_have(run, tiny_blossoms, monkeypatch):
    monkeypatch.setattr(zero_shot, "dataset_of_run", lambda run, data: first(tiny_blossoms, 30, 7))
    code, out, err = call("t2i-eval", "text", "--model", run, "--device", "cpu", "--json")
    assert code == 0, err
    found = json.loads(out.splitlines()[-1])
    assert set(found["average_precision"]) == {"1", "5"}
    assert set(found["not_measured"]) == {"AP@10", "AP@50"}
    assert "not measured: AP@10: it needs 10 images, and the test split" in out


def test_zero_shot_of_one_class_says_what_to_do(run, tiny_blossoms, monkeypatch):
    monkeypatch.setattr(zero_shot, "dataset_of_run", lambda run, data: first(tiny_blossoms, 30, 1))
    with pytest.raises(ConfigError, match="has 1; take another --split, or data with classes"):
        zero_shot.zero_shot_of_run(run, device="cpu")


@pytest.mark.parametrize(("count", "test", "split"), [(30, 2, "train"), (30, 3, "test"), (2, 1, None)])
def test_style_is_measured_where_there_are_enough_images(run, tiny_blossoms, count, test, split):
    pipe, pack = t2i.Pipeline.from_pretrained(run), first(tiny_blossoms, count, test)
    if split is None:
        with pytest.raises(ConfigError, match="style verification needs 3 images"):
            style._sample(pipe, pack, 1500, 0)
    else:
        assert style._sample(pipe, pack, 1500, 0).split == split


def test_photographs_of_one_colour_say_that_more_varied_ones_are_needed():
    with pytest.raises(ConfigError, match="more varied ones"):
        style.sample_pairs(np.zeros(9), 10, 0)


def test_the_figures_are_shown_where_the_curves_cannot_be_written(run, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    roc = types.SimpleNamespace(area=0.5, false_positive=np.array([0.0, 1]), true_positive=np.array([0.0, 1]))
    result = types.SimpleNamespace(curves={"a": roc}, figures={"x": 1.0}, table=lambda: "the table")
    monkeypatch.setattr(style, "style_of_run", lambda *arguments, **named: result)
    (tmp_path / "file").write_text("")
    out = tmp_path / "file" / "roc.png"
    code, shown, err = call("t2i-eval", "style", "--model", run, "--out", out, "--device", "cpu", "--json")
    assert code == 2
    assert "cannot write" in err
    assert shown.splitlines() == ["the table", '{"x": 1.0}']
