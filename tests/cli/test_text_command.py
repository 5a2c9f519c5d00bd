"""`t2i-train text`: the commands that it names next work with the encoder that it has just trained."""

import shlex

import pytest

from helpers import call, random_efficientnet
from t2i.models import image_features

pytestmark = pytest.mark.usefixtures("one_thread")
SMALL = "--size 16 --steps 2 --batch 8 --threads 1 --device cpu"
FROZEN = "--kind ngrams --objective class-contrastive --image-features efficientnet-lite0-stages --dim 32"


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    folder = tmp_path_factory.mktemp("a pack") / "pack"
    assert call("t2i-prepare", "blossoms", "--images", 150, "--size", 64, "--out", folder)[0] == 0
    return folder


@pytest.mark.parametrize(
    ("flags", "packed", "has"),
    [
        ("--width 32 --channels 8 8 --dim 32", False, "t2i-train --size 16 --text.encoder"),
        ("--preset drawings", False, "t2i-train --size 16 --text.encoder"),
        ("--preset blossoms", False, "--preset blossoms --size 16"),
        ("--preset modern", True, "--preset modern --size 16"),
        ("--preset flowers --width 32 --channels 8 8", True, "--preset flowers --size 16 --text.encoder"),
        (f"--preset flowers {FROZEN}", True, "--preset flowers --size 16 --alignment-weight 0"),
        ("--preset fast --width 32 --channels 8 8", True, "--preset fast --size 16"),
    ],
)
def test_the_training_that_it_names_takes_the_encoder(flags, packed, has, pack, tmp_path, monkeypatch):
    monkeypatch.setattr(image_features, "_efficientnet_lite0", random_efficientnet)
    data = ["--data", pack] if packed else []
    arguments = ["text", *data, *shlex.split(f"{flags} {SMALL}"), "--out", tmp_path / "a text"]
    code, out, _ = call("t2i-train", *arguments)
    assert code == 0
    command = out.splitlines()[-1]
    assert has in command
    _, *words = shlex.split(command)
    code, _, err = call(
        "t2i-train", *words, *shlex.split("--steps 1 --batch 8 --threads 1 --device cpu"), "--out", tmp_path / "run"
    )
    assert code == 0, err
