"""`--text.kind auto`: the char-CNN-RNN where its alphabet covers the captions, n-grams where it does not."""

import json

import numpy as np
import pytest

import t2i
from helpers import call
from t2i.blossoms.pack import pack_blossoms
from t2i.config.options import TextOptions, TrainConfig
from t2i.config.presets import PRESETS
from t2i.data.dataset import PackedDataset
from t2i.prepare import PackWriter
from t2i.text.pretrained import MAX_UNKNOWN, resolve_text

AUTO = TrainConfig(size=16, text=TextOptions(kind="auto", objective="contrastive"))


@pytest.fixture(scope="module", params=["en", "zh", "es", "ar", "hi"])
def language(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    pack_blossoms(folder, images=12, size=19, language=request.param, show_progress=False)
    return request.param, PackedDataset(folder)


def test_the_kind_follows_the_letters_of_the_captions(language):
    code, data = language
    assert resolve_text(AUTO, data).text.kind == ("char-cnn-rnn" if code == "en" else "ngrams")


def test_a_kind_that_is_asked_for_stays(language):
    _, data = language
    for kind in ("char-cnn-rnn-bytes", "ngrams"):
        config = TrainConfig(size=16, text=TextOptions(kind=kind, objective="contrastive"))
        assert resolve_text(config, data).text.kind == kind


@pytest.mark.parametrize(("strange", "kind"), [(1, "char-cnn-rnn"), (2, "ngrams")])
def test_a_few_strange_letters_change_nothing(tmp_path, strange, kind):
    """100 captions, of which MAX_UNKNOWN is one."""
    assert MAX_UNKNOWN == 0.01
    writer = PackWriter(tmp_path, "letters", 16, {})
    for row in range(100):
        caption = "une fleur séchée" if row < strange else f"flower number {row}"
        writer.add(np.zeros((16, 16, 3), np.uint8), [caption], f"class {row % 2}", False, str(row))
    writer.close()
    assert resolve_text(AUTO, PackedDataset(tmp_path)).text.kind == kind


def test_every_preset_but_the_papers_reads_any_language():
    kinds = {name: config.text.kind for name, config in PRESETS.items()}
    assert {name for name, kind in kinds.items() if kind == "char-cnn-rnn"} == {"paper", "paper-coco"}
    assert set(kinds.values()) <= {"char-cnn-rnn", "auto", "ngrams"}


def test_chinese_captions_go_from_prepare_to_images(tmp_path):
    """By the commands alone, with the default preset made small: what is drawn depends on the sentence."""
    pack, run = tmp_path / "pack", tmp_path / "run"
    code, _, err = call("t2i-prepare", "blossoms", "--language", "zh", "--images", 60, "--size", 19, "--out", pack)
    assert code == 0, err
    small = ["--generator-width", 8, "--discriminator-width", 8, "--batch", 8, "--steps", 4, "--text.steps", 5]
    small += ["--text.batch", 8, "--text.dim", 16, "--text.image-width", 8, "--size", 16, "--device", "cpu"]
    code, _, err = call("t2i-train", "--data", pack, "--out", run, *small)
    assert code == 0, err
    assert json.loads((run / "config.json").read_text())["text"]["kind"] == "ngrams"
    pipe = t2i.Pipeline.from_pretrained(run)
    red, blue = pipe.embed(["一朵有五片红色花瓣的花", "一朵有五片蓝色花瓣的花"])
    assert not np.allclose(red.numpy(), blue.numpy())
    code, _, err = call("t2i-generate", "--model", run, "一朵红色的花", "--out", tmp_path / "a.png", "--device", "cpu")
    assert code == 0, err
