"""The figures of `t2i-eval images` as a table for the terminal."""

from collections.abc import Mapping
from typing import Any

from t2i.metrics.verdict import COPIES

WARN_COPIES = 0.05  # share of copies from which the table warns, where it is above that of real images by COPIES too
ROWS: Mapping[str, tuple[str, str, float]] = {  # figure: title, format, factor
    "fid_768": ("FID-768", ".3f", 1),
    "kid_768": ("KID-768 x 1000", ".2f", 1000),
    "fid": ("FID (2,048)", ".2f", 1),
    "kid": ("KID (2,048) x 1000", ".2f", 1000),
    "inception_score": ("Inception Score", ".2f", 1),
    "kid_pixels": ("KID, pixels x 1000", ".2f", 1000),
    "precision": ("precision", ".1%", 1),
    "density": ("density", ".3f", 1),
    "recall": ("recall", ".1%", 1),
    "coverage": ("coverage", ".1%", 1),
    "copies": ("copies", ".1%", 1),
    "r_precision": ("R-precision", ".1%", 1),
    "diversity_pixels": ("diversity, pixels", ".3f", 1),
    "diversity_features": ("diversity, features", ".3f", 1),
}


def image_table(figures: Mapping[str, Any]) -> str:
    """Format the figures of `images_of_run`: a row each, generated beside real."""
    lines = [f"{'':<22}{'generated':>10}{'real':>10}"]
    for name, (title, form, factor) in ROWS.items():
        if name in figures:
            found = figures[name]
            real = "" if found.get("real") is None else format(factor * found["real"], form)
            lines.append(
                f"{title:<22}{format(factor * found['value'], form):>10}{real:>10}   {_note(name, found)}".rstrip()
            )
    if "swap" in figures:
        swap = figures["swap"]
        note = f"petals {swap['petals']:.1%}, centres {swap['centres']:.1%} of {swap['protocol']['pairs']} pairs"
        lines.append(f"{'colours exchanged':<22}{format(swap['both'], '.1%'):>10}{'':>10}   {note}")
    lines += [f"not measured: {name}: {why}" for name, why in figures["not_measured"].items()]
    protocol = figures["protocol"]
    lines.append(
        f"{protocol['generated']} generated and {protocol['real']} real images ({protocol['real_images']}), "
        f"{protocol['split']} split of {protocol['data_name']} ({protocol['classes']} classes of this pack's own split), "
        f"{protocol['size']} px, seed {protocol['seed']}; real: against {protocol['further_real']} further images from "
        f"{protocol['further_real_from']}"
    )
    if "fid_768" in figures:
        lines.append("FID-768 compares models evaluated alike; it does not compare with a published FID")
    copies = figures.get("copies", {"value": 0.0, "real": 0.0})
    if copies["value"] > max(WARN_COPIES, copies["real"] + COPIES):
        lines.append("warning: many images are nearer to a training image than real images are: the model memorises")
    return "\n".join(lines)


def _note(name: str, found: Mapping[str, Any]) -> str:
    """Explain a figure in a few words."""
    protocol = found["protocol"]
    if name.startswith("kid") and "subsets" in protocol:
        return f"+- {1000 * found['spread']:.2f} over {protocol['subsets']} subsets of {protocol['subset_size']}"
    if name == "inception_score":
        return f"+- {found['spread']:.2f}, torch-fidelity"
    if name == "r_precision":
        flattered = "" if protocol["independent"] else "; not independent: the generator was trained with this scorer"
        return f"chance {found['chance']:.1%}; {protocol['score']}{flattered}"
    if name.startswith("diversity"):
        return f"one caption; one noise, several captions {found['across_captions']:.3f}"
    if name == "copies":
        ratio = "" if found["ratio"] is None else f"; median distance {found['ratio']:.2f} of the real one"
        return f"of {protocol['training_images']} training images{ratio}"
    if name in ("precision", "density", "recall", "coverage"):
        return f"{protocol['features'].split(', ')[-1]}, k = {protocol['neighbours']}"
    return str(protocol.get("by", ""))
