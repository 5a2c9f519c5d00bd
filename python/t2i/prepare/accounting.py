"""Account for every file of a source: packed, read for captions, skipped (listed in the report), or ignored by a rule."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

HIDDEN = "hidden or created by an operating system"
BESIDE = "not needed beside a file of the same name"
OTHER_KEY = "images of another key than the one chosen"
NO_IMAGE = "of other kinds"
LONELY_TEXT = "text files without an image of the same name"


@dataclass
class Account:
    """Counts of a source's files and of the members of its archives: images + read + skipped + ignored = files."""

    files: int = 0
    images: int = 0  # packed, or to be packed
    read: int = 0  # captions, metadata and tables; also archives, whose members are counted as files
    skipped: int = 0  # listed in the report with the reason
    ignored: Counter[str] = field(default_factory=Counter)  # by rule

    def add(self, kind: str, count: int = 1) -> None:
        """Count files as `images`, `read` or `skipped`, or as ignored by a rule."""
        self.files += count
        if kind in ("images", "read", "skipped"):
            setattr(self, kind, getattr(self, kind) + count)
        elif count:
            self.ignored[kind] += count

    def record(self) -> dict[str, Any]:
        """Return what report.json says."""
        return asdict(self) | {"ignored": dict(sorted(self.ignored.items()))}

    @classmethod
    def read_record(cls, record: Mapping[str, Any]) -> "Account":
        """Read an account from what `record` returned."""
        return cls(**{**record, "ignored": Counter(record["ignored"])})

    def failed(self, count: int) -> None:
        """Count images that could not be decoded as skipped."""
        self.images -= count
        self.skipped += count

    def summary(self) -> str:
        """Return the counts as one line."""
        rules = ", ".join(f"{count} {rule}" for rule, count in sorted(self.ignored.items()))
        return (
            f"{self.files} files in the source: {self.images} images packed, {self.read} other files read, "
            f"{self.skipped} skipped, {sum(self.ignored.values())} ignored{f' ({rules})' if rules else ''}"
        )

    def include(self, other: "Account") -> None:
        """Add the counts of another account to these."""
        self.files += other.files
        self.images += other.images
        self.read += other.read
        self.skipped += other.skipped
        self.ignored += other.ignored
