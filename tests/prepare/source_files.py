"""Sources as tests write them, and what is read back from their packs."""

import io
import json
import os
import tarfile
import zipfile

from PIL import Image

from helpers import assert_all_accounted
from t2i import prepare
from t2i.data.dataset import PackedDataset

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 128, 0), (0, 0, 255), (255, 255, 255)


def picture(path, colour=RED, size=(24, 24), **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path, **options)
    return path


def captioned(path, *captions, **options):
    picture(path, **options)
    path.with_suffix(".txt").write_text("\n".join(captions) + "\n", encoding="utf-8")


def lines(path, *rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))


def reasons(report, source):
    """Shorten a report to {name relative to the source: reason}."""
    return {str(path).removeprefix(f"{source}{os.sep}"): reason for path, reason in report.skipped}


def names(data):
    return bytes(data.extra("names")).decode().split("\n")


def image(path, colour=(255, 0, 0), **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (20, 20), colour).save(path, **options)
    return path


def content(data):
    """What a pack holds: {name: (captions, class or None, held out)}."""
    return {
        name: (
            data.captions_of(row),
            data.class_names[data.classes[row]] if data.class_names else None,
            bool(data.splits[row]),
        )
        for row, name in enumerate(names(data))
    }


def encoded(colour=(255, 0, 0), kind="PNG"):
    file = io.BytesIO()
    Image.new("RGB", (20, 20), colour).save(file, kind)
    return file.getvalue()


PNG = encoded()
SHARD = [  # members of a tar of 40 samples
    (f"{n}.{end}", encoded((9 * n, 0, 0)) if end == "png" else f"number {n}".encode())
    for n in range(40)
    for end in ("png", "txt")
]


def write(root, files):
    """Write files by name: bytes, text, or anything else as JSON."""
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        raw = data if isinstance(data, bytes) else data.encode() if isinstance(data, str) else json.dumps(data).encode()
        path.write_bytes(raw)
    return root


def tar_file(path, *entries, mode="w"):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as tar:
        for name, data in entries:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def zip_file(path, files):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        for name, data in files.items():
            made.writestr(name, data)
    return path


def captions(data):
    return {n: data.captions_of(row) for row, n in enumerate(bytes(data.extra("names")).decode().split("\n"))}


def source_of(tmp_path, files, images=0):
    """Write files of text or bytes, and images 0.png, 1.png ..., into a folder."""
    source = tmp_path / "mine"
    for name, data in {**files, **{f"{n}.png": PNG for n in range(images)}}.items():
        path = source / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.encode() if isinstance(data, str) else data)
    return source


def packed_folder(source, tmp_path, kind="folder", size=16, **options):
    """Prepare a folder: the data set and the report."""
    out = tmp_path / "out of the test"
    report = prepare.pack(kind, source, out, size=size, show_progress=False, **options)
    assert_all_accounted(report)
    return PackedDataset(out, verify=True), report


def cut(path, ending):
    picture(path, size=(64, 64))
    path.write_bytes(path.read_bytes()[:-ending])
