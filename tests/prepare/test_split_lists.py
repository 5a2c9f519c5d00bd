"""Splits that lists beside the captions say: class lists, CUB's train_test_split.txt, and Flickr8k's lists of images."""

import io
import json
import zipfile

import pytest
from PIL import Image

import t2i
from helpers import packed
from t2i import prepare
from t2i.data.dataset import PackedDataset
from t2i.prepare.collect import SourceOptions

CLASSES = ("001.Albatross", "002.Auklet", "003.Gull")
PIXELS = io.BytesIO()
Image.new("RGB", (20, 20), (200, 30, 30)).save(PIXELS, "JPEG")
JPEG = PIXELS.getvalue()


def write(root, files):
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data if isinstance(data, bytes) else data.encode())
    return root


def layout(kind, root, lists):
    """Write an image of each of three classes, and lists beside them."""
    files = dict(lists)
    for number, name in enumerate(CLASSES, 1):
        files[f"text_c10/{name}/{number}.txt"] = "a bird\n"
        files[f"jpg/{number}.jpg" if kind == "oxford102" else f"CUB_200_2011/images/{name}/{number}.jpg"] = JPEG
    if kind == "cub":
        files["CUB_200_2011/images.txt"] = "".join(f"{i} {name}/{i}.jpg\n" for i, name in enumerate(CLASSES, 1))
    return write(root, files)


def held_out(data):
    names = bytes(data.extra("names")).decode().split("\n")
    return {name.rpartition("/")[2] for name, split in zip(names, data.splits.tolist(), strict=True) if split}


LISTS = {
    "test classes": ({"testclasses.txt": "003.Gull\n", "trainvalclasses.txt": "001.Albatross\n"}, {"3.jpg"}, []),
    "training and validation": (
        {"trainclasses.txt": "001.Albatross\n003.Gull\n", "valclasses.txt": "002.Auklet\n"},
        {"2.jpg"},
        ["no usable testclasses.txt: all classes but those of trainclasses.txt are held out"],
    ),
    "training alone": (
        {"trainclasses.txt": "002.Auklet\n"},
        {"1.jpg", "3.jpg"},
        ["no usable testclasses.txt: all classes but those of trainclasses.txt are held out"],
    ),
    "training with validation": (
        {"trainvalclasses.txt": "001.Albatross\n002.Auklet\n", "valclasses.txt": "002.Auklet\n"},
        {"3.jpg"},
        ["no usable testclasses.txt: all classes but those of trainvalclasses.txt are held out"],
    ),
    "all in training with validation": (
        {"trainvalclasses.txt": "\n".join(CLASSES), "valclasses.txt": "002.Auklet\n"},
        {"2.jpg"},
        ["no usable testclasses.txt: the classes of valclasses.txt are held out"],
    ),
    "validation alone": (
        {"valclasses.txt": "002.Auklet\n"},
        {"2.jpg"},
        ["no usable testclasses.txt: the classes of valclasses.txt are held out"],
    ),
    "numbers": (
        {"testclasses.txt": "2\n3\n"},
        set(),
        [
            "2 names in testclasses.txt match no class, such as '2'; the classes have names such as '001.Albatross'",
            "no usable testclasses.txt: nothing is held out",
        ],
    ),
    "one of them a number": (
        {"testclasses.txt": "2\n003.Gull\n"},
        {"3.jpg"},
        ["1 names in testclasses.txt match no class, such as '2'; the classes have names such as '001.Albatross'"],
    ),
    "none": ({}, set(), ["no usable testclasses.txt: nothing is held out"]),
}


@pytest.mark.parametrize("kind", ["oxford102", "cub"])
@pytest.mark.parametrize("case", LISTS)
def test_class_lists_say_what_is_held_out_or_the_report_says_that_nothing_is(tmp_path, kind, case):
    lists, wanted, notes = LISTS[case]
    data, report = packed(kind, layout(kind, tmp_path / "source", lists), tmp_path)
    assert held_out(data) == wanted
    assert report.notes == notes
    assert report.skipped == []


@pytest.mark.parametrize(
    ("lists", "wanted", "notes"),
    [
        ({}, {"1.jpg", "3.jpg"}, ["no usable testclasses.txt: 2 images are held out by train_test_split.txt"]),
        ({"testclasses.txt": "002.Auklet\n"}, {"2.jpg"}, []),
        (
            {"CUB_200_2011/train_test_split.txt": "1 0\n2 1\n"},
            {"1.jpg"},
            [
                "no usable testclasses.txt: 1 images are held out by train_test_split.txt",
                "1 images are not in train_test_split.txt: read as training",
            ],
        ),
    ],
)
def test_cubs_own_split_is_read_where_no_class_list_is(tmp_path, lists, wanted, notes):
    source = layout("cub", tmp_path / "source", {"CUB_200_2011/train_test_split.txt": "1 0\n2 1\n3 0\n"} | lists)
    data, report = packed("cub", source, tmp_path)
    assert (held_out(data), report.notes) == (wanted, notes)


