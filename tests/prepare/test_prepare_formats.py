"""The formats that people have their pictures in: each read as its own tools write it, each broken in its own ways."""

import csv
import io
import json
import pickle
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image

import t2i
from helpers import assert_all_accounted
from t2i import prepare
from t2i.data.dataset import PackedDataset
from t2i.prepare.sources.pickles import load
from t2i.prepare.sources.tar import Fault, Member, members
from t2i.text.pretrained import encoder_file
from t2i.text.table import read_table

RED, GREEN, BLUE = (255, 0, 0), (0, 128, 0), (0, 0, 255)


def encoded(colour=RED, size=(24, 24), ending="png"):
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, "JPEG" if ending == "jpg" else ending)
    return file.getvalue()


def write(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data if isinstance(data, bytes) else json.dumps(data).encode())
    return path


def packed(kind, source, tmp_path, **options):
    report = prepare.pack(kind, source, tmp_path / "out of the test", size=16, show_progress=False, **options)
    assert_all_accounted(report)
    return PackedDataset(tmp_path / "out of the test", verify=True), report


def content(data):
    """What a pack holds: {name: (captions, class or None, split, pixel in the middle)}."""
    names = bytes(data.extra("names")).decode().split("\n")
    return {
        name: (
            data.captions_of(row),
            data.class_names[data.classes[row]] if data.class_names else None,
            int(data.splits[row]),
            tuple(data.read_images([row])[0, 8, 8].tolist()),
        )
        for row, name in enumerate(names)
    }


def reasons(report, source):
    return {str(place).removeprefix(f"{source}/"): why for place, why in report.skipped}


# COCO.


def coco_folder(root):
    """Two training pictures (one with two captions) and one of validation, as COCO's archives unpack."""
    images = [{"id": 7, "file_name": "a.png"}, {"id": 9, "file_name": "b.png"}]
    captions = [
        {"image_id": 9, "id": 1, "caption": "Green."},
        {"image_id": 7, "id": 2, "caption": " Red. "},
        {"image_id": 9, "id": 3, "caption": "More green."},
    ]
    write(root / "annotations" / "captions_train2014.json", {"images": images, "annotations": captions})
    last = {"images": [{"id": 1, "file_name": "c.png"}], "annotations": [{"image_id": 1, "caption": "Blue."}]}
    write(root / "annotations" / "captions_val2014.json", last)
    write(root / "train2014" / "a.png", encoded(RED))
    write(root / "train2014" / "b.png", encoded(GREEN))
    write(root / "val2014" / "c.png", encoded(BLUE))
    return root


def test_coco_reads_captions_by_id_and_takes_the_split_from_the_files_name(tmp_path):
    data, report = packed("coco", coco_folder(tmp_path / "coco"), tmp_path)
    assert content(data) == {
        "train2014/a.png": (["Red."], None, 0, RED),
        "train2014/b.png": (["Green.", "More green."], None, 0, GREEN),
        "val2014/c.png": (["Blue."], None, 1, BLUE),
    }
    assert report.skipped == []


def test_coco_reads_one_annotation_file_by_itself(tmp_path):
    source = coco_folder(tmp_path / "coco") / "annotations" / "captions_val2014.json"
    data, _ = packed("coco", source, tmp_path)
    assert list(content(data).values()) == [(["Blue."], None, 1, BLUE)]


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"3", b'{"images": 3, "annotations": []}', b"[" * 100_000])
def test_a_captions_file_that_is_none_is_named(tmp_path, text):
    write(tmp_path / "coco" / "captions_train.json", text)
    with pytest.raises(t2i.DataError, match=r"captions_train\.json must be COCO's captions"):
        packed("coco", tmp_path / "coco", tmp_path)


# Tables.


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", 'file_name,text\na.png,"One, two"\nb.png,Three\na.png,Four\n'),
        ("a.csv", 'Path,Caption\r\na.png,"One, two"\r\n\r\nb.png,Three\r\na.png,Four\r\n'),
        ("a.csv", 'a.png,"One, two"\nb.png,Three\na.png,Four\n'),  # no header
        ("a.csv", "image;caption\na.png;One, two\nb.png;Three\na.png;Four\n"),
        ("a.tsv", "caption\timage\nOne, two\ta.png\nThree\tb.png\nFour\ta.png\n"),
        ("a.csv", '\ufefffile_name,text\na.png,"One, two"\nb.png,Three\n./x/../a.png,Four\n'),
    ],
)
def test_a_table_of_paths_and_captions_is_read_with_whatever_header_and_delimiter(tmp_path, name, text):
    source = tmp_path / "mine"
    write(source / "a.png", encoded(RED))
    write(source / "b.png", encoded(BLUE))
    write(source / name, text.encode())
    for place in (source, source / name):
        data, report = packed("csv", place, tmp_path, force=True)
        assert content(data) == {
            "a.png": (["One, two", "Four"], None, 0, RED),
            "b.png": (["Three"], None, 0, BLUE),
        }
        assert report.skipped == []


