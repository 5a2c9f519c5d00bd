"""The real inputs beside the checkout, ../shared/cases: packed to what each README expects, or refused with what it says."""

import shutil
import subprocess

import pytest

import t2i
from helpers import SHARED, assert_all_accounted
from t2i import prepare
from t2i.prepare.collect import SourceOptions

CASES = SHARED.parent / "cases"
pytestmark = pytest.mark.skipif(not CASES.is_dir(), reason="../shared/cases is not on this machine")

# Case, kind, source: (images, captions, classes, test), and what the report must say.
PACKED = {
    ("01-unknown-endings", "folder", "pictures"): ((6, 6, 0, 0), "p6.heic: unsupported: HEIC is not read"),
    ("03-val-folder", "folder", "pictures"): ((5, 5, 0, 2), ""),
    **{
        ("03-val-folder", "folder", f"pictures-{name}"): ((4, 4, 0, 1), "")
        for name in ("testing", "valid", "eval", "dev")
    },
    ("04-hub-cache", "huggingface", "datasets--you--squares/snapshots/0123abc"): ((3, 3, 0, 0), ""),
    ("04-hub-cache", "folder", "datasets--you--squares/snapshots/0123abc"): ((3, 3, 0, 0), ""),
    ("04-hub-cache", "huggingface", "datasets--you--parquet/snapshots/0123abc"): ((3, 3, 0, 0), ""),
    ("07-mac-zip", "folder", "pictures"): ((3, 3, 0, 0), "0 skipped, 11 ignored (11 hidden"),
    ("08-dots-in-names", "webdataset", "parts"): ((3, 3, 0, 0), ""),
    ("08-dots-in-names", "webdataset", "stereo"): ((3, 3, 0, 0), "s002.right.jpg: a second image of its sample"),
    ("08-dots-in-names", "webdataset", "imgcap"): ((3, 3, 0, 0), ""),
    ("09-tar-gz", "webdataset", "mixed"): ((6, 6, 0, 0), ""),
    ("09-tar-gz", "webdataset", "one.tgz"): ((3, 3, 0, 0), ""),
    ("09-tar-gz", "webdataset", "shards"): ((3, 3, 0, 0), ""),
    ("10-table-beside-images-folder", "csv", "flickr/captions.txt"): ((3, 3, 0, 0), ""),
    ("10-table-beside-images-folder", "csv", "flickr/captions.csv"): ((3, 3, 0, 0), ""),
    ("11-pipe-table", "csv", "flickr30k/results.csv"): ((3, 6, 0, 0), ""),
    ("13-caption-files", "folder", "pictures"): ((3, 3, 0, 0), ""),
    ("13-caption-files", "folder", "doubled"): ((3, 3, 0, 0), ""),
    ("16-misnamed-metadata", "folder", "metadata-json"): ((3, 3, 0, 0), ""),
    ("16-misnamed-metadata", "csv", "metadata-json1/metadata.json1"): ((3, 3, 0, 0), ""),
    ("16-misnamed-metadata", "csv", "captions-jsonl/captions.jsonl"): ((3, 3, 0, 0), ""),
    ("16-misnamed-metadata", "csv", "dataset-json/dataset.json"): ((3, 3, 0, 0), ""),
    **{
        ("18-caption-columns", "folder", name): ((2, 2, 0, 0), "")
        for name in ("sentence", "description", "Caption", "prompt", "caption", "TEXT", "comment")
    },
    ("19-stray-quote", "csv", "cc/list.tsv"): ((6, 6, 0, 0), ""),
    ("19-stray-quote", "csv", "cc2.csv"): ((5, 5, 0, 0), "cc2.csv:3: broken line"),
    ("19-stray-quote", "csv", "cc3.csv"): ((5, 5, 0, 0), "cc3.csv:3: broken line: 2 columns expected, got 3"),
    ("20-coco-variants", "coco", "str"): ((3, 3, 0, 0), ""),
    ("20-coco-variants", "coco", "karpathy/dataset_flickr8k.json"): ((3, 3, 0, 1), ""),
    ("20-coco-variants", "coco", "own"): ((3, 3, 0, 0), ""),
    ("20-coco-variants", "coco", "mix"): ((3, 3, 0, 0), ""),
    ("22-encodings", "csv", "utf16/list.tsv"): ((3, 3, 0, 0), ""),
    ("22-encodings", "folder", "utf16j"): ((3, 3, 0, 0), ""),
    ("22-encodings", "folder", "notepad"): ((2, 2, 0, 0), "it is not UTF-8 text"),
    ("22-encodings", "csv", "sep/list.csv"): ((3, 3, 0, 0), ""),
    ("31-no-pread", "webdataset", "shards"): ((3, 3, 0, 0), ""),
    ("32-label-and-split-in-metadata", "folder", "csv"): ((6, 6, 2, 2), ""),
    ("32-label-and-split-in-metadata", "csv", "csv/metadata.csv"): ((6, 6, 2, 2), ""),
    ("32-label-and-split-in-metadata", "folder", "jsonl"): ((6, 6, 2, 2), ""),
    ("34-img2dataset-files", "folder", "laion"): ((6, 6, 0, 0), "are parts of the source, and no classes"),
    ("35-text-in-another-folder", "folder", "celeba"): ((3, 6, 0, 0), ""),
    ("36-headers", "csv", "three/list.csv"): ((3, 3, 0, 0), ""),
    ("36-headers", "csv", "raw/list.csv"): ((3, 6, 0, 0), ""),
    ("36-headers", "csv", "bom-crlf/list.csv"): ((3, 3, 0, 3), "every image is held out"),
    ("36-headers", "csv", "filename-description/list.csv"): ((3, 3, 0, 0), ""),
    ("36-headers", "csv", "numbered/list.csv"): ((3, 3, 0, 0), ""),
    ("36-headers", "csv", "image_id/list.csv"): ((3, 3, 0, 0), ""),
    ("40-tars-in-a-hub-folder", "huggingface", "repo"): ((3, 3, 0, 0), ""),
    ("40-tars-in-a-hub-folder", "folder", "zipped"): ((3, 3, 0, 0), ""),
    ("43-stdout-that-cannot-say-it", "folder", "pictures"): ((1, 1, 0, 0), ".jpg: broken: "),
}
REFUSED = {
    ("08-dots-in-names", "webdataset", "dots"): "its sample, 2024, has 3 images and 3 captions",
    ("16-misnamed-metadata", "folder", "metadata-json1"): r"metadata\.json1: the name must be metadata\.jsonl",
    ("16-misnamed-metadata", "folder", "captions-jsonl"): r"captions\.jsonl: the name must be metadata\.jsonl",
    ("16-misnamed-metadata", "folder", "dataset-json"): r"dataset\.json: it looks like a list of captions",
    ("18-caption-columns", "folder", "title"): "the columns are file_name, title: choose one with --caption-column",
    ("28-linked-pictures", "folder", "pictures"): "a link out of the source folder",
    ("29-name-is-the-caption", "folder", "pictures"): "--captions name",
    ("36-headers", "csv", "findings/list.csv"): "the columns are Image, Findings: choose one with --caption-column",
}


