"""Weights, packs and model folders that nobody vouches for: refused within a second, a little memory, and by name."""

import dataclasses
import io
import itertools
import json
import math
import os
import pickle
import re
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import SafetensorError

import t2i
from helpers import forget_peak, peak
from promises import cases, count
from t2i.config.options import TextOptions, TrainConfig
from t2i.config.records import to_json
from t2i.data.dataset import PackedDataset
from t2i.models.encoders import StyleEncoder
from t2i.models.paper import Generator
from t2i.pipeline import Pipeline
from t2i.pretrained.folder import plain_file
from t2i.text.build import text_encoder
from t2i.weights import checked_network, read_tensors, save_weights, serialise

HERE = Path(__file__).parent
PACKAGE = Path(t2i.__file__).parent


def safetensors(header, data=b"", size=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if size is None else size) + text + data


def tensor(shape, start, end, dtype="U8"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def hostile_files():
    """Name and bytes of files that are no safetensors, and of some the length that they are drawn out to with zeros.

    Each must be refused as weights and as a shard.
    """
    two = {"a": tensor([4], 0, 4), "b": tensor([4], 4, 8)}
    yield "empty", b""
    yield "three bytes", b"abc"
    yield "eight zeros", bytes(8)
    yield "a header of 2^64 - 1", safetensors(b"{}", size=2**64 - 1)
    yield "a header of 2^63", safetensors(b"{}", size=2**63)
    yield "a header longer than the file", safetensors(b"{}", size=100)
    yield "a header of 99 MB of nothing", safetensors(b"", size=99 << 20), 8 + (99 << 20)
    yield "a header of 101 MB of nothing", safetensors(b"", size=101 << 20), 8 + (101 << 20)
    yield "gigabytes of nothing", bytes(16), 3 << 30
    yield "gigabytes behind a header", safetensors({"a": tensor([3 << 30], 0, 3 << 30)}), 3 << 30
    for name, length in {"a": 1 << 30, "b": 3 << 30}.items():  # sound, but for what is not there
        header = safetensors({name: tensor([length], 0, length)})
        yield f"{length:,} bytes of holes behind a sound header", header, len(header) + length
    yield "no JSON", safetensors(b"hello, I am a header")
    yield "half a JSON", safetensors(b'{"a": {"dtype"')
    yield "a list", safetensors([])
    yield "a number", safetensors(b"7")
    yield "no UTF-8", safetensors(b'{"\xff": 1}')
    yield "brackets without end", safetensors(b"[" * 500_000)
    yield "objects without end", safetensors(b'{"a":' * 200_000)
    yield "a million tensors of nothing", safetensors({f"{i:06x}": [] for i in range(100_000)})
    yield "an unknown dtype", safetensors({"a": tensor([4], 0, 4, "U9")}, bytes(4))
    yield "no dtype", safetensors({"a": {"shape": [4], "data_offsets": [0, 4]}}, bytes(4))
    yield "no offsets", safetensors({"a": {"dtype": "U8", "shape": [4]}}, bytes(4))
    yield "a negative side", safetensors({"a": tensor([-4], 0, 4)}, bytes(4))
    yield "a side of a fraction", safetensors({"a": tensor([4.5], 0, 4)}, bytes(4))
    yield "a side of text", safetensors({"a": tensor(["4"], 0, 4)}, bytes(4))
    yield "a shape that wraps round", safetensors({"a": tensor([2**32, 2**32, 4], 0, 4)}, bytes(4))
    yield "a shape of exabytes", safetensors({"a": tensor([2**60], 0, 2**60)}, bytes(4))
    yield "a shape of another size", safetensors({"a": tensor([5], 0, 4)}, bytes(4))
    yield "offsets that go back", safetensors({"a": tensor([4], 4, 0)}, bytes(4))
    yield "offsets below zero", safetensors({"a": tensor([4], -4, 0)}, bytes(4))
    yield "offsets beyond the end", safetensors({"a": tensor([4], 100, 104)}, bytes(4))
    yield "tensors that overlap", safetensors(two | {"b": tensor([4], 2, 6)}, bytes(6))
    yield "a hole between tensors", safetensors(two | {"b": tensor([4], 6, 10)}, bytes(10))
    yield "bytes left over", safetensors(two, bytes(9))
    yield "bytes missing", safetensors(two, bytes(7))
    yield "metadata of numbers", safetensors({"__metadata__": {"a": 3}})
    yield "a pickle", pickle.dumps({"a": list(range(100))})
    yield "a zip of torch", torch_file()


def torch_file():
    file = io.BytesIO()
    torch.save({"a": torch.zeros(4)}, file)
    return file.getvalue()


def sparse_shards():
    """Name and header of shards, the length they are drawn out to, and what pack.json says of them.

    Each is sound but for one tensor of a gigabyte or more, of which nothing is there.
    """
    for large, memory in itertools.product(("images", "caption_bytes", "names"), (1 << 30, 3 << 30)):
        side = math.isqrt(memory // 3) if large == "images" else 4
        side = min(side, 16_384)
        images = -(-memory // (3 * side * side)) if large == "images" else 1
        sizes = {
            "images": [images, side, side, 3],
            "caption_bytes": [memory if large == "caption_bytes" else 1],
            "caption_byte_offsets": [images + 1],
            "caption_offsets": [images + 1],
            "classes": [images],
            "splits": [images],
            "names": [memory if large == "names" else 1],
        }
        kinds = {"caption_byte_offsets": ("I64", 8), "caption_offsets": ("I64", 8), "classes": ("I32", 4)}
        header, at = {}, 0
        for name, shape in sizes.items():
            kind, width = kinds.get(name, ("U8", 1))
            header[name] = tensor(shape, at, at := at + width * math.prod(shape), kind)
        data = safetensors(header)
        counts = {"images": images, "captions": images}
        yield f"{memory:,} bytes of {large}", data, len(data) + at, {"image_size": side, "version": 2} | counts


def record_of(path, **changes):
    """Write the pack.json of one shard; its checksum is none of any file."""
    record = {
        "format": "t2i-pack",
        "version": 2,
        "name": "x",
        "image_size": 4,
        "images": 1,
        "captions": 1,
        "classes": [],
    } | changes
    record["splits"] = {"train": record["images"], "test": 0}
    counts = {name: record[name] for name in ("images", "captions")}
    record["shards"] = [{"file": path.name, "bytes": path.stat().st_size, "sha256": "0" * 64, **counts}]
    (path.parent / "pack.json").write_text(json.dumps(record))


def in_memory(path):
    PackedDataset(path.parent, memory=1 << 50)


def streamed(path):
    PackedDataset(path.parent, memory=0)


def refuse_everything(folder):
    """Open every hostile file as weights and as a shard; prints what was not refused, the slowest and the most memory."""
    path = Path(folder) / "shard.safetensors"
    doors = [(t2i.CheckpointError, read_tensors), (t2i.DataError, in_memory), (t2i.DataError, streamed)]
    made = [(name, data, longer, {}, doors) for name, data, *longer in hostile_files()]
    made += [(name, data, [length], facts, doors[1:]) for name, data, length, facts in sparse_shards()]
    accepted, slowest, grown = [], 0.0, 0
    for name, data, longer, facts, through in made:
        path.write_bytes(data)
        os.truncate(path, longer[0] if longer else len(data))
        record_of(path, **facts)
        for error, door in through:
            forget_peak()
            before, start = peak(), time.process_time()
            try:
                door(path)
                accepted.append(f"{name} by {door.__name__}")
            except error as refused:
                if not str(refused).startswith(str(path)) or "\n" in str(refused):
                    accepted.append(f"{name} by {door.__name__} does not name its file: {refused}")
            slowest, grown = max(slowest, time.process_time() - start), max(grown, peak() - before)
    print(json.dumps({"accepted": accepted, "slowest": slowest, "grown": grown}))


@pytest.mark.promise(20)
def test_hostile_safetensors_are_refused_within_a_second_and_200_megabytes(tmp_path, tally):
    code = f"import sys; sys.path[:0] = {[str(HERE), str(HERE.parent)]!r}; import test_hostile_weights as t"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}; t.refuse_everything({str(tmp_path)!r})"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    made = [name for name, *_ in (*hostile_files(), *sparse_shards())]
    assert len(made) >= count(20)
    for _ in tally(made):
        assert found["accepted"] == []
        assert found["slowest"] < 1
        assert found["grown"] < 200 * 2**20


# A model's folder.

TEXT = TextOptions(encoder="end-to-end", width=8, channels=(8, 8), dim=16)
SMALL = TrainConfig(
    size=16, generator_width=8, discriminator_width=8, noise_dim=8, projection_dim=8, alignment_weight=0.0, text=TEXT
)


@pytest.fixture
def model(tmp_path):
    """A sound folder of a tiny model, beside a secret."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(to_json(SMALL))
    modules = {"generator": Generator(16, 8, 8, 16, 8), "text": text_encoder(TEXT)}
    save_weights(folder / "model.safetensors", modules)
    save_weights(tmp_path / "secret.safetensors", modules)
    (tmp_path / "secret.json").write_text(to_json(SMALL))
    return folder


def test_the_sound_folder_draws(model):
    assert Pipeline.from_pretrained(model)("a flower").tensor.shape == (1, 3, 16, 16)


def edited(**changes):
    def damage(folder):
        record = json.loads((folder / "config.json").read_text())
        text = changes.pop("text", None) if "text" in changes and isinstance(changes["text"], dict) else None
        record |= changes
        if text is not None:
            record["text"] |= text
        (folder / "config.json").write_text(json.dumps(record))

    return damage


def replaced(name, content):
    def damage(folder):
        (folder / name).unlink(missing_ok=True)
        if isinstance(content, bytes):
            (folder / name).write_bytes(content)
        elif content is None:
            (folder / name).mkdir()
        else:
            (folder / name).symlink_to(content)

    return damage


def other(**networks):
    def damage(folder):
        sound = {"generator": Generator(16, 8, 8, 16, 8), "text": text_encoder(TEXT)}
        save_weights(folder / "model.safetensors", {k: v for k, v in (sound | networks).items() if v is not None})

    return damage


def renamed(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def pickled(name):
    def damage(folder):
        (folder / "model.safetensors").unlink()
        torch.save({"generator": 1}, folder / name)

    return damage


def flip_last(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1  # the last digit of a finite number
    path.write_bytes(data)


HUGE = 10**9
FOLDERS = {
    "weights that are a link out": (
        replaced("model.safetensors", Path("../secret.safetensors")),
        "a link that leads out",
    ),
    "settings that are a link out": (replaced("config.json", Path("../secret.json")), "a link that leads out"),
    "an absolute link": (replaced("config.json", Path("/etc/passwd")), "a link that leads out"),
    "a link to a device": (replaced("config.json", Path("/dev/zero")), "a link that leads out"),
    "a link to nothing": (replaced("model.safetensors", Path("nothing")), "cannot be read"),
    "a link to itself": (replaced("config.json", Path("config.json")), "cannot be read"),
    "a link of a style encoder": (
        replaced("style.safetensors", Path("../secret.safetensors")),
        "a link that leads out",
    ),
    "a folder of weights": (replaced("model.safetensors", None), "not a plain file"),
    "a folder of settings": (replaced("config.json", None), "not a plain file"),
    "no settings": (lambda folder: (folder / "config.json").unlink(), "no config.json"),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "no model.safetensors"),
    "settings of megabytes": (replaced("config.json", b" " * (2 << 20)), "were expected"),
    "settings that are none": (replaced("config.json", b"{"), "cannot be read as the settings"),
    "settings that are a list": (replaced("config.json", b"[]"), "cannot be read as the settings"),
    "settings of brackets": (replaced("config.json", b"[" * 100_000), "cannot be read as the settings"),
    "settings that are no text": (replaced("config.json", b"\xff\xfe"), "cannot be read as the settings"),
    "an unknown setting": (edited(unknown=3), "cannot be read as the settings"),
    "a setting of code": (edited(__class__="os.system"), "cannot be read as the settings"),
    "a generator of terabytes": (edited(generator_width=HUGE), "generator|describe"),
    "a generator of a gigabyte": (edited(generator_width=2400), "made with other sizes"),
    "a text encoder of a gigabyte": (edited(text={"width": 11_500}), "made with other sizes"),
    "a projection of terabytes": (edited(projection_dim=HUGE), "generator|describe"),
    "noise of terabytes": (edited(noise_dim=HUGE), "generator|describe"),
    "a picture of terabytes": (edited(size=2**40), "generator|describe|size|at most"),
    "a picture of 8192 px": (edited(size=8192), "images of 8192 px; at most 4096 were expected"),
    "a flipped bit": (
        lambda folder: flip_last(folder / "model.safetensors"),
        "is damaged: the checksum of its tensors differs",
    ),
    "a width that wraps round": (edited(generator_width=2**62), "generator|describe"),
    "a width beyond numbers": (edited(generator_width=10**400), "generator|describe"),
    "a width of nothing": (edited(generator_width=0), "must be at least 1"),
    "a width below nothing": (edited(generator_width=-8), "must be at least 1"),
    "a width of a fraction": (edited(generator_width=8.5), "describe|settings"),
    "a width of text": (edited(generator_width="8"), "describe|settings"),
    "a width of a list": (edited(generator_width=[8]), "describe|settings"),
    "a width that is no number": (edited(generator_width=float("nan")), "describe|settings"),
    "a text encoder of terabytes": (edited(text={"width": HUGE}), "text|describe"),
    "channels of terabytes": (edited(text={"channels": [HUGE, HUGE]}), "text|describe"),
    "a text encoder of another kind": (edited(text={"variant": "none"}), "text|describe|variant"),
    "weights of another generator": (other(generator=Generator(16, 12, 8, 16, 8)), "made with other sizes"),
    "weights of another encoder": (
        other(text=text_encoder(dataclasses.replace(TEXT, width=9))),
        "made with other sizes",
    ),
    "weights without a generator": (other(generator=None), "has no tensor 'generator"),
    "weights of something else": (other(more=torch.nn.Linear(2, 2)), "a model's are generator.* and text.*"),
    "weights that are a pickle": (replaced("model.safetensors", pickle.dumps([1, 2])), "not a readable safetensors"),
    "weights that are torch's": (replaced("model.safetensors", torch_file()), "not a readable safetensors"),
    "weights that were cut": (
        lambda folder: (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-4]),
        "not a readable safetensors",
    ),
    "weights of nothing": (replaced("model.safetensors", b""), "not a readable safetensors"),
    "only a pickle by another name": (renamed, "no model.safetensors"),
    "a pytorch_model.bin": (pickled("pytorch_model.bin"), "no model.safetensors"),
    "a model.pt": (pickled("model.pt"), "no model.safetensors"),
}


LINEAR = {"x.weight": torch.zeros(2, 3), "x.bias": torch.zeros(2)}
OTHERS = {  # what is wrong with the weights of a Linear(3, 2), and what is said of it
    "sizes": (
        LINEAR | {"x.weight": torch.zeros(3, 2)},
        r"x.weight must be \(2, 3\), got \(3, 2\): it was made with other",
    ),
    "a name": ({"x.weight": torch.zeros(2, 3)}, "has no tensor 'x.bias': it was not made by these settings"),
    "kinds": (LINEAR | {"x.bias": torch.zeros(2, dtype=torch.int32)}, "x.bias must be torch.float32, got I32"),
    "more": (LINEAR | {"x.scale": torch.zeros(2)}, "has a tensor 'x.scale' that these settings do not describe"),
}


@pytest.mark.promise(27)
@pytest.mark.parametrize("wrong", OTHERS)
def test_weights_that_do_not_fit_are_refused_before_a_network_of_real_memory_is_built(tmp_path, wrong):
    """Reading them would refuse most of them, too, after gigabytes have been allocated for the network."""
    built = []

    def make():
        network = torch.nn.Linear(3, 2)
        built.append(network.weight.device.type)
        return network

    path = tmp_path / "x.safetensors"
    tensors, why = OTHERS[wrong]
    path.write_bytes(serialise(tensors))
    with pytest.raises(t2i.CheckpointError, match=why):
        checked_network(path, "x", make)
    assert built == ["meta"]
    path.write_bytes(serialise(LINEAR))
    checked_network(path, "x", make)
    assert built == ["meta", "meta", "cpu"]


@pytest.mark.promise(27)
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink("/dev/zero", path)])
def test_a_file_of_a_model_folder_is_looked_at_before_it_is_opened(tmp_path, make):
    make(tmp_path / "x")
    with pytest.raises(t2i.CheckpointError, match=r"is not a plain file|a link that leads out of the folder"):
        plain_file(tmp_path, "x")


@pytest.mark.promise(20)
@pytest.mark.parametrize(
    "error",
    [
        SafetensorError,
        OSError,
        ValueError,
        IndexError,
        TypeError,
        AttributeError,
        RuntimeError,
        OverflowError,
        MemoryError,
    ],
)
@pytest.mark.parametrize("place", ["load", "safe_open"])
def test_whatever_the_library_raises_is_one_line_with_the_files_name(tmp_path, monkeypatch, error, place):
    """Which of them it raises for which file differs between its versions."""

    def failing(*_, **__):
        raise error("first line\nsecond line")

    path = tmp_path / "x.safetensors"
    path.write_bytes(serialise(LINEAR))
    monkeypatch.setattr(f"t2i.weights.{place}", failing)
    with pytest.raises(t2i.CheckpointError, match=rf"^{path} is not a readable safetensors file: [^\n]*first line$"):
        read_tensors(path)


@pytest.mark.promise(20)
def test_a_file_whose_header_is_wrong_is_not_read(tmp_path, monkeypatch):
    path = tmp_path / "x.safetensors"
    path.write_bytes(serialise(LINEAR)[:-1])
    monkeypatch.setattr("t2i.weights.read_file", lambda *_: pytest.fail("read whole"))
    with pytest.raises(t2i.CheckpointError, match="is not a readable safetensors file"):
        read_tensors(path)


@pytest.mark.promise(27)
def test_settings_of_too_many_weights_are_refused_whatever_the_file_holds(tmp_path, monkeypatch):
    monkeypatch.setattr("t2i.weights.MAX_PARAMETERS", 7)
    path = tmp_path / "x.safetensors"
    path.write_bytes(serialise(LINEAR))
    with pytest.raises(t2i.CheckpointError, match="describe a network of 8 weights"):
        checked_network(path, "x", lambda: torch.nn.Linear(3, 2))


@pytest.mark.promise(27)
@pytest.mark.parametrize("name", FOLDERS)
def test_a_hostile_model_folder_is_refused_in_one_line(model, name):
    assert len(FOLDERS) >= len(cases(27))
    damage, why = FOLDERS[name]
    damage(model)
    forget_peak()
    before = peak()
    with pytest.raises(t2i.CheckpointError) as caught:
        Pipeline.from_pretrained(model)
    message = str(caught.value)
    assert any(part in message for part in why.split("|")), message
    assert "\n" not in message
    assert peak() - before < 200 * 2**20


def test_a_style_encoder_of_terabytes_is_refused(model):
    from t2i.pretrained.folder import model_hash

    save_weights(model / "style.safetensors", {"style": StyleEncoder(16, 8, 8)})
    facts = {"settings": {"width": HUGE, "blur": 0}, "model_sha256": model_hash(model)}
    (model / "style.json").write_text(json.dumps(facts))
    with pytest.raises(t2i.CheckpointError, match=r"other sizes|describe"):
        _ = Pipeline.from_pretrained(model).style


def test_the_links_of_the_hubs_cache_are_followed(model, tmp_path):
    expected = Pipeline.from_pretrained(model)("a flower", seed=3).tensor
    cache = tmp_path / "models--you--flowers"
    snapshot, blobs = cache / "snapshots" / "abc", cache / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for number, path in enumerate(sorted(model.iterdir())):
        path.rename(blobs / str(number))
        (snapshot / path.name).symlink_to(Path("../../blobs") / str(number))
    assert torch.equal(Pipeline.from_pretrained(snapshot)("a flower", seed=3).tensor, expected)


@pytest.mark.promise(27)
def test_there_is_no_road_to_a_pickle_but_the_restricted_one():
    roads = re.compile(
        r"import (?:c?pickle|dill|cloudpickle|joblib|shelve|marshal)|allow_pickle=True|torch\.(?:load\b|hub\.\w)|"
        r"weights_only=False|\beval\(|\bexec\(|__import__\("
    )
    found = {
        (str(path.relative_to(PACKAGE)), line.strip())
        for path in PACKAGE.rglob("*.py")
        for line in path.read_text(encoding="utf-8").splitlines()
        if roads.search(line) and not re.search(r"\.(?:eval|compile)\(", line)
    }
    assert found == {
        ("prepare/sources/pickles.py", "import pickle"),
        # One file of a package, named by its checksum, and read with torch's restricted unpickler.
        (
            "models/image_features.py",
            'return EfficientNetLite0().fill(torch.load(path, map_location="cpu", weights_only=True))',
        ),
    }


def test_numpys_own_format_is_read_without_its_pickles(tmp_path, tiny_blossoms):
    from t2i.text.table import read_table

    np.save(tmp_path / "a.npy", np.array([{"a": 1}], object), allow_pickle=True)
    with pytest.raises(t2i.DataError, match=r"not a readable \.npy"):
        read_table(tmp_path / "a.npy", tiny_blossoms)


@pytest.mark.promise(34)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_that_are_not_finite_are_refused_although_their_checksum_is_right(tmp_path, value, dtype):
    path = tmp_path / "model.safetensors"
    path.write_bytes(serialise({"a": torch.ones(2), "b": torch.tensor([0.0, value], dtype=dtype)}))
    with pytest.raises(t2i.CheckpointError, match=r"model\.safetensors: b holds NaN or infinity"):
        read_tensors(path)