def test_a_list_that_cannot_be_read_is_refused_by_name(tmp_path):
    source = layout("cub", tmp_path / "source", {"CUB_200_2011/train_test_split.txt": "1 0\n2 yes\n3 0\n"})
    with pytest.raises(t2i.DataError, match=r"train_test_split.txt must hold 0 and 1, got 'yes'"):
        packed("cub", source, tmp_path)
    (source / "testclasses.txt").mkdir()
    with pytest.raises(t2i.DataError, match=r"testclasses.txt \(list of classes\): it is not a file"):
        packed("cub", source, tmp_path)


@pytest.mark.parametrize("kind", ["oxford102", "cub"])
def test_a_file_in_place_of_the_folder_of_captions_is_refused(tmp_path, kind):
    source = write(tmp_path, {"text_c10": "x", "jpg/1.jpg": JPEG, "images.txt": "1 a/1.jpg\n"})
    with pytest.raises(t2i.DataError, match=r"text_c10 must be a folder \(captions\)"):
        packed(kind, source, tmp_path)


def test_stackgan_without_test_says_that_nothing_is_held_out(tmp_path):
    files = {"train/filenames.pickle": b"\x80\x02]q\x00X\x03\x00\x00\x00a/1q\x01a.", "images/a/1.jpg": JPEG}
    data, report = packed("stackgan", write(tmp_path / "source", files | {"text/a/1.txt": "x"}), tmp_path)
    assert len(data) == 1
    assert "no test/filenames.pickle: nothing is held out" in report.notes


def flickr8k(root):
    """Write Flickr8k_text as it is in the archive, and a folder of the images."""
    names = [f"{number}_ab.jpg" for number in range(5)]
    rows = [(name, number) for name in names for number in range(2)]
    text = {
        "Flickr8k.token.txt": "".join(
            f"{name}#{number}\tA girl is climbing stairs {number} .\n" for name, number in rows
        ),
        "Flickr8k.lemma.token.txt": "".join(
            f"{name}#{number}\tA girl be climb stair {number} .\n" for name, number in rows
        ),
        "CrowdFlowerAnnotations.txt": "".join(f"{name}\t1_ab.jpg#2\t0.3333333333333333\t1\t2\n" for name in names),
        "ExpertAnnotations.txt": "".join(f"{name}\t1_ab.jpg#2\t1\t1\t2\n" for name in names),
        "Flickr_8k.trainImages.txt": "0_ab.jpg\n1_ab.jpg\n",
        "Flickr_8k.devImages.txt": "2_ab.jpg\n",
        "Flickr_8k.testImages.txt": "3_ab.jpg\n",
        "readme.txt": "The data set\n",
    }
    write(root / "Flicker8k_Dataset", dict.fromkeys(names, JPEG))
    return write(root / "Flickr8k_text", text), root / "Flicker8k_Dataset"


def test_flickr8k_is_read_as_published_with_its_split_and_without_its_lemmas(tmp_path):
    text, images = flickr8k(tmp_path)
    out, options = tmp_path / "out", SourceOptions(images=images)
    report = prepare.pack("csv", text, out, size=16, show_progress=False, options=options)
    data = PackedDataset(out)
    assert [data.captions_of(row) for row in range(5)] == [[f"A girl is climbing stairs {i} ." for i in (0, 1)]] * 5
    assert held_out(data) == {"2_ab.jpg", "3_ab.jpg"}
    lists = "Flickr_8k.devImages.txt, Flickr_8k.testImages.txt, Flickr_8k.trainImages.txt"
    assert report.notes == [
        "2 images are held out by Flickr_8k.devImages.txt, Flickr_8k.testImages.txt",
        f"1 images are not found in {lists}, which leaves their split as it is",
    ]
    assert report.skipped == [
        (str(text / "Flickr8k.lemma.token.txt"), "not read: the lemmatised captions of a table beside it")
    ]
    (text / "Flickr8k.token.txt").unlink()
    prepare.pack("csv", text, out, size=16, show_progress=False, options=options, force=True)
    data = PackedDataset(out)
    assert data.captions_of(0) == ["A girl be climb stair 0 .", "A girl be climb stair 1 ."]


