"""Archives and lists that nobody vouches for: each fault is named with its place, and nothing outside the source is read."""

import io
import json
import os
import struct
import tarfile

import pytest
from PIL import Image

import t2i
from promises import count
from t2i import prepare
from t2i.data.dataset import PackedDataset


def picture(colour=(255, 0, 0)):
    file = io.BytesIO()
    Image.new("RGB", (20, 20), colour).save(file, "PNG")
    return file.getvalue()


def write(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data if isinstance(data, bytes) else json.dumps(data).encode())
    return path


def everything(root):
    """Every path below a folder, with the size of files."""
    return {str(path): path.lstat().st_size if not path.is_dir() else None for path in root.rglob("*")}


# Tar shards.


def header(name=b"bad.png", size=b"00000000000", kind=b"0", prefix=b"", checksum=None, link=b""):
    """One header of 512 bytes, field by field, with a right checksum unless another is given."""
    fields = [
        name.ljust(100, b"\0"),
        b"0000644\0",
        b"0000000\0",
        b"0000000\0",
        size.ljust(12, b"\0"),
        b"00000000000\0",
        b" " * 8,
        kind,
        link.ljust(100, b"\0"),
        b"ustar\0" + b"00",
        bytes(32),
        bytes(32),
        bytes(8),
        bytes(8),
        prefix.ljust(155, b"\0"),
    ]
    block = b"".join(fields).ljust(512, b"\0")
    total = sum(block) if checksum is None else checksum
    return block[:148] + f"{total:06o}\0 ".encode() + block[156:]


def octal(number):
    return f"{number:011o}".encode()


def binary(number):
    """A size as GNU writes what octal digits cannot hold: a byte of 128 or 255, then a signed number."""
    return (b"\x80" if number >= 0 else b"\xff") + (number % 256**11).to_bytes(11, "big")


def member(name, data, **fields):
    return header(name, octal(len(data)), **fields) + data + bytes(-len(data) % 512)


def records(*pairs):
    """Pax records, each with its own length in front."""
    out = b""
    for key, value in pairs:
        body = b" " + key + b"=" + value + b"\n"
        length = len(body) + 1
        while len(str(length)) + len(body) != length:
            length += 1
        out += str(length).encode() + body
    return out


GOOD = member(b"good.png", picture()) + member(b"good.txt", b"a good one")
END = bytes(1024)
PAIR = member(b"bad.txt", b"a caption")


def pax(*pairs, body=None):
    return member(b"pax", records(*pairs) if body is None else body, kind=b"x")