def test_a_table_may_name_class_and_split(tmp_path):
    source = tmp_path / "mine"
    for name in "abc":
        write(source / f"{name}.png", encoded())
    text = "path,text,label,split\na.png,x,kite,train\nb.png,y,boat,validation\nc.png,z,kite,\n"
    write(source / "t.csv", text.encode())
    found = content(packed("csv", source, tmp_path)[0])
    assert {name: row[1:3] for name, row in found.items()} == {
        "a.png": ("kite", 0),
        "b.png": ("boat", 1),
        "c.png": ("kite", 0),
    }


# Tar shards.


def add(tar, name, data=b"", **fields):
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for field, value in fields.items():
        setattr(info, field, value)
    tar.addfile(info, io.BytesIO(data))


def tar_file(path, *entries, format=tarfile.GNU_FORMAT):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=format) as tar:
        for name, data in entries:
            add(tar, name, data)
    return path


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_shards_of_img2dataset_are_read_sample_by_sample(tmp_path, format):
    source = tmp_path / "shards"
    note = json.dumps({"caption": "from the json", "url": "elsewhere", "status": "success"}).encode()
    tar_file(
        source / "00000.tar",
        ("000000000.jpg", encoded(RED, ending="jpg")),
        ("000000000.json", note),
        ("000000000.txt", b"A red thing\n\nagain red"),
        ("000000001.json", note),
        ("000000001.png", encoded(GREEN)),
        ("d/000000001.webp", encoded(BLUE, ending="webp")),
        ("d/000000001.txt", "bl\u00fc".encode()),
        ("d/000000001.cls", b"boats\n"),
        format=format,
    )
    tar_file(source / "test" / "00001.tar", ("x.png", encoded(GREEN)), ("x.txt", b"held out"), format=format)
    data, report = packed("webdataset", source, tmp_path)
    found = content(data)
    assert {name: row[:3] for name, row in found.items()} == {
        "000000000.jpg": (["A red thing", "again red"], None, 0),
        "000000001.png": (["from the json"], None, 0),
        "d/000000001.webp": (["bl\u00fc"], None, 0),
        "x.png": (["held out"], None, 1),
    }
    assert np.abs(np.array(found["000000000.jpg"][3]) - RED).max() <= 3
    assert found["000000001.png"][3] == GREEN
    assert report.skipped == []


def test_nothing_is_written_but_the_pack(tmp_path):
    source = tar_file(tmp_path / "in" / "a.tar", ("a.png", encoded()), ("a.txt", b"one"))
    packed("webdataset", source, tmp_path)
    found = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert found == [
        "in/a.tar",
        "out of the test/pack.json",
        "out of the test/report.json",
        "out of the test/shard-00000.safetensors",
    ]


def test_samples_without_a_picture_or_a_caption_and_broken_pictures_are_named(tmp_path):
    source = tar_file(
        tmp_path / "a.tar",
        ("good.png", encoded()),
        ("good.txt", b"one"),
        ("lonely.txt", b"no picture"),
        ("silent.png", encoded()),
        ("blank.png", encoded()),
        ("blank.txt", b" \n"),
        ("cut.png", encoded()[:-20]),
        ("cut.txt", b"cut"),
        ("odd.png", encoded()),
        ("odd.json", b"{"),
        ("bytes.png", encoded()),
        ("bytes.txt", b"\xff\xfe"),
        ("old.bmp", encoded(BLUE, ending="bmp")),
        ("old.txt", b"left to pillow"),
        ("big.png", encoded(size=(500, 500))),
        ("big.txt", b"big"),
    )
    data, report = packed("webdataset", source, tmp_path, max_pixels=10_000)
    assert {name: row[0] for name, row in content(data).items()} == {
        "good.png": ["one"],
        "old.bmp": ["left to pillow"],
    }
    found = {place.removeprefix(f"{source}: "): why for place, why in report.skipped}
    assert set(found) == {"lonely.txt", "silent.png", "blank.png", "cut.png", "odd.png", "bytes.png", "big.png"}
    assert found["lonely.txt"] == "no image in its sample"
    assert found["cut.png"].startswith("broken: ")
    assert found["big.png"].startswith("too large: ")


