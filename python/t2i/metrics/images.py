"""`t2i-eval images`: draw the captions of a split, and measure what can be measured of the pictures.

    FID-768, KID-768     with a feature file: how far the drawn pictures are from the real ones of the split
    R-precision          where the run has a joint embedding with an image side: do they fit their captions
    diversity            how much the pictures of one caption differ
    caption accuracy     on blossoms: do they show what captions of held-out classes name, attribute by attribute
    swap test            on blossoms: are two colours exchanged in the picture when they are exchanged in the sentence
    FID, IS              with --full: the figures of 2,048 features, through torch-fidelity

One caption a picture: pictures of the split are drawn without replacement (again from the first where there are fewer than
asked for), and of each picture one caption. Real pictures are cut to their middle, at the size the model draws. Each figure
stands beside its protocol, and what was not measured beside the reason.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from t2i import runtime
from t2i.data.dataset import dataset_of_run
from t2i.errors import ConfigError
from t2i.metrics import captions as accuracy
from t2i.metrics import diversity, fidelity
from t2i.metrics.inception import FEATURES, FeatureNetwork, features_of
from t2i.metrics.scoring import (
    MIN_IMAGES,
    NOISES,
    cached_features,
    distances,
    draw,
    hash_file,
    manifest,
    retrieval_precision,
)
from t2i.metrics.swap import swap_test
from t2i.pipeline import Pipeline

NETWORK = "inception-2015-12-05 mixed_7, 768 features"


@dataclass(frozen=True)
class ImageResult:
    """The figures, and how they were come by; caption accuracy as a table of its own."""

    figures: dict[str, Any]
    caption_table: str | None = None

    def table(self) -> str:
        """Lay the figures out for a person."""
        lines = [f"{title:<22}{value:>10}   {note}".rstrip() for title, value, note in self._rows()]
        lines += [f"not measured: {name}: {why}" for name, why in self.figures["not_measured"].items()]
        protocol = self.figures["protocol"]
        lines.append(
            f"{protocol['generated']} drawn and {protocol['real']} real pictures ({protocol['real_pictures']}), "
            f"{protocol['split']} split of {protocol['data_name']} ({protocol['classes']} classes of this pack's own split), "
            f"{protocol['size']} px, seed {protocol['seed']}"
        )
        if "fid_768" in self.figures:
            lines.append("FID-768 ranks models evaluated alike; it does not compare with a published FID")
        return "\n".join([*lines, *(["", self.caption_table] if self.caption_table else [])])

    def _rows(self) -> list[tuple[str, str, str]]:
        figures, rows = self.figures, []
        if "fid_768" in figures:
            rows.append(("FID-768", f"{figures['fid_768']['value']:.3f}", ""))
            kid = figures["kid_768"]
            subsets = f"{kid['protocol']['subsets']} subsets of {kid['protocol']['subset_size']}"
            note = f"+- {1000 * kid['spread']:.2f} over {subsets}"
            rows.append(("KID-768 x 1000", f"{1000 * kid['value']:.2f}", note))
        if "fid" in figures:
            rows.append(("FID (2,048)", f"{figures['fid']['value']:.2f}", "torch-fidelity"))
            score = figures["inception_score"]
            rows.append(("Inception Score", f"{score['value']:.2f}", f"+- {score['spread']:.2f}, torch-fidelity"))
        if "r_precision" in figures:
            found = figures["r_precision"]
            note = f"real pictures {found['real']:.1%}, chance {found['chance']:.1%}; {found['protocol']['score']}"
            rows.append(("R-precision", f"{found['value']:.1%}", note))
            if found["protocol"]["alignment_weight"]:
                rows.append(("", "", "(flattered: the generator was trained on this judge's verdict)"))
        for kind in ("pixels", "features"):
            if f"diversity_{kind}" in figures:
                found = figures[f"diversity_{kind}"]
                note = f"one caption; one noise, several captions {found['across_captions']:.3f}"
                note += "" if found["real"] is None else f"; real pictures {found['real']:.3f}"
                rows.append((f"diversity, {kind}", f"{found['value']:.3f}", note))
        if "swap" in figures:
            found = figures["swap"]
            note = f"petals {found['petals']:.1%}, centres {found['centres']:.1%} of {found['protocol']['pairs']} pairs"
            rows.append(("colours exchanged", f"{found['both']:.1%}", note))
        return rows


def images_of_run(
    run: Path, *, data: str | None = None, split: str = "test", count: int = 1000, features: str | None = None,
    captions: int = 200, seed: int = 0, device: str = "auto", batch: int = 32, full: bool = False,
) -> ImageResult:  # fmt: skip
    """Measure the pictures of a run.

    Args:
        run: Run folder of a GAN.
        data: Packed data set, if not the one the run was trained on.
        split: "train", "test" or "all".
        count: Pictures drawn; as many real ones are read, or all there are.
        features: Feature file of FID-768; without it FID-768 and KID-768 are left out.
        captions: Captions of caption accuracy, on blossoms.
        seed: Of pictures, captions, noise and subsets.
        device: Where to compute.
        batch: Pictures at once in the feature network.
        full: Also FID of 2,048 features and Inception Score.

    Raises:
        ConfigError: arguments that cannot work.
        CheckpointError: not a run folder, or a file of it or the feature file is damaged or of another shape.
    """
    if count < MIN_IMAGES or batch < 1:
        raise ConfigError(f"--count must be at least {MIN_IMAGES} and --batch at least 1, got {count} and {batch}")
    on = runtime.pick_device(device)
    pipe = Pipeline.from_pretrained(run, str(on))
    pack = dataset_of_run(run, data)
    network = FeatureNetwork.load(features).to(on) if features else None
    pictures = draw(pipe, pack, split, count, seed)
    protocol: dict[str, Any] = {
        "generated": len(pictures.drawn), "real": len(pictures.real), "captions_per_picture": 1, "split": split,
        "classes": len(np.unique(pack.classes[pictures.chosen])) if pack.class_names else 0, "size": pipe.config.size,
        "real_pictures": f"middle {pipe.config.size} of {pack.image_size} px", "data_name": manifest(pack)["name"],
        "data": pack.fingerprint, "seed": seed, "device": on.type,
    }  # fmt: skip
    figures: dict[str, Any] = {"measure": "images"}
    skipped: dict[str, str] = {}
    drawn_features = real_features = None
    if full:
        found = fidelity.full_inception(pictures.drawn, pictures.real, on, batch, seed)
        how = {**protocol, "features": "inception-2015-12-05 through torch-fidelity, 2,048 features"}
        figures["fid"] = {"value": found["fid"], "protocol": how}
        figures["inception_score"] = {
            "value": found["inception_score"], "spread": found["inception_score_spread"],
            "protocol": {**how, "features": "logits, as above", "splits": found["splits"]},
        }  # fmt: skip
    if network is None or features is None:
        skipped["FID-768 and KID-768"] = "give the feature network: --features FILE"
    else:
        key = {
            "features": hash_file(Path(features)),
            "split": split,
            "count": count,
            "size": pipe.config.size,
            "seed": seed,
        }
        real_features = cached_features(network, pack, pictures.real, key, batch)
        drawn_features = features_of(network, pictures.drawn, batch, "drawn")
        several = features_of(network, pictures.several.reshape(-1, *pictures.several.shape[2:]), batch, "diversity")
        figures |= distances(
            drawn_features, real_features, {**protocol, "features": NETWORK, "feature_file": key["features"]}
        )
    try:
        figures["r_precision"] = retrieval_precision(pipe, run, pack, pictures, split, seed, protocol)
    except ConfigError as error:
        skipped["R-precision"] = str(error)
    classes = pack.classes[pictures.chosen].astype(np.int64)
    groups = diversity.groups_of_one_class(classes, len(pictures.several), NOISES, seed)
    how = {**protocol, "captions": len(pictures.several), "noises": NOISES, "real_groups_of_one_class": len(groups)}
    across = pictures.several.swapaxes(0, 1)
    figures["diversity_pixels"] = {
        "value": diversity.pixel_distances(pictures.several),
        "across_captions": diversity.pixel_distances(across),
        "real": diversity.pixel_distances(pictures.real[groups]) if len(groups) else None,
        "protocol": {**how, "distance": "root mean square of pixel differences, 0..1"},
    }
    if real_features is not None:
        grouped, centre = several.view(*pictures.several.shape[:2], FEATURES), real_features.mean(dim=0)
        figures["diversity_features"] = {
            "value": diversity.feature_distances(grouped, centre),
            "across_captions": diversity.feature_distances(grouped.transpose(0, 1), centre),
            "real": diversity.feature_distances(real_features[groups], centre) if len(groups) else None,
            "protocol": {**how, "distance": "1 - cosine of centred features", "features": NETWORK},
        }
    table = None
    if manifest(pack)["provenance"].get("kind") == "blossoms":
        read = accuracy.caption_accuracy_of_run(run, captions=captions, seed=seed, device=device)
        figures["caption_accuracy"], table = read.figures, read.table()
        figures["swap"] = swap_test(pipe, pairs=captions, seed=seed)
    return ImageResult({**figures, "not_measured": skipped, "protocol": protocol}, table)