# Name, what stands in the archive after a good sample, who must be named, and why.
TARS = {
    "a name of ..": (member(b"../bad.png", picture()) + member(b"../bad.txt", b"x"), "../bad.png", "leads out"),
    ".. in the middle": (member(b"a/../../bad.png", picture()), "a/../../bad.png", "leads out"),
    ".. behind a backslash": (member(b"..\\bad.png", picture()), "..\\bad.png", "leads out"),
    ".. in the prefix": (member(b"bad.png", picture(), prefix=b"../.."), "../../bad.png", "leads out"),
    ".. in a long name": (
        member(b"././@LongLink", b"../" * 200 + b"bad.png\0", kind=b"L") + member(b"x", b""),
        "../../",
        "leads out",
    ),
    ".. in a pax path": (pax((b"path", b"../bad.png")) + member(b"bad.png", picture()), "../bad.png", "leads out"),
    "an absolute name": (member(b"/tmp/t2i-bad.png", picture()), "/tmp/t2i-bad.png", "leads out"),
    "a drive": (member(b"C:\\bad.png", picture()), "C:\\bad.png", "leads out"),
    "a share": (member(b"\\\\server\\bad.png", picture()), "\\\\server", "leads out"),
    "no name": (member(b"", picture()), "", "no usable name"),
    "a NUL in a name": (pax((b"path", b"a\0.png")) + member(b"x", b""), "a\0.png", "no usable name"),
    "a name that is no text": (member(b"\xff\xfe.png", picture()), "\\udcff", "not UTF-8"),
    "a symbolic link": (header(b"bad.png", kind=b"2", link=b"/etc/passwd"), "bad.png", "a symbolic link"),
    "a link upwards": (header(b"bad.png", kind=b"2", link=b"../secret.png"), "bad.png", "a symbolic link"),
    "a hard link": (header(b"bad.png", kind=b"1", link=b"/etc/passwd"), "bad.png", "a hard link"),
    "a link with a size": (header(b"bad.png", octal(10**9), kind=b"2", link=b"x"), "bad.png", "a symbolic link"),
    "a character device": (header(b"bad.png", kind=b"3"), "bad.png", "a character device"),
    "a block device": (header(b"bad.png", kind=b"4"), "bad.png", "a block device"),
    "a pipe": (header(b"bad.png", kind=b"6"), "bad.png", "a pipe"),
    "a sparse file": (member(b"bad.png", picture(), kind=b"S"), "bad.png", "a sparse file"),
    "a sparse file by pax": (
        pax((b"GNU.sparse.size", b"99999999999")) + member(b"bad.png", b"x"),
        "bad.png",
        "a sparse",
    ),
    "an unknown kind": (member(b"bad.png", picture(), kind=b"Z"), "bad.png", "kind b'Z'"),
    "a volume's name": (header(b"bad", kind=b"V"), "bad", "kind b'V'"),
    "a negative size": (header(b"bad.png", binary(-1)) + picture(), "bad.png", "negative size: -1"),
    "a very negative size": (header(b"bad.png", binary(-(2**80))), "bad.png", "negative size"),
    "a huge size in octal": (header(b"bad.png", b"77777777777"), "bad.png", "the archive has 0 left"),
    "a huge size in binary": (header(b"bad.png", binary(2**80)), "bad.png", "the archive has 0 left"),
    "a size that wraps round": (header(b"bad.png", binary(2**64)), "bad.png", "the archive has 0 left"),
    "a huge size by pax": (pax((b"size", b"9" * 19)) + header(b"bad.png"), "bad.png", "the archive has 0 left"),
    "a negative size by pax": (pax((b"size", b"-5")) + header(b"bad.png"), "bad.png", "an impossible size"),
    "a size of letters": (header(b"bad.png", b"zzz"), "bad.png", "not octal"),
    "a wrong checksum": (header(b"bad.png", checksum=1), "byte ", "wrong header checksum"),
    "a long name of gigabytes": (header(b"L", octal(2**32), kind=b"L"), "L", "declares 4294967296 bytes"),
    "a long name of megabytes": (member(b"L", b"a" * (1 << 21), kind=b"L"), "L", "the limit is"),
    "pax records of length zero": (pax(body=b"0 path=x\n") + member(b"bad.png", b""), "pax", "broken extended header"),
    "pax records that run on": (pax(body=b"9999 path=x\n") + member(b"bad.png", b""), "pax", "broken extended header"),
    "pax records that are none": (pax(body=b"\xff" * 99) + member(b"bad.png", b""), "pax", "broken extended header"),
    "a cut body": (header(b"bad.png", octal(600)) + b"x" * 100, "bad.png", "declares 600 bytes"),
    "a cut header": (header(b"bad.png")[:100], "byte ", "so it was cut"),
    "no end": (b"", "byte ", "so it was cut"),
    "noise": (bytes(range(256)) * 2, "byte ", "not octal"),
    "a caption of megabytes": (
        member(b"bad.png", picture()) + member(b"bad.txt", b"x" * 3_000_000),
        "bad.png",
        "too large",
    ),
    "a caption that is no text": (member(b"bad.png", picture()) + member(b"bad.txt", b"\xff"), "bad.png", "not UTF-8"),
    "a picture that is none": (member(b"bad.png", b"no picture") + PAIR, "bad.png", "broken"),
    "a deep json": (member(b"bad.png", picture()) + member(b"bad.json", b"[" * 99_999), "bad.png", "broken .json"),
    "a bomb": (
        member(
            b"bad.png",
            b"\x89PNG\r\n\x1a\n"
            + struct.pack(">I", 13)
            + b"IHDR"
            + struct.pack(">IIBBBBB", 2**31 - 1, 2**31 - 1, 8, 2, 0, 0, 0)
            + struct.pack(">I", 0),
        )
        + PAIR,
        "bad.png",
        "broken|too large",
    ),
}


@pytest.mark.promise(13)
def test_hostile_tars_make_no_file_and_are_named(tmp_path, tally):
    assert len(TARS) >= count(13)
    (tmp_path / "secret.png").write_bytes(picture())
    for number, (name, (body, who, why)) in enumerate(tally(list(TARS.items()))):
        source = tmp_path / f"{number}"
        ending = b"" if name in ("a cut body", "a cut header", "no end") or "size" in name else END
        write(source / "shard.tar", GOOD + body + ending)
        before = everything(tmp_path)
        report = prepare.pack("webdataset", source, tmp_path / "out", size=16, show_progress=False, force=True)
        made = {path for path in everything(tmp_path) if path not in before}
        assert all(path.startswith(str(tmp_path / "out")) for path in made), name
        named = {str(place): reason for place, reason in report.skipped}
        found = [reason for place, reason in named.items() if place.startswith(f"{source / 'shard.tar'}: {who}")]
        assert any(part in reason for reason in found for part in why.split("|")), (name, named)
        data = PackedDataset(tmp_path / "out")
        assert bytes(data.extra("names")) == b"good.png", name