def test_the_tar_reader_finds_what_pythons_does(tmp_path):
    rng = np.random.default_rng(0)
    names = ["plain.txt", "a" * 99, "b" * 100, "c/" * 60 + "deep.txt", "d" * 300, "\u00e9\U0001f33b.png", "empty"]
    for number, format in enumerate((tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)):
        entries = [(name, rng.bytes(int(rng.integers(0, 2000)))) for name in names[:-1]] + [("empty", b"")]
        path = tar_file(tmp_path / f"{number}.tar", *entries, format=format)
        found = list(members(path))
        with tarfile.open(path) as tar:
            wanted = [Member(member.name, member.offset_data, member.size) for member in tar]
        assert found == wanted
        data = path.read_bytes()
        assert [data[m.offset : m.offset + m.size] for m in found] == [body for _, body in entries]


def test_a_tar_cut_anywhere_says_so(tmp_path):
    path = tar_file(tmp_path / "a.tar", ("a.txt", b"x" * 700), ("b.txt", b"y"))
    whole = path.read_bytes()
    end = 512 + 1024 + 512 + 512  # headers and bodies; a mark of the end follows
    for length in range(0, end, 97):
        path.write_bytes(whole[:length])
        assert isinstance(list(members(path))[-1], Fault), length
    path.write_bytes(whole[: end + 512])
    assert [type(member) for member in members(path)] == [Member, Member]


# Parquet and Hugging Face.


def test_parquet_with_pictures_inside_is_read(tmp_path):
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    note = {"info": {"features": {"label": {"names": ["kite", "boat"], "_type": "ClassLabel"}}}}
    colours = [RED, GREEN, BLUE, RED, GREEN]
    rows = pa.table(
        {
            "image": [{"bytes": encoded(colour), "path": None} for colour in colours],
            "text": [f"Picture {number}" for number in range(5)],
            "label": [0, 1, 0, 1, 0],
        }
    ).replace_schema_metadata({"huggingface": json.dumps(note)})
    source = tmp_path / "set"
    source.mkdir()
    pq.write_table(rows, source / "train-00000-of-00001.parquet", row_group_size=2)
    bare = pa.table({"jpg": [encoded(BLUE), None, b"no picture"], "caption": [["One", "Two"], ["x"], ["y"]]})
    pq.write_table(bare, source / "test-00000-of-00001.parquet")
    write(source / "odd.parquet", b"PAR1 but no more")
    pq.write_table(pa.table({"text": ["x"]}), source / "words.parquet")
    data, report = packed("parquet", source, tmp_path)
    found = content(data)
    assert [found[f"train-00000-of-00001.parquet:{row}"] for row in range(5)] == [
        ([f"Picture {row}"], None, 0, colour) for row, colour in enumerate(colours)
    ]
    assert found["test-00000-of-00001.parquet:0"] == (["One", "Two"], None, 1, BLUE)
    named = reasons(report, source)
    assert named["test-00000-of-00001.parquet: test-00000-of-00001.parquet:1"] == "broken: the row has no image"
    assert named["test-00000-of-00001.parquet: test-00000-of-00001.parquet:2"].startswith("broken: ")
    assert "cannot be used" in named["odd.parquet"]
    assert "no column of images" in named["words.parquet"]
    only, _ = packed("parquet", source / "train-00000-of-00001.parquet", tmp_path, force=True)
    assert [row[1] for row in content(only).values()] == ["kite", "boat", "kite", "boat", "kite"]


def save_to_disk(pa, folder, texts, colours, batch):
    """Write what datasets.Dataset.save_to_disk does: state.json, and an Arrow stream of record batches."""
    folder.mkdir(parents=True)
    pictures = pa.array([{"bytes": encoded(colour), "path": f"{n}.png"} for n, colour in enumerate(colours)])
    table = pa.table({"image": pictures, "text": texts})
    with pa.ipc.new_stream(folder / "data-00000-of-00001.arrow", table.schema) as stream:
        stream.write_table(table, max_chunksize=batch)
    write(folder / "state.json", {"_data_files": [{"filename": "data-00000-of-00001.arrow"}], "_split": None})
    write(folder / "dataset_info.json", {})


