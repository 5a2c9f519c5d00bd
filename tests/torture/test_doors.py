"""Every door for files from strangers: what comes through it is one line, within two seconds and 300 MB."""

import json
import math
import os
import random
import re
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save

import t2i
from promises import TORTURE, cases
from t2i.config.options import TrainConfig
from t2i.config.toml import read_toml
from t2i.prepare.style_images import read_style_images
from t2i.text.table import read_table
from t2i.weights import save_weights

pytestmark = pytest.mark.usefixtures("one_thread")
GIGABYTES = 100 * 10**9
SECONDS, BYTES = 2.0, 300e6


# Files that no door may open, by what they are.
def fifo(path):
    os.mkfifo(path)


def zeros(path):
    path.symlink_to("/dev/zero")


def socket_file(path):
    path.symlink_to("/dev/log" if Path("/dev/log").exists() else "/dev/null")


def folder(path):
    path.mkdir()


def loop(path):
    path.symlink_to(path)


def sparse(path):
    path.touch()
    os.truncate(path, GIGABYTES)


def empty(path):
    path.touch()


def deep(path):
    path.write_bytes(b'{"a":' + b"[" * 200_000)


def bare_list(path):
    path.write_text("[1, 2, 3]")


def not_text(path):
    path.write_bytes(b"\xff\xfe\x00" * 1000)


def infinite(path):
    path.write_text('{"settings": {"width": 1e999, "blur": NaN}, "path": 1e999, "fingerprint": -1, "size": Infinity}')


def strange(path):
    path.write_text(
        '{"settings": [1], "path": "\\u0000", "fingerprint": {"a": 1}, "images": {"b": [1]}, "provenance": "x", "format": 2}'
    )


KINDS = [fifo, zeros, socket_file, folder, loop, sparse, empty, deep, not_text]
RECORDS = [*KINDS, bare_list, infinite, strange]


def safetensors_of(kind, shape, length, keep=8):
    header = json.dumps({"text.a": {"dtype": kind, "shape": shape, "data_offsets": [0, length]}}).encode()

    def make(path):
        path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(keep))
        os.truncate(path, 8 + len(header) + length)

    make.__name__ = f"{kind} {shape}"
    return make


def other_names(path):
    path.write_bytes(save({"weight": torch.zeros(2), "bias": torch.zeros(2)}))


def with_nan(path):
    path.write_bytes(save({"embeddings": torch.full((150, 10, 4), float("nan"))}))


def complex_numbers(path):
    path.write_bytes(save({"embeddings": torch.zeros(150, 10, 4, dtype=torch.complex64)}))


def truths(path):
    path.write_bytes(save({"embeddings": torch.zeros(150, 10, 4, dtype=torch.bool)}))


def whole_numbers(path):
    path.write_bytes(save({"embeddings": torch.zeros(150, 10, 4, dtype=torch.int64)}))


WEIGHTS = [
    *KINDS,
    other_names,
    with_nan,
    complex_numbers,
    truths,
    whole_numbers,
    safetensors_of("F4", [16], 8),
    safetensors_of("F8_E8M0", [8], 8),
    safetensors_of("F32", [25 * 10**9], GIGABYTES),
    safetensors_of("F32", [2**62, 4], 16),
    safetensors_of("X9", [8], 8),
]


def npy(header, content=b""):
    def make(path):
        text = header.encode().ljust(118) + b"\n"
        path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + content)

    make.__name__ = header[:40]
    return make


def giant_npy(path):
    npy("{'descr': '<f4', 'fortran_order': False, 'shape': (150, 10, 16000000)}")(path)
    os.truncate(path, 128 + 150 * 10 * 16_000_000 * 4)


def npz(path):
    with open(path, "wb") as file:
        np.savez(file, a=np.zeros(3))


def objects(path):
    np.save(path, np.array([{"a": 1}], object), allow_pickle=True)


