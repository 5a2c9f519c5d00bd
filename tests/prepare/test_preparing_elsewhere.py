"""The scripts of examples/ do what they say: parts on several processes join to the bytes of one run."""

import hashlib
import os
import subprocess
import sys

import pytest
from PIL import Image

from helpers import ROOT
from t2i import prepare

EXAMPLES = ROOT / "examples"


@pytest.fixture
def source(tmp_path):
    for number in range(12):
        path = tmp_path / "mine" / f"{number:02d}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (20, 20), (20 * number, 9, 9)).save(path)
        path.with_suffix(".txt").write_text(f"picture {number}\n")
    prepare.pack("folder", tmp_path / "mine", tmp_path / "whole", size=16, shard_images=3, show_progress=False)
    return tmp_path / "mine"


def sums(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir() if path.is_file()}


OPTIONS = ["--size", "16", "--shard-images", "3"]


def test_a_slurm_array_prepares_one_pack(source, tmp_path):
    command = tmp_path / "bin" / "t2i-prepare"
    command.parent.mkdir()
    command.write_text(f"#!/bin/sh\nexec {sys.executable} -c 'from t2i.cli.main import prepare; prepare()' \"$@\"\n")
    command.chmod(0o755)
    path = f"{command.parent}{os.pathsep}{os.environ['PATH']}"
    for task in (1, 0):
        variables = {**os.environ, "PATH": path, "SLURM_ARRAY_TASK_ID": str(task), "SLURM_ARRAY_TASK_COUNT": "2"}
        arguments = ["folder", str(source), "--out", str(tmp_path / "pack"), *OPTIONS]
        subprocess.run(
            ["sh", EXAMPLES / "prepare_slurm.sh", *arguments], env=variables, check=True, capture_output=True
        )
    assert sums(tmp_path / "pack") == sums(tmp_path / "whole")


@pytest.mark.skipif("T2I_RAY" not in os.environ, reason="needs a running Ray cluster (ray start --head) and T2I_RAY=1")
def test_ray_prepares_one_pack(source, tmp_path):
    arguments = ["folder", source, "--out", tmp_path / "pack", "--parts", "3", *OPTIONS]
    subprocess.run([sys.executable, EXAMPLES / "prepare_ray.py", *arguments], check=True, capture_output=True)
    assert sums(tmp_path / "pack") == sums(tmp_path / "whole")
