"""Folders of random odd files under every reader: an account that adds up, or one clear line."""

import io
import json
import random
import shutil
import tarfile
import zipfile

import pytest
from PIL import Image

import t2i
from helpers import assert_all_accounted
from promises import TORTURE
from t2i import prepare
from t2i.prepare.collect import SourceOptions
from t2i.prepare.kinds import is_hidden

NAMES = [
    "a",
    "b",
    "0001",
    ".c",
    "Thumbs.db",
    "metadata",
    "captions",
    "list",
    "test",
    "A",
    "\u00e9",
    "x y",
    "train",
    "images",
]
ENDINGS = [
    ".png",
    ".PNG",
    ".jpg",
    ".txt",
    ".TXT",
    ".caption",
    ".json",
    ".jsonl",
    ".csv",
    ".tsv",
    ".zip",
    ".tar",
    ".tar.gz",
    ".parquet",
    "",
    ".jfif",
    ".npy",
    ".token",
    ".json1",
    ".xml",
    ".heic",
    ".dng",
]
FOLDERS = [
    "",
    "train/",
    "val/",
    "images/",
    "text/",
    "__MACOSX/",
    "red/",
    "blue/test/",
    "00001/",
    "annotations/",
    ".git/",
]
LISTS = [
    [{"file_name": "a.png", "text": "x"}],
    {"images": [{"id": 1, "file_name": "a.png"}], "annotations": [{"image_id": 1, "caption": "y"}]},
    {"caption": "z"},
    {"a.png": "x"},
]
KINDS = ["folder", "csv", "coco", "webdataset", "huggingface", "parquet"]


def png():
    file = io.BytesIO()
    Image.new("RGB", (20, 20)).save(file, "PNG")
    return file.getvalue()


PNG = png()


def zipped():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as made:
        made.writestr("a.png", PNG)
        made.writestr("a.txt", "x")
    return file.getvalue()


def tarred(mode):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode) as made:
        for name, data in (("a.png", PNG), ("a.txt", b"x"), ("b.jpg", PNG)):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            made.addfile(info, io.BytesIO(data))
    return file.getvalue()


def fill(root, rng):
    """Write up to 13 files whose content has little to do with their names."""
    contents = [PNG] * 4 + [rng.randbytes(40), b'image,caption\na.png,one\nimages/b.png,"two\n']
    contents += [json.dumps(rng.choice(LISTS)).encode(), zipped(), tarred(rng.choice(["w", "w:gz"]))]
    for _ in range(rng.randrange(1, 14)):
        path = root / (rng.choice(FOLDERS) + rng.choice(NAMES) + rng.choice(ENDINGS))
        if path.is_dir() or any(parent.is_file() for parent in path.parents):
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(rng.choice(contents))
    return [path for path in root.rglob("*") if path.is_file()]


@pytest.mark.parametrize("seed", range(400 if TORTURE else 12))
def test_every_reader_accounts_for_every_file_or_says_why_not(tmp_path, seed):
    rng = random.Random(seed)
    for number in range(5):
        source = tmp_path / str(number)
        files = fill(source, rng)
        for kind, options in [(kind, SourceOptions()) for kind in KINDS] + [("folder", SourceOptions(captions="name"))]:
            report, refusal = prepare.Report(), None
            try:
                items = list(prepare.SOURCES[kind](source, report, options))
            except t2i.T2IError as error:
                refusal = str(error)
            if refusal is not None:
                assert refusal.count("\n") == 0
                continue
            report.images = len(items)
            assert_all_accounted(report)
            if report.account is not None:
                assert report.account.files >= len(files)  # and the members of archives
        if options.captions == "name":  # the simplest rule of all: every image that can be seen is packed
            shown = {
                path.relative_to(source).as_posix()
                for path in files
                if path.suffix.lower() in (".png", ".jpg", ".jfif")
            }
            assert {name for name in shown if not is_hidden(name)} <= {item.named for item in items}
        shutil.rmtree(source)