def test_data_sets_that_save_to_disk_wrote_are_read(tmp_path):
    pa = pytest.importorskip("pyarrow")
    source = tmp_path / "saved"
    save_to_disk(pa, source / "train", ["One", "Two", "Three"], [RED, GREEN, BLUE], batch=2)
    save_to_disk(pa, source / "test", ["Four"], [BLUE], batch=2)
    write(source / "dataset_dict.json", {"splits": ["train", "test"]})
    data, report = packed("huggingface", source, tmp_path)
    assert list(content(data).values()) == [
        (["One"], None, 0, RED),
        (["Two"], None, 0, GREEN),
        (["Three"], None, 0, BLUE),
        (["Four"], None, 1, BLUE),
    ]
    assert report.skipped == []
    single, _ = packed("huggingface", source / "train", tmp_path, force=True)
    assert len(single) == 3


@pytest.mark.parametrize("kind", ["folder", "huggingface"])
@pytest.mark.parametrize("form", ["jsonl", "csv", "parquet"])
def test_image_folders_of_hugging_face_take_all_three_kinds_of_metadata(tmp_path, kind, form):
    source = tmp_path / "mine"
    write(source / "train" / "a.png", encoded(RED))
    write(source / "test" / "b.png", encoded(BLUE))
    for split, name in (("train", "a.png"), ("test", "b.png")):
        rows = [{"file_name": name, "text": f"A {split} picture"}]
        path = source / split / f"metadata.{form}"
        if form == "jsonl":
            write(path, rows[0])
        elif form == "csv":
            with open(path, "w", newline="") as file:
                csv.DictWriter(file, ["file_name", "text"]).writerows(
                    [{"file_name": "file_name", "text": "text"}, *rows]
                )
        else:
            pytest.importorskip("pyarrow.parquet").write_table(
                pytest.importorskip("pyarrow").Table.from_pylist(rows), path
            )
    data, report = packed(kind, source, tmp_path)
    assert content(data) == {
        "test/b.png": (["A test picture"], None, 1, BLUE),
        "train/a.png": (["A train picture"], None, 0, RED),
    }
    assert report.skipped == []


def test_without_pyarrow_one_line_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    write(tmp_path / "a.parquet", b"")
    with pytest.raises(t2i.ConfigError, match=r"pip install 't2i\[parquet\]'"):
        packed("parquet", tmp_path / "a.parquet", tmp_path)


# The pickles of StackGAN, AttnGAN and DF-GAN.

BIRDS = ["001.Albatross/bird_1", "002.Auklet/bird_2"]


def stackgan_folder(root, protocol=2):
    arrays = [np.full((76, 76, 3), colour, np.uint8) for colour in (RED, GREEN)]
    vectors = [np.full((2, 5), number, np.float32) for number in range(2)]
    for name, value in (("filenames", BIRDS), ("76images", arrays), ("char-CNN-RNN-embeddings", vectors)):
        write(root / "train" / f"{name}.pickle", pickle.dumps(value, protocol))
    for name in BIRDS:
        write(root / "text" / f"{name}.txt", f"{name[:3]} first\n{name[:3]} second\n".encode())
    return root


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_stackgans_pickles_are_read_with_their_embeddings(tmp_path, protocol):
    data, report = packed("stackgan", stackgan_folder(tmp_path / "birds", protocol), tmp_path)
    assert content(data) == {
        BIRDS[0]: (["001 first", "001 second"], "001.Albatross", 0, RED),
        BIRDS[1]: (["002 first", "002 second"], "002.Auklet", 0, GREEN),
    }
    assert torch.equal(
        read_table(encoder_file(str(data.path)), data), torch.tensor([0.0, 0, 1, 1])[:, None].expand(4, 5)
    )
    assert data.extra("embeddings").tolist() == [[[0.0] * 5] * 2, [[1.0] * 5] * 2]
    assert report.skipped == []


def test_attngans_captions_of_numbers_and_the_original_pictures_are_read(tmp_path):
    source = tmp_path / "birds"
    words = {0: "<end>", 1: "red", 2: "bird", 3: "green"}
    captions = [[[1, 2], [2, 1], [3, 2], [3]], [[2], [2, 2]], words, {word: n for n, word in words.items()}]
    write(source / "captions.pickle", pickle.dumps(captions, 2))
    write(source / "train" / "filenames.pickle", pickle.dumps(BIRDS, 2))
    write(source / "test" / "filenames.pickle", pickle.dumps(["003.Crow/bird_3"], 2))
    for name, colour in zip([*BIRDS, "003.Crow/bird_3"], (RED, GREEN, BLUE), strict=True):
        write(source / "CUB_200_2011" / "images" / f"{name}.jpg", encoded(colour))
    data, _ = packed("stackgan", source, tmp_path)
    assert [row[:3] for row in content(data).values()] == [
        (["red bird", "bird red"], "001.Albatross", 0),
        (["green bird", "green"], "002.Auklet", 0),
        (["bird", "bird bird"], "003.Crow", 1),
    ]


