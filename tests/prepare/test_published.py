"""Data sets as they are published, or as tools leave them: VizWiz, img2dataset on the Hub, YOLO, tables beside train/."""

import io
import json
import tarfile
import zipfile

import pytest
from PIL import Image

from t2i.errors import DataError
from t2i.prepare import SOURCES, Report, SourceOptions, pack


def encoded(number=0):
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (number * 20 % 256, 0, 200)).save(file, "PNG")
    return file.getvalue()


def fill(root, files):
    """Write files: bytes, text, or what becomes JSON; an image where there is none."""
    for number, (name, content) in enumerate(files.items()):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            content = encoded(number)
        elif not isinstance(content, (str, bytes)):
            content = json.dumps(content)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


def listed(kind, source, **options):
    """Return {name: (captions, held out)} and the report."""
    report = Report()
    items = list(SOURCES[kind](source, report, SourceOptions(**options)))
    found = {item.member or item.named or item.path.name: (list(item.captions), item.test) for item in items}
    assert len(found) == len(items)
    return found, report


def reasons(report):
    return [reason for _, reason in report.skipped]


def test_a_coco_file_of_images_without_captions_leaves_the_others_read(tmp_path):
    def content(number, split):
        return {
            "images": [{"id": number, "file_name": f"{split}_{number}.png"}],
            "annotations": [{"image_id": number, "caption": f"a {split}"}],
        }

    files = {f"annotations/{split}.json": content(n, split) for n, split in enumerate(("train", "val"))}
    files |= {"train/train_0.png": None, "val/val_1.png": None, "test/test_2.png": None}
    fill(tmp_path, files | {"annotations/test.json": {"images": [{"id": 2, "file_name": "test_2.png"}]}})
    found, report = listed("coco", tmp_path)
    assert found == {"train/train_0.png": (["a train"], False), "val/val_1.png": (["a val"], True)}
    assert reasons(report) == ["not read: it lists images without captions", "no line names it"]
    assert (report.account.images, report.account.read, report.account.skipped, report.account.files) == (2, 2, 2, 6)
    with pytest.raises(DataError, match="lists images without captions"):
        listed("coco", tmp_path / "annotations" / "test.json")


TABLE = "image,caption\n{},a kite\n"


@pytest.mark.parametrize(
    ("files", "images"),
    [  # a table, and what it means of the files beside it
        ({"train.csv": "1.png", "train/1.png": None, "test/1.png": None}, {"train/1.png": False}),
        ({"val.csv": "1.png", "train/1.png": None, "val_images/1.png": None}, {"val_images/1.png": True}),
        (
            {"captions_test.csv": "1.png", "images/test/1.png": None, "images/train/1.png": None},
            {"images/test/1.png": True},
        ),
        ({"kites.csv": "1.png", "kites/1.png": None, "boats/1.png": None}, {"kites/1.png": False}),
        ({"train.csv": "1.png", "1.png": None, "train/1.png": None}, {"1.png": False}),
        ({"train.csv": "1.png", "images/1.png": None, "train/1.png": None}, {"images/1.png": False}),
        ({"train.csv": "1.PNG", "train/1.png": None}, {"train/1.png": False}),
        ({"train.csv": "1.png", "test/1.png": None, "valid/1.png": None}, {}),
        ({"a.csv": "my%20kite%C3%A9.png", "my kite\u00e9.png": None}, {"my kite\u00e9.png": False}),
        ({"a.csv": "50%20.png", "50%20.png": None, "50 .png": None}, {"50%20.png": False}),
        ({"a.csv": "..%2F..%2Fa.png", "a.png": None}, {}),
    ],
)
def test_images_of_a_table_are_found_where_they_can_only_be_meant(tmp_path, files, images):
    fill(tmp_path / "x", {name: TABLE.format(text) if text else None for name, text in files.items()})
    found, report = listed("csv", tmp_path / "x")
    assert {name: test for name, (_, test) in found.items()} == images
    assert report.account.files == len(files)


