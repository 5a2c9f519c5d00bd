"""What each command takes, beside the settings of training that `t2i.config` keeps: fields are flags, docstrings are help."""

from dataclasses import dataclass
from typing import Literal

from tyro.conf import FlagCreatePairsOff, Positional, UseAppendAction

EXAMPLE = "a flower with five red petals and a yellow centre"
PICTURES = (".png", ".jpg", ".jpeg", ".webp")
FILMS = (".gif", ".webp")


@dataclass(frozen=True)
class FromFile:
    """Flags of the trainings that are no settings."""

    config: str | None = None
    """A TOML file of settings, as --print-config writes it; flags win over the file, the file over the preset."""
    print_config: FlagCreatePairsOff[bool] = False
    """Print the settings as such a file, and do nothing else."""


@dataclass(frozen=True)
class TrainFlags(FromFile):
    """Flags of t2i-train that are no settings."""

    dry_run: FlagCreatePairsOff[bool] = False
    """Train nothing: show sizes, memory and work, and draw the first batch with all that the discriminator is told."""


@dataclass(frozen=True)
class Prepare:
    """Turn a folder of captioned pictures into a packed data set for t2i-train."""

    kind: Positional[
        Literal[
            "folder", "huggingface", "csv", "coco", "webdataset", "parquet", "stackgan", "oxford102", "cub", "blossoms"
        ]
    ]
    """folder: pictures with metadata.jsonl (file_name, text) or a .txt of captions beside each, class = subfolder;
    huggingface: a folder of the datasets library; csv: a table of path and caption; coco: captions_*.json;
    webdataset: tar shards of img2dataset; parquet: pictures inside; stackgan: also AttnGAN's and DF-GAN's pickles;
    oxford102, cub: the official layouts; blossoms: drawn by the program (no source).
    `t2i-prepare merge PART PART ... --out DIR` joins parts that --shard wrote."""
    source: Positional[str] = ""
    """The folder, as it was unpacked; for csv, coco, webdataset and parquet also a single file."""
    out: str = "data/pack"
    """Where the packed data set goes."""
    size: int = 76
    """Side of the stored pictures in pixels: 76 for training at 64 (the paper), 38 for 32, 152 for 128."""
    fit: Literal["stretch", "crop"] = "stretch"
    """stretch ignores the aspect ratio (the paper); crop cuts the longer side off."""
    boxes: bool = False
    """cub: crop each picture to its bounding box first."""
    images: int = 6000
    """blossoms: how many to draw."""
    seed: int = 0
    """blossoms: which ones."""
    max_pixels: int = 100_000_000
    """Larger pictures are refused before they are decoded."""
    shard: str | None = None
    """i/n: prepare only part i of n (from 0), on any machine; the part that finds all others in --out completes it."""
    shard_images: int | None = None
    """Most pictures in one file of the data set, and in one piece of work; 4096 if not given."""
    force: bool = False
    """Replace a packed data set that is there."""


@dataclass(frozen=True)
class Merge:
    """Join the parts of a data set that t2i-prepare --shard i/n wrote into folders of their own."""

    parts: Positional[tuple[str, ...]]
    """Folders of the parts, all of them."""
    out: str = "data/pack"
    """Where the packed data set goes."""
    force: bool = False
    """Replace a packed data set that is there."""


@dataclass(frozen=True)
class Generate:
    """Draw sentences with a trained model."""

    captions: Positional[tuple[str, ...]]
    """What to draw, a sentence each, in quotes."""
    model: str
    """Run folder of t2i-train, or an .onnx of t2i-export."""
    out: str = "pictures.png"
    """The grid, one row a sentence (.png, .jpg, .webp)."""
    count: int = 8
    """Pictures of each sentence."""
    seed: int = 0
    """Chooses the noise; picture i of every sentence shares it."""
    truncation: float | None = None
    """Largest magnitude a number of noise may have: 0.5 is typical and alike, 2 nearly everything."""
    side: int = 128
    """Pixels each picture is shown at."""
    device: str = "cpu"
    """cpu, cuda or cuda:N."""
    style: UseAppendAction[tuple[str, ...]] = ()
    """Pictures that background and place come from; then a table, style pictures down, sentences across. Needs
    t2i-train style."""
    interpolate_text: tuple[str, str] | None = None
    """From one sentence to another, in strips: the noise of each stays (.gif or .webp: a film)."""
    interpolate_noise: bool = False
    """From one noise to another, in strips: the sentence stays (.gif or .webp: a film)."""
    arithmetic: tuple[str, str, str] | None = None
    """Sentences A B C: draws A - B + C below the three."""
    steps: int = 8
    """Pictures of a strip, both ends included."""


