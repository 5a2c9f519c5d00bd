"""Formats, members of archives and names in zips that are not read, named with their reason."""

import io
import struct
import zipfile
import zlib

import pytest
from PIL import Image

import t2i
from helpers import packed
from source_files import PNG, captions, source_of, tar_file
from t2i.prepare.collect import SourceOptions
from t2i.prepare.kinds import image_kind


def encoded(kind):
    file = io.BytesIO()
    Image.new("P" if kind == "mapped TGA" else "RGB", (20, 20), 9).save(file, kind.removeprefix("mapped "))
    return file.getvalue()


UNREAD = ["TGA", "mapped TGA", "PCX", "SGI", "EPS", "ICNS", "DDS"]


@pytest.mark.parametrize("kind", UNREAD)
@pytest.mark.parametrize("source", ["folder", "csv", "webdataset"])
def test_an_image_of_a_format_that_is_not_read_is_named_with_it(kind, source, tmp_path):
    name = f"x.{kind[-4:].strip().lower()}"
    files = {"0.png": PNG, "0.txt": "good", name: encoded(kind), "x.txt": "a kite"}
    if source == "csv":
        files = {**files, "list.csv": f"file_name,text\n0.png,good\n{name},a kite\n"}
    place = source_of(tmp_path, files) if source != "webdataset" else tmp_path / "mine"
    if source == "webdataset":
        tar_file(
            place / "a.tar",
            *((name, data if isinstance(data, bytes) else data.encode()) for name, data in files.items()),
        )
    data, report = packed(source, place, tmp_path)
    assert captions(data) == {"0.png": ["good"]}
    said = {"ICNS": "icon", "EPS": "PostScript"}.get(kind, kind.removeprefix("mapped "))
    assert f"unsupported: {said} is not read; convert it to JPEG or PNG" in [reason for _, reason in report.skipped]


@pytest.mark.parametrize("source", ["folder", "webdataset"])
def test_an_index_that_begins_like_an_image_is_none(source, tmp_path):
    index = b"\0\0\2" + bytes(9) + b"\x20\0\x20\0\x20\x08" + bytes(30)
    files = {"0.png": PNG, "0.txt": b"good", "features.idx": index}
    place = source_of(tmp_path, files) if source == "folder" else tmp_path / "mine"
    if source == "webdataset":
        tar_file(place / "a.tar", *files.items())
    data, report = packed(source, place, tmp_path)
    assert captions(data) == {"0.png": ["good"]}
    assert [reason for _, reason in report.skipped] == ["no image in its sample"] * (source == "webdataset")
    assert image_kind(index) == "TGA"
    assert image_kind(index[:8] + b"\3\0\1\0" + index[12:]) is None  # a picture that lies beside its origin


@pytest.mark.parametrize("source", ["folder", "csv", "webdataset"])
def test_a_cameras_raw_file_is_not_taken_for_the_preview_in_it(source, tmp_path):
    file = io.BytesIO()
    Image.new("RGB", (20, 20)).save(file, "TIFF")
    files = {"0.png": PNG, "0.txt": b"good", "x.dng": file.getvalue(), "x.txt": b"a kite"}
    if source == "csv":
        files = {**files, "list.csv": b"file_name,text\n0.png,good\nx.dng,a kite\n"}
    place = source_of(tmp_path, files) if source != "webdataset" else tmp_path / "mine"
    if source == "webdataset":
        tar_file(place / "a.tar", *files.items())
    data, report = packed(source, place, tmp_path)
    assert captions(data) == {"0.png": ["good"]}
    assert any("a camera's raw file" in reason for _, reason in report.skipped)


def test_a_file_of_any_kind_with_a_caption_beside_it_is_named(tmp_path):
    files = {
        "0.png": PNG,
        "0.txt": "good",
        "0.bin": b"\0\1",
        "v.mp4": b"\0\0\0\x18ftypisom",
        "v.txt": "a kite",
        "w.mp4": b"\0",
    }
    _, report = packed("folder", source_of(tmp_path, files), tmp_path)
    assert report.skipped == [
        (str(tmp_path / "mine" / "v.mp4"), "no image of a known format, though v.txt may be its caption")
    ]
    assert dict(report.account.ignored) == {"of other kinds": 2, "text files without an image of the same name": 1}


