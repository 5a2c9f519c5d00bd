"""Models for others: saved, with their card, and loaded again; from the Hub, stubbed out; and from strangers."""

import json
import math
import os
import shutil
import struct
import subprocess
import sys
import types

import pytest
import torch

import t2i
from t2i.config.options import TextOptions, TrainConfig
from t2i.noise import truncated
from t2i.pipeline import Pipeline
from t2i.pretrained import hub
from t2i.pretrained.card import model_card

pytestmark = pytest.mark.usefixtures("one_thread")
RED = "a flower with red petals"


@pytest.fixture(scope="module")
def run(tiny_run_with_style, tiny_blossoms_folder, tiny_blossoms, tmp_path_factory):
    """A run folder with all that a training leaves in it."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    shutil.copytree(tiny_run_with_style, folder)
    facts = {"fingerprint": tiny_blossoms.fingerprint, "path": str(tiny_blossoms_folder), "images": 150}
    (folder / "data.json").write_text(json.dumps(facts))
    (folder / "metrics.jsonl").write_text('{"phase": "text", "step": 9}\n{"phase": "gan", "step": 1234}\n')
    config = json.loads((folder / "config.json").read_text())
    config |= {"data": str(tiny_blossoms_folder), "out": str(folder)}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture
def saved(run, tmp_path):
    return Pipeline.from_pretrained(run).save_pretrained(tmp_path / "red-flowers")


def header(card):
    """The card's YAML header: a JSON value a line."""
    _, block, _ = card.split("---\n", 2)
    return {key: json.loads(value) for key, value in (line.split(": ", 1) for line in block.splitlines())}


def test_a_saved_model_draws_the_same_pictures_to_the_bit_twice_over(run, saved, tmp_path):
    first, second = Pipeline.from_pretrained(run), Pipeline.from_pretrained(saved)
    third = Pipeline.from_pretrained(second.save_pretrained(tmp_path / "again"))
    style = first.draw(torch.ones(1, 8), torch.ones(1, 16))
    for other in (second, third):
        assert torch.equal(other(RED, count=3, seed=1).tensor, first(RED, count=3, seed=1).tensor)
        assert torch.equal(other.transfer_style(style, RED).tensor, first.transfer_style(style, RED).tensor)
    for one, two in ((first, second), (first, third)):
        assert one.generator.state_dict().keys() == two.generator.state_dict().keys()
        assert all(torch.equal(t, two.encoder.state_dict()[name]) for name, t in one.encoder.state_dict().items())


def test_the_folder_holds_what_the_hub_shows_and_nothing_of_this_machine(run, saved, tmp_path):
    assert {path.name for path in saved.iterdir()} == {
        "README.md",
        "config.json",
        "data.json",
        "model.safetensors",
        "style.json",
        "style.safetensors",
    }
    for name in ("README.md", "config.json", "data.json", "style.json"):
        text = (saved / name).read_text()
        assert str(run.parent) not in text
        assert str(tmp_path) not in text
        assert os.sep + "tmp" not in text


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have names in Unicode alone")
def test_a_folder_whose_name_is_no_utf_8_holds_a_model_like_any_other(run, tmp_path):
    folder = tmp_path / os.fsdecode(b"latin-1 \xfcber")
    shutil.copytree(run, folder)
    before, opened = Pipeline.from_pretrained(run), len(os.listdir("/proc/self/fd"))
    pipe = Pipeline.from_pretrained(folder)
    saved = pipe.save_pretrained(tmp_path / os.fsdecode(b"saved \xff"))
    for each in (pipe, Pipeline.from_pretrained(saved)):
        assert torch.equal(each(RED, seed=1).tensor, before(RED, seed=1).tensor)
        assert each.style is not None
    assert len(os.listdir("/proc/self/fd")) == opened


def test_without_a_style_encoder_there_is_none_in_the_folder_not_even_an_old_one(tiny_run, saved):
    Pipeline.from_pretrained(tiny_run).save_pretrained(saved)
    assert not (saved / "style.safetensors").exists()
    assert not Pipeline.from_pretrained(saved).has_style


def test_the_card_says_what_the_pack_and_the_run_know(saved, tiny_blossoms):
    card = (saved / "README.md").read_text()
    assert header(card) == {
        "license": "mit",
        "library_name": "t2i",
        "pipeline_tag": "text-to-image",
        "tags": ["t2i", "text-to-image", "gan", "gan-cls", "char-cnn-rnn", "pytorch", "safetensors"],
        "language": ["en"],
    }
    lines = [
        "| kind | blossoms |",
        "| images | 150 |",
        "| captions | 1,500 |",
        f"| classes | {len(tiny_blossoms.class_names)} |",
        f"| fingerprint of the pack | {tiny_blossoms.fingerprint} |",
        "| steps | 1,234 of 64 images |",
        'Pipeline.from_pretrained("red-flowers")',
        "transfer_style",
    ]
    for line in lines:
        assert line in card, line