@dataclass(frozen=True)
class EvaluateImages:
    """Measure a model's pictures: how real, how varied, how true to their captions."""

    model: str
    """Run folder of t2i-train."""
    data: str | None = None
    """Packed data set to compare with; without it, the one the run was trained on."""
    split: Literal["test", "train", "all"] = "test"
    """Whose captions are drawn: test is the classes held out."""
    count: int = 1000
    """Pictures drawn, one a caption, and at most as many real ones."""
    features: str | None = None
    """Feature network of FID-768 and KID-768, a .safetensors (docs/metrics.md); without it both are left out."""
    scorer: str | None = None
    """Run of t2i-train text that scores R-precision; without it, the model's own joint embedding, which flatters it."""
    full: bool = False
    """Also FID and KID of 768 and 2,048 features and Inception Score, through torch-fidelity: pip install 't2i[eval]'."""
    captions: int = 200
    """blossoms: captions of held-out classes that a probe checks, attribute by attribute."""
    seed: int = 0
    """Chooses pictures, captions and noise."""
    batch: int = 32
    """Pictures at once in the feature network."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    json: bool = False
    """Print the figures as one JSON object, last."""


@dataclass(frozen=True)
class EvaluateText:
    """Measure a joint embedding: does the mean text of a class find its pictures?"""

    model: str
    """Run folder of t2i-train text, or of t2i-train with --text.encoder joint."""
    data: str | None = None
    """Packed data set to read; without it, the one the run was trained on."""
    split: Literal["test", "train", "all"] = "test"
    """Whose classes: test is those held out (zero-shot)."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    json: bool = False
    """Print the figures as one JSON object, last."""


@dataclass(frozen=True)
class EvaluateStyle:
    """Measure a style encoder: does it tell one style from two, find the noise again?"""

    model: str
    """Run folder of t2i-train, after t2i-train style."""
    data: str | None = None
    """Packed data set to read; without it, the one the run was trained on."""
    images: int = 1500
    """Most pictures to read, of the test split."""
    pairs: int = 10_000
    """Pairs of each kind, half of them of the same style."""
    clusters: int = 100
    """Clusters of background colour, on photographs; fewer where there are under ten pictures a cluster."""
    seed: int = 0
    """Chooses pictures, pairs, clusters and noise."""
    out: str | None = None
    """Picture of the ROC curves; without it, style-roc.png in the run folder."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    json: bool = False
    """Print the figures as one JSON object, last."""


@dataclass(frozen=True)
class Export:
    """Write a trained model as one ONNX file: caption ids and noise in, pictures out. It is checked before it is written."""

    model: str
    """Run folder of t2i-train."""
    out: str = "model.onnx"
    """The file."""
    precision: Literal["float32", "float16", "int8"] = "float32"
    """float16: half the file, half precision; int8: weights of one byte, a quarter of the file, float32 arithmetic."""
    ids: Literal["uint8", "int64"] = "uint8"
    """Type of the caption ids that the graph takes."""


@dataclass(frozen=True)
class Demo:
    """Draw in the browser: sentences, what lies between two, noise, a style picture."""

    model: str
    """Run folder of t2i-train."""
    port: int = 7860
    """Where the page is; 0 takes a free port."""
    host: str = "127.0.0.1"
    """Address to listen on: 127.0.0.1 is this machine alone, 0.0.0.0 whoever can reach it."""
    device: str = "cpu"
    """cpu, cuda or cuda:N."""


@dataclass(frozen=True)
class Bench:
    """Time t2i beside what a user would pick instead: the data path, a training step, drawing."""

    what: Positional[tuple[Literal["data", "step", "generate"], ...]] = ("data", "step", "generate")
    """Which parts."""
    data: str | None = None
    """Packed data set for the data rows; without it, blossoms drawn by the program."""
    pictures: str | None = None
    """Folder of JPEG files for the row prepare; without it the row is left out."""
    model: str | None = None
    """Run folder whose generator draws; without it, the paper's generator with random weights."""
    rounds: int = 5
    """Timed rounds of each row, rival and self in turn."""
    batch: int = 64
    """Pictures a step."""
    rivals: str | None = None
    """Folder of the rivals; without it, benches/rivals of the repository, if it is there."""
    threads: int = 0
    """CPU threads; 0 leaves it to torch."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    json: bool = False
    """Print a JSON object a row as well, after the table."""


@dataclass(frozen=True)
class Plot:
    """Draw the curves of a run's metrics.jsonl to one picture."""

    plot: str
    """Run folder of t2i-train."""
    out: str | None = None
    """The picture (.png, .jpg, .webp); without it, curves.png in the run folder."""
