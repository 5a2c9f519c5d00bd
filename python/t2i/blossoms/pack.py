"""Blossoms, the data set that the program draws, as a packed one; the default of t2i-train."""

import os
from pathlib import Path

from t2i.blossoms.classes import VERSION
from t2i.blossoms.dataset import make_blossoms
from t2i.blossoms.languages import CaptionLanguage
from t2i.config.sizes import stored_size
from t2i.errors import DataError
from t2i.files import cache_folder
from t2i.prepare.items import Report
from t2i.prepare.writer import VERSION as FORMAT
from t2i.prepare.writer import PackWriter, refuse_replacing, remove_pack, write_report


def embedded_blossoms(size: int, folder: Path, images: int = 6000) -> Path:
    """Find the default data set for pictures of `size`, drawing it first where this machine has not yet.

    It is kept in the user's cache folder ($XDG_CACHE_HOME/t2i), or in the run folder where that cannot be written.
    """
    stored = stored_size(size)
    name = f"blossoms-{VERSION}-pack{FORMAT}-{stored}px-{images}"
    cache = cache_folder()
    for place in (cache / name, folder / name):
        if (place / "pack.json").exists():
            return place
        try:
            place.mkdir(parents=True, exist_ok=True)
            if os.access(place, os.W_OK):
                pack_blossoms(place, images=images, size=stored)
                return place
        except OSError:
            continue
    raise DataError(f"neither {cache} nor {folder} can be written; choose another --out")


def pack_blossoms(
    out: Path,
    *,
    images: int = 6000,
    size: int = 38,
    seed: int = 0,
    force: bool = False,
    show_progress: bool = True,
    language: CaptionLanguage = "en",
) -> Report:
    """Draw the embedded data set into a packed one, with the truth of content (`attributes`) and style (`style`)."""
    from tqdm import tqdm

    refuse_replacing(out, force)
    report = Report()
    provenance = {"kind": "blossoms", "seed": seed, "licence": "drawn by t2i; MIT"}
    if language != "en":
        provenance["language"] = language
    drawn = make_blossoms(images, size, seed, language=language)
    remove_pack(out)
    writer = PackWriter(out, "blossoms", size, provenance)
    for row in tqdm(range(images), desc="blossoms", unit="img", dynamic_ncols=True, disable=not show_progress):
        extra = {"attributes": drawn.attributes[row], "style": drawn.style[row]}
        name = drawn.class_names[drawn.classes[row]]
        writer.add(drawn.images[row], drawn.captions[row], name, bool(drawn.splits[row]), f"blossom-{row:06d}", extra)
    write_report(out, writer.close(), report)
    return report
