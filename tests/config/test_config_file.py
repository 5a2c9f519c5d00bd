"""Settings from a TOML file, flags over them, and what --print-config and --dry-run show."""

import dataclasses
import itertools
import re
import shutil
import subprocess
import sys
from typing import ClassVar, Literal

import pytest
import torch
from PIL import Image

from helpers import TINY, call
from t2i.cli.parsing import parse
from t2i.config import options as settings
from t2i.config.fields import GROUPS, option, required
from t2i.config.ignored import ignored_settings
from t2i.config.options import StyleConfig, TextConfig, TrainConfig
from t2i.config.presets import PRESETS
from t2i.config.toml import read_toml, to_toml
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


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_file_of_notepad_or_powershell_is_read(tmp_path, encoding):
    file = tmp_path / "我的.toml"
    file.write_text('batch = 6  # 批量\ndata = "数据/花"\n', encoding=encoding)
    found = train_config(printed(tmp_path, "--config", file))
    assert (found.batch, found.data) == (6, "数据/花")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, []),
        (
            {"moment_weight": 0.1, "text_mixing": 1.0},
            ["--moment-weight, --text-mixing: no effect with --network paper"],
        ),
        (
            {"interpolation_weight": 0.0, "interpolation": "uniform"},
            ["--interpolation: no effect with --interpolation-weight 0"],
        ),
        (
            {"interpolation": "uniform", "interpolation_coefficient": 0.3},
            ["--interpolation-coefficient: no effect with --interpolation uniform"],
        ),
        ({"realism_steps": 5}, ["--realism-steps: no effect without --stages"]),
        (
            {"stages": True, "realism_steps": 5, "realism_goal": 0.1},
            ["--realism-goal: no effect with --realism-steps"],
        ),
        (
            {"network": "modern", "interpolation_weight": 0.0, "reuse_fakes": True, "feature_size": 64},
            ["--reuse-fakes: no effect with --network modern", "--feature-size: no effect with --feature-weight 0"],
        ),
    ],
    ids=str,
)
def test_settings_without_effect_are_named_with_the_reason(options, says):
    assert ignored_settings(TrainConfig(**options)) == [f"warning: {line}" for line in says]


