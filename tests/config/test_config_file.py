"""Settings from a TOML file, flags over them, and what --print-config and --dry-run show."""

import dataclasses
import re
import shutil
import subprocess

import pytest
import torch
from PIL import Image

from helpers import TINY, call
from t2i.config import options as settings
from t2i.config.options import StyleConfig, TextConfig, TrainConfig
from t2i.config.presets import PRESETS
from t2i.config.toml import documentation, read_toml, to_toml
from t2i.training.dry_run import dry_run
from t2i.training.step import GanStep
from t2i.training.text_source import FrozenText

pytestmark = pytest.mark.usefixtures("one_thread")


def printed(tmp_path, *arguments):
    """What --print-config prints, as a file."""
    code, out, err = call("t2i-train", *arguments, "--print-config")
    assert (code, err) == (0, "")
    path = tmp_path / "printed.toml"
    path.write_text(out)
    return path


def train_config(path):
    values = read_toml(path, TrainConfig)
    return TrainConfig(**values | {"text": settings.TextOptions(**values["text"])})


@pytest.mark.parametrize("preset", PRESETS)
def test_what_is_printed_is_read_back_as_the_same_settings(tmp_path, preset):
    path = printed(tmp_path, "--preset", preset)
    assert train_config(path) == PRESETS[preset]
    assert printed(tmp_path, "--config", path).read_text() == path.read_text()


def test_flags_win_over_the_file_and_the_file_over_the_preset(tmp_path):
    file = tmp_path / "my.toml"
    file.write_text('preset = "flowers"\nbatch = 12\nlearning-rate = 1\n\n[text]\ndim = 99\nchannels = [5, 6]\n')
    found = train_config(printed(tmp_path, "--config", file, "--batch", 20, "--text.width", 7))
    assert (found.preset, found.batch, found.learning_rate) == ("flowers", 20, 1.0)
    assert (found.text.dim, found.text.channels, found.text.width) == (99, (5, 6), 7)
    flowers = PRESETS["flowers"]
    for field in {f.name for f in dataclasses.fields(TrainConfig)} - {"batch", "learning_rate", "text"}:
        assert getattr(found, field) == getattr(flowers, field), field
    assert train_config(printed(tmp_path, f"--config={file}", "--preset", "paper")).steps is None  # flowers has 20,000


def test_a_setting_can_be_turned_off_in_the_file(tmp_path):
    file = tmp_path / "my.toml"
    file.write_text('steps = "none"\nflip = false\n')
    found = train_config(printed(tmp_path, "--config", file))
    assert (found.steps, found.flip, PRESETS["blossoms"].steps, PRESETS["blossoms"].flip) == (None, False, 3300, True)


