"""Splits: the words that hold images out, in every form of source, and the values that say no split."""

import io
import json

import pytest
from PIL import Image

from helpers import packed
from source_files import PNG, captioned, image, source_of, tar_file
from t2i.prepare.splits import split_of_file, split_of_folder, split_of_value

NAMES = ["test", "testing", "validation", "valid", "val", "dev", "eval", "evaluation"]


@pytest.mark.parametrize(
    ("value", "held_out"),
    [
        *((name, True) for name in NAMES),
        *((name, False) for name in ("train", "training", "Train", "TRAIN ", "restval", "trainval", "train2017")),
        *((name, True) for name in ("holdout", "heldout", "Held-Out", "my hold_out", "unseen", "val_unseen")),
        *((name, True) for name in ("Validation", " TEST", "val2014", "test-dev2015", "test_seen", "Val-1")),
        *((name, True) for name in ("测试", "测试集", "驗證集", "验证数据")),
        *((name, False) for name in ("训练", "訓練集", "训练用数据")),
        *((name, None) for name in ("验证码", "测试仪器", "风筝", "été")),
        *((name, None) for name in ("", "extra", "unlabeled", "contest", "train or test", "0", None, 3)),
    ],
)
def test_a_value_of_a_split_column_is_read_by_its_words(value, held_out):
    assert split_of_value(value) is held_out


@pytest.mark.parametrize(
    ("name", "held_out"),
    [
        *((name, True) for name in NAMES),
        *(
            (name, True)
            for name in ("Test", "VAL", "val2017", "test_set", "valImages", "test-images", "validation data")
        ),
        *((name, False) for name in ("train", "Training", "train2014", "training_set", "trainImages")),
        *(
            (name, None)
            for name in ("red", "test tubes", "crash test", "images", "valley", "developers", "train station")
        ),
        *((name, True) for name in ("测试集", "测试", "验证图片", "測試 圖片", "test_图片")),
        *((name, False) for name in ("训练", "訓練集", "训练用图片", "训练-1")),
        *((name, None) for name in ("验证码", "测试集以外", "训练营", "test 风筝", "test风筝", "val été", "图片")),
    ],
)
def test_a_folder_is_a_split_where_its_name_says_nothing_else(name, held_out):
    assert split_of_folder(name) is held_out


@pytest.mark.parametrize(
    ("name", "held_out"),
    [
        ("captions_val2014.json", True),
        ("test-00000-of-00001.parquet", True),
        ("cc3m-validation-0001.tar", True),
        ("dev.csv", True),
        ("my_eval_set.tsv", True),
        ("train.csv", False),
        ("captions_train2017.json", False),
        ("train_val.csv", None),
        ("list.csv", None),
        ("contest.csv", None),
        ("evaluations.csv", None),
        ("图片描述_测试集.csv", True),
        ("训练集描述.csv", False),
        ("验证码.csv", None),
    ],
)
def test_the_name_of_a_file_of_many_images_may_hold_a_split(name, held_out):
    assert split_of_file(name) is held_out


HELD_OUT = ["test", "testing", "valid", "Val", "dev", "eval", "evaluation", "validation", "val2014", "test_set"]


HELD_OUT += ["holdout", "held_out", "Hold-out"]


def folder_form(root, split):
    for name in ("train/a.png", f"{split}/b.png"):
        image(root / name)
        (root / name).with_suffix(".txt").write_text("x\n")
    return "folder"


def class_form(root, split):
    """The split below the class, as some have it."""
    for name in ("red/train/a.png", f"blue/{split}/b.png"):
        image(root / name)
        (root / name).with_suffix(".txt").write_text("x\n")
    return "folder"