@pytest.mark.parametrize(
    ("kind", "provenance", "languages"),
    [
        ("ngrams", {"kind": "folder"}, None),  # in whatever language the captions are
        ("char-cnn-rnn-bytes", {}, None),
        ("minilm", {"kind": "folder"}, ["en"]),
        ("ngrams", {"kind": "blossoms"}, ["en"]),
        ("ngrams", {"kind": "blossoms", "language": "zh"}, ["zh"]),
        ("ngrams", {"kind": "blossoms", "language": "all"}, ["en", "zh", "es", "ar", "hi"]),
        ("ngrams", {"kind": "blossoms", "language": "<b>"}, None),
    ],
)
def test_the_card_names_the_languages_that_are_known(kind, provenance, languages):
    config = TrainConfig(text=TextOptions(kind=kind, objective="class-contrastive"), alignment_weight=0.0)
    assert header(model_card(config, {"provenance": provenance}, name="kites")).get("language") == languages


def test_the_hubs_own_reader_understands_the_card(saved):
    library = pytest.importorskip("huggingface_hub", reason="the extra is not installed: pip install 't2i[hub]'")
    data = library.ModelCard.load(saved / "README.md").data
    assert (data.pipeline_tag, data.license, data.library_name) == ("text-to-image", "mit", "t2i")


def test_what_a_saved_model_was_trained_on_survives_being_saved_again_elsewhere(saved, tmp_path):
    again = Pipeline.from_pretrained(saved).save_pretrained(tmp_path / "again")
    assert json.loads((again / "data.json").read_text()) == json.loads((saved / "data.json").read_text())


def test_other_peoples_pictures_have_no_license_until_somebody_names_one(run, tmp_path):
    other = tmp_path / "run"
    shutil.copytree(run, other)
    provenance = {"kind": "folder", "source": "kites | <b>"}
    (other / "data.json").write_text(
        json.dumps({"images": 3, "provenance": provenance, "path": str(tmp_path / "gone")})
    )
    pipe = Pipeline.from_pretrained(other)
    card = (pipe.save_pretrained(tmp_path / "a") / "README.md").read_text()
    assert header(card)["license"] == "unknown"
    assert "The license is unknown" in card
    assert "flower" not in card
    assert r"| source | kites \| &lt;b> |" in card  # it cannot leave its cell
    named = (pipe.save_pretrained(tmp_path / "b", license_id="cc-by-4.0") / "README.md").read_text()
    assert header(named)["license"] == "cc-by-4.0"
    (other / "data.json").unlink()
    assert "| provenance | unknown" in (pipe.save_pretrained(tmp_path / "c") / "README.md").read_text()


def test_a_model_is_not_saved_over_its_own_run(run):
    with pytest.raises(t2i.ConfigError, match="is where this model was loaded from"):
        Pipeline.from_pretrained(run).save_pretrained(run.parent / "run" / ".." / "run")


# The truncation of noise.


@pytest.mark.parametrize("most", [0.3, 1.0, 2.0])
def test_truncated_noise_has_the_moments_of_a_normal_distribution_cut_off(most):
    noise = truncated(torch.randn(400_000, generator=torch.Generator().manual_seed(0)), most).double()
    density = math.exp(-most * most / 2) / math.sqrt(2 * math.pi)
    variance = 1 - 2 * most * density / math.erf(most / math.sqrt(2))
    assert noise.abs().max() <= most
    assert abs(noise.mean()) < 0.01 * most
    assert noise.var() == pytest.approx(variance, rel=0.01)


def test_truncation_keeps_order_and_does_nothing_where_it_is_wide():
    noise = torch.linspace(-5, 5, 1001)
    cut = truncated(noise, 1.5)
    assert (cut.diff() > 0).all()
    torch.testing.assert_close(cut, -truncated(-noise, 1.5))
    torch.testing.assert_close(truncated(noise, 30.0), noise, rtol=1e-5, atol=1e-6)


