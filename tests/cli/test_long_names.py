"""Names on the command line that no file can have: one line, whichever flag they come by."""

import errno
import json
import os
import shutil
from pathlib import Path

import pytest
from PIL import Image

from helpers import TINY, call
from t2i.data.dataset import PackedDataset

LONG = "x" * 300  # no file system has such a name


@pytest.mark.parametrize(
    "command",
    [
        f"t2i-train --data {LONG} --out run {' '.join(TINY)}",
        f"t2i-train --data {LONG} --out run --dry-run {' '.join(TINY)}",
        f"t2i-train text --data {LONG} --out run",
        f"t2i-train style --model run --data {LONG}",
        f"t2i-train style --model {LONG}",
        f"t2i-prepare folder {LONG} --out pack",
        f"t2i-prepare csv {LONG} --out pack",
        f"t2i-prepare folder . --images {LONG} --out pack",
        f"t2i-prepare blossoms --images 4 --out {LONG}",
        f"t2i-prepare merge {LONG} --out pack",
        f"t2i-generate --model run --style {LONG}.png flower --out a.png",
        f"t2i-generate --model {LONG} flower --out a.png",
        f"t2i-eval text --model {LONG}",
        f"t2i-eval images --model run --scorer {LONG}",
        f"t2i-eval images --model run --data {LONG}",
        f"t2i-export --model run --out {LONG}/a.onnx",
    ],
    ids=lambda command: command.replace(LONG, "LONG").split(" --preset")[0],
)
def test_a_name_that_no_file_can_have_is_one_line(
    command, tiny_run_with_style, tiny_blossoms_folder, tmp_path, monkeypatch
):
    if "t2i-export" in command:
        pytest.importorskip("onnxscript", reason="the extra is not installed: pip install 't2i[export]'")
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny_run_with_style, "run")
    facts = {"path": str(tiny_blossoms_folder), "fingerprint": PackedDataset(tiny_blossoms_folder).fingerprint}
    Path("run/data.json").write_text(json.dumps(facts))
    name, *arguments = command.split()
    code, _, errors = call(name, *arguments)
    assert (code, errors.count("\n")) == (2, 1), errors
    assert os.strerror(errno.ENAMETOOLONG) in errors


def test_a_long_caption_beside_a_style_image_is_no_name_of_a_file(tiny_run_with_style, tmp_path):
    style = tmp_path / "style.png"
    Image.new("RGB", (16, 16)).save(style)
    caption = "花" * 190  # fewer characters than a name may have bytes, and more bytes
    code, out, errors = call(
        "t2i-generate", "--model", tiny_run_with_style, "--style", style, caption, "--out", tmp_path / "out.png"
    )
    assert code == 0, errors
    assert out == f"{tmp_path / 'out.png'}\n"