@pytest.mark.parametrize("name", PRESETS)
def test_no_preset_has_a_setting_without_effect(name):
    assert ignored_settings(PRESETS[name]) == []


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
        (b"\xff", r"my\.toml is not TOML: "),
        (b"\xff\xfeb", r"my\.toml is not TOML: "),  # half a letter of UTF-16
        ("log-every = 3\nlog_every = 5", r"my\.toml: log_every is there twice, written with - and with _"),
        ("[text]\nimage-width = 3\nimage_width = 5", r"text\.image_width is there twice"),
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
        (["t2i-train", "--xyzzy"], "there is no flag --xyzzy (t2i-train --help lists the flags)"),
        (["t2i-train", "text", "--widht", "3"], "did you mean --width? (t2i-train text --help lists the flags)"),
        (["t2i-train", "style", "--modle", "x"], "did you mean --model?"),
        (["t2i-train", "style"], "--model is missing"),
        (["t2i-generate", "a flower", "--modle", "x"], "did you mean --model?"),
        (["t2i-prepare", "folder", "x", "--siez", "3"], "did you mean --size?"),
        (["t2i-eval", "images", "--modle", "x"], "did you mean --model?"),
        (["t2i-train", "--batch", "many"], "--batch must be a whole number, got 'many'"),
        (["t2i-train", "--learning-rate", "fast"], "--learning-rate must be a number, got 'fast'"),
        (["t2i-train", "--batch"], "--batch needs one argument"),
        (
            ["t2i-train", "--precision", "float8"],
            "--precision must be one of auto, float32, bfloat16, got 'float8'",
        ),
        (["t2i-train", "gna"], "unrecognised argument 'gna'"),
        (["t2i-train", "--text.channels", "3"], "--text.channels needs 2 arguments"),
        (["t2i-train", "--flip=3"], "--flip ignored explicit argument '3'"),
        (["t2i-train", "--learning-rate", "nan"], "--learning-rate must lie in 0..1 (0 excluded), got nan"),
        (["t2i-train", "--interpolation-weight", "nan"], "--interpolation-weight must be at least 0, got nan"),
        (["t2i-train", "--learning-ra", "1"], "there is no flag --learning-ra; did you mean --learning-rate?"),
        (["t2i-train", "--text.width", "0"], "--text.width must be at least 1, got 0"),
        (["t2i-train", "text", "--width", "0"], "--width must be at least 1, got 0"),
        (["t2i-train", "--text.channels", "8", "0"], "--text.channels must be at least 1 each, got (8, 0)"),
        (["t2i-train", "--ema", "1"], "--ema must lie in 0..1 (1 excluded), got 1.0"),
        (["t2i-train", "--realism-goal", "0"], "--realism-goal must lie in 0..1 (0 excluded), got 0.0"),
        (["t2i-train", "style", "--model", "x", "--noise", "-1"], "--noise must be at least 0, got -1.0"),
        (["t2i-train", "--seed", "-1"], "--seed must lie in 0..9223372036854775807, got -1"),
        (
            ["t2i-train", "text", "--seed", str(2**64)],
            "--seed must lie in 0..9223372036854775807, got 18446744073709551616",
        ),
        (
            ["t2i-train", "--steps", "100000000"],
            "--steps must lie in 1..99999999, got 100000000",
        ),  # names of eight digits
        (["t2i-train", "--epochs", "100000000"], "--epochs must lie in 1..99999999, got 100000000"),
        (["t2i-train", "--text.steps", "100000000"], "--text.steps must lie in 1..99999999, got 100000000"),
        (["t2i-train", "style", "--model", "x", "--steps", "100000000"], "--steps must lie in 1..99999999, got"),
        (["t2i-train", "--batch", str(2**40)], "--batch must be at most 16777216, got 1099511627776"),
        (["t2i-train", "--captions-per-image", "1000000000"], "--captions-per-image must lie in 1..1024, got"),
        (["t2i-train", "--interpolation-weight", "inf"], "--interpolation-weight must be a finite number, got inf"),
        (["t2i-train", "style", "--model", "x", "--noise", "inf"], "--noise must be a finite number, got inf"),
        (
            ["t2i-train", "--interpolation-coefficient", "nan"],
            "--interpolation-coefficient must lie in -10..10, got nan",
        ),
        (["t2i-prepare", "fodler", "x"], "KIND must be one of folder, huggingface, csv, "),
        (["t2i-prepare"], "KIND is missing"),
        (["t2i-prepare", "merge"], "PARTS is missing"),
        (["t2i-bench", "step", "taste"], "WHAT must be one of data, step, generate, got 'taste'"),
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


def test_every_setting_has_help_and_a_group_and_its_type_default():
    for kind in (TrainConfig, TextConfig, StyleConfig, settings.JointOptions, settings.TextOptions):
        for field in dataclasses.fields(kind):
            if field.name != "text":
                assert field.metadata["help"].endswith((".", ")")), field.name
                assert field.metadata["group"] in GROUPS[1:], field.name
    assert "# c: weight of mismatched pairs" in to_toml(PRESETS["paper"])


def test_the_help_of_preset_names_those_that_there_are():
    assert list(settings.PRESET_NAMES) == sorted(PRESETS, key=settings.PRESET_NAMES.index)
    assert len(settings.PRESET_NAMES) == len(PRESETS)