@pytest.mark.parametrize("kind", ["folder", "csv"])
@pytest.mark.parametrize(
    ("lists", "wanted", "notes"),
    [
        ({"train.txt": "0.jpg\n", "test.txt": "im/1.jpg\r\n./im/2.jpg\n\n"}, {"1.jpg", "2.jpg"}, 1),
        ({"test.txt": "/home/ann/im/1.jpg\n"}, {"1.jpg"}, 2),  # and two that are in none
        ({"train.txt": "0.jpg\n1.jpg\n2.jpg\n", "val.txt": "1.jpg\n9.jpg\n"}, {"1.jpg"}, 2),  # and one of no image
        ({"test.txt": "9.jpg\n"}, set(), 3),
        ({"test.txt": "how to test\n1.jpg\n"}, set(), 0),  # no list of images
        ({"names.txt": "1.jpg\n"}, set(), 0),  # of no split
    ],
)
def test_lists_of_the_images_of_a_split_are_read(tmp_path, kind, lists, wanted, notes):
    files = {f"im/{number}.jpg": JPEG for number in range(3)}
    if kind == "folder":
        files |= {f"im/{number}.txt": f"kite {number}" for number in range(3)}
    else:
        files["captions.csv"] = "file_name,text\n" + "".join(f"im/{number}.jpg,kite {number}\n" for number in range(3))
    data, report = packed(kind, write(tmp_path / "source", files | lists), tmp_path)
    assert held_out(data) == wanted
    assert len([note for note in report.notes if ".txt" in note]) == notes
    assert report.skipped == []


def test_a_list_of_training_images_takes_back_nothing_that_is_held_out(tmp_path):
    files = {"t.csv": "file_name,text,split\n0.jpg,kite 0,test\n1.jpg,kite 1,train\n2.jpg,kite 2,train\n"}
    files |= {"train.txt": "0.jpg\n1.jpg\n", "test.txt": "1.jpg\n"} | {f"{number}.jpg": JPEG for number in range(3)}
    data, _ = packed("csv", write(tmp_path / "source", files), tmp_path)
    assert held_out(data) == {"0.jpg", "1.jpg"}


def test_a_name_that_is_in_two_folders_is_taken_by_its_path(tmp_path):
    files = {
        f"{folder}/{number}.{kind}": JPEG if kind == "jpg" else "x"
        for folder in "ab"
        for number in range(2)
        for kind in ("jpg", "txt")
    }
    files["test.txt"] = "a/1.jpg\n0.jpg\n"
    data, _ = packed("folder", write(tmp_path / "source", files), tmp_path)
    names = bytes(data.extra("names")).decode().split("\n")
    assert [name for name, split in zip(names, data.splits.tolist(), strict=True) if split] == ["a/1.jpg"]


ROWS = [json.dumps({"file_name": f"{number}.jpg", "text": f"kite {number}"}) for number in range(3)]
CSV = "file_name,text\n0.jpg,kite 0\n1.jpg,kite 1\n"


@pytest.mark.parametrize(
    ("tables", "images", "skipped"),
    [
        ({"train.json": f"[{ROWS[0]}, {ROWS[1]}]", "test.json": f"[{ROWS[2]}]"}, 3, set()),
        ({"train.jsonl": f"{ROWS[0]}\n{ROWS[1]}", "test.jsonl": ROWS[2]}, 3, set()),
        ({"train.csv": CSV, "test.jsonl": ROWS[2]}, 3, set()),
        ({"train.csv": CSV, "test.json": f"[{ROWS[2]}]", "val.jsonl": ""}, 3, set()),
        ({"train.json": f"[{ROWS[0]}, {ROWS[1]}]", "test.json": f"[{ROWS[2]}]", "dataset_info.json": "{}"}, 3, set()),
        # The same captions in another form are read once.
        ({"train.csv": CSV, "train.jsonl": f"{ROWS[0]}\n{ROWS[1]}"}, 2, {"train.jsonl", "2.jpg"}),
        ({"list.csv": CSV, "list.json": f"[{ROWS[0]}, {ROWS[1]}]"}, 2, {"list.json", "2.jpg"}),
        ({"list.csv": CSV, "test.json": f"[{ROWS[1]}]"}, 2, {"test.json", "2.jpg"}),
    ],
)
def test_a_folder_of_tables_may_hold_json_and_one_kind_for_each_split(tmp_path, tables, images, skipped):
    source = write(tmp_path / "source", tables | {f"{number}.jpg": JPEG for number in range(3)})
    data, report = packed("csv", source, tmp_path)
    assert len(data) == images
    assert all(len(data.captions_of(row)) == 1 for row in range(images))
    assert held_out(data) == ({"2.jpg"} if images == 3 else set())
    assert {place for place, _ in report.skipped} == {str(source / name) for name in skipped}


KARPATHY = json.dumps({"images": [{"filename": "0.jpg", "sentences": [{"raw": "x"}], "split": "test"}]})


