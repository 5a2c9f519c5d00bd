"""A preparation in parts: find the shards that are done, by any process on any machine, and join them.

While a pack is made its folder holds `.preparing/`: `listing.json`, which says what is being prepared, and one small file
for each shard that is done. So a preparation that was stopped goes on, `--shard i/n` lets many processes write one pack,
and `merge` joins parts that were written elsewhere: in each case to the bytes of one undisturbed run, because a shard is
always the same images of the listing. pack.json is written when the last shard is there, and `.preparing/` removed.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from t2i.errors import DataError
from t2i.files import is_file, make_folder, write_atomically
from t2i.prepare.accounting import Account
from t2i.prepare.items import Report
from t2i.prepare.outputs import (
    NOTES,
    SHARD,
    free_suffix,
    listed_shards,
    output_lock,
    refuse_replacing,
    remove_notes,
    remove_unfinished,
    replace_pack,
    shard_name,
)
from t2i.prepare.writer import count, manifest, write_report


@dataclass(frozen=True)
class Listing:
    """What all parts of a preparation must agree on."""

    digest: str  # SHA-256 over the settings and every image's name, captions, class, split and size
    name: str
    size: int
    classes: list[str]
    provenance: dict[str, Any]
    shards: int
    images: int
    skipped: list[list[str]]  # (place, reason) of what the listing left out
    notes: list[str]
    account: dict[str, Any] | None  # what became of the source's files, every listed image counted as packed
    suffix: str = ""  # of the shards' names, in this folder
    replaces: list[str] = field(default_factory=list)  # shards of the pack that was there

    @classmethod
    def read(cls, folder: Path) -> "Listing | None":
        """Read the listing of an unfinished pack; None where there is none, or none that can be read."""
        try:
            return cls(**json.loads((folder / NOTES / "listing.json").read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def write(self, folder: Path) -> None:
        """Write it into the notes of an unfinished pack."""
        make_folder(folder / NOTES, DataError)
        write_atomically(folder / NOTES / "listing.json", json.dumps(asdict(self)).encode(), DataError)


@dataclass(frozen=True)
class Done:
    """One shard that is finished."""

    shard: dict[str, Any] | None  # None: none of its images could be used
    skipped: list[list[str]]


def _note(folder: Path, number: int) -> Path:
    return folder / NOTES / f"{number:05d}.json"


def note_done(folder: Path, number: int, digest: str, done: Done) -> None:
    """Note that a shard is finished; its file is there already."""
    note = json.dumps({"digest": digest, **asdict(done)})
    write_atomically(_note(folder, number), note.encode(), DataError)


def find_done(folder: Path, number: int, digest: str) -> Done | None:
    """Read the note of a shard; None where there is none of this listing, or the shard is not what it says."""
    try:
        note = json.loads(_note(folder, number).read_text(encoding="utf-8"))
        done = Done(note["shard"], note["skipped"])
        if note["digest"] != digest:
            return None
        if done.shard is not None:
            name = SHARD.fullmatch(done.shard["file"])
            if name is None or int(name[1]) != number:
                return None
            if done.shard["sha256"] != hashlib.sha256((folder / name[0]).read_bytes()).hexdigest():
                return None
        return done
    except (OSError, ValueError, TypeError, KeyError):
        return None


def begin(out: Path, listing: Listing, *, shared: bool) -> tuple[Listing, list[int]]:
    """Open the folder of a pack; returns the listing as it is noted there, and the shards that are done already.

    Args:
        out: Made where it does not exist.
        listing: What is to be prepared.
        shared: Other parts may be at work in the same folder: what is there and fits is theirs, what does not is refused.

    Raises:
        DataError: parts of another listing are there.
    """
    before = Listing.read(out)
    if before is not None and before.digest == listing.digest:
        return before, [
            number for number in range(listing.shards) if find_done(out, number, listing.digest) is not None
        ]
    if before is not None and shared:
        raise DataError(
            f"{out} holds parts of another preparation (other images or settings); choose another --out, or remove it"
        )
    if not shared:
        remove_unfinished(out)
    make_folder(out, DataError)
    listing = replace(listing, suffix=free_suffix(out), replaces=sorted(listed_shards(out)))
    listing.write(out)
    return listing, []


def join(out: Path, listing: Listing) -> Report:
    """Write pack.json where every shard is done; otherwise only count what is there.

    Raises:
        DataError: every shard is done, and none has an image.
    """
    report = Report(skipped=[(place, reason) for place, reason in listing.skipped], notes=list(listing.notes))
    report.account = None if listing.account is None else Account.read_record(listing.account)
    shards = []
    for number in range(listing.shards):
        done = find_done(out, number, listing.digest)
        if done is None:
            report.missing += 1
            continue
        report.skipped += [(place, reason) for place, reason in done.skipped]
        if report.account is not None:
            report.account.failed(len(done.skipped))
        if done.shard is not None:
            shards.append(done.shard)
            report.images += done.shard["images"]
            report.captions += done.shard["captions"]
            report.test += done.shard["test"]
            report.truncated += done.shard["truncated"]
            report.unknown += done.shard["unknown"]
    report.classes, report.train = len(listing.classes), report.images - report.test
    if report.missing and Listing.read(out) is None and (out / "pack.json").exists():
        return _joined(out)  # by another part that came last too, and removed the notes while they were read here
    if report.missing:
        return report
    if not shards:
        remove_notes(out)
        raise DataError(
            f"none of the {listing.images} images of {listing.name} could be used; the first: "
            f"{': '.join(report.skipped[0])}"
        )
    record = manifest(listing.name, listing.size, listing.classes, listing.provenance, shards)
    write_report(out, record, report)
    replace_pack(out, record)
    return report


def _joined(out: Path) -> Report:
    record = json.loads((out / "pack.json").read_text(encoding="utf-8"))
    written = json.loads((out / "report.json").read_text(encoding="utf-8"))
    report = Report(skipped=[(place, reason) for place, reason in written["files"]], notes=written.get("notes", []))
    report.account = Account.read_record(written["source"]) if written.get("source") else None
    count(record, report)
    return report


def merge(parts: Sequence[Path], out: Path, force: bool = False) -> Report:
    """Join parts that `--shard i/n` wrote into folders of their own: the same pack as of one run.

    Args:
        parts: Their folders; `out` may be one of them.
        out: Where the packed data set goes.
        force: Replace a packed data set that is there.

    Raises:
        DataError: a folder holds no part, the parts are of different preparations, or a shard is missing or damaged.
    """
    if not parts:
        raise DataError("the parts are missing: t2i-prepare merge PART PART ... --out DIR")
    refuse_replacing(out, force)
    listings: list[Listing] = []
    for part in parts:
        listing = Listing.read(part)
        if listing is None:
            whole = "; it is whole already" if is_file(part / "pack.json", DataError) else ""
            raise DataError(f"{part} holds no part of a preparation (no {NOTES}/listing.json){whole}")
        if listings and listing.digest != listings[0].digest:
            raise DataError(f"{part} and {parts[0]} are parts of different preparations (other images or settings)")
        listings.append(listing)
    with output_lock(out):
        return _merge(parts, out, listings[0])


def _merge(parts: Sequence[Path], out: Path, found: Listing) -> Report:
    listing, _ = begin(out, found, shared=Listing.read(out) is not None)
    missing = []
    for number in range(listing.shards):
        notes = ((part, find_done(part, number, listing.digest)) for part in parts)
        part, done = next(((part, done) for part, done in notes if done is not None), (out, None))
        if done is None:
            missing.append(number)
        elif part.resolve() != out.resolve():
            if done.shard is not None:
                name = shard_name(number, listing.suffix)
                write_atomically(out / name, (part / done.shard["file"]).read_bytes(), DataError)
                done = replace(done, shard=done.shard | {"file": name})
            note_done(out, number, listing.digest, done)
    if missing:
        listed = ", ".join(map(str, missing[:10])) + (" ..." if len(missing) > 10 else "")
        raise DataError(
            f"{len(missing)} of {listing.shards} shards are in none of the parts, or are damaged: {listed}; "
            "run their --shard again"
        )
    return join(out, listing)
