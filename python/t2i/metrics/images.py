"""`t2i-eval images`: generate the captions of a split, and measure the images.

    FID-768, KID-768     with a feature file or torch-fidelity: distance of generated from real images of the split
    FID, KID, IS         with --full: the usual figures of 2,048 features, through torch-fidelity
    KID of 16-px pixels  colours and layout, without a network
    precision, density   share of generated images that look like real ones
    recall, coverage     share of real images that something generated looks like
    copies               generated images suspiciously near to a training image
    R-precision          with a joint embedding that has an image side: do the images fit their captions
    diversity            how much images of one caption differ
    caption accuracy     on blossoms: do they show what captions of held-out classes name, attribute by attribute
    swap test            on blossoms: are two colours exchanged in the image when they are exchanged in the caption

One caption per image: images of the split are taken without replacement (again from the first where there are fewer than
asked for), and one caption of each. Real images are center-cropped to the size of the model. Each figure stands
beside the same figure of real images against further real images, and its protocol; what was not measured, beside the reason.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from t2i import runtime
from t2i.blossoms.languages import LanguageCode
from t2i.config.records import text_options
from t2i.data.dataset import PackedDataset, dataset_of_run
from t2i.errors import CheckpointError, ConfigError, ScorerError
from t2i.metrics import captions as accuracy
from t2i.metrics import diversity, fidelity, figures
from t2i.metrics.figures import Figures
from t2i.metrics.inception import FEATURES, FeatureNetwork, features_of
from t2i.metrics.inputs import center_crop
from t2i.metrics.pixels import SIDE, small_pixels
from t2i.metrics.retrieval import JointEmbedding, retrieval_precision
from t2i.metrics.scoring import MIN_IMAGES, NOISES, ImageSample, hash_file, manifest, real_features, sample_images
from t2i.metrics.swap import swap_test
from t2i.metrics.table import image_table
from t2i.pipeline import Pipeline

NETWORK = "inception-2015-12-05 mixed_7, 768 features"


@dataclass(frozen=True)
class ImageResult:
    """The figures with their protocol; caption accuracy as a table of its own."""

    figures: dict[str, Any]
    caption_table: str | None = None

    def table(self) -> str:
        """Format the figures as a table."""
        return "\n".join([image_table(self.figures), *(["", self.caption_table] if self.caption_table else [])])


def images_of_run(
    run: Path,
    *,
    data: str | None = None,
    split: str = "test",
    count: int = 1000,
    features: str | None = None,
    scorer: str | None = None,
    captions: int = 200,
    seed: int = 0,
    device: str = "auto",
    batch: int = 32,
    full: bool = False,
    language: LanguageCode = "en",
) -> ImageResult:
    """Evaluate the images of a run.

    Args:
        run: Run folder of a GAN.
        data: Packed data set, if not the one the run was trained on.
        split: "train", "test" or "all".
        count: Images to generate; as many real ones are read, or all there are.
        features: Feature file of FID-768; without it, FID-768 and KID-768 need `full`.
        scorer: Run folder of `t2i-train text` that scores R-precision; without it, the run's own joint embedding does.
        captions: Captions of caption accuracy, on blossoms.
        seed: Of images, captions, noise and subsets.
        device: Where to compute.
        batch: Images at once in the feature network.
        full: Also the figures of torch-fidelity.
        language: Of the captions of caption accuracy.

    Raises:
        ConfigError: arguments that cannot work.
        CheckpointError: not a run folder, or a file of it or the feature file is damaged or of another shape.
    """
    on = runtime.pick_device(device)
    pipe = Pipeline.from_pretrained(run, str(on))
    if scorer:  # a mistyped one is refused before anything is generated
        JointEmbedding.load(Path(scorer), text_options(Path(scorer)), pipe.config.size, on)
    how = {"captions": captions, "seed": seed, "device": device, "language": language}
    return images_of_pipeline(
        pipe,
        dataset_of_run(run, data),
        split=split,
        count=count,
        features=features,
        scorer=Path(scorer) if scorer else run,
        seed=seed,
        batch=batch,
        full=full,
        accuracy=how,
    )


def images_of_pipeline(
    pipe: Pipeline,
    pack: PackedDataset,
    *,
    split: str = "test",
    count: int = 1000,
    features: str | None = None,
    scorer: Path | None = None,
    seed: int = 0,
    batch: int = 32,
    full: bool = False,
    accuracy: dict[str, Any] | None = None,
    sample: ImageSample | None = None,
) -> ImageResult:
    """Evaluate the images of a model in memory: a pipeline, or what has its `config`, `device`, `encoder` and `draw`.

    Args:
        pipe: The model.
        pack: The data set.
        split: "train", "test" or "all".
        count: Images to generate; as many real ones are read, or all there are.
        features: Feature file of FID-768; without it, FID-768 and KID-768 need `full`.
        scorer: Run folder whose joint embedding scores R-precision.
        seed: Of images, captions, noise and subsets.
        batch: Images at once in the feature network.
        full: Also the figures of torch-fidelity.
        accuracy: Arguments of `caption_accuracy_of_run` for a run folder of blossoms; without them it is not measured.
        sample: What `sample_images` made of this model with the same data set, split, count and seed; None makes it.

    Raises:
        ConfigError: arguments that cannot work.
        CheckpointError: the feature file is damaged or of another shape.
    """
    if count < MIN_IMAGES or batch < 1:
        raise ConfigError(f"--count must be at least {MIN_IMAGES} and --batch at least 1, got {count} and {batch}")
    network = FeatureNetwork.load(features).to(pipe.device) if features else None
    sample = sample_images(pipe, pack, split, count, seed) if sample is None else sample
    protocol = _protocol(pack, sample, pipe.config.size, split, seed, pipe.device.type)
    found: dict[str, Any] = {"measure": "images"}
    skipped: dict[str, str] = {}
    if full:
        found |= fidelity.full_figures(sample.generated, sample.real, pipe.device, batch, seed, protocol)
    if network is not None and features is not None:
        found |= _feature_figures(network, pack, sample, batch, protocol | {"feature_file": hash_file(Path(features))})
    elif not full:
        skipped["FID-768 and KID-768"] = "give the feature network: --features FILE (docs/metrics.md)"
    if len(pack.split("train")) < 2:
        skipped["copies"] = f"they need 2 training images, and {pack.path} has {len(pack.split('train'))}"
    found |= _pixel_figures(pack, sample, protocol, neighbours="precision" not in found)
    scored, missing, table = _scored_figures(pipe, scorer, pack, sample, protocol, accuracy)
    return ImageResult({**found, **scored, "not_measured": skipped | missing, "protocol": protocol}, table)


def _scored_figures(
    pipe: Pipeline,
    scorer: Path | None,
    pack: PackedDataset,
    sample: ImageSample,
    protocol: dict[str, Any],
    accuracy_options: dict[str, Any] | None,
) -> tuple[dict[str, Any], dict[str, str], str | None]:
    """Measure agreement with the captions: the figures, why others are missing, and the table of caption accuracy."""
    found: dict[str, Any] = {}
    missing: dict[str, str] = {}
    table = None
    try:
        if scorer is None:
            raise ConfigError("give a scorer: --scorer RUN")
        found["r_precision"] = retrieval_precision(pipe, scorer, pack, sample, protocol["split"], protocol)
    except (CheckpointError, ConfigError, ScorerError) as error:
        missing["R-precision"] = str(error)
    if accuracy_options and pipe.folder and manifest(pack)["provenance"].get("kind") == "blossoms":
        try:
            read = accuracy.caption_accuracy_of_run(pipe.folder, **accuracy_options)
            found["caption_accuracy"], table = read.figures, read.table()
            if accuracy_options["language"] == "en":
                found["swap"] = swap_test(pipe, pairs=accuracy_options["captions"], seed=accuracy_options["seed"])
            else:
                missing["colours exchanged"] = "the swap test has English captions: --language en"
        except ScorerError as error:
            missing["caption accuracy"] = str(error)
    return found, missing, table


def _protocol(
    pack: PackedDataset, sample: ImageSample, size: int, split: str, seed: int, device: str
) -> dict[str, Any]:
    """Describe what was compared."""
    return {
        "generated": len(sample.generated),
        "real": len(sample.real),
        "further_real": len(sample.other),
        "further_real_from": sample.other_from,
        "captions_per_image": 1,
        "split": split,
        "classes": len(np.unique(pack.classes[sample.chosen])) if pack.class_names else 0,
        "size": size,
        "real_images": f"middle {size} of {pack.image_size} px",
        "data_name": manifest(pack)["name"],
        "data": pack.fingerprint,
        "seed": seed,
        "device": device,
    }


def _groups(pack: PackedDataset, sample: ImageSample, protocol: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Group real images of one class, for diversity: (g, noises) rows, and the protocol."""
    classes = pack.classes[sample.chosen].astype(np.int64)
    groups = diversity.groups_of_one_class(classes, len(sample.several), NOISES, protocol["seed"])
    counts = {"captions": len(sample.several), "noises": NOISES, "captions_of_one_noise": diversity.SHARED}
    return groups, protocol | counts | {"real_groups_of_one_class": len(groups)}


