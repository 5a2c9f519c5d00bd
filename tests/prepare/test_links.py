"""Links in a source: refused where they lead out, followed where the user says so, and never round for ever."""

import io
import pickle
import tarfile

import pytest
from PIL import Image

from helpers import call, packed
from t2i.errors import DataError
from t2i.prepare.collect import SourceOptions
from t2i.prepare.tree import OUT

FOLLOW = SourceOptions(follow_links=True)


@pytest.fixture
def store(tmp_path):
    """A store of three pictures elsewhere, and a source of links to it: two files, and a folder with one more."""
    place, source = tmp_path / "store", tmp_path / "source"
    (place / "more").mkdir(parents=True)
    source.mkdir()
    for number, name in enumerate(("a.png", "b.png", "more/c.png")):
        Image.new("RGB", (20, 20), (80 * number, 0, 0)).save(place / name)
        (place / name).with_suffix(".txt").write_text(f"picture {number}")
    for name in ("a.png", "a.txt", "b.png", "b.txt"):
        (source / name).symlink_to(place / name)
    (source / "more").symlink_to(place / "more")
    return source


def test_without_the_flag_links_out_are_refused_and_the_flag_is_named(store, tmp_path):
    with pytest.raises(DataError, match="5 links are not followed: --follow-links reads what they lead to"):
        packed("folder", store, tmp_path)
    Image.new("RGB", (20, 20)).save(store / "own.png")
    (store / "own.txt").write_text("a picture of its own")
    data, report = packed("folder", store, tmp_path)
    assert len(data) == 1
    assert any("5 links are not followed" in note for note in report.notes)


def test_with_it_what_they_lead_to_is_packed(store, tmp_path):
    data, report = packed("folder", store, tmp_path, options=FOLLOW)
    assert sorted(data.captions_of(image)[0] for image in range(len(data))) == ["picture 0", "picture 1", "picture 2"]
    assert report.skipped == []
    assert not any("links" in note for note in report.notes)


def test_a_link_to_a_folder_above_is_not_followed_round(store, tmp_path):
    (store / "loop").symlink_to(store)
    data, report = packed("folder", store, tmp_path, options=FOLLOW)
    assert len(data) == 3
    assert [reason for _, reason in report.skipped] == ["a link to a folder that is read already"]


def test_a_table_may_name_what_a_link_leads_to(store, tmp_path):
    (store / "captions.csv").write_text("file,caption\na.png,one\nb.png,two\nmore/c.png,three\n../store/a.png,four\n")
    for name in ("a.txt", "b.txt"):
        (store / name).unlink()
    data, report = packed("csv", store / "captions.csv", tmp_path, options=FOLLOW)
    assert sorted(data.captions_of(image)[0] for image in range(len(data))) == ["one", "three", "two"]
    assert len(report.skipped) == 1  # a name that leads out is no link


def test_the_flag_of_the_command(store, tmp_path):
    code, out, err = call("t2i-prepare", "folder", store, "--out", tmp_path / "p", "--size", 16, "--follow-links")
    assert code == 0, err
    assert "3 images, 3 captions" in out


# Published layouts, whose files are read by name: nothing in them may lead out either.

PIXELS = io.BytesIO()
Image.new("RGB", (20, 20), (200, 30, 30)).save(PIXELS, "JPEG")
LAYOUTS = {  # kind: the folders of images, the folder of captions, and the lists beside them
    "oxford102": ("jpg", "text_c10", {"testclasses.txt": b"b\n"}),
    "cub": ("CUB_200_2011/images", "text_c10", {"CUB_200_2011/images.txt": b"1 a/1.jpg\n2 a/2.jpg\n3 b/3.jpg\n"}),
    "stackgan": ("images", "text", {"train/filenames.pickle": pickle.dumps(["a/1", "a/2", "b/3"], 2)}),
}


def layout(kind, root):
    """Write three images of two classes as `kind` has them; returns the source, its images, its captions and its lists."""
    images, texts, lists = LAYOUTS[kind]
    files = dict(lists)
    for name in ("a/1", "a/2", "b/3"):
        files[f"{images}/{name if kind != 'oxford102' else name[2:]}.jpg"] = PIXELS.getvalue()
        files[f"{texts}/{name}.txt"] = f"own {name}\n".encode()
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    pictures = [name for name in files if name.endswith(".jpg")]
    captions = [name for name in files if name.endswith(".txt") and name.startswith(texts)]
    return root, pictures, captions, list(lists)


def move_out(source, name):
    """Move a file or folder of the source elsewhere, and leave a link to it."""
    place = source.parent / "elsewhere" / name
    place.parent.mkdir(parents=True, exist_ok=True)
    (source / name).rename(place)
    (source / name).symlink_to(place)


