"""Arguments of the commands, apart from the settings of a training, which are in `t2i.config`."""

from dataclasses import dataclass
from typing import Literal

from t2i.blossoms.languages import CaptionLanguage, LanguageCode
from t2i.config.fields import check_bounds, option, required
from t2i.config.sizes import MAX_PIXELS

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
ANIMATION_SUFFIXES = (".gif", ".webp")
Kind = Literal[
    "folder", "huggingface", "csv", "coco", "webdataset", "parquet", "stackgan", "oxford102", "cub", "blossoms"
]
MAX_SEED = 2**64 - 1
DEVICE_HELP = "auto, cpu, cuda, cuda:N or mps."
JSON_HELP = "Print the results as one JSON object too, on the last line."
OUT_HELP = "Folder that the packed data set is written to."
FORCE_HELP = "Replace an existing packed data set."


@dataclass(frozen=True)
class FromFile:
    """Flags of the trainings that are no settings."""

    config: str | None = option(
        None,
        "TOML file of settings, as --print-config writes it. Flags override the file, the file overrides the preset.",
        group="run",
    )
    print_config: bool = option(False, "Print the settings as a TOML file and exit.", group="run")


@dataclass(frozen=True)
class TrainFlags(FromFile):
    """Flags of t2i-train that are no settings."""

    dry_run: bool = option(
        False,
        "Do not train: show parameters, memory and FLOPs, and an image of the first batch as the discriminator sees"
        " it.",
        group="run",
    )


@dataclass(frozen=True)
class Prepare:
    """Convert captioned images to a packed data set for t2i-train."""

    kind: Kind = required(
        "Format of the source. folder: images with metadata.jsonl (file_name, text) or a .txt of captions beside "
        "each, class = label column or subfolder; huggingface: a repository of the Hub or a saved data set of the "
        "datasets library; csv: a table of path and caption (.csv, .tsv, .jsonl, Flickr8k's and Flickr30k's); coco: "
        "captions_*.json, also Karpathy's; webdataset: tar shards of img2dataset; parquet: with embedded images; "
        "stackgan: also AttnGAN's and DF-GAN's pickles; oxford102, cub: the official layouts; blossoms: synthetic "
        "flowers (no source). `t2i-prepare merge PART PART ... --out DIR` joins parts that --shard wrote.",
        positional=True,
    )
    source: str = option(
        "",
        "Folder of the source as it was unpacked; for csv, coco, webdataset and parquet also a single file, for folder,"
        " csv and coco also a .zip.",
        positional=True,
    )
    out: str = option("data/pack", OUT_HELP)
    size: int = option(
        76,
        "Size of the stored images in pixels, with room for random crops: 76 for training at 64 (the paper), 38 for"
        " 32, 152 for 128.",
    )
    fit: Literal["stretch", "crop"] = option(
        "stretch",
        "How images become square: stretch ignores the aspect ratio (the paper), crop is a centre crop.",
    )
    image_column: str | None = option(
        None, "Column that names the images, or holds them, where it has none of the usual names; webdataset: the key."
    )
    caption_column: str | None = option(
        None,
        "Column of the captions, where it has none of the usual names (COLUMN.KEY of objects); webdataset: the key.",
    )
    captions: Literal["files", "name"] = option(
        "files",
        "folder: where captions are read from. files: metadata or a text for each image; name: the image's file name, "
        "with a space for each underscore.",
    )
    no_classes: bool = option(False, "Pack without classes, whatever labels and subfolders there are.")
    language: CaptionLanguage = option(
        "en", "blossoms: language of the captions; all gives every image two captions in each language."
    )
    boxes: bool = option(False, "cub: crop each image to its bounding box first.")
    images: str | None = option(
        None,
        "Folder of the images that a table names, where it is neither the table's own nor images/ beside it; blossoms: "
        "number of images (6000 without it).",
        metavar="DIR",
    )
    zip_names: str | None = option(
        None,
        "Encoding of the names in a .zip that does not say it: gb18030 where Chinese Windows made it, cp932 for Japanese.",
        metavar="ENCODING",
    )
    follow_links: bool = option(False, "Read what links lead to, also outside of the source.")
    seed: int = option(0, "blossoms: random seed.")
    max_pixels: int = option(MAX_PIXELS, "Larger images are refused before they are decoded.")
    shard: str | None = option(
        None,
        "i/n: prepare part i of n only (from 0), on any machine; the part that finds all others in --out completes "
        "the data set.",
    )
    shard_images: int | None = option(None, "Images per shard, which is also the unit of work. Without it: 4096.")
    force: bool = option(False, FORCE_HELP)