def metadata_form(root, split):
    rows = [{"file_name": "a.png", "text": "x", "split": "train"}, {"file_name": "b.png", "text": "x", "Split": split}]
    for row in rows:
        image(root / row["file_name"])
    (root / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return "folder"


def table_form(root, split):
    image(root / "a.png"), image(root / "b.png")
    (root / "t.csv").write_text(f"image,caption,SPLIT\na.png,x,train\nb.png,x,{split}\n")
    return "csv"


def table_name_form(root, split):
    image(root / "a.png"), image(root / "b.png")
    (root / "train.csv").write_text("image,caption\na.png,x\n")
    (root / f"{split}.csv").write_text("image,caption\nb.png,x\n")
    return "csv"


def coco_form(root, split):
    for name, image_name in (("train", "a.png"), (split, "b.png")):
        image(root / "images" / image_name)
        record = {"images": [{"id": 1, "file_name": image_name}], "annotations": [{"image_id": 1, "caption": "x"}]}
        (root / "annotations").mkdir(exist_ok=True)
        (root / "annotations" / f"captions_{name}.json").write_text(json.dumps(record))
    return "coco"


def karpathy_form(root, split):
    rows = [
        {"filename": name, "split": part, "sentences": [{"raw": "x"}]}
        for name, part in (("a.png", "train"), ("b.png", split))
    ]
    image(root / "images" / "a.png"), image(root / "images" / "b.png")
    (root / "dataset_mine.json").write_text(json.dumps({"images": rows}))
    return "coco"


def tar_form(root, split):
    encoded = io.BytesIO()
    Image.new("RGB", (20, 20)).save(encoded, "PNG")
    tar_file(root / "train-000.tar", ("a.png", encoded.getvalue()), ("a.txt", b"x"))
    tar_file(root / f"{split}-000.tar", ("b.png", encoded.getvalue()), ("b.txt", b"x"))
    return "webdataset"


def parquet_form(root, split):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    encoded = io.BytesIO()
    Image.new("RGB", (20, 20)).save(encoded, "PNG")
    root.mkdir()
    parquet.write_table(
        pyarrow.table({"Image": [encoded.getvalue()] * 2, "Caption": ["x", "x"], "split": ["train", split]}),
        root / "a.parquet",
    )
    return "parquet"


FORMS = [
    folder_form,
    class_form,
    metadata_form,
    table_form,
    table_name_form,
    coco_form,
    karpathy_form,
    tar_form,
    parquet_form,
]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("split", HELD_OUT)
def test_every_name_of_a_held_out_split_is_read_in_every_source(tmp_path, form, split):
    data, report = packed(form(tmp_path / "mine", split), tmp_path / "mine", tmp_path)
    assert (report.train, report.test) == (1, 1)
    assert data.splits.tolist().count(1) == 1
    assert not {"train", split} & set(data.class_names)


def test_an_unknown_split_is_trained_on_and_said(tmp_path):
    source = tmp_path / "mine"
    image(source / "a.png"), image(source / "b.png")
    (source / "t.csv").write_text("image,text,split\na.png,x,secret\nb.png,y,secret\n")
    _, report = packed("csv", source, tmp_path)
    assert report.train == 2
    assert "2 rows have the split 'secret', which is no known name: read as training" in report.summary()


def test_a_source_that_is_all_held_out_says_so(tmp_path):
    source = tmp_path / "mine"
    image(source / "a.png")
    (source / "test.csv").write_text("image,text\na.png,x\n")
    assert "every image is held out" in packed("csv", source, tmp_path)[1].summary()


@pytest.mark.parametrize(("no", "yes"), [("f", "t"), ("N", "Y"), ("No", "Yes"), ("FALSE", "TRUE"), ("0.0", "1.0")])
def test_a_flag_is_read_as_databases_and_spreadsheets_write_it(no, yes, tmp_path):
    rows = "".join(f"{n}.png,thing {n},{yes if n == 2 else no}\n" for n in range(3))
    source = source_of(tmp_path, {"list.csv": f"file_name,text,is_test\n{rows}"}, images=3)
    data, report = packed("csv", source, tmp_path)
    assert data.splits.tolist() == [0, 0, 1]
    assert report.notes == []


@pytest.mark.parametrize("name", ["unseen", "household out", "out held", "hold"])
def test_what_no_split_says_for_sure_is_no_split(name):
    assert split_of_folder(name) is None
    assert name == "unseen" or split_of_value(name) is None


def parquet_rows(rows):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    file = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist([{"image": PNG, "text": "x", **row} for row in rows]), file)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["csv", "webdataset", "parquet"])
def test_a_value_that_says_no_split_is_named_whatever_the_column_and_the_source(kind, tmp_path):
    rows = [{"set": "1"}, {"set": "2"}, {"set": "2"}, {"set": "holdout"}]
    if kind == "csv":
        table = "".join(f"{n}.png,x,{row['set']}\n" for n, row in enumerate(rows))
        source = source_of(tmp_path, {"list.csv": f"file_name,text,set\n{table}"}, images=4)
    elif kind == "parquet":
        source = source_of(tmp_path, {"a.parquet": parquet_rows(rows)})
    else:
        source = tmp_path / "mine"
        samples = [
            ((f"{n}.png", PNG), (f"{n}.json", json.dumps({"text": "x", **row}).encode())) for n, row in enumerate(rows)
        ]
        tar_file(source / "a.tar", *(member for sample in samples for member in sample))
    data, report = packed(kind, source, tmp_path)
    assert sorted(data.splits.tolist()) == [0, 0, 0, 1]
    (note,) = report.notes
    what = "samples" if kind == "webdataset" else "rows"
    assert note.startswith(f"3 {what} have the set '1', '2', which is no known name: read as training")
    assert "table" not in note