def test_a_truncated_call_draws_less_varied_pictures_and_a_wide_one_the_same(run):
    pipe = Pipeline.from_pretrained(run)
    plain, narrow = (pipe(RED, count=16, truncation=most).tensor for most in (None, 0.2))
    assert narrow.std(dim=0).mean() < 0.5 * plain.std(dim=0).mean()
    torch.testing.assert_close(pipe(RED, count=16, truncation=50).tensor, plain, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("most", [0, -1, float("nan")])
def test_a_truncation_that_leaves_nothing_is_refused(run, most):
    with pytest.raises(t2i.ConfigError, match="truncation must be above 0"):
        Pipeline.from_pretrained(run)(RED, truncation=most)


# The Hub, stubbed out: there is no network in the tests.


@pytest.fixture
def stub(monkeypatch, saved, tmp_path):
    """A huggingface_hub that has one model, me/flowers, and writes down what it is asked."""
    asked = []
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def snapshot_download(name, *, revision, token, allow_patterns, cache_dir):
        asked.append(("download", name, revision, token, sorted(allow_patterns)))
        if name != "me/flowers":
            raise RuntimeError("404 Client Error.\nRepository Not Found")
        snapshot = cache_dir / "models--me--flowers" / "snapshots" / "abc"
        shutil.copytree(saved, snapshot, dirs_exist_ok=True)
        return str(snapshot)

    class HfApi:
        def __init__(self, token):
            asked.append(("token", token))

        def create_repo(self, name, private, exist_ok):
            asked.append(("create", name, private, exist_ok))
            return f"https://hub/{name}"

        def upload_folder(self, repo_id, folder_path, allow_patterns, delete_patterns, commit_message):
            asked.append(("delete", delete_patterns))
            asked.append(("upload", repo_id, sorted(path.name for path in folder_path.iterdir())))
            asked.append(("card", (folder_path / "README.md").read_text()))

    module = types.ModuleType("huggingface_hub")
    module.snapshot_download, module.HfApi = snapshot_download, HfApi
    monkeypatch.setitem(sys.modules, "huggingface_hub", module)
    return asked


def test_a_name_on_the_hub_is_fetched_and_draws(stub, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pipe = Pipeline.from_pretrained("me/flowers", revision="v1", token="secret")
    assert torch.equal(pipe(RED).tensor, Pipeline.from_pretrained(run)(RED).tensor)
    (request,) = stub
    assert request[:4] == ("download", "me/flowers", "v1", "secret")
    assert not any("*" in pattern or pattern.endswith((".bin", ".pt", ".pkl")) for pattern in request[4])


def test_a_folder_that_is_there_is_never_asked_for_on_the_hub(stub, saved, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(saved, tmp_path / "me" / "flowers")
    Pipeline.from_pretrained("me/flowers")
    with pytest.raises(t2i.CheckpointError, match="no such run folder: runs/blossoms"):
        Pipeline.from_pretrained("runs/blossoms")
    assert stub == []


def test_a_name_that_the_hub_does_not_know_is_one_line(stub, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        t2i.CheckpointError, match=r"me/birds is not a folder here, and cannot be downloaded .*: 404"
    ) as caught:
        Pipeline.from_pretrained("me/birds")
    assert "\n" not in str(caught.value)


def test_without_the_extra_a_name_on_the_hub_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(t2i.ConfigError, match=r"pip install 't2i\[hub\]'"):
        Pipeline.from_pretrained("me/flowers")


def test_publishing_uploads_the_saved_folder_with_a_card_that_names_it(stub, run):
    assert Pipeline.from_pretrained(run).push_to_hub("me/new", private=True, token="secret") == "https://hub/me/new"
    files = ["README.md", "config.json", "data.json", "model.safetensors", "style.json", "style.safetensors"]
    asked = [("token", "secret"), ("create", "me/new", True, True), ("delete", []), ("upload", "me/new", files)]
    assert stub[:4] == asked
    assert 'from_pretrained("me/new")' in stub[4][1]


def test_publishing_a_model_without_a_style_encoder_takes_an_old_one_away(stub, tiny_run):
    Pipeline.from_pretrained(tiny_run).push_to_hub("me/new")
    assert ("delete", ["style.json", "style.safetensors"]) in stub


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("me/flowers", True),
        ("m/f.v1_2-x", True),
        ("flowers", False),
        ("runs/blossoms", False),  # where t2i-train puts them
        ("/me/flowers", False),
        ("me/flowers/more", False),
        ("../flowers", False),
        ("me/..", False),
        ("me/fl owers", False),
        ("me/flowers\n", False),
    ],
)
def test_a_name_on_the_hub_is_owner_and_name(word, expected):
    assert hub.is_name(word) is expected


# Folders of strangers.


def changed(folder, **changes):
    config = json.loads((folder / "config.json").read_text())
    text = changes.pop("text", {})
    (folder / "config.json").write_text(json.dumps(config | changes | {"text": config["text"] | text}))


def link(folder, name, target):
    (folder / name).unlink()
    (folder / name).symlink_to(target)


def fifo(folder, name):
    (folder / name).unlink()
    os.mkfifo(folder / name)


def forged(folder, edit):
    """Rewrite the header of the weights."""
    data = (folder / "model.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    content = json.loads(data[8 : 8 + length])
    edit(content)
    new = json.dumps(content).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(new)) + new + data[8 + length :])