def test_tars_that_are_links_pipes_or_empty_are_named(tmp_path):
    outside = write(tmp_path / "outside" / "a.tar", GOOD + END)
    source = tmp_path / "mine"
    write(source / "good.tar", GOOD + END)
    write(source / "empty.tar", b"")
    (source / "link.tar").symlink_to(outside)
    os.mkfifo(source / "pipe.tar")
    report = prepare.pack("webdataset", source, tmp_path / "out", size=16, show_progress=False)
    assert report.images == 1
    assert {str(place).split("/")[-1]: reason for place, reason in report.skipped} == {
        "empty.tar: byte 0": "the archive is empty",
        "link.tar": "a link out of the source folder",
        "pipe.tar": "it is not a file",
    }


def test_a_compressed_tar_is_refused(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w:gz") as tar:
        tar.add(write(tmp_path / "x.png", picture()), "x.png")
    with pytest.raises(t2i.DataError, match="no captioned images"):
        prepare.pack("webdataset", tmp_path / "a.tar", tmp_path / "out", size=16)


# Lists: every kind of metadata, broken. `LINE` is the broken one, the third; the lines beside it must be kept.

LONG = "x" * 10_000_000
CSV = {
    "too few columns": ("good.png", "columns expected, got 1"),
    "too many columns": ("good.png,x,y,z", "columns expected, got 4"),
    "a caption of 10 MB": (f"good.png,{LONG}", "a line of over 2 MB"),
    "a long field": (f"good.png,{LONG[:200_000]}", "field larger than field limit"),
    "a caption of 65,537 bytes": (f"good.png,{LONG[:65_537]}", "a caption of over 65536 bytes"),
    "no caption": ("good.png,  ", "no captions"),
    "no path": (",a caption", "no path"),
    "a path upwards": ("../../etc/passwd,x", "leads out"),
    "a path to the secret": ("../secret.png,x", "leads out"),
    "an absolute path": ("/etc/passwd,x", "leads out"),
    "a link out": ("link.png,x", "leads out"),
    "a folder's link out": ("linked/secret.png,x", "leads out"),
    "no such image": ("missing.png,x", "no such image: missing.png"),
    "a folder": ("sub,x", "no such image: sub"),
    "a name of 5000": ("y" * 5000 + ".png,x", "no such image"),
    "a quote inside": ('"good.png"x,caption', "expected after"),
}
JSONL = {
    "a caption of 10 MB": (json.dumps({"file_name": "good.png", "text": LONG}), "a line of over 2 MB"),
    "a name of 10 MB": (json.dumps({"file_name": LONG, "text": "x"}), "a line of over 2 MB"),
    "a password": (json.dumps({"file_name": "../../etc/passwd", "text": "x"}), "leads out"),
    "no object": ("3", "broken line"),
    "a number": (json.dumps({"file_name": "good.png", "text": 7}), "a list of strings"),
}


def folder_with(tmp_path):
    """A source with one good picture, and round it everything that must not be read."""
    source = tmp_path / "mine"
    write(source / "good.png", picture())
    write(source / "sub" / "fine.png", picture())
    secret = write(tmp_path / "secret.png", picture((0, 0, 255)))
    (source / "link.png").symlink_to(secret)
    (source / "linked").symlink_to(tmp_path, target_is_directory=True)
    return source


def names(out):
    return set(bytes(PackedDataset(out).extra("names")).decode().split("\n"))


@pytest.mark.promise(14)
@pytest.mark.parametrize("case", CSV)
def test_a_broken_row_of_a_table_is_named_with_its_line(tmp_path, case):
    source, (line, why) = folder_with(tmp_path), CSV[case]
    write(source / "t.csv", f"file_name,text\ngood.png,one\n{line}\nsub/fine.png,two\n".encode())
    report = prepare.pack("csv", source / "t.csv", tmp_path / "out", size=16, show_progress=False)
    assert names(tmp_path / "out") == {"good.png", "sub/fine.png"}
    ((place, reason),) = report.skipped
    assert place == f"{source / 't.csv'}:3"
    assert why in reason
    assert len(reason) < 500


@pytest.mark.promise(14)
@pytest.mark.parametrize("case", JSONL)
def test_a_huge_or_hostile_line_of_metadata_is_named_with_its_line(tmp_path, case):
    source, (line, why) = folder_with(tmp_path), JSONL[case]
    rows = [json.dumps({"file_name": name, "text": "x"}) for name in ("good.png", "sub/fine.png")]
    write(source / "metadata.jsonl", f"{rows[0]}\n\n{line}\n{rows[1]}\n".encode())
    report = prepare.pack("folder", source, tmp_path / "out", size=16, show_progress=False)
    assert names(tmp_path / "out") == {"good.png", "sub/fine.png"}
    reasons = dict(report.skipped)
    assert why in reasons[f"{source / 'metadata.jsonl'}:3"]
    assert max(map(len, reasons.values())) < 500


COCO = {
    "an image without a name": ({"id": 3}, None, "images[2]", "no 'file_name'"),
    "an image that is a number": (7, None, "images[2]", "broken entry"),
    "an id that is a list": ({"id": [], "file_name": "good.png"}, None, "images[2]", "id must be a number"),
    "half a character": ({"id": 3, "file_name": "\ud83c.png"}, None, "images[2]", "surrogates"),
    "a name upwards": ({"id": 3, "file_name": "../secret.png"}, "x", "image 3", "leads out"),
    "an absolute name": ({"id": 3, "file_name": "/etc/passwd"}, "x", "image 3", "leads out"),
    "a link out": ({"id": 3, "file_name": "link.png"}, "x", "image 3", "leads out"),
    "no such image": ({"id": 3, "file_name": "y.png"}, "x", "image 3", "no such image: y.png"),
    "a caption that is a number": (
        {"id": 3, "file_name": "good.png"},
        7,
        "annotations[2]",
        "caption must be a string",
    ),
    "an empty caption": ({"id": 3, "file_name": "good.png"}, " ", "annotations[2]", "no captions"),
    "a caption of 10 MB": ({"id": 3, "file_name": "good.png"}, LONG, "annotations[2]", "over 65536 bytes"),
    "no caption": ({"id": 3, "file_name": "good.png"}, None, "image 3", "no captions"),
}


@pytest.mark.promise(14)
@pytest.mark.parametrize("case", COCO)
def test_a_broken_entry_of_coco_is_named_with_its_place(tmp_path, case):
    source, (image, caption, place, why) = folder_with(tmp_path), COCO[case]
    images = [{"id": 1, "file_name": "good.png"}, {"id": 2, "file_name": "sub/fine.png"}, image]
    annotations = [{"image_id": 1, "caption": "one"}, {"image_id": 2, "caption": "two"}]
    annotations += [] if caption is None else [{"image_id": 3, "caption": caption}]
    write(source / "captions_train.json", {"images": images, "annotations": annotations})
    report = prepare.pack("coco", source, tmp_path / "out", size=16, show_progress=False)
    assert names(tmp_path / "out") == {"good.png", "sub/fine.png"}
    assert why in dict(report.skipped)[f"{source / 'captions_train.json'}: {place}"]


@pytest.mark.promise(14)
@pytest.mark.parametrize(
    ("kind", "name", "content", "why"),
    [
        ("folder", "a.txt", LONG.encode(), "caption file of over 2 MB"),
        ("folder", "a.txt", b"\xff", "not UTF-8"),
        ("folder", "a.txt", None, "it is not a file"),  # a pipe: reading it would wait for ever
        ("folder", "metadata.jsonl", None, "it is not a file"),
        ("folder", "metadata.parquet", b"PAR1", "not a readable Parquet file"),
        ("csv", "t.csv", None, "it is not a file"),
        ("huggingface", "state.json", b'{"_data_files": [{"filename": "../x.arrow"}]}', "outside of its folder"),
        ("huggingface", "state.json", b'{"_data_files": [{"filename": "x.arrow"}]}', "no such file"),
        ("huggingface", "dataset_dict.json", b'{"splits": ["../.."]}', "outside of its folder"),
        ("huggingface", "dataset_dict.json", b"[]", "cannot be read"),
        ("stackgan", "train/filenames.pickle", b"\x80\x04]\x8c\x0b../../x.png\x94a.", "leads out|no captions"),
        ("cub", "CUB_200_2011/images.txt", b"1 ../../../secret.png\n", "leads out"),
    ],
)
def test_a_broken_list_is_named_and_nothing_outside_is_read(tmp_path, kind, name, content, why):
    source = folder_with(tmp_path)
    write(source / "a.png", picture())
    (source / "text_c10").mkdir()
    if content is None:
        os.mkfifo(source / name)
    else:
        write(source / name, content)
    if kind == "huggingface" and name == "state.json":
        pytest.importorskip("pyarrow")
    with pytest.raises(t2i.DataError) as caught:
        prepare.pack(kind, source, tmp_path / "out", size=16, show_progress=False)
    assert any(part in str(caught.value) for part in why.split("|")), str(caught.value)
    assert "\n" not in str(caught.value)