@pytest.mark.parametrize("column", ["set", "subset", "phase"])
@pytest.mark.parametrize("kind", ["csv", "webdataset"])
def test_a_set_that_is_never_a_split_is_something_else(column, kind, tmp_path):
    sets = ["Base Set", "Jungle", "Fossil"]
    files = {"list.csv": f"file_name,text,{column}\n" + "".join(f"{n}.png,x,{name}\n" for n, name in enumerate(sets))}
    source = source_of(tmp_path, files, images=3) if kind == "csv" else tmp_path / "mine"
    if kind == "webdataset":
        for n, name in enumerate(sets):
            facts = json.dumps({"text": "x", column: name}).encode()
            tar_file(source / f"{n}.tar", (f"{n}.png", PNG), (f"{n}.json", facts))
    data, report = packed(kind, source, tmp_path)
    assert (data.splits.tolist(), report.notes) == ([0, 0, 0], [])


def test_many_values_that_say_no_split_are_one_line(tmp_path):
    rows = "".join(f"{n}.png,x,Lego {n},perhaps\n" for n in range(9))
    source = source_of(tmp_path, {"list.csv": f"file_name,text,partition,is_val\n{rows}"}, images=9)
    _, report = packed("csv", source, tmp_path)
    assert [note.partition(":")[0] for note in report.notes] == [
        "9 rows have the partition 'Lego 0', 'Lego 1', 'Lego 2', 'Lego 3', 'Lego 4' and 4 more, which is no known name",
        "9 rows have the is_val 'perhaps', which is neither true nor false",
    ]


