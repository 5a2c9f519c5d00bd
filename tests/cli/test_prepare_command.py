"""t2i-prepare as it is typed: its flags, what it prints where stdout cannot say it, and the command that it names next."""

import io
import json
import os
import re
import shlex
import subprocess
import sys

import pytest
import tqdm
from PIL import Image

from helpers import call
from t2i import prepare
from t2i.blossoms.pack import pack_blossoms
from t2i.cli import next_step
from t2i.cli.next_step import next_command, training_size
from t2i.config.sizes import stored_size
from t2i.data.dataset import PackedDataset

pytestmark = pytest.mark.usefixtures("one_thread")


def images(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        Image.new("RGB", (24, 24), (40 * number, 9, 9)).save(folder / name)
    return folder


def prepared(tmp_path, *arguments):
    """Run the command: its exit code, all that it printed, and the pack."""
    code, out, err = call("t2i-prepare", *arguments, "--out", tmp_path / "pack", "--size", 16, "--force")
    return code, out + err, PackedDataset(tmp_path / "pack") if code == 0 else None


def test_a_source_without_its_format_is_answered_with_the_command(tmp_path):
    source = images(tmp_path / "my 图片", "a.png")
    code, _, err = call("t2i-prepare", source, "--out", tmp_path / "pack")
    assert code == 2
    assert f"t2i-prepare folder '{source}' --out DIR" in err
    assert "csv, coco" in err
    assert "KIND must be one of" in call("t2i-prepare", tmp_path / "nowhere")[2]  # no folder, so a mistyped format


# The next command.


@pytest.mark.parametrize("size", [16, 32, 64, 128, 256])
def test_a_pack_of_the_size_made_for_a_training_names_that_training(size):
    assert training_size(stored_size(size)) == size
    assert training_size(size) == size


@pytest.mark.parametrize(
    ("stored", "flags"),
    [
        (16, "--preset drawings --size 16"),
        (19, "--preset drawings --size 16"),
        (38, "--preset drawings"),
        (63, "--preset drawings"),
        (64, "--preset modern"),
        (76, "--preset modern"),
        (152, "--preset modern --size 128"),
    ],
)
def test_the_next_command_fits_the_size(tmp_path, stored, flags):
    assert next_command(tmp_path / "a pack", stored) == f"t2i-train --data '{tmp_path}/a pack' {flags}"


def test_that_drawings_have_a_preset_of_their_own_is_said_where_the_other_is_named(tmp_path):
    said = "drawings and icons take --preset drawings --size 64"
    for stored in (38, 76):
        (tmp_path / "pack.json").write_text(json.dumps({"image_size": stored, "splits": {"train": 500, "test": 0}}))
        assert (said in next_step.packed_message(tmp_path)) == (stored == 76)


@pytest.mark.parametrize(("train", "few"), [(199, True), (200, False)])
def test_few_training_images_are_noted_with_what_to_do(tmp_path, train, few):
    (tmp_path / "pack.json").write_text(json.dumps({"image_size": 38, "splits": {"train": train, "test": 500}}))
    found = re.search(
        r"^note: .*memorises (\d+) training images.* --keep best$", next_step.packed_message(tmp_path), re.M
    )
    assert (found and int(found[1])) == (train if few else None)


@pytest.mark.parametrize("stored", [17, 38, 76])
def test_the_next_command_works_with_a_dry_run_and_without(tmp_path, stored):
    source = images(tmp_path / "mine", *(f"{number}.png" for number in range(5)))
    for number in range(5):
        (source / f"{number}.txt").write_text(f"square {number}\n")
    code, out, _ = call("t2i-prepare", "folder", source, "--out", tmp_path / "pack", "--size", stored)
    assert code == 0
    _, _, command = out.partition("next: ")
    words = shlex.split(command.splitlines()[0])
    small = [
        "--generator-width",
        8,
        "--discriminator-width",
        8,
        "--batch",
        4,
        "--steps",
        1,
        "--text.steps",
        2,
    ]
    small += ["--text.batch", 4, "--text.image-width", 8, "--text.dim", 16, "--alignment-weight", 0, "--device", "cpu"]
    for more in (["--dry-run"], []):
        code, out, err = call(*words, *small, "--out", tmp_path / "run", *more)
        assert code == 0, err


def test_a_dry_run_refuses_the_size_that_the_run_refuses(tmp_path):
    source = images(tmp_path / "mine", "a.png", "b.png")
    for name in "ab":
        (source / f"{name}.txt").write_text(f"{name}\n")
    call("t2i-prepare", "folder", source, "--out", tmp_path / "pack", "--size", 38)
    command = ["t2i-train", "--data", tmp_path / "pack", "--preset", "flowers", "--out", tmp_path / "run"]
    said = [call(*command, *more) for more in (["--dry-run"], [])]
    assert said[0] == said[1]
    assert said[0][0] == 2
    assert "--size 64 is larger than the images" in said[0][2]


@pytest.mark.parametrize(("stored", "said"), [(76, False), (64, False), (100, True), (127, True), (128, False)])
def test_a_size_whose_training_crops_most_of_each_image_says_so(tmp_path, stored, said):
    source = images(tmp_path / "mine", "a.png")
    (source / "a.txt").write_text("x\n")
    _, out, _ = call("t2i-prepare", "folder", source, "--out", tmp_path / "pack", "--size", stored)
    assert ("note: training at 64 px crops" in out) == said
    if said:
        assert "pack them with --size 76, or 152 for training at 128" in out


# Flags.


def test_columns_and_a_folder_of_images_are_chosen_by_flags(tmp_path):
    images(tmp_path / "elsewhere", "a.png")
    (tmp_path / "t.csv").write_text("Nr,Bild,Titel\n1,a.png,a kite\n")
    table = ["csv", tmp_path / "t.csv"]
    code, said, _ = prepared(tmp_path, *table)
    assert code == 2
    assert "no column of images; the columns are Nr, Bild, Titel: choose one with --image-column" in said
    code, said, _ = prepared(tmp_path, *table, "--image-column", "Bild", "--caption-column", "titel")
    assert code == 2
    assert f"there is elsewhere/a.png: --images {tmp_path}/elsewhere" in said
    flags = ["--image-column", "bild", "--caption-column", "Titel", "--images", tmp_path / "elsewhere"]
    code, said, data = prepared(tmp_path, *table, *flags)
    assert code == 0, said
    assert data.captions_of(0) == ["a kite"]


def test_names_become_captions_and_classes_are_left_out_by_flags(tmp_path):
    for kind in ("red", "blue"):
        images(tmp_path / "mine" / kind, f"a {kind} kite.png")
    code, said, data = prepared(tmp_path, "folder", tmp_path / "mine", "--captions", "name")
    assert code == 0, said
    assert (data.class_names, data.captions_of(0)) == (["blue", "red"], ["a blue kite"])
    assert prepared(tmp_path, "folder", tmp_path / "mine", "--captions", "name", "--no-classes")[2].class_names == []


def test_images_of_blossoms_are_a_number(tmp_path):
    code, said, data = prepared(tmp_path, "blossoms", "--images", 3)
    assert code == 0, said
    assert len(data) == 3
    code, said, _ = prepared(tmp_path, "blossoms", "--images", "mine")
    assert (code, said.count("\n")) == (2, 1)
    assert "--images must be a whole number for blossoms, got mine" in said


def test_report_and_summary_account_for_every_file(tmp_path):
    source = images(tmp_path / "mine", "a.png", "b.png", "c.jpg", ".d.png")
    (source / "a.txt").write_text("x\n")
    (source / "c.jpg").write_bytes(b"no image")
    (source / "c.txt").write_text("y\n")
    (source / "notes.txt").write_text("z\n")
    code, said, data = prepared(tmp_path, "folder", source)
    assert code == 0
    assert "7 files in the source: 1 images packed, 2 other files read, 2 skipped, 2 ignored" in said
    counts = json.loads((data.path / "report.json").read_text())["source"]
    assert counts == {
        "files": 7,
        "images": 1,
        "read": 2,
        "skipped": 2,
        "ignored": {"hidden or created by an operating system": 1, "text files without an image of the same name": 1},
    }


# A console that cannot say it.


@pytest.mark.promise(28)
@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "cp437", "utf-8"])
def test_what_stdout_cannot_encode_is_escaped(tmp_path, encoding):
    source = images(tmp_path / "mine", "\u732b.png", "a.png")
    (source / "\u732b.png").write_bytes(b"no image")
    for name in ("\u732b.txt", "a.txt"):
        (source / name).write_text("x\n")
    code = "import sys; from t2i.cli.main import prepare; sys.argv[0] = 't2i-prepare'; prepare()"
    done = subprocess.run(
        [sys.executable, "-c", code, "folder", str(source), "--out", str(tmp_path / "pack"), "--size", "16"],
        env={**os.environ, "PYTHONIOENCODING": encoding},
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr
    shown = "\u732b" if encoding == "utf-8" else "\\u732b"
    assert f"{shown}.png: broken: " in done.stdout.decode(encoding)


@pytest.mark.promise(28)
def test_an_error_that_stderr_cannot_encode_is_one_line(tmp_path):
    code = "import sys; from t2i.cli.main import prepare; sys.argv[0] = 't2i-prepare'; prepare()"
    done = subprocess.run(
        [sys.executable, "-c", code, "folder", str(tmp_path / "\u732b")],
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
    )
    assert done.returncode == 2
    assert done.stderr.decode("ascii").endswith("\\u732b\n")
    assert done.stderr.count(b"\n") == 1


@pytest.mark.parametrize("terminal", [True, False])
def test_the_bar_is_refreshed_seldom_in_a_log_file(tmp_path, monkeypatch, terminal):
    bars, made = [], tqdm.tqdm.__init__
    monkeypatch.setattr(
        tqdm.tqdm, "__init__", lambda bar, *of, **options: bars.append(options) or made(bar, *of, **options)
    )
    log = io.StringIO()
    log.isatty = lambda: terminal
    monkeypatch.setattr(sys, "stderr", log)
    source = images(tmp_path / "mine", "a.png", "b.png")
    prepare.pack("folder", source, tmp_path / "pack", size=16, options=prepare.SourceOptions(captions="name"))
    pack_blossoms(tmp_path / "blossoms", images=4, size=16)
    assert [(bar["desc"], bar["mininterval"]) for bar in bars] == [
        ("prepare", 0.5 if terminal else 30.0),
        ("blossoms", 0.5 if terminal else 30.0),
    ]