def _feature_figures(
    network: FeatureNetwork, pack: PackedDataset, sample: ImageSample, batch: int, protocol: dict[str, Any]
) -> Figures:
    """Measure in features of the network of FID."""
    how = {**protocol, "features": NETWORK}
    key = {"features": protocol["feature_file"]}
    real = real_features(network, pack, sample.chosen, protocol["size"], batch, key)
    other: Tensor | None = None
    if len(sample.other):
        other = real_features(network, pack, sample.other, protocol["size"], batch, key)
    generated = features_of(network, sample.generated, batch, "generated")
    several = features_of(network, sample.several.reshape(-1, *sample.several.shape[2:]), batch, "diversity")
    groups, counts = _groups(pack, sample, how)
    grouped = several.view(*sample.several.shape[:2], FEATURES)
    return {
        "fid_768": figures.frechet_figure(generated, real, other, how),
        "kid_768": figures.kernel_figure(generated, real, other, how, how["seed"]),
        **figures.neighbour_figures(generated, real, other, how),
        "diversity_features": figures.feature_diversity_figure(grouped, real, groups, counts),
    }


def _pixel_figures(pack: PackedDataset, sample: ImageSample, protocol: dict[str, Any], neighbours: bool) -> Figures:
    """Measure in pixels; `neighbours`: precision and the like too, where there are no features."""
    other = center_crop(pack.read_images(sample.other), protocol["size"]) if len(sample.other) else None
    groups, counts = _groups(pack, sample, protocol)
    found: Figures = {}
    if neighbours:
        further = None if other is None else small_pixels(other)
        how = protocol | {"features": f"{SIDE} x {SIDE} pixels"}
        found |= figures.neighbour_figures(small_pixels(sample.generated), small_pixels(sample.real), further, how)
    found["kid_pixels"] = figures.pixel_kernel_figure(sample.generated, sample.real, other, protocol, protocol["seed"])
    if len(pack.split("train")) > 1:
        found["copies"] = figures.copy_figure(sample.generated, sample.real, sample.chosen, pack, protocol)
    found["diversity_pixels"] = figures.pixel_diversity_figure(sample.several, sample.real, groups, counts)
    return found
