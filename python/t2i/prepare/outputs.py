"""The folder a pack is written to: which of its files are t2i's, and how a new pack replaces an old one.

* A file is t2i's where its name is exactly one that t2i writes and a record of ours lists it: pack.json, or the notes of an
  unfinished preparation. Nothing else is ever deleted or written over.
* A pack that replaces another (`--force`) is written beside it, under shard names that the old one does not use; the new
  pack.json takes the old one's place in one rename, and the old shards go last. Whatever fails before leaves the old pack.
"""

import contextlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from t2i.errors import DataError
from t2i.files import is_file, make_folder, write_atomically
from t2i.locks import RunLock

NOTES = ".preparing"
SUFFIXES = ("", "-b")  # of shard names: a pack and the one that replaces it use one each
SHARD = re.compile(r"shard-(\d{5,})(-b)?\.safetensors")
NOTE = re.compile(r"listing\.json|writer\.json|\d{5,}\.json")
LEFT = re.compile(rf"\.({SHARD.pattern}|{NOTE.pattern}|pack\.json|report\.json)\.[0-9a-f]{{12}}\.partial")
MAX_RECORD_BYTES = 1 << 30


def shard_name(number: int, suffix: str = "") -> str:
    """Name the file of a shard."""
    return f"shard-{number:05d}{suffix}.safetensors"


def output_lock(out: Path, shared: bool = False) -> RunLock:
    """Lock the folder of a pack; `shared` lets other parts of the same preparation in."""
    make_folder(out, DataError)
    return RunLock(out, "t2i-prepare", shared=shared, keep=False)


def listed_shards(out: Path) -> set[str]:
    """Name the shards of the packed data set in a folder; DataError where its pack.json is not t2i's."""
    path = out / "pack.json"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if record["format"] != "t2i-pack":
            raise ValueError("another format")
        return {str(shard["file"]) for shard in record["shards"] if SHARD.fullmatch(str(shard["file"]))}
    except (FileNotFoundError, NotADirectoryError):
        return set()
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise DataError(
            f"{path} is not of a packed data set ({error}); move it away or choose another --out"
        ) from error


def _notes(out: Path) -> tuple[str | None, set[str]]:
    """Read the notes of an unfinished preparation: the suffix of its shards, None without notes, and the shards it replaces."""
    for name in ("listing.json", "writer.json"):
        with contextlib.suppress(OSError, ValueError, LookupError, TypeError, RecursionError):
            record = json.loads((out / NOTES / name).read_text(encoding="utf-8"))
            suffix, replaces = record["suffix"], record["replaces"]
            return (suffix if suffix in SUFFIXES else None), {
                str(each) for each in replaces if SHARD.fullmatch(str(each))
            }
    return None, set()


def free_suffix(out: Path) -> str:
    """Choose a suffix that no shard of the pack in a folder has."""
    used = {SHARD.fullmatch(name)[2] or "" for name in listed_shards(out)}  # type: ignore[index]
    return next((suffix for suffix in SUFFIXES if suffix not in used), SUFFIXES[1])


def refuse_replacing(out: Path, force: bool) -> None:
    """Keep a packed data set that is there, and files that are not t2i's; DataError where one is in the way."""
    if is_file(out / "pack.json", DataError) and not force:
        raise DataError(f"{out} already holds a packed data set; choose another --out or add --force")
    suffix, replaced = _notes(out)
    ours = listed_shards(out) | replaced
    inodes = {
        _inode(out / name) for name in ours
    }  # a second name of ours, of a process that was killed in `replace_pack`
    for path in sorted(out.iterdir()) if out.is_dir() else ():
        shard = SHARD.fullmatch(path.name)
        written = shard and (path.name in ours or (suffix is not None and (shard[2] or "") == suffix))
        if shard and not written and _inode(path) not in inodes:
            raise DataError(
                f"{path} is of no data set that t2i-prepare wrote here; move it away or choose another --out"
            )
        if path.name == "report.json" and not (ours or suffix is not None or (out / "pack.json").exists()):
            raise DataError(f"{path} is no report of t2i-prepare; move it away or choose another --out")


def remove_unfinished(out: Path) -> None:
    """Remove what an unfinished preparation has written; a whole pack beside it stays."""
    (suffix, replaced), ours = _notes(out), listed_shards(out)
    _remove_shards(out, replaced - ours)
    if suffix is not None:
        _remove_shards(out, {name for name in _shards(out) if (SHARD.fullmatch(name)[2] or "") == suffix} - ours)  # type: ignore[index]
    remove_notes(out)


def replace_pack(out: Path, record: Mapping[str, Any]) -> None:
    """Put a new pack.json in the place of the old one, whose shards it then removes, and what killed processes left.

    The new shards end under their plain names, so that the bytes are those of a pack that replaced nothing; at every moment
    pack.json lists shards that are there.

    Args:
        out: Holds the shards of both.
        record: The new pack.json.
    """
    before, path = listed_shards(out) | _notes(out)[1], out / "pack.json"
    write_atomically(path, _encoded(record), DataError)
    _remove_shards(out, before - listed_shards(out))
    plain = [{**shard, "file": _plain(shard["file"])} for shard in record["shards"]]
    if plain != record["shards"]:
        try:
            for old, new in zip(record["shards"], plain, strict=True):
                if not (out / new["file"]).exists() or not os.path.samefile(out / old["file"], out / new["file"]):
                    os.link(out / old["file"], out / new["file"])
        except OSError:  # a file system without links: the names stay
            _remove_shards(out, {shard["file"] for shard in plain} - listed_shards(out))
        else:
            write_atomically(path, _encoded({**record, "shards": plain}), DataError)
            _remove_shards(out, {shard["file"] for shard in record["shards"]} - listed_shards(out))
    remove_notes(out)
    for name in (path.name for path in out.iterdir()):
        if LEFT.fullmatch(name):
            _unlink(out / name)


def _encoded(record: Mapping[str, Any]) -> bytes:
    return (json.dumps(record, indent=2) + "\n").encode()


def _plain(name: str) -> str:
    return name.replace("-b.", ".")


def remove_notes(out: Path) -> None:
    """Remove the notes of a preparation."""
    notes = out / NOTES
    if notes.is_symlink() or not notes.is_dir():
        return
    _unlink(notes / "listing.json")  # first: a process that is killed here leaves a whole pack
    for path in list(notes.iterdir()):
        if NOTE.fullmatch(path.name) or LEFT.fullmatch(path.name):
            _unlink(path)
    with contextlib.suppress(OSError):  # somebody else's file is in it
        notes.rmdir()


def _inode(path: Path) -> tuple[int, int] | None:
    with contextlib.suppress(OSError):
        found = path.stat()
        return found.st_dev, found.st_ino
    return None


def _shards(out: Path) -> set[str]:
    return {path.name for path in out.iterdir() if SHARD.fullmatch(path.name)} if out.is_dir() else set()


def _remove_shards(out: Path, names: set[str]) -> None:
    for name in names & _shards(out):
        _unlink(out / name)


def _unlink(path: Path) -> None:
    with contextlib.suppress(OSError):  # gone already, or a folder of that name: not ours
        path.unlink()


def note_writer(out: Path, suffix: str) -> dict[str, Any]:
    """Say what a writer without a listing notes before its first shard."""
    return {"suffix": suffix, "replaces": sorted(listed_shards(out))}