@dataclass(frozen=True)
class Merge:
    """Join the parts of a data set that t2i-prepare --shard i/n wrote to separate folders."""

    parts: tuple[str, ...] = required("Folders of all parts.", positional=True)
    out: str = option("data/pack", OUT_HELP)
    force: bool = option(False, FORCE_HELP)


@dataclass(frozen=True)
class Generate:
    """Generate images of captions with a trained model."""

    model: str = required("Run folder of t2i-train, or .onnx file of t2i-export.")
    captions: tuple[str, ...] = option((), "Captions, each in quotes.", positional=True)
    out: str = option("pictures.png", "File of the image grid, one row per caption (.png, .jpg, .webp).")
    count: int = option(8, "Images per caption.")
    seed: int = option(0, "Random seed of the noise; image i of every caption has the same noise.")
    truncation: float | None = option(
        None,
        "Truncation of the noise: values beyond it are resampled. 0.5 gives typical, similar images, 2 nearly all "
        "variety.",
    )
    side: int = option(128, "Size in pixels that each image is shown at.", at_least=8)
    device: str = option("cpu", "cpu, cuda, cuda:N or mps.")
    style: tuple[str, ...] = option(
        (),
        "Images whose style (background, position) is transferred: a table with a row per style image and a column "
        "per caption. Needs t2i-train style.",
        metavar="FILE",
    )
    interpolate_text: tuple[str, str] | None = option(
        None,
        "Interpolate between two captions with the noise fixed, a strip per noise vector (.gif or .webp: an "
        "animation).",
        metavar="CAPTION",
    )
    interpolate_noise: bool = option(
        False,
        "Interpolate between noise vectors with the caption fixed (.gif or .webp: an animation).",
    )
    arithmetic: tuple[str, str, str] | None = option(
        None,
        "Captions A B C: text embedding arithmetic, A - B + C below the three.",
        metavar="CAPTION",
    )
    steps: int = option(8, "Images of an interpolation, both ends included.")

    def __post_init__(self) -> None:
        check_bounds(self)


@dataclass(frozen=True)
class EvaluateImages:
    """Measure generated images: fidelity, diversity and agreement with their captions."""

    model: str = required("Run folder of t2i-train.")
    data: str | None = option(None, "Packed data set to compare with. Without it: the one the run was trained on.")
    split: Literal["test", "train", "all"] = option("test", "Split of the captions: test is the held-out classes.")
    count: int = option(1000, "Generated images, one per caption, and at most as many real ones.")
    features: str | None = option(
        None,
        "Feature network of FID-768 and KID-768, a .safetensors (docs/metrics.md). Without it: neither is computed.",
    )
    scorer: str | None = option(
        None,
        "Run of t2i-train text that scores R-precision. Without it: the model's own joint embedding, which flatters it.",
    )
    full: bool = option(
        False,
        "Also FID and KID of 768 and 2,048 features and Inception Score, by torch-fidelity: pip install 't2i[eval]'.",
    )
    language: LanguageCode = option("en", "blossoms: language of the captions whose attributes a probe checks.")
    captions: int = option(
        200,
        "blossoms: captions of held-out classes whose attributes a probe checks in the generated images.",
        at_least=1,
    )
    seed: int = option(0, "Random seed of images, captions and noise.", at_least=0, at_most=MAX_SEED)
    batch: int = option(32, "Batch size of the feature network.")
    device: str = option("auto", DEVICE_HELP)
    json: bool = option(False, JSON_HELP)

    def __post_init__(self) -> None:
        check_bounds(self)