NPY = [
    *KINDS,
    giant_npy,
    npz,
    objects,
    npy("(" * 100),
    npy("{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 2, 3)}"),
    npy("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,)}", bytes(4)),
    npy("{'descr': '<c8', 'shape': (1,)}"),
    npy("{'descr': '<M8[s]', 'fortran_order': False, 'shape': (1, 1, 1)}", bytes(8)),
    npy("__import__('os').system('true')"),
    npy("{'descr': '<f4', 'fortran_order': False, 'shape': (150, 10, 4)}", struct.pack("<f", float("nan")) * 6000),
]


def metrics_lines(path):
    absurd = '{"phase": "gan", "step": 1' + "0" * 400 + ', "d_loss": 1e999}'
    path.write_text('{"phase": ["gan"], "step": 1, "d_loss": 1}\n' + absurd + "\n[[")


TRAIN = [
    "--size",
    "16",
    "--generator-width",
    "8",
    "--discriminator-width",
    "8",
    "--noise-dim",
    "8",
    "--projection-dim",
    "8",
    "--batch",
    "8",
    "--steps",
    "1",
    "--device",
    "cpu",
    "--alignment-weight",
    "0",
]


def training(*flags):
    def command(run, place, data):
        return [
            "t2i-train",
            "--data",
            data,
            "--out",
            str(run / "out"),
            *(str(flag(run, place)) for flag in flags),
            *TRAIN,
        ]

    return command


def generating(run, place, data):
    return ["t2i-generate", "--model", str(run), "a flower"]


def serving(run, place, data):
    return ["t2i-demo", "--model", str(run), "--port", "0"]


def flag(run, place):
    return "--text.encoder"


DOORS = [  # (name, its file in the run folder, the files that come, the command)
    (
        "--config",
        "x.toml",
        [make for make in RECORDS if make is not empty],
        lambda run, place, data: ["t2i-train", "--config", str(place)],
    ),
    ("--text.encoder FILE", "x.safetensors", WEIGHTS, training(flag, lambda run, place: place)),
    ("--text.encoder .npy", "x.npy", NPY, training(flag, lambda run, place: place)),
    ("text.json", "text.json", RECORDS, training(flag, lambda run, place: run)),
    ("text.safetensors", "text.safetensors", WEIGHTS, training(flag, lambda run, place: run)),
    (
        "data.json",
        "data.json",
        RECORDS,
        lambda run, place, data: ["t2i-eval", "images", "--model", str(run), "--count", "8"],
    ),
    (
        "metrics.jsonl",
        "metrics.jsonl",
        [*KINDS, metrics_lines],
        lambda run, place, data: ["t2i-train", "--plot", str(run)],
    ),
    ("config.json", "config.json", RECORDS, generating),
    ("model.safetensors", "model.safetensors", WEIGHTS, generating),
    ("style.json", "style.json", RECORDS, serving),
    ("style.safetensors", "style.safetensors", WEIGHTS, serving),
    (
        ".onnx",
        "x.onnx",
        [*KINDS, other_names],
        lambda run, place, data: ["t2i-generate", "--model", str(place), "a flower"],
    ),
    ("--style", "x.png", KINDS, lambda run, place, data: [*generating(run, place, data), "--style", str(place)]),
    ("pack.json", "pack.json", RECORDS, lambda run, place, data: training()(run, place, str(run))),
]
CASES = [(door, make) for door in DOORS for make in door[2]]


def sample():
    """Cases in an order of chance, of which each is the first of its door or of its kind of file."""
    mixed, seen = random.Random(34).sample(CASES, len(CASES)), set()
    for (name, *rest), make in mixed:
        if not {name, make} <= seen:
            yield (name, *rest), make
        seen |= {name, make}


@pytest.fixture(scope="module")
def model(tiny_run_with_style):
    return tiny_run_with_style


