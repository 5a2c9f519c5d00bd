"""Blossoms, the synthetic data set, as a packed one; the default of t2i-train."""

import contextlib
import os
import time
from pathlib import Path

from t2i import console
from t2i.blossoms.classes import VERSION
from t2i.blossoms.dataset import make_blossoms
from t2i.blossoms.languages import CaptionLanguage
from t2i.config.sizes import stored_size
from t2i.errors import CheckpointError, ConfigError, DataError
from t2i.files import cache_folder, is_file, make_folder
from t2i.locks import InUse
from t2i.prepare.items import Report
from t2i.prepare.outputs import output_lock, refuse_replacing
from t2i.prepare.writer import VERSION as FORMAT
from t2i.prepare.writer import PackWriter, write_report


def embedded_blossoms(size: int, folder: Path, images: int = 6000) -> Path:
    """Find the default data set for images of `size`, rendering it first where this machine has not yet.

    It is kept in the user's cache folder ($XDG_CACHE_HOME/t2i), or in the run folder where that cannot be written.
    """
    stored = stored_size(size)
    name = f"blossoms-{VERSION}-pack{FORMAT}-{stored}px-{images}"
    places, failed = [folder], []
    with contextlib.suppress(ConfigError):  # a user without a home
        places.insert(0, cache_folder())
    for place in (each / name for each in places):
        try:
            if is_file(place / "pack.json", DataError):
                return place
            make_folder(place, DataError)
            if os.access(place, os.W_OK):
                return _rendered(place, images, stored)
            failed.append(f"{place} cannot be written")
        except (OSError, DataError, CheckpointError) as error:  # no permission, a full disk, one without locks
            failed.append(str(error))
    raise DataError(f"the synthetic blossoms can be written nowhere; choose another --out ({'; '.join(failed)})")


def _rendered(place: Path, images: int, size: int) -> Path:
    """Render into a folder, or wait for another process that does."""
    told = False
    while not (place / "pack.json").exists():
        try:
            with output_lock(place):
                if not (place / "pack.json").exists():  # by another process, between the two
                    _pack(place, images, size, 0, show_progress=True, language="en")
        except InUse as error:
            if not told:
                console.say(f"waiting: {error}")
            told = True
            time.sleep(0.2)
    return place


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
    refuse_replacing(out, force)
    with output_lock(out):
        refuse_replacing(out, force)
        return _pack(out, images, size, seed, show_progress, language)


def _pack(out: Path, images: int, size: int, seed: int, show_progress: bool, language: CaptionLanguage) -> Report:
    from tqdm import tqdm

    report = Report()
    provenance = {"kind": "blossoms", "seed": seed, "licence": "rendered by t2i; MIT"}
    if language != "en":
        provenance["language"] = language
    rendered = make_blossoms(images, size, seed, language=language)
    writer = PackWriter(out, "blossoms", size, provenance)
    for row in tqdm(
        range(images),
        desc="blossoms",
        unit="img",
        dynamic_ncols=True,
        mininterval=console.refresh_seconds(),
        disable=not show_progress,
    ):
        extra = {"attributes": rendered.attributes[row], "style": rendered.style[row]}
        name = rendered.class_names[rendered.classes[row]]
        writer.add(
            rendered.images[row], rendered.captions[row], name, bool(rendered.splits[row]), f"blossom-{row:06d}", extra
        )
    write_report(out, writer.close(), report)
    return report