@pytest.fixture
def case(tmp_path):
    """Copy a case, and make its links and names as its script says."""

    def copy(name):
        made = tmp_path / name
        shutil.copytree(CASES / name, made, symlinks=True)
        for script in made.glob("*.sh"):
            subprocess.run(["sh", script.name], cwd=made, check=True)
        return made

    return copy


def packed(kind, source, tmp_path, **options):
    if kind == "huggingface" and "parquet" in str(source):
        pytest.importorskip("pyarrow")
    return prepare.pack(kind, source, tmp_path / "pack", size=16, show_progress=False, **options)


@pytest.mark.parametrize(("name", "kind", "source"), PACKED)
def test_a_real_input_is_packed_as_its_readme_expects(case, tmp_path, name, kind, source):
    counts, says = PACKED[name, kind, source]
    report = packed(kind, case(name) / source, tmp_path)
    assert (report.images, report.captions, report.classes, report.test) == counts
    assert says in report.summary()
    assert_all_accounted(report)


@pytest.mark.parametrize(("name", "kind", "source"), REFUSED)
def test_a_real_input_is_refused_with_what_to_do(case, tmp_path, name, kind, source):
    with pytest.raises(t2i.DataError, match=REFUSED[name, kind, source]):
        packed(kind, case(name) / source, tmp_path)


@pytest.mark.parametrize(
    ("name", "source", "options", "captions"),
    [
        ("18-caption-columns", "title", SourceOptions(caption_column="title"), 2),
        ("18-caption-columns", "en_text", SourceOptions(caption_column="EN_text"), 2),
        ("29-name-is-the-caption", "pictures", SourceOptions(captions="name"), 2),
    ],
)
def test_a_real_input_is_packed_with_the_flag_that_it_needs(case, tmp_path, name, source, options, captions):
    assert packed("folder", case(name) / source, tmp_path, options=options).captions == captions