def test_no_folder_is_suggested_where_several_have_the_name(tmp_path):
    files = {"a.csv": TABLE.format("1.png"), "left/1.png": None, "right/1.png": None}
    _, report = listed("csv", fill(tmp_path, files))
    assert reasons(report)[0] == "no such image: 1.png (there are left/1.png, right/1.png)"


@pytest.mark.parametrize("name", ["one", "ONE.PNG", "/home/ann/one.png", "C:\\data\\one.png", "./one.png"])
def test_the_users_folder_of_images_is_searched_like_the_source(tmp_path, name):
    fill(tmp_path / "elsewhere", {"one.png": None, "two.png": None})
    table = fill(tmp_path / "tables", {"a.jsonl": {"image": name, "caption": "a kite"}}) / "a.jsonl"
    found, report = listed("csv", table, images=tmp_path / "elsewhere")
    assert list(found) == ["one.png"], report.skipped


def test_the_longest_end_of_an_absolute_path_counts_since_its_folders_say_the_split(tmp_path):
    files = {"a.csv": "image,caption\n/content/x/test/1.png,a kite\n/content/x/train/2.png,a boat\n"}
    source = fill(tmp_path, files | {"test/1.png": None, "train/2.png": None, "train/1.png": None})
    found, _ = listed("csv", source, images=source / "train")
    assert found == {"test/1.png": (["a kite"], True), "train/2.png": (["a boat"], False)}


def test_the_folder_that_a_message_suggests_makes_the_command_work(tmp_path):
    source = fill(tmp_path, {"a.csv": TABLE.format("x/one"), "deep/er/x/one.png": None})
    _, report = listed("csv", source)
    [advice] = [reason for reason in reasons(report) if "--images" in reason]
    assert f"--images {source / 'deep' / 'er'}" in advice
    found, _ = listed("csv", source, images=source / "deep" / "er")
    assert found == {"x/one.png": (["a kite"], False)}
    _, report = listed("csv", fill(tmp_path / "url", {"a.csv": TABLE.format("http://a.org/p/1.png"), "i/1.png": None}))
    assert reasons(report)[0] == "no such image: http://a.org/p/1.png (there is i/1.png)"


def test_metadata_in_a_folder_may_name_images_from_the_top_of_the_source(tmp_path):
    files = {f"{split}/{number}.png": None for split in ("train", "test") for number in range(2)}
    for split in ("train", "test"):
        rows = [json.dumps({"file_name": f"{split}/{number}.png", "text": f"{split} {number}"}) for number in range(2)]
        files[f"{split}/metadata.jsonl"] = "\n".join(rows)
    found, _ = listed("folder", fill(tmp_path, files))
    assert found == {f"{s}/{n}.png": ([f"{s} {n}"], s == "test") for s in ("train", "test") for n in range(2)}


@pytest.mark.parametrize("place", ["at the top", "in a zip", "in data"])
def test_parquet_in_data_may_name_images_of_the_whole_repository(tmp_path, place):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    names = ["images/0.png", "images/1.png"]
    (tmp_path / "data").mkdir()
    for split, name in zip(("train", "test"), names, strict=True):
        parquet.write_table(
            pyarrow.table({"image": [name], "text": [split]}), tmp_path / "data" / f"{split}-00000-of-00001.parquet"
        )
    if place == "in a zip":
        with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
            for number, name in enumerate(names):
                archive.writestr(name, encoded(number))
    else:
        fill(tmp_path / "data" if place == "in data" else tmp_path, dict.fromkeys(names))
    found, report = listed("huggingface", tmp_path)
    start = "data/" if place == "in data" else ""
    assert found == {f"{start}{names[0]}": (["train"], False), f"{start}{names[1]}": (["test"], True)}
    assert report.skipped == []