COMMANDS = (
    "t2i-train",
    "t2i-train text",
    "t2i-train style",
    "t2i-train --plot x",
    "t2i-prepare",
    "t2i-prepare merge",
    "t2i-generate",
    "t2i-eval images",
    "t2i-eval text",
    "t2i-eval style",
    "t2i-export",
    "t2i-bench",
    "t2i-demo",
)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_fits_80_columns_and_breaks_lines_only_where_they_are_full(monkeypatch, command):
    monkeypatch.setenv("COLUMNS", "80")
    code, out, err = call(*command.split(), "--help")
    assert (code, err) == (0, "")
    assert max(map(len, out.splitlines())) <= 80
    checked = 0
    for line, following in itertools.pairwise(out.splitlines()):
        indent = len(following) - len(following.lstrip())
        if indent >= 20 and line[indent:].strip() and not line[indent - 2 : indent].strip():  # the help goes on
            word = re.match(r"-*[^ -]+-?", following.strip())[0]  # long words may break after a hyphen
            assert len(line) + 1 + len(word) > 77, f"broken too early: {line}"
            checked += 1
    assert checked > 40 or command != "t2i-train"


def test_help_lists_the_groups_a_person_scans_in_order_with_rare_settings_last():
    out = call("t2i-train", "--help")[1]
    titles = re.findall(r"^(\w+):$", out, re.MULTILINE)
    assert titles == ["options", "run", "data", "device", "network", "losses", "optimiser", "text"]
    flags = re.findall(r"^  (--[\w.-]+)", out, re.MULTILINE)
    for first, later in [("--preset", "--seed"), ("--batch", "--crop-low"), ("--text.encoder", "--text.width")]:
        assert flags.index(first) < flags.index(later)


@pytest.mark.parametrize(
    ("flag", "says"),
    [
        ("--seed", r"Random seed\."),
        ("--alignment-weight", "CLIP-style contrastive loss"),
        ("--recovery-weight", "InfoGAN noise reconstruction"),
        ("--mismatch-weight", "c: weight .* matching-aware discriminator loss"),
        ("--learning-rate", r"Learning rate of Adam\. \(default: 0\.0005\)"),  # of the preset
        ("--flip, --no-flip", r"Random horizontal flips\. \(default: true\)"),
        ("--text.buckets N N", r"\(default: 16384 8192\)"),
    ],
)
def test_help_speaks_the_words_of_the_field_and_shows_the_default(flag, says):
    out = " ".join(call("t2i-train", "--help")[1].split())
    assert re.search(rf" {re.escape(flag)}\b(?:(?! --[a-z]).)*{says}", out)


def test_the_defaults_of_a_chosen_preset_are_shown():
    out = " ".join(call("t2i-train", "--preset", "paper", "--help")[1].split())
    assert re.search(r"--learning-rate X Learning rate of Adam\. \(default: 0\.0002\)", out)