class Runs:
    """A pickle that runs a program when it is loaded."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def hostile_pickles(marker):
    return {
        "a system call": pickle.dumps(Runs(__import__("os").system, f"touch {marker}")),
        "an evaluation": pickle.dumps(Runs(eval, f"open({str(marker)!r}, 'w')")),
        "an opened file": pickle.dumps(Runs(open, str(marker), "w")),
        "an import": pickle.dumps(Runs(__import__, "os")),
        "getattr": pickle.dumps(Runs(getattr, [], "append")),
        "another class of numpy": pickle.dumps(np.ma.MaskedArray),
        "an array by a call": b"cnumpy\nndarray\n((I1000000000000\nltR.",
        "an empty array of any size": b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I99999999999\ntS'b'\ntR.",
        "a function's defaults": b"c_codecs\nencode\n(dS'__defaults__'\n(S'x'\ntsb.",
        "a long claim": b"\x80\x04\x8e" + (1 << 62).to_bytes(8, "little") + b"x.",
        "a number of many digits": b"L" + b"7" * 100_000 + b"L\n.",
        "cut": pickle.dumps(list(range(100)))[:-10],
        "empty": b"",
        "no pickle": b"filenames",
        "an outside object": b"Pelsewhere\n.",
        "an extension": b"\x80\x02\x82\x01.",
        "a dtype with fields": pickle.dumps(np.zeros(2, [("a", "O")])),
    }


@pytest.mark.parametrize("name", hostile_pickles("x"))
def test_a_pickle_that_does_anything_else_is_refused_and_not_run(tmp_path, name):
    marker = tmp_path / "marker"
    write(tmp_path / "birds" / "train" / "filenames.pickle", hostile_pickles(marker)[name])
    with pytest.raises(t2i.DataError, match=r"filenames\.pickle") as caught:
        packed("stackgan", tmp_path / "birds", tmp_path)
    assert not marker.exists()
    assert "\n" not in str(caught.value)


def test_a_pickle_cannot_make_the_loader_fill_a_table_of_four_thousand_million_places(tmp_path):
    path = write(tmp_path / "a.pickle", b"\x80\x02]r\xff\xff\xff\xff.")
    assert load(path) == []  # Python's C loader would ask for 64 GB first


def test_lists_that_do_not_fit_each_other_are_named(tmp_path):
    source = stackgan_folder(tmp_path / "birds")
    write(source / "train" / "76images.pickle", pickle.dumps([np.zeros((76, 76, 3), np.uint8)], 2))
    with pytest.raises(t2i.DataError, match=r"76images\.pickle must have a row for each of the 2 names"):
        packed("stackgan", source, tmp_path)


def test_names_that_lead_out_and_embeddings_that_are_none_are_reported(tmp_path):
    source = stackgan_folder(tmp_path / "birds")
    write(tmp_path / "secret.txt", b"outside\n")
    names = [BIRDS[0], "../../secret", BIRDS[1]]
    arrays = [np.full((76, 76, 3), 7, np.uint8)] * 2 + [np.zeros((76, 76), np.uint8)]
    vectors = [np.zeros((2, 5), np.float32), np.zeros((1, 5), np.float32), np.full((2, 5), np.nan, np.float32)]
    for name, value in (("filenames", names), ("76images", arrays), ("char-CNN-RNN-embeddings", vectors)):
        write(source / "train" / f"{name}.pickle", pickle.dumps(value, 2))
    data, report = packed("stackgan", source, tmp_path)
    assert list(content(data)) == [BIRDS[0]]
    assert [why for _, why in report.skipped] == [
        "leads out of the source folder",
        "embeddings must be finite numbers (2, T), got (2, 5)",
    ]


def test_shards_are_read_on_windows_which_has_no_pread(tmp_path, monkeypatch):
    monkeypatch.delattr("os.pread", raising=False)
    source = tar_file(tmp_path / "in" / "a.tar", ("a.png", encoded(GREEN)), ("a.txt", b"one"))
    assert content(packed("webdataset", source, tmp_path)[0]) == {"a.png": (["one"], None, 0, GREEN)}