@pytest.mark.parametrize("form", ["webdataset", "files"])
def test_a_repository_of_img2datasets_output_is_read_by_its_images_not_by_its_notes(tmp_path, form):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    for shard in ("00000", "00001"):
        files = {}
        for number in range(2):
            key = f"{shard}{number:04d}"
            files |= {f"{key}.png": None, f"{key}.txt": f"kite {key}", f"{key}.json": {"caption": f"kite {key}"}}
        fill(tmp_path / shard, files)
        if form == "webdataset":
            with tarfile.open(tmp_path / f"{shard}.tar", "w") as tar:
                for path in sorted((tmp_path / shard).iterdir()):
                    tar.add(path, path.name)
                    path.unlink()
            (tmp_path / shard).rmdir()
        notes = {"url": ["u", "u"], "caption": ["a", "b"], "status": ["success", "success"]}
        parquet.write_table(pyarrow.table(notes), tmp_path / f"{shard}.parquet")
        fill(tmp_path, {f"{shard}_stats.json": {"count": 2}})
    found, report = listed("huggingface", tmp_path)
    start = ("", "") if form == "webdataset" else ("00000/", "00001/")
    assert found == {
        f"{start[shard]}0000{shard}000{number}.png": ([f"kite 0000{shard}000{number}"], False)
        for shard in range(2)
        for number in range(2)
    }
    assert report.skipped == []


def test_a_data_set_saved_with_indices_is_refused_since_they_choose_its_rows(tmp_path):
    pytest.importorskip("pyarrow")
    state = {"_data_files": [{"filename": "dataset.arrow"}], "_indices_data_files": [{"filename": "indices.arrow"}]}
    with pytest.raises(DataError, match=r"flatten_indices\(\)"):
        listed("huggingface", fill(tmp_path, {"state.json": state}))


BOXES = "0 0.5 0.5 0.25 1\n12 0.1 0.2 0.3 0.4\n"


@pytest.mark.parametrize("labels", ["labels/train/{}.txt", "images/train/{}.txt"])
@pytest.mark.parametrize("captions", [True, False])
def test_boxes_of_yolo_are_no_captions_and_are_noted(tmp_path, labels, captions):
    files = {f"images/train/{number}.png": None for number in range(3)}
    files |= {labels.format(number): BOXES if number else "" for number in range(3)}
    files |= {f"captions/train/{number}.txt": f"kite {number}" for number in range(3) if captions}
    found, report = listed("folder", fill(tmp_path, files))
    assert found == ({f"images/train/{n}.png": ([f"kite {n}"], False) for n in range(3)} if captions else {})
    note = f"3 text files hold numbers of boxes and no captions, such as {labels.format(0)}: not read"
    assert report.notes == [note]
    assert report.account.files == len(files)


@pytest.mark.parametrize("text", ["7", "1 2 3 4 5", "0.5 0.5 0.5 0.5 0.5", "0 0.5 0.5 0.25 1\na kite", "5 0.5 m posts"])
def test_captions_of_numbers_are_captions(tmp_path, text):
    found, report = listed("folder", fill(tmp_path, {"a.png": None, "a.txt": text}))
    assert found == {"a.png": (text.split("\n"), False)}
    assert report.notes == []