@pytest.mark.promise(34)
def test_what_comes_through_a_door_is_one_line(forge, model, tiny_blossoms_folder, tmp_path, tally):
    chosen = CASES if TORTURE else list(sample())
    assert len(chosen) >= len(cases(34))
    for number, ((name, file, _, command), make) in enumerate(tally(chosen)):
        run = tmp_path / str(number)
        run.mkdir()
        for each in model.iterdir():
            if each.name != file and not (name.startswith("text") and each.name == "config.json"):
                (run / each.name).write_bytes(each.read_bytes())
        if name == "text.json":
            save_weights(run / "text.safetensors", {"text": torch.nn.Linear(2, 2)})
        make(run / file)
        out = tmp_path / f"{number}.json"
        code, errors = forge(
            "command", arguments=command(run, run / file, str(tiny_blossoms_folder)), out=out, deadline=30
        )
        seconds, memory = json.loads(out.read_text())
        place = (name, make.__name__, errors)
        assert code == 2, place
        assert errors.count("\n") == 1, place
        assert "error: " in errors, place
        assert memory < BYTES, (memory, *place)
        assert seconds < SECONDS, (seconds, *place)


@pytest.mark.promise(34)
def test_what_a_model_was_trained_on_may_be_anything_where_only_its_card_says_so(model, tmp_path, tally):
    """`save_pretrained` writes what data.json and metrics.jsonl say as far as they say anything."""
    for make in tally([fifo, zeros, sparse, deep, bare_list, strange, infinite]):
        for file in ("data.json", "metrics.jsonl"):
            run = tmp_path / f"{make.__name__} {file}"
            run.mkdir()
            for each in model.iterdir():
                (run / each.name).write_bytes(each.read_bytes())
            make(run / file)
            t2i.Pipeline.from_pretrained(run).save_pretrained(tmp_path / "saved" / run.name)
            assert (tmp_path / "saved" / run.name / "README.md").exists()


def array(dtype, value=0.0):
    def make(path):
        np.save(path, np.full((150, 10, 4), value, dtype))

    return make


@pytest.mark.promise(34)
@pytest.mark.parametrize(
    ("name", "make", "why"),
    [
        ("a.npy", fifo, "is not a plain file"),
        ("a.npy", zeros, "is not a plain file"),
        ("a.npy", giant_npy, "it is mostly holes"),
        ("a.npy", objects, "not a readable .npy of numbers"),
        ("a.npy", npz, "not a readable .npy of numbers"),
        ("a.npy", npy("(" * 100), "not a readable .npy of numbers"),
        ("a.npy", npy("{'descr': '<f4', 'shape': (1"), "not a readable .npy of numbers"),
        ("a.npy", array(np.int32), "must hold floating-point embeddings"),
        ("a.npy", array(np.complex64), "must hold floating-point embeddings"),
        ("a.npy", array(np.float32, math.nan), "holds NaN or infinity"),
        ("a.npy", array(np.float64, 1e300), "holds NaN or infinity"),  # as float32
        ("a.safetensors", whole_numbers, "must hold floating-point embeddings"),
        ("a.safetensors", truths, "must hold floating-point embeddings"),
        ("a.safetensors", complex_numbers, "must hold floating-point embeddings"),
        ("a.safetensors", with_nan, "holds NaN or infinity"),
        ("a.safetensors", other_names, "holds 2 tensors"),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
def test_embeddings_of_the_right_shape_are_refused_for_what_they_are(tmp_path, tiny_blossoms, name, make, why):
    """A file that is wrong in two ways would be refused without the one that is tried."""
    make(tmp_path / name)
    with pytest.raises(t2i.T2IError, match=re.escape(why)):
        read_table(tmp_path / name, tiny_blossoms)


@pytest.mark.promise(34)
def test_settings_nested_too_deeply_are_one_line(tmp_path):
    (tmp_path / "x.toml").write_text("batch = " + "[" * 100_000)
    with pytest.raises(t2i.ConfigError, match=r"is not TOML: it is nested too deeply$"):
        read_toml(tmp_path / "x.toml", TrainConfig)


@pytest.mark.promise(34)
def test_a_style_image_of_holes_is_refused_for_them(tmp_path):
    (tmp_path / "x.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    os.truncate(tmp_path / "x.png", 1 << 30)
    with pytest.raises(t2i.DataError, match="it is mostly holes"):
        read_style_images([tmp_path / "x.png"], 16)
