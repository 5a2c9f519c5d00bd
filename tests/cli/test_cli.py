"""The commands as a user meets them: from nothing to a picture, and one clear line where something is wrong."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys

import pytest
from PIL import Image

from helpers import TINY, call
from t2i import prepare
from t2i.cli import main as cli
from t2i.cli.arguments import Generate
from t2i.cli.generate import _ignored_flags, _mode, _without_captions_in_style
from t2i.cli.parsing import parse
from t2i.training.step import GanStep

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A pack and a run of four steps, both by the commands; and what they printed. The folder's name has a space."""
    folder = tmp_path_factory.mktemp("from nothing")
    pack, run = folder / "pack", folder / "run"
    prepared = call("t2i-prepare", "blossoms", "--images", 150, "--size", 19, "--out", pack)
    trained = call("t2i-train", "--data", pack, "--out", run, "--steps", 4, *TINY)
    return pack, run, prepared, trained


@pytest.fixture(scope="module")
def one_caption(tmp_path_factory):
    folder = tmp_path_factory.mktemp("one-caption")
    for number in range(3):
        Image.new("RGB", (24, 24), (number, 0, 0)).save(folder / f"{number}.png")
    rows = [{"file_name": f"{number}.png", "text": "a rose", "label": "roses"} for number in range(3)]
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    prepare.pack("folder", folder, folder / "pack", size=19, show_progress=False)
    return folder / "pack"


def test_from_nothing_to_a_picture(made, tmp_path, monkeypatch):
    pack, run, prepared, trained = made
    code, out, _ = prepared
    assert code == 0
    assert out.splitlines()[0].startswith("150 images, 1500 captions, ")
    assert f"next: t2i-train --data {shlex.quote(str(pack))}" in out
    code, out, err = trained
    assert code == 0
    assert "img/s" in err  # the bar
    for name in ("config.json", "model.safetensors", "metrics.jsonl", "samples/step-0000004.png"):
        assert (run / name).exists()
    command, *arguments = shlex.split(out.splitlines()[-1])
    assert command == "t2i-generate"
    assert arguments[:2] == ["--model", str(run)]
    monkeypatch.chdir(tmp_path)
    code, out, err = call(command, *arguments)
    assert (code, out, err) == (0, "picture.png\n", "")
    with Image.open("picture.png") as picture:
        # 8 pictures of 128 px with gaps of 4, the caption's 240 px and margins of 10
        assert picture.size == (10 + 240 + 8 * 128 + 7 * 4 + 10, 10 + 128 + 10)
        assert len(picture.convert("RGB").getcolors(10**6)) > 100


@pytest.mark.parametrize("ending", [".png", ".jpg", ".webp"])
def test_generate_draws_a_row_for_each_caption_in_every_format(made, tmp_path, ending):
    out = tmp_path / "new folder" / f"a{ending}"
    flags = ("--count", 2, "--side", 32, "--out", out)
    assert call("t2i-generate", "--model", made[1], "a red flower", "a blue flower", *flags)[0] == 0
    with Image.open(out) as picture:
        assert picture.size == (10 + 240 + 2 * 32 + 4 + 10, 10 + 2 * 32 + 4 + 10)


@pytest.mark.parametrize("encoder", ["end-to-end", "joint"])
def test_one_caption_for_all_images_is_enough_without_mismatched_pairs(one_caption, tmp_path, encoder):
    flags = ("--data", one_caption, "--out", tmp_path / "run", *TINY, "--steps", 2, "--mismatch-weight", 0)
    joint = (
        "--text.objective",
        "class-contrastive",
        "--text.kind",
        "ngrams",
        "--text.buckets",
        64,
        64,
        "--text.steps",
        2,
    )
    code, _, err = call("t2i-train", *flags, *joint, "--text.encoder", encoder, "--text.image-width", 8)
    assert code == 0, err
    assert "warning: " not in err


def test_the_same_command_again_goes_on_and_ends_with_the_same_bytes(made, tmp_path):
    pack, run, _, _ = made
    flags = ("--data", pack, "--out", tmp_path / "run", *TINY)
    assert call("t2i-train", *flags, "--steps", 2)[0] == 0
    assert call("t2i-train", *flags, "--steps", 4)[0] == 0
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == (run / "model.safetensors").read_bytes()