@pytest.mark.parametrize(
    "data",
    [
        b"\0\0\2\0\1\0\x20\x20" + bytes(40),  # a cursor
        b"\0\0\1\xba" + bytes(40),  # MPEG
        bytes(18),
        b"\x0a\x0a\1\1 text",
        b"\1\xda",
        b"\0\0\2" + bytes(9) + b"\x14\0\x14\0\x20\xff",
    ],
)
def test_bytes_that_only_begin_like_an_image_are_none(data):
    assert image_kind(data) is None


SAMPLES = [(f"{n}.png", f"{n}.txt", f"{n}.cls") for n in range(4)]
ORDERS = {
    "one by one": [name for sample in SAMPLES for name in sample],
    "kind by kind": [name for kind in zip(*SAMPLES, strict=True) for name in kind],
    "texts first": [name for kind in zip(*SAMPLES, strict=True) for name in sorted(kind, reverse=True)][::-1],
    "any": ["0.png", "0.txt", "2.txt", "1.png", "1.cls", "0.cls", "2.cls", "3.cls", "2.png", "3.txt", "1.txt", "3.png"],
}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(
    ("name", "mode", "kept"), [("a.tar", "w", 99), ("a.tar.gz", "w:gz", 99), ("a.tar.gz", "w:gz", 0)]
)
def test_the_members_of_a_sample_may_stand_apart(order, name, mode, kept, tmp_path, monkeypatch):
    monkeypatch.setattr("t2i.prepare.sources.webdataset.MAX_WAITING_BYTES", kept)
    content = {
        kind: data
        for n in range(4)
        for kind, data in (
            (f"{n}.png", PNG),
            (f"{n}.txt", f"a kite, {n}".encode()),
            (f"{n}.cls", b"7" if n < 2 else b"8"),
        )
    }
    tar_file(tmp_path / "mine" / name, *((member, content[member]) for member in ORDERS[order]))
    data, report = packed("webdataset", tmp_path / "mine", tmp_path)
    assert captions(data) == {f"{n}.png": [f"a kite, {n}"] for n in range(4)}
    # Where image and text follow each other the sample is whole, and a class that comes later is not waited for.
    late = [(f"{tmp_path / 'mine' / name}: 0.cls", "no image in its sample")] if order == "any" else []
    assert report.skipped == late
    assert sorted(data.class_names) == ([] if late else ["7", "8"])


def test_what_stays_alone_in_a_shard_is_named(tmp_path):
    members = [
        ("0.png", PNG),
        ("1.txt", b"x"),
        ("2.png", PNG),
        ("2.txt", b"x"),
        ("0.cls", b"7"),
        ("0.png", PNG),
        ("2.txt", b"y"),
    ]
    tar_file(tmp_path / "mine" / "a.tar", *members)
    data, report = packed("webdataset", tmp_path / "mine", tmp_path)
    assert captions(data) == {"2.png": ["x"]}
    assert sorted((place.rpartition(": ")[2], reason) for place, reason in report.skipped) == [
        ("0.png", "a second member of this name in its sample"),
        ("0.png", "no captions: neither a .txt nor a .json in its sample"),
        ("1.txt", "no image in its sample"),
        ("2.txt", "no image in its sample"),
    ]


class Old(zipfile.ZipInfo):
    """A member as old programs write it: its name in some encoding, and no word of which."""

    encoding = "gbk"

    def _encodeFilenameFlags(self):  # noqa: N802
        return self.filename.encode(self.encoding), self.flag_bits & ~0x800


def old_zip(path, files, encoding="gbk", unicode_path=False):
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as made:
        for name, data in files.items():
            member = Old(name)
            member.encoding = encoding
            if unicode_path:
                field = b"\1" + struct.pack("<I", zlib.crc32(name.encode(encoding))) + name.encode()
                member.extra = struct.pack("<HH", 0x7075, len(field)) + field
            made.writestr(member, data)
    return path