@pytest.mark.parametrize("deeper", ["", "all/"])
@pytest.mark.parametrize("name", ["captions.csv", "captions.txt", "labels.json"])
def test_tables_in_folders_of_splits_are_read_where_none_is_at_the_top(tmp_path, name, deeper):
    files = {}
    for split in ("train", "valid"):
        rows = [{"image": f"{number}.png", "caption": f"{split} {number}"} for number in range(2)]
        table = "image,caption\n" + "".join(f"{row['image']},{row['caption']}\n" for row in rows)
        files[f"{deeper}{split}/{name}"] = rows if name.endswith("json") else table
        files |= {f"{deeper}{split}/{number}.png": None for number in range(2)}
    source = fill(tmp_path, files)
    found, report = listed("csv", source)
    wanted = {f"{deeper}{s}/{n}.png": ([f"{s} {n}"], s == "valid") for s in ("train", "valid") for n in range(2)}
    assert found == wanted
    assert report.skipped == []
    found, _ = listed("csv", fill(tmp_path, {f"{deeper}top.csv": TABLE.format("train/0.png")}))
    assert found == {f"{deeper}train/0.png": (["a kite"], False)}


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("captions.xlsx", "a spreadsheet; save it as CSV"),
        ("fashion_train.h5", "HDF5, which no reader knows"),
        ("b.tfrecord", "TFRecord"),
        ("train.tfrecord-00000-of-00010", "TFRecord"),
        ("train.lmdb/data.mdb", "LMDB"),
        ("images.zip.001", "a piece of an archive"),
        ("images.z01", "a piece of an archive"),
        ("images.part1.rar", "a piece of an archive"),
        ("images.tar.gz.aa", "a piece of an archive"),
        ("images.tar.gz.part-aa", "a piece of an archive"),
    ],
)
def test_stores_that_no_reader_knows_are_named_with_what_to_do(tmp_path, name, says):
    source = fill(tmp_path / "x", {"a.png": None, "a.txt": "a kite", name: b"PK\3\4" + bytes(600)})
    found, report = listed("folder", source)
    assert list(found) == ["a.png"]
    [reason] = reasons(report)
    assert reason.startswith(f"not read: {says}")
    with pytest.raises(DataError, match=says):
        pack("folder", fill(tmp_path / "y", {name: b"PK\3\4" + bytes(600)}), tmp_path / "pack", show_progress=False)


def test_arrays_beside_captions_of_their_name_are_not_worth_a_line(tmp_path):
    files = {
        "images/a.png": None,
        "text/a.txt": "a kite",
        "text/a.h5": b"x",
        "data.7z.png": None,
        "data.7z.txt": "a kite",
    }
    found, report = listed("folder", fill(tmp_path, files))
    assert list(found) == ["data.7z.png", "images/a.png"]
    assert report.skipped == []


@pytest.mark.parametrize("column", ["evaluation_status", "Usage", "set_name", "fold", "stage", "mode"])
def test_columns_of_splits_have_the_names_that_data_sets_give_them(tmp_path, column):
    rows = [("train", "a"), ("test", "b"), ("val", "c")]
    table = f"image,caption,{column}\n" + "".join(f"{name}.png,a kite,{split}\n" for split, name in rows)
    files = {f"{name}.png": None for _, name in rows}
    found, report = listed("csv", fill(tmp_path, files | {"list.csv": table}))
    assert {name: test for name, (_, test) in found.items()} == {"a.png": False, "b.png": True, "c.png": True}
    assert report.splits.notes() == []
    other = f"image,caption,{column}\na.png,a kite,latest run\nb.png,a kite,2\nc.png,a kite,public\n"
    found, report = listed("csv", fill(tmp_path, {"list.csv": other}))
    assert not any(test for _, test in found.values())
    assert report.splits.notes() == []
    fer = f"image,caption,{column}\na.png,a kite,Training\nb.png,a kite,PublicTest\nc.png,a kite,test\n"
    found, report = listed("csv", fill(tmp_path, {"list.csv": fer}))
    assert [test for _, test in found.values()] == [False, False, True]
    assert "'PublicTest'" in report.splits.notes()[0]


LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"


@pytest.mark.parametrize(
    ("kind", "files"),
    [
        ("folder", {"b.png": LFS, "b.txt": "a kite"}),
        ("folder", {"b.png": None, "b.txt": LFS}),
        ("folder", {"metadata.jsonl": LFS}),
        ("csv", {"list.csv": LFS}),
        ("csv", {"list.json": LFS}),
        ("parquet", {"train.parquet": LFS}),
    ],
)
def test_pointers_of_git_lfs_are_named_and_are_no_captions(tmp_path, kind, files):
    if kind == "parquet":
        pytest.importorskip("pyarrow")
    source = fill(tmp_path / "x", files)
    source = source / "list.json" if "list.json" in files else source
    with pytest.raises(DataError, match="git lfs pull"):
        pack(kind, source, tmp_path / "pack", show_progress=False)