def test_sigterm_writes_a_checkpoint_exits_with_130_and_the_same_command_goes_on(made, tmp_path, monkeypatch):
    pack, run, _, _ = made
    flags = ("--data", pack, "--out", tmp_path / "run", "--steps", 4, *TINY)
    real = GanStep.__call__

    def signalled(self, batch, step):
        if step == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(self, batch, step)

    with monkeypatch.context() as patch:
        patch.setattr(GanStep, "__call__", signalled)
        code, out, err = call("t2i-train", *flags)
    assert (code, out) == (130, "")
    assert err.splitlines()[-1] == "t2i-train: stopped after step 2 of 4; run the same command to resume"
    assert "Traceback" not in err
    assert call("t2i-train", *flags)[0] == 0
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == (run / "model.safetensors").read_bytes()


def test_other_settings_need_force(made, tmp_path):
    pack, run, _, _ = made
    shutil.copytree(run, tmp_path / "run")
    flags = ("--data", pack, "--out", tmp_path / "run", "--steps", 5, *TINY, "--learning-rate", 0.001)
    code, _, err = call("t2i-train", *flags)
    assert code == 2
    assert re.search(r"learning_rate: \S+ -> 0\.001", err)
    assert "add --force" in err
    assert call("t2i-train", *flags, "--force")[0] == 0


def test_a_sentence_that_a_shell_would_read_is_quoted_in_the_last_line(tmp_path):
    source = tmp_path / "mine"
    source.mkdir()
    for number in range(4):
        Image.new("RGB", (19, 19), (60 * number, 0, 0)).save(source / f"{number}.png")
        (source / f"{number}.txt").write_text(f'it\'s $5 `or` "{number}"\n')
    prepare.pack("folder", source, tmp_path / "pack", size=19, show_progress=False)
    code, out, _ = call("t2i-train", "--data", tmp_path / "pack", "--out", tmp_path / "run", "--steps", 1, *TINY)
    assert code == 0
    script = "show() { printf '%s\\n' \"$@\"; }; " + out.splitlines()[-1].replace("t2i-generate", "show")
    shown = subprocess.run(["sh", "-c", script], capture_output=True, text=True)
    assert shown.stdout.splitlines() == ["--model", str(tmp_path / "run"), 'it\'s $5 `or` "0"', "--out", "picture.png"]


def made_folder(path):
    path.mkdir()
    return path


def edited(made, tmp_path, **changes):
    """Copy the run with other settings written into its config.json."""
    run = tmp_path / "edited"
    shutil.copytree(made[1], run)
    record = json.loads((run / "config.json").read_text())
    text = record["text"] | changes.pop("text", {})
    (run / "config.json").write_text(json.dumps(record | changes | {"text": text}))
    return run


def broken(made, tmp_path, name, content):
    run = edited(made, tmp_path)
    (run / name).unlink() if content is None else (run / name).write_bytes(content)
    return run


def folder(tmp_path, *pictures):
    source = tmp_path / "mine"
    source.mkdir()
    for name in pictures:
        Image.new("RGB", (24, 24)).save(source / name)
    return source