def test_a_split_of_save_to_disk_that_has_no_known_name_is_named(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    files = {"dataset_dict.json": json.dumps({"splits": ["train", "holdout", "extra"]})}
    for split in ("train", "holdout", "extra"):
        stream = io.BytesIO()
        rows = pyarrow.table({"image": [PNG], "text": [split]})
        with pyarrow.ipc.new_stream(stream, rows.schema) as writer:
            writer.write_table(rows)
        files[f"{split}/data.arrow"] = stream.getvalue()
        files[f"{split}/state.json"] = json.dumps({"_data_files": [{"filename": "data.arrow"}]})
    data, report = packed("huggingface", source_of(tmp_path, files), tmp_path)
    assert data.splits.tolist() == [0, 1, 0]
    assert report.notes == ["no known names of splits, read as training: extra"]


def test_a_column_of_lists_is_no_split_and_no_reason_to_stop(tmp_path):
    source = source_of(tmp_path, {"a.parquet": parquet_rows([{"partition": ["a", "b"]}])})
    _, report = packed("parquet", source, tmp_path)
    assert (report.train, report.skipped) == (1, [])
    assert "which is no known name" in report.notes[0]


def test_a_chinese_source_loses_neither_splits_nor_classes(tmp_path):
    """Folders and columns are named as Chinese users name them: 训练集 is no class."""
    for split in ("训练集", "测试集"):
        for kind in ("红花", "白花"):
            captioned(tmp_path / "文件夹" / split / kind / "1.png", f"一朵{kind}")
    _, report = packed("folder", tmp_path / "文件夹", tmp_path)
    assert (report.train, report.test, report.classes) == (2, 2, 2)
    rows = ["文件名,描述,类别,划分"]
    for number, (kind, split) in enumerate([("红花", "训练"), ("白花", "测试"), ("红花", "训练")]):
        image(tmp_path / "表格" / "图片" / f"{number}.png")
        rows.append(f"{number}.png,一朵{kind},{kind},{split}")
    (tmp_path / "表格" / "列表.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    data, report = packed("csv", tmp_path / "表格", tmp_path)
    assert (report.train, report.test, sorted(data.class_names)) == (2, 1, ["白花", "红花"])
    for number in range(2):
        image(tmp_path / "并列" / "图片" / f"{number}.png")
        text = tmp_path / "并列" / "描述" / f"{number}.txt"
        text.parent.mkdir(parents=True, exist_ok=True)
        text.write_text(f"第{number}朵花", encoding="utf-8")
    data, _ = packed("folder", tmp_path / "并列", tmp_path)
    assert [data.captions_of(row) for row in range(2)] == [["第0朵花"], ["第1朵花"]]


@pytest.mark.parametrize(
    ("folders", "held_out", "classes"),
    [
        (["flowers_train", "flowers_test"], {"flowers_test"}, []),  # one class is none
        (["cats_train", "cats_val", "dogs_train", "dogs_val"], {"cats_val", "dogs_val"}, ["cats", "dogs"]),
        (["Cats-Train", "Cats-Test", "dogs"], {"Cats-Test"}, ["cats", "dogs"]),
        (["猫训练集", "猫测试集", "狗"], {"猫测试集"}, ["狗", "猫"]),
        (["sets/cifar10_train/cat", "sets/cifar10_test/cat"], {"sets/cifar10_test/cat"}, []),
        (["train/steam test", "val/steam test", "val/kite"], {"val/steam test", "val/kite"}, ["kite", "steam test"]),
        (["pregnancy test", "steam train"], set(), ["pregnancy test", "steam train"]),  # no twins: two things
        (["cats_test", "dogs_train"], set(), ["cats_test", "dogs_train"]),
        (["a/cats_test", "b/cats_train"], set(), ["a/cats_test", "b/cats_train"]),  # not beside each other
        (["scene1_train", "scene2_test"], set(), ["scene1_train", "scene2_test"]),
    ],
)
def test_folders_that_differ_in_a_split_alone_are_splits(folders, held_out, classes, tmp_path):
    for folder in folders:
        captioned(tmp_path / "source" / folder / "1.png", f"in {folder}")
    data, report = packed("folder", tmp_path / "source", tmp_path)
    found = {data.captions_of(row)[0].removeprefix("in ") for row in data.split("test")}
    assert (found, sorted(data.class_names)) == (held_out, classes)
    twins = [note for note in report.notes if "twin for training" in note]
    assert len(twins) == (bool(held_out) and not folders[0].startswith("train/"))


def test_a_table_of_images_in_folders_that_differ_in_a_split_alone_holds_out_one(tmp_path):
    rows = []
    for folder in ("kites_train", "kites_test"):
        image(tmp_path / "source" / folder / "1.png")
        rows.append(json.dumps({"file_name": f"{folder}/1.png", "text": f"in {folder}"}))
    (tmp_path / "source" / "list.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    data, report = packed("csv", tmp_path / "source", tmp_path)
    assert [data.captions_of(row) for row in data.split("test")] == [["in kites_test"]]
    assert "1 images are held out by folders such as kites_test, which have a twin for training" in report.notes