@dataclass(frozen=True)
class EvaluateText:
    """Measure a joint embedding: zero-shot classification and retrieval by the mean text embedding of a class."""

    model: str = required("Run folder of t2i-train text, or of t2i-train with --text.encoder joint.")
    data: str | None = option(None, "Packed data set. Without it: the one the run was trained on.")
    split: Literal["test", "train", "all"] = option("test", "Split of the classes: test is those held out (zero-shot).")
    device: str = option("auto", DEVICE_HELP)
    json: bool = option(False, JSON_HELP)


@dataclass(frozen=True)
class EvaluateStyle:
    """Measure a style encoder: style verification (ROC), and reconstruction of the noise."""

    model: str = required("Run folder of t2i-train, after t2i-train style.")
    data: str | None = option(None, "Packed data set. Without it: the one the run was trained on.")
    images: int = option(1500, "Maximum number of images, of the test split.")
    pairs: int = option(10_000, "Pairs of each kind, half of them of the same style.")
    clusters: int = option(
        100,
        "Clusters of background colour, on photographs; fewer where there are under ten images per cluster.",
    )
    seed: int = option(0, "Random seed of images, pairs, clusters and noise.", at_least=0, at_most=MAX_SEED)
    out: str | None = option(None, "File of the ROC curves. Without it: style-roc.png in the run folder.")
    device: str = option("auto", DEVICE_HELP)
    json: bool = option(False, JSON_HELP)

    def __post_init__(self) -> None:
        check_bounds(self)


@dataclass(frozen=True)
class Export:
    """Export a trained model to ONNX: caption ids and noise in, images out.

    The file is checked against PyTorch before it is written.
    """

    model: str = required("Run folder of t2i-train.")
    out: str = option("model.onnx", "File to write.")
    precision: Literal["float32", "float16", "int8"] = option(
        "float32",
        "float16: half precision, half the file size; int8: quantised weights with float32 arithmetic, a quarter of"
        " the file size.",
    )
    ids: Literal["uint8", "int64"] = option(
        "uint8", "Data type of the caption tokens; those of n-grams and word pieces are always int64."
    )


@dataclass(frozen=True)
class Demo:
    """Generate images in the browser: from captions, by interpolation, with a style image."""

    model: str = required("Run folder of t2i-train.")
    port: int = option(7860, "Port of the page; 0 takes a free one.")
    host: str = option(
        "127.0.0.1",
        "Address to listen on: 127.0.0.1 is this machine only, 0.0.0.0 every network interface.",
    )
    device: str = option("cpu", "cpu, cuda, cuda:N or mps.")


@dataclass(frozen=True)
class Bench:
    """Benchmark t2i against common alternatives: data loading, a training step, generation."""

    what: tuple[Literal["data", "step", "generate"], ...] = option(
        ("data", "step", "generate"), "Parts to time.", positional=True
    )
    data: str | None = option(None, "Packed data set for the data rows. Without it: blossoms, rendered by the program.")
    pictures: str | None = option(None, "Folder of JPEG files for the row prepare. Without it: the row is left out.")
    model: str | None = option(
        None,
        "Run folder of the generator to time. Without it: the paper's generator with random weights.",
    )
    rounds: int = option(5, "Timed rounds of each row, alternating between t2i and the alternative.")
    batch: int = option(64, "Images per step.")
    rivals: str | None = option(
        None,
        "Folder of the alternatives. Without it: benches/rivals of the repository, if it is there.",
    )
    threads: int = option(0, "CPU threads; 0 is PyTorch's default.")
    device: str = option("auto", DEVICE_HELP)
    json: bool = option(False, "Print a JSON object per row too, after the table.")


@dataclass(frozen=True)
class Plot:
    """Plot the curves of a run's metrics.jsonl."""

    plot: str = required("Run folder of t2i-train.")
    out: str | None = option(None, "File of the plot (.png, .jpg, .webp). Without it: curves.png in the run folder.")