def test_the_other_trainings_read_a_file_too(tmp_path):
    file = tmp_path / "my.toml"
    file.write_text('preset = "flowers"\nout = "somewhere"\n[text]\ndim = 77\n')
    found = read_toml(printed(tmp_path, "text", "--config", file, "--width", 9), TextConfig)
    assert (found["out"], found["text"]["dim"], found["text"]["width"]) == ("somewhere", 77, 9)
    assert found["text"]["objective"] == "contrastive"  # of the preset
    file.write_text('model = "runs/mine"\nsteps = 5\n')
    found = read_toml(printed(tmp_path, "style", "--config", file), StyleConfig)
    assert (found["model"], found["steps"], found["width"]) == ("runs/mine", 5, 32)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("btach = 3", r"my\.toml: there is no setting btach; did you mean batch\?"),
        ("[text]\nwidht = 3", r"my\.toml: there is no setting text\.widht; did you mean text\.width\?"),
        ("zzz = 3", r"my\.toml: there is no setting zzz$"),
        ('batch = "many"', "batch must be a whole number, got 'many'"),
        ("batch = 3.5", "batch must be a whole number, got 3.5"),
        ("batch = true", "batch must be a whole number, got True"),
        ("flip = 1", "flip must be true or false, got 1"),
        ("learning_rate = [1]", r"learning_rate must be a number, got \[1\]"),
        ("data = 3", "data must be a text in quotes, got 3"),
        ('precision = "float8"', "precision must be one of auto, float32, bfloat16, got 'float8'"),
        ("text = 3", r"text must be a table, \[text\], got 3"),
        ("[text]\nchannels = [1]", r"text\.channels must be a list of 2, \[\.\.\.\], got \[1\]"),
        ("batch = 3", "--batch must be an even number of at least 4, got 3"),
        ("batch == 3", r"my\.toml is not TOML: .*line 1"),
        (b"\xff\xfe", r"my\.toml is not TOML: "),
        (None, "No such file"),
    ],
    ids=str,
)
def test_a_file_that_cannot_work_is_one_clear_line(tmp_path, text, says):
    file = tmp_path / "my.toml"
    if text is not None:
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
    code, out, err = call("t2i-train", "--config", file)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert re.search(says, err.strip()), err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["t2i-train", "--btach", "3"], "there is no flag --btach; did you mean --batch?"),
        (["t2i-train", "--btach=3"], "there is no flag --btach; did you mean --batch?"),
        (["t2i-train", "--text.widht", "3"], "there is no flag --text.widht; did you mean --text.width?"),
        (["t2i-train", "--sync-batch-nrm"], "did you mean --sync-batch-norm?"),
        (["t2i-train", "--xyzzy"], "there is no flag --xyzzy (t2i-train --help lists them)"),
        (["t2i-train", "text", "--widht", "3"], "did you mean --width? (t2i-train text --help lists them)"),
        (["t2i-train", "style", "--modle", "x"], "did you mean --model?"),
        (["t2i-train", "style"], "--model is missing"),
        (["t2i-generate", "a flower", "--modle", "x"], "did you mean --model?"),
        (["t2i-prepare", "folder", "x", "--siez", "3"], "did you mean --size?"),
        (["t2i-eval", "images", "--modle", "x"], "did you mean --model?"),
        (["t2i-train", "--batch", "many"], "--batch must be a whole number, got 'many'"),
        (["t2i-train", "--learning-rate", "fast"], "--learning-rate must be a number, got 'fast'"),
        (["t2i-train", "--batch"], "--batch needs 1 value(s)"),
        (
            ["t2i-train", "--precision", "float8"],
            "--precision must be one of 'auto', 'float32', 'bfloat16', got 'float8'",
        ),
        (["t2i-train", "gna"], "nothing is known of gna"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistyped_flag_is_one_clear_line_with_the_nearest(arguments, says):
    code, out, err = call(*arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"{arguments[0]}: error: ")
    assert says in err


def test_flags_may_be_written_with_an_underscore(tmp_path):
    assert train_config(printed(tmp_path, "--log_every", 3)).log_every == 3


def test_every_setting_is_explained_in_help_and_file():
    for kind in (TrainConfig, TextConfig, StyleConfig, settings.TextOptions):
        fields = {field.name for field in dataclasses.fields(kind)} - {"text"}
        assert fields <= set(documentation(kind))
    assert "# c: weight of the mismatched pair" in to_toml(PRESETS["paper"])


@pytest.mark.parametrize(
    "command",
    [
        "t2i-train",
        "t2i-train text",
        "t2i-train style",
        "t2i-prepare",
        "t2i-generate",
        "t2i-eval images",
        "t2i-eval style",
    ],
)
def test_help_fits_80_columns_and_breaks_lines_only_where_they_are_full(monkeypatch, command):
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = call(*command.split(), "--help")
    assert code == 0
    assert max(map(len, out.splitlines())) <= 80
    for line, following in zip(out.splitlines(), out.splitlines()[1:], strict=False):
        words, first = line.strip("│ "), following.strip("│ ").partition(" ")[0]
        explains = (
            line.startswith("│    ") and following.startswith("│    ") and not following.strip("│ ").startswith("-")
        )
        if explains and words and first and not words.endswith(")"):
            assert len(line.rstrip("│ ")) + 1 + len(first) > 77, f"broken too early: {line}"


@pytest.mark.skipif(not shutil.which("bash"), reason="there is no bash here")
def test_a_shell_completes_flags_by_what_a_command_prints(tmp_path):
    code, out, _ = call("t2i-train", "--tyro-print-completion", "bash")
    assert not code
    (tmp_path / "completion").write_text(out)
    pressed_tab = """
        source "$1"
        function=$(complete -p t2i-train | sed 's/.*-F \\([^ ]*\\).*/\\1/')
        COMP_WORDS=(t2i-train --learn) COMP_CWORD=1
        $function t2i-train --learn t2i-train
        echo "${COMPREPLY[@]}"
    """
    done = subprocess.run(["bash", "-c", pressed_tab, "bash", tmp_path / "completion"], capture_output=True, text=True)
    assert done.stdout.split() == ["--learning-rate"]


@pytest.mark.parametrize("mismatch", ["text", "image"])
def test_a_dry_run_shows_the_first_batch_and_trains_nothing(tiny_blossoms_folder, tmp_path, mismatch):
    out = tmp_path / "run"
    flags = ["--data", tiny_blossoms_folder, "--out", out, *TINY, "--steps", 30, "--mismatch", mismatch, "--dry-run"]
    code, said, err = call("t2i-train", *flags)
    assert (code, err) == (0, "")
    assert [path.name for path in out.iterdir()] == ["dry-run.png"]
    assert "30 steps of 8 images, 2.0 passes over them" in said
    assert re.search(r"generator\s+3 x 16 x 16", said)
    with Image.open(out / "dry-run.png") as sheet:
        assert (
            sheet.height == 10 + 16 * (96 + 4) - 4 + 10
        )  # eight rows of the batch, each as a pair that fits and one that does not
        left = sheet.width - 10 - 96
        tiles = [sheet.crop((left, 10 + row * 100, left + 96, 106 + row * 100)).tobytes() for row in range(16)]
    same = [tiles[row] == tiles[row + 1] for row in range(0, 16, 2)]
    assert all(same) if mismatch == "text" else not any(same)


def test_a_dry_run_counts_parameters_and_operations(tiny_blossoms, tmp_path):
    config = dataclasses.replace(
        PRESETS["paper"], size=16, generator_width=8, discriminator_width=8, batch=8, device="cpu", precision="float32",
        steps=1, crop_low=0, interpolation_weight=0.0, mismatch="text", text=settings.TextOptions(dim=16),
    )  # fmt: skip
    said = dry_run(config, tiny_blossoms, tmp_path)
    step = GanStep(config, FrozenText(torch.zeros(1, 16), None), torch.device("cpu"), torch.float32)
    for name in ("generator", "discriminator"):
        count = sum(weight.numel() for weight in getattr(step, name).parameters())
        assert f"{name}: {count:,}" in said
    double = dry_run(dataclasses.replace(config, batch=16), tiny_blossoms, tmp_path)
    work = [float(re.search(r"([\d.]+) MFLOP a step", text)[1]) for text in (said, double)]
    assert work[0] > 0
    assert work[1] == pytest.approx(2 * work[0], rel=0.01)  # three digits are shown