@pytest.mark.parametrize(
    ("words", "field", "value"),
    [
        (["--no-flip"], "flip", False),
        (["--flip"], "flip", True),
        (["--no-flip", "--flip"], "flip", True),  # the last one counts
        (["--no-reuse-fakes"], "reuse_fakes", False),  # the preset has it on
        (["--steps", "none"], "steps", None),
        (["--steps=7"], "steps", 7),
        (["--batch", "4", "--batch", "6"], "batch", 6),
        (["--preset", "paper", "--preset", "flowers"], "steps", 20_000),
        (["--data", "none"], "data", None),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_flag_sets_what_it_names(words, field, value, tmp_path):
    assert getattr(train_config(printed(tmp_path, *words)), field) == value


@dataclasses.dataclass(frozen=True)
class Inner:
    flags: ClassVar[str] = "--inner."
    on: bool = option(False, "A switch.", group="text")
    names: tuple[Literal["a", "b"], ...] = option(("a",), "Names: 100%.", group="text")


@dataclasses.dataclass(frozen=True)
class Outer:
    """A command."""

    word: str = required("A word.", positional=True)
    more: tuple[int, ...] = option((), "Numbers.", positional=True)
    pair: tuple[float, float] | None = option(None, "Two numbers.")
    inner: Inner = dataclasses.field(default_factory=Inner)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["x"], Outer("x")),
        (["x", "1", "--pair", "2", "3", "4"], Outer("x", (1, 4), (2.0, 3.0))),  # flags between positional arguments
        (["--inner.names", "b", "a", "--", "x"], Outer("x", inner=Inner(names=("b", "a")))),
        (["x", "--inner.names", "b", "--inner.names", "a"], Outer("x", inner=Inner(names=("b", "a")))),
        (["x", "--inner.on"], Outer("x", inner=Inner(on=True))),
        (["-1 is a number", "--pair", "-1", "-.5"], Outer("-1 is a number", (), (-1.0, -0.5))),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_dataclass_of_every_kind_of_field_is_read(words, expected):
    found = parse(Outer, words, "command")
    assert found == expected
    assert type(found.inner) is Inner


def test_a_percent_sign_in_help_is_shown_as_it_is(capsys):
    with pytest.raises(SystemExit):
        parse(Outer, ["--help"], "command")
    assert "Names: 100%. (default: a)" in " ".join(capsys.readouterr().out.split())


def test_the_file_lists_settings_by_group_with_rare_ones_last():
    names = re.findall(r"^(\w+) = ", to_toml(PRESETS["paper"]), re.MULTILINE)
    expected = ["preset", "seed", "data", "crop_low", "device", "size", "mismatch_weight", "learning_rate", "encoder"]
    assert [name for name in names if name in expected[:-2]] == expected[:-2]
    assert names.index("encoder") < names.index("width")


def test_defaults_lie_beneath_the_flags_field_by_field():
    found = parse(Outer, ["x", "--inner.on"], "command", defaults={"pair": (1.0, 2.0), "inner": {"names": ("b",)}})
    assert found == Outer("x", (), (1.0, 2.0), Inner(on=True, names=("b",)))


@pytest.mark.skipif(not shutil.which("bash"), reason="there is no bash here")
def test_a_shell_completes_flags_by_what_a_command_prints(tmp_path):
    pytest.importorskip("shtab")
    code, out, _ = call("t2i-train", "--print-completion", "bash")
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


def test_completion_without_its_package_is_one_clear_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "shtab", None)
    code, out, err = call("t2i-train", "--print-completion", "bash")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "--print-completion needs shtab: pip install 't2i[completion]'" in err


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
        PRESETS["paper"],
        size=16,
        generator_width=8,
        discriminator_width=8,
        batch=8,
        device="cpu",
        precision="float32",
        steps=1,
        crop_low=0,
        interpolation_weight=0.0,
        mismatch="text",
        text=settings.TextOptions(dim=16),
    )
    said = dry_run(config, tiny_blossoms, tmp_path)
    step = GanStep(config, FrozenText(torch.zeros(1, 16), None), torch.device("cpu"), torch.float32)
    for name in ("generator", "discriminator"):
        count = sum(weight.numel() for weight in getattr(step, name).parameters())
        assert f"{name}: {count:,}" in said
    double = dry_run(dataclasses.replace(config, batch=16), tiny_blossoms, tmp_path)
    work = [float(re.search(r"([\d.]+) MFLOP a step", text)[1]) for text in (said, double)]
    assert work[0] > 0
    assert work[1] == pytest.approx(2 * work[0], rel=0.01)  # three digits are shown


def test_a_dry_run_lists_the_discriminators_that_there_are(tiny_blossoms, tmp_path):
    config = dataclasses.replace(
        PRESETS["modern"],
        size=16,
        pixel_size=16,
        generator_width=4,
        discriminator_width=8,
        batch=8,
        precision="float32",
    )
    said = dry_run(config, tiny_blossoms, tmp_path)
    assert re.search(r"feature_discriminator\.heads\.1\.first +64 x 8 x 8\n", said)
    assert "feature discriminator: " in said
    assert " discriminator: " not in said.replace("feature discriminator", "")
    both = dry_run(dataclasses.replace(config, pixel_weight=0.5), tiny_blossoms, tmp_path)
    assert re.search(r"^ +discriminator: [\d,]+$", both, re.MULTILINE)
    assert re.search(r"^ +discriminator\.\S+ +\d+ x", both, re.MULTILINE)