def test_karpathys_form_is_found_in_the_only_folder_of_a_source(tmp_path):
    source = write(tmp_path / "source", {"coco/dataset_coco.json": KARPATHY, "coco/images/0.jpg": JPEG})
    archive = tmp_path / "coco.zip"
    for depth, message in (
        ("", None),
        ("deep/", "t2i-prepare coco deep/coco/dataset_coco.json .once the archive is unpacked"),
    ):
        with zipfile.ZipFile(archive, "w") as made:
            for file in (file for file in source.rglob("*") if file.is_file()):
                made.write(file, depth + file.relative_to(source).as_posix())
        if message is None:
            for place in (source, archive):
                data, report = packed("coco", place, tmp_path)
                assert (held_out(data), report.skipped) == ({"0.jpg"}, [])
        else:  # and where it is not, no command is suggested that cannot work
            with pytest.raises(t2i.DataError, match=message):
                packed("coco", archive, tmp_path)


ROWS = "file_name,text\n" + "".join(f"train/00{number}.jpg,kite {number}\n" for number in range(6))


@pytest.mark.parametrize("kind", ["folder", "csv"])
@pytest.mark.parametrize(
    "lists",
    [
        {"test.txt": "test/000.jpg\ntest/001.jpg\n"},  # other images of the source
        {
            "train.txt": "".join(f"00{n}.jpg\n" for n in range(6)),
            "test.txt": "000.jpg\n001.jpg\n",
        },  # by their own folders
    ],
)
def test_a_list_of_other_images_holds_out_none_of_the_same_name(tmp_path, kind, lists):
    files = {f"{split}/00{number}.jpg": JPEG for split, count in (("train", 6), ("test", 2)) for number in range(count)}
    files |= {"train.csv": ROWS} if kind == "csv" else {f"train/00{n}.txt": f"kite {n}" for n in range(6)}
    data, _ = packed(kind, write(tmp_path / "source", files | lists), tmp_path)
    assert data.images == 6
    assert held_out(data) == set()


def test_lists_that_hold_out_every_image_are_not_used_and_training_lists_are_not_said_to_hold_out(tmp_path):
    files = {f"{number}.jpg": JPEG for number in range(3)} | {f"{number}.txt": f"kite {number}" for number in range(3)}
    names = "0.jpg\n1.jpg\n2.jpg\n"
    data, report = packed("folder", write(tmp_path / "yolo", files | {"train.txt": names, "val.txt": names}), tmp_path)
    assert held_out(data) == set()
    assert report.notes == ["val.txt would hold out every image: not used"]
    data, report = packed("folder", write(tmp_path / "one", files | {"train.txt": names}), tmp_path / "b")
    assert held_out(data) == set()
    assert report.notes == []


def test_tables_of_another_kind_are_read_for_a_missing_split_alone(tmp_path):
    rows = {split: f"file_name,text\n{number}.jpg,kite {number}\n" for number, split in enumerate(("train", "test"))}
    lines = {
        f"{s}_captions.jsonl": f'{{"file_name": "{n}.jpg", "text": "again"}}\n' for n, s in enumerate(("train", "test"))
    }
    files = {"train.csv": rows["train"], "test.csv": rows["test"], "0.jpg": JPEG, "1.jpg": JPEG} | lines
    files |= {"test_predictions.json": '[{"image": "1.jpg", "caption": "predicted"}]'}
    data, _ = packed("csv", write(tmp_path / "both", files), tmp_path)
    assert sorted(data.captions_of(row) for row in range(2)) == [["kite 0"], ["kite 1"]]
    assert held_out(data) == {"1.jpg"}


def test_lists_beside_a_table_that_is_read_alone_are_named_with_the_command_that_reads_them(tmp_path):
    text, images = flickr8k(tmp_path)
    options = SourceOptions(images=images)
    note = "not read beside a single table: Flickr_8k.devImages.txt, Flickr_8k.testImages.txt"
    table = text / "Flickr8k.token.txt"
    report = prepare.pack("csv", table, tmp_path / "one", size=16, options=options, show_progress=False)
    [found] = [said for said in report.notes if said.startswith(note)]
    assert "ExpertAnnotations" not in found
    assert found.endswith(f"; t2i-prepare csv {text} reads them")
    assert report.test == 0
    report = prepare.pack("csv", text, tmp_path / "whole", size=16, options=options, show_progress=False)
    assert report.test == 2
    assert not any(said.startswith(note) for said in report.notes)


def test_images_of_another_folder_are_counted_beside_the_files_of_the_source(tmp_path):
    write(tmp_path / "tables", {"a.csv": "image,text\n1.jpg,a kite\n"})
    file = io.BytesIO()
    Image.new("RGB", (20, 20)).save(file, "JPEG")
    write(tmp_path / "photographs", {"1.jpg": file.getvalue()})
    options = SourceOptions(images=tmp_path / "photographs")
    report = prepare.pack("csv", tmp_path / "tables", tmp_path / "out", size=16, options=options, show_progress=False)
    assert "1 files in the source: 0 images packed" in report.summary()
    assert report.summary().endswith("; 1 images packed from another folder")