WRONG = {
    # What the issue names.
    "prepare: no such folder": (
        lambda m, o, t: ["t2i-prepare", "folder", t / "none"],
        "no such file or folder: .*none",
    ),
    "train: no such folder": (lambda m, o, t: ["t2i-train", "--data", t / "none"], "no such folder: .*t2i-prepare"),
    "prepare: an empty folder": (lambda m, o, t: ["t2i-prepare", "folder", folder(t)], "has no captioned images"),
    "train: an empty folder": (lambda m, o, t: ["t2i-train", "--data", folder(t)], r"no pack\.json.*t2i-prepare"),
    "pictures without captions": (
        lambda m, o, t: ["t2i-prepare", "folder", folder(t, "a.png", "b.png")],
        r"has no captioned images .*no captions: neither a line in metadata\.jsonl nor a \.txt beside it",
    ),
    "one caption for all": (
        lambda m, o, t: ["t2i-train", "--data", o, "--out", t / "run", *TINY],
        r"images with different captions; .* has no classes and the same captions .*; --mismatch-weight 0 trains without",
    ),
    "more memory than there is": (
        lambda m, o, t: ["t2i-train", "--data", m[0], "--out", t / "run", *TINY, "--noise-dim", 10**12],
        r"out of memory \(.*tried to allocate.*\); lower --batch, --size or the widths",
    ),
    "an empty caption": (lambda m, o, t: ["t2i-generate", "--model", m[1], "a flower", " "], "a caption is empty"),
    "a checkpoint of another shape": (
        lambda m, o, t: ["t2i-generate", "--model", edited(m, t, generator_width=16), "x"],
        r"generator\.\S+ must be \(.*\), got \(.*\): it was made with other sizes",
    ),
    "a text encoder of another shape": (
        lambda m, o, t: ["t2i-generate", "--model", edited(m, t, text={"variant": "long"}), "x"],
        r"text\.\S+",
    ),
    "a size that is not a power of two": (
        lambda m, o, t: ["t2i-train", "--data", m[0], "--size", 48],
        "--size must be a power of two .*got 48",
    ),
    # What else people type.
    "prepare: no source": (lambda m, o, t: ["t2i-prepare", "folder"], "the source is missing"),
    "prepare: again": (lambda m, o, t: ["t2i-prepare", "blossoms", "--out", m[0]], "already holds .*--force"),
    "prepare: not that layout": (lambda m, o, t: ["t2i-prepare", "cub", folder(t, "a.png")], "captions"),
    "no such preset": (lambda m, o, t: ["t2i-train", "--preset", "birds"], "no preset 'birds'; there are: "),
    "no such preset, =": (lambda m, o, t: ["t2i-train", "--preset=birds"], "no preset 'birds'"),
    "a preset that needs data": (lambda m, o, t: ["t2i-train", "--preset", "paper"], "--preset paper needs --data"),
    "a batch of one": (lambda m, o, t: ["t2i-train", "--data", m[0], "--batch", 1], "--batch must be"),
    "no such device": (
        lambda m, o, t: ["t2i-train", "--data", m[0], "--out", t / "run", *TINY, "--device", "tpu"],
        "--device must be auto, cpu, cuda, cuda:N or mps, got 'tpu'",
    ),
    "a device that is not there": (
        lambda m, o, t: ["t2i-generate", "--model", m[1], "x", "--device", "cuda:99"],
        "--device cuda:99: .* CUDA devices found",
    ),
    "no such text encoder": (
        lambda m, o, t: ["t2i-train", "--data", m[0], "--out", t / "run", *TINY, "--text.encoder", t / "none"],
        "none",
    ),
    "a run folder that is a file": (
        lambda m, o, t: ["t2i-train", "--data", m[0], *TINY, "--out", m[0] / "pack.json"],
        "cannot use .* as a run folder",
    ),
    "pictures smaller than asked": (
        lambda m, o, t: ["t2i-train", "--data", m[0], "--out", t / "run", *TINY, "--size", 64],
        "prepare them with --size 76 or more",
    ),
    "generate: no such run": (
        lambda m, o, t: ["t2i-generate", "--model", t / "none", "x"],
        "no such run folder: .*; t2i-train makes one",
    ),
    "generate: not a run": (lambda m, o, t: ["t2i-generate", "--model", m[0], "x"], r"it has no config\.json"),
    "generate: nothing trained yet": (
        lambda m, o, t: ["t2i-generate", "--model", broken(m, t, "model.safetensors", None), "x"],
        "has not reached its first checkpoint",
    ),
    "generate: a damaged model": (
        lambda m, o, t: ["t2i-generate", "--model", broken(m, t, "model.safetensors", b"PK\x03\x04"), "x"],
        "is not a readable safetensors file",
    ),
    "generate: damaged settings": (
        lambda m, o, t: ["t2i-generate", "--model", broken(m, t, "config.json", b"{"), "x"],
        "cannot be read as the settings of a run",
    ),
    "generate: settings of another version": (
        lambda m, o, t: ["t2i-generate", "--model", edited(m, t, colour="red"), "x"],
        "cannot be read as the settings of a run: .*colour",
    ),
    "generate: settings that cannot be": (
        lambda m, o, t: ["t2i-generate", "--model", edited(m, t, size=17), "x"],
        "cannot be read as the settings of a run: .*power of two",
    ),
    "generate: nothing to draw": (lambda m, o, t: ["t2i-generate", "--model", m[1]], "a caption is missing"),
    "generate: no pictures": (lambda m, o, t: ["t2i-generate", "--model", m[1], "x", "--count", 0], "count"),
    "generate: a side of nothing": (
        lambda m, o, t: ["t2i-generate", "--model", m[1], "x", "--side", 2],
        "--side must be at least 8, got 2",
    ),
    "generate: no such format": (
        lambda m, o, t: ["t2i-generate", "--model", m[1], "x", "--out", t / "a.txt"],
        r"--out must end in .*got .*a\.txt",
    ),
    "generate: nowhere to write": (
        lambda m, o, t: ["t2i-generate", "--model", m[1], "x", "--count", 1, "--out", m[0] / "pack.json" / "a.png"],
        "cannot write .*; choose another --out",
    ),
    "generate: a folder for a file": (
        lambda m, o, t: ["t2i-generate", "--model", m[1], "x", "--out", made_folder(t / "a.png")],
        r"--out must name a file, and .*a\.png is a folder",
    ),
    "eval: nothing named": (lambda m, o, t: ["t2i-eval"], "choose what to measure"),
    "eval: no such measure": (lambda m, o, t: ["t2i-eval", "taste"], "choose what to measure.*images"),
    "eval: no such run": (lambda m, o, t: ["t2i-eval", "images", "--model", t / "none"], "no such run folder"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_is_one_clear_line_and_exit_code_2(case, made, one_caption, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    arguments, says = WRONG[case]
    command, *rest = arguments(made, one_caption, tmp_path)
    code, out, err = call(command, *rest)
    assert code == 2
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith(f"{command}: error: ")
    assert re.search(says, err), err


@pytest.mark.parametrize(
    ("words", "style", "captions"),
    [
        (["--style", "a.jpg", "b.PNG", "a red flower"], ("a.jpg", "b.PNG"), ("a red flower",)),
        (["--style", "no suffix", "a red flower"], ("no suffix",), ("a red flower",)),  # the first is an image
        (["one", "--style", "a.jpg", "two"], ("a.jpg",), ("one", "two")),
        (["--style", "a.jpg", "--style", "b.jpg", "one"], ("a.jpg", "b.jpg"), ("one",)),
        (["one", "two"], (), ("one", "two")),
    ],
)
def test_captions_after_the_style_images_are_captions(words, style, captions):
    config = _without_captions_in_style(parse(Generate, ["--model", "x", *words], "t2i-generate"))
    assert (config.style, config.captions) == (style, captions)


def test_an_error_that_is_ours_keeps_its_traceback(monkeypatch):
    monkeypatch.setattr(cli, "run_generate", lambda arguments: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        call("t2i-generate")


def in_a_new_process(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("command", ["prepare", "train", "generate", "evaluate"])
def test_help_answers_without_torch(command):
    shown = in_a_new_process(
        f"import sys; sys.argv = ['t2i', '--help']\nfrom t2i.cli import main as cli\n"
        f"try: cli.{command}()\nexcept SystemExit as stop: assert not stop.code\n"
        "print(sorted({'torch', 'triton', 'scipy', 'torchvision'} & set(sys.modules)))"
    )
    assert "usage" in shown
    assert shown.splitlines()[-1] == "[]"


def test_a_caption_of_ten_thousand_characters_is_drawn_as_its_first_201(made, tmp_path):
    long = ("a flower with five red petals and a yellow centre " * 200)[:10_000]
    for name, caption in (("long.png", long), ("cut.png", long[:201])):
        code, *_ = call("t2i-generate", "--model", made[1], caption, "--out", tmp_path / name, "--count", 2)
        assert code == 0
    long, cut = (Image.open(tmp_path / name) for name in ("long.png", "cut.png"))
    assert long.height < 4 * cut.height  # the label is cut too
    boxes = [(sheet.width - 128, sheet.height // 2 - 32, sheet.width, sheet.height // 2 + 32) for sheet in (long, cut)]
    assert long.crop(boxes[0]).tobytes() == cut.crop(boxes[1]).tobytes()


def test_output_that_nobody_reads_on_is_no_error():
    code = "import sys; sys.argv = ['t2i-train', '--help']; from t2i.cli.main import train; train()"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        child.stdout.close()  # as head does, sooner or later
        assert child.stderr.read() == b""


@pytest.mark.parametrize(
    ("words", "warning"),
    [
        (["a red flower", "--count", 3, "--seed", 4], None),
        (["a red flower", "--steps", 5], "--steps: no effect without --interpolate-text or --interpolate-noise"),
        (
            ["--style", "a.jpg", "one", "--count", 3, "--seed", 4],
            "--count, --seed: no effect with --style: the noise is",
        ),
        (["--style", "a.jpg", "one", "--side", 64], None),
        (["--arithmetic", "a", "b", "c", "--steps", 3, "--count", 2], "--steps: no effect with --arithmetic"),
        (["--interpolate-text", "a", "b", "--steps", 3, "--count", 2, "--seed", 1], None),
    ],
)
def test_flags_of_t2i_generate_without_effect_are_named(words, warning):
    config = _without_captions_in_style(parse(Generate, ["--model", "x", *map(str, words)], "t2i-generate"))
    found = _ignored_flags(config, _mode(config))
    assert (found is None) if warning is None else found.startswith(f"warning: {warning}"), found