CHINESE = {
    "花/乗.png": PNG,
    "花/乗.txt": "一只风筝",
    "鸟/二.png": PNG,
    "鸟/二.txt": "一只鸟",
}  # 乗 has a backslash in GBK


@pytest.mark.parametrize(
    ("encoding", "unicode_path", "options"),
    [
        ("gbk", False, SourceOptions(zip_names="gb18030")),
        ("gbk", True, SourceOptions()),
        ("utf-8", False, SourceOptions()),
        ("gbk", True, SourceOptions(zip_names="big5")),  # what the archive says itself comes first
    ],
)
def test_names_of_a_zip_are_read_where_their_encoding_is_known(encoding, unicode_path, options, tmp_path):
    source = old_zip(tmp_path / "a.zip", CHINESE, encoding, unicode_path)
    data, report = packed("folder", source, tmp_path, options=options)
    assert captions(data) == {"花/乗.png": ["一只风筝"], "鸟/二.png": ["一只鸟"]}
    assert set(data.class_names) == {"花", "鸟"}
    assert report.notes == report.skipped == []


def test_names_of_a_zip_of_unknown_encoding_are_noted_with_what_to_do(tmp_path):
    source = old_zip(tmp_path / "a.zip", {"花/一.png": PNG, "花/一.txt": "x", "b.png": PNG, "b.txt": "y"})
    _, report = packed("folder", source, tmp_path)
    assert report.notes[0] == (
        "a.zip does not say the encoding of its names; they are read as cp437, such as '╗¿/╥╗.png': --zip-names gb18030 "
        "would make that '花/一.png'"
    )
    source = old_zip(tmp_path / "b.zip", {"\xfc.png": PNG, "\xfc.txt": "x"}, "cp437")
    data, report = packed("folder", source, tmp_path)
    assert list(captions(data)) == ["\xfc.png"]
    assert "such as '\xfc.png': --zip-names" in report.notes[0]


def test_a_table_whose_images_have_other_names_in_a_zip_says_why(tmp_path):
    table = {"metadata.csv": "file_name,text\n花.png,a flower\n", "花.png": PNG}
    source = old_zip(tmp_path / "a.zip", table)
    with pytest.raises(t2i.DataError, match=r"--zip-names gb18030 would make that '花\.png'"):
        packed("folder", source, tmp_path)
    data, _ = packed("folder", source, tmp_path, options=SourceOptions(zip_names="gb18030"))
    assert captions(data) == {"花.png": ["a flower"]}
    place = source_of(tmp_path, {"metadata.csv": table["metadata.csv"]})  # images.zip beside its table
    old_zip(place / "images.zip", {"花.png": PNG})
    data, _ = packed("folder", place, tmp_path, options=SourceOptions(zip_names="gb18030"))
    assert captions(data) == {"花.png": ["a flower"]}


def test_a_name_that_is_not_of_the_encoding_given_is_named(tmp_path):
    source = old_zip(tmp_path / "a.zip", {"a.png": PNG, "a.txt": "x", "\xfc.png": PNG}, "latin-1")
    data, report = packed("folder", source, tmp_path, options=SourceOptions(zip_names="utf-8"))
    assert list(captions(data)) == ["a.png"]
    assert [reason for _, reason in report.skipped] == ["its name is not utf-8"]


@pytest.mark.parametrize("name", ["klingon", "hex", "utf-16"])
def test_an_encoding_of_names_that_is_none_is_refused(name, tmp_path):
    with pytest.raises(t2i.ConfigError, match=f"--zip-names must be an encoding, such as gb18030 or cp932, got {name}"):
        packed("folder", source_of(tmp_path, {}, 1), tmp_path, options=SourceOptions(zip_names=name))
    with pytest.raises(t2i.ConfigError, match="--zip-names has no effect on cub"):
        packed("cub", tmp_path / "mine", tmp_path, options=SourceOptions(zip_names="gb18030"))