@pytest.mark.promise(14)
@pytest.mark.parametrize("kind", LAYOUTS)
def test_a_published_layout_reads_no_image_and_no_captions_through_a_link_out(tmp_path, kind):
    source, pictures, captions, _ = layout(kind, tmp_path / "source")
    move_out(source, pictures[0])
    move_out(source, captions[1])
    data, report = packed(kind, source, tmp_path)
    assert [data.captions_of(row) for row in range(len(data))] == [["own b/3"]]
    reasons = dict(reversed(report.skipped))
    assert reasons[str(source / pictures[0])] == reasons[str(source / captions[1])] == OUT
    assert any("2 links are not followed" in note for note in report.notes)
    data, report = packed(kind, source, tmp_path, options=FOLLOW)
    assert (len(data), report.skipped) == (3, [])


@pytest.mark.promise(14)
@pytest.mark.parametrize(
    ("kind", "name"),
    [
        *((kind, folder) for kind, (images, texts, _) in LAYOUTS.items() for folder in (images, texts)),
        ("cub", "CUB_200_2011"),
        ("stackgan", "train"),
        *((kind, name) for kind, (_, _, lists) in LAYOUTS.items() for name in lists),
    ],
)
def test_a_published_layout_reads_no_folder_and_no_list_through_a_link_out(tmp_path, kind, name):
    source, *_ = layout(kind, tmp_path / "source")
    move_out(source, name)
    with pytest.raises(DataError, match=r"--follow-links|leads out of the source folder"):
        packed(kind, source, tmp_path)
    data, report = packed(kind, source, tmp_path, options=FOLLOW)
    assert (len(data), report.skipped) == (3, [])


@pytest.mark.parametrize("kind", LAYOUTS)
@pytest.mark.parametrize("options", [SourceOptions(), FOLLOW])
def test_a_published_layout_may_be_put_together_from_links_inside_of_the_source(tmp_path, kind, options):
    source, *_ = layout(kind, tmp_path / "source")
    for folder in LAYOUTS[kind][:2]:
        (source / "archives" / folder).parent.mkdir(parents=True, exist_ok=True)
        (source / folder).rename(source / "archives" / folder)
        (source / folder).symlink_to(source / "archives" / folder)
    data, report = packed(kind, source, tmp_path, options=options)
    assert len(data) == 3  # and `packed` sees that all are in the account
    assert not any("no line names it" in reason or "followed" in reason for _, reason in report.skipped)
    assert not any("followed" in note for note in report.notes)


@pytest.mark.promise(14)
@pytest.mark.parametrize("name", ["state.json", "data.arrow"])
def test_a_saved_data_set_is_not_read_through_a_link_out(tmp_path, name):
    pyarrow = pytest.importorskip("pyarrow")
    source = tmp_path / "source"
    source.mkdir()
    table = pyarrow.table({"image": [PIXELS.getvalue()], "text": ["one"]})
    with pyarrow.ipc.new_stream(str(source / "data.arrow"), table.schema) as stream:
        stream.write_table(table)
    (source / "state.json").write_text('{"_data_files": [{"filename": "data.arrow"}]}')
    move_out(source, name)
    with pytest.raises(DataError, match=r"leads out of the source folder|--follow-links"):
        packed("huggingface", source, tmp_path)
    assert len(packed("huggingface", source, tmp_path, options=FOLLOW)[0]) == 1


@pytest.mark.parametrize("follow", [True, False])
@pytest.mark.parametrize("kind", ["folder", "csv", "webdataset", "parquet", "oxford102"])
def test_a_link_to_itself_is_named_and_hides_nothing_beside_it(tmp_path, kind, follow):
    source = tmp_path / "source"
    if kind == "oxford102":
        layout(kind, source)
    (source / "images").mkdir(parents=True)
    (source / "images" / "0.jpg").write_bytes(PIXELS.getvalue())
    (source / "images" / "0.txt").write_text("own")
    if kind == "csv":
        (source / "list.csv").write_text("file_name,text\n0.jpg,own\n")
    if kind == "webdataset":
        with tarfile.open(source / "0.tar", "w") as tar:
            for name in ("0.jpg", "0.txt"):
                tar.add(source / "images" / name, name)
    if kind == "parquet":
        pyarrow = pytest.importorskip("pyarrow.parquet")
        table = pytest.importorskip("pyarrow").table({"image": [PIXELS.getvalue()], "text": ["own"]})
        pyarrow.write_table(table, source / "0.parquet")
    (source / "self").symlink_to("self")
    data, report = packed(kind, source, tmp_path, options=SourceOptions(follow_links=follow))
    assert data.captions_of(0)[0].startswith("own")
    assert len([reason for place, reason in report.skipped if place == str(source / "self")]) == 1
    if kind == "csv":  # and as a table on its own, of which the folder is not listed
        assert len(packed(kind, source / "list.csv", tmp_path)[0]) == 1


def test_an_image_in_a_given_folder_inside_of_the_source_is_in_the_account(store, tmp_path):
    (store / "images of mine").mkdir()
    (store / "images of mine" / "a.png").write_bytes(PIXELS.getvalue())
    (store / "list.csv").write_text("file,caption\na.png,one\n")
    for name in ("a.png", "a.txt", "b.png", "b.txt", "more"):
        (store / name).unlink()
    data, report = packed("csv", store, tmp_path, options=SourceOptions(images=store / "images of mine"))
    assert (len(data), report.skipped) == (1, [])