HOSTILE = {
    "a link to a file elsewhere": lambda f: link(f, "model.safetensors", "/etc/passwd"),
    "settings that are a link to elsewhere": lambda f: link(f, "config.json", "/etc/passwd"),
    "a link to itself": lambda f: link(f, "model.safetensors", "model.safetensors"),
    "a device that never ends": lambda f: link(f, "config.json", "/dev/zero"),
    "a pipe that never answers": lambda f: fifo(f, "config.json"),
    "weights that are a pipe": lambda f: fifo(f, "model.safetensors"),
    "settings of two megabytes": lambda f: (f / "config.json").write_text(" " * 2_000_000 + "{}"),
    "settings nested a hundred thousand deep": lambda f: (f / "config.json").write_text("[" * 100_000),
    "a width of a billion": lambda f: changed(f, generator_width=10**9),
    "a width beyond 64 bits": lambda f: changed(f, generator_width=10**30),
    "a width that is a word": lambda f: changed(f, generator_width="8"),
    "a width of one half": lambda f: changed(f, generator_width=8.5),
    "pictures of 2^40 pixels": lambda f: changed(f, size=2**40),
    "pictures of 2^9000 pixels": lambda f: changed(f, size=2**9000),
    "an encoder of a billion numbers": lambda f: changed(f, text={"width": 10**9}),
    "an encoder of no known kind": lambda f: changed(f, text={"variant": "__import__('os')"}),
    "channels that are words": lambda f: changed(f, text={"channels": ["a", "b"]}),
    "a setting nobody knows": lambda f: changed(f, exec="print(1)"),
    "a pickle for weights": lambda f: (f / "model.safetensors").write_bytes(b"\x80\x04\x95\x10\x00.cbuiltins\neval\n."),
    "a header of 2^60 bytes": lambda f: (f / "model.safetensors").write_bytes(struct.pack("<Q", 2**60) + b"{}"),
    "a tensor of another shape": lambda f: forged(f, lambda c: c["generator.text.bias"].update(shape=[9])),
    "a tensor of negative size": lambda f: forged(f, lambda c: c["generator.text.bias"].update(shape=[-8])),
    "a tensor of integers": lambda f: forged(f, lambda c: c["generator.text.bias"].update(dtype="I32")),
    "a tensor beyond the end": lambda f: forged(f, lambda c: c["text.head.bias"].update(data_offsets=[0, 2**50])),
    "one tensor lying on another": lambda f: forged(
        f, lambda c: c["text.head.bias"].update(data_offsets=c["generator.text.bias"]["data_offsets"])
    ),
    "a tensor too many": lambda f: forged(f, lambda c: c.update({"payload": {**c["text.head.bias"]}})),
    "a tensor too few": lambda f: forged(f, lambda c: c.pop("text.head.bias")),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_folder_is_refused_in_one_line(saved, kind):
    HOSTILE[kind](saved)
    with pytest.raises(t2i.CheckpointError) as caught:
        Pipeline.from_pretrained(saved)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda f: link(f, "style.safetensors", "/etc/passwd"),
        lambda f: fifo(f, "style.json"),
        lambda f: (f / "style.json").write_text("[" * 100_000),
        lambda f: (f / "style.json").write_text(
            (f / "style.json").read_text().replace('"width": 8', '"width": 1000000000')
        ),
        lambda f: (f / "style.safetensors").write_bytes(b"\x80\x04."),
    ],
)
def test_a_hostile_style_encoder_is_refused_in_one_line(saved, spoil):
    spoil(saved)
    with pytest.raises(t2i.CheckpointError) as caught:  # a link or a pipe at once, the rest when it is wanted
        _ = Pipeline.from_pretrained(saved).style
    assert "\n" not in str(caught.value)


def test_a_pickle_beside_the_weights_is_not_looked_at(saved, run):
    (saved / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'touch pwned'\ntR.")
    assert torch.equal(Pipeline.from_pretrained(saved)(RED).tensor, Pipeline.from_pretrained(run)(RED).tensor)


def test_loading_a_model_imports_nothing_that_only_compiling_needs(saved):
    """torch's decompositions, and sympy with them, take most of the time of a load to import."""
    code = f"import sys, t2i; t2i.Pipeline.from_pretrained({str(saved)!r}); print('sympy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
