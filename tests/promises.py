"""The failure tests: what is promised, how often each promise is tried, and the table of what was seen.

A pytest plugin. A test that tries a promise carries `@pytest.mark.promise(number)` and takes its count from here, in one
of two ways:

    @pytest.mark.promise(1)
    @pytest.mark.parametrize("case", cases(1))          # slow cases: a test each
    def test_...(case): ...

    @pytest.mark.promise(5)
    def test_...(tally):
        for case in tally(cases(5)):                    # fast cases: counted inside one test
            assert ...

By default a sample of seconds is tried; with T2I_TORTURE=1 the full count. Several tests may share a promise: they add up.
`--promises-table FILE` rewrites the rows of the promises that were tried between the two marks of FILE, and leaves the others
as they were (`make torture` does that to docs/method.md).
"""

import datetime
import os
import re
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import pytest

TORTURE = os.environ.get("T2I_TORTURE", "") not in ("", "0")
TIMEOUT = 4 * 3600  # seconds a torture test may take at its full count
BEGIN, END = "<!-- promises: written by make torture -->", "<!-- /promises -->"
HEAD = "| # | promise | count | passed | seconds | commit | date | holds |\n| --- | --- | --- | --- | --- | --- | --- | --- |"


class Promise(NamedTuple):
    """What is promised, and how often it is tried: by default, and under torture."""

    text: str
    sample: int
    full: int


PROMISES = {
    1: Promise("SIGKILL at any moment, then the same command: the unbroken run's weights", 2, 50),
    2: Promise("a checkpoint writer stopped after byte k: the newest whole one loads", 12, 200),
    3: Promise("a full disk: the checkpoint before is whole, nothing half written, one line says what to do", 2, 24),
    4: Promise("every save: the file flushed, renamed, its folder flushed", 3, 3),
    5: Promise("one bit of a checkpoint flipped: refused, the one before is taken", 60, 1000),
    6: Promise("SIGTERM, SIGINT: a checkpoint within a step; a second signal ends at once", 4, 20),
    7: Promise("1, 2 and 4 processes see the same samples; a killed rank resumes to the same weights", 8, 120),
    8: Promise("changed settings or data are refused with the difference shown", 8, 60),
    9: Promise("a second run on a folder is refused; a dead process's lock is taken over", 5, 40),
    10: Promise("JPEGs cut at random bytes are reported, none accepted", 50, 1000),
    11: Promise("mutated JPEG, PNG and WebP files: no abort, no hang, bounded memory", 300, 100_000),
    12: Promise("decompression bombs are refused before allocation", 4, 40),
    13: Promise("hostile tar shards: no file is made, each is named", 8, 40),
    14: Promise("broken metadata: an error with file and line, nothing outside the root is read", 40, 40),
    15: Promise("a shard that changes under a run: noticed, checkpointed, named; never SIGBUS", 5, 38),
    16: Promise("random Unicode captions: length 201, ids of the reference", 2000, 1_000_000),
    17: Promise("mismatched partners: never the same class or picture, uniform", 20_000, 10_000_000),
    18: Promise("the sample stream is the same for 1, 2, 4, 8 threads", 4, 4),
    19: Promise("t2i-prepare killed, then the same command: the checksums of a clean run", 3, 50),
    20: Promise("hostile safetensors: refused within a second and 200 MB", 45, 45),
    21: Promise("fork, spawn and forkserver after native threads ran: no deadlock", 8, 110),
    22: Promise("training steps: memory grows under 1%, open files stay", 60, 20_000),
    23: Promise("NaN or infinity in a loss or gradient: skipped, counted, never saved", 4, 50),
    24: Promise("compiled equals eager; fused operations' gradients equal the reference in float64", 6, 102),
    25: Promise("two runs of one seed are equal to the bit (CPU)", 1, 10),
    26: Promise("hostile requests to the demo: only 2xx and 4xx, memory bounded", 530, 1000),
    27: Promise("hostile model folders are refused; no road to a pickle", 10, 40),
    28: Promise("ten steps: read-only home, no network, LANG=C, few file descriptors, not root", 1, 6),
    29: Promise(
        "the demo reads no file, refuses other hosts and origins, bounds bytes and time; our faults are 5xx", 40, 200
    ),
    30: Promise("a byte of a shard changed at rest, in memory or streamed, times set back: refused by name", 20, 200),
    31: Promise("a checkpoint that cannot be read, and damaged ones alone: nothing deleted, exit code 2", 16, 40),
    32: Promise("files that are not t2i's are never deleted; a failing --force leaves what was there", 10, 40),
    33: Promise("two processes on one folder, one moved or without its lock file: refused or waited for", 12, 37),
    34: Promise("files from strangers, at every door: one line within 2 s and 300 MB", 20, 190),
    35: Promise("numbers that are not finite are never saved; the last good checkpoint loads and trains on", 12, 40),
    36: Promise("signals that ask for an end, and output nobody takes: a checkpoint within a step", 6, 120),
    37: Promise("a run judged while it trains: the weights of one that is not, also after a kill inside", 6, 6),
    38: Promise("Ctrl-C while images are decoded or a pack is opened: seen after a few megabytes, or a shard", 5, 5),
}


def count(number: int) -> int:
    """How often promise `number` is tried in this session."""
    promise = PROMISES[number]
    return promise.full if TORTURE else promise.sample


def cases(number: int) -> range:
    """The cases of promise `number`, 0 to its count: for `parametrize`, or for a loop under `tally`."""
    return range(count(number))


@dataclass
class Tally:
    """Count the cases of a loop inside one test: all of them when the loop begins, passed ones as it goes on."""

    seen: list[int] = field(default_factory=lambda: [0, 0])  # count and passed: what a worker of pytest-xdist can send

    def __call__(self, cases: Sequence[object] | range) -> Iterator[object]:
        self.seen[0] += len(cases)
        for case in cases:
            yield case
            self.seen[1] += 1  # reached only where the loop's body raised nothing


@pytest.fixture
def tally(request: pytest.FixtureRequest) -> Tally:
    found = Tally()
    request.node.user_properties.append(("tally", found.seen))
    return found


@dataclass
class Row:
    """What was seen of one promise."""

    count: int = 0
    passed: int = 0
    seconds: float = 0.0
    skipped: list[str] = field(default_factory=list)
    over: bool = False  # a test of it came to its end


class Collector:
    """Add the results of marked tests up."""

    def __init__(self, table: Path) -> None:
        self.table = table
        self.rows: dict[int, Row] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        properties = dict(report.user_properties)
        if "promise" not in properties:
            return
        row = self.rows.setdefault(properties["promise"], Row())
        row.seconds += report.duration
        row.over |= report.when == "call" or not report.passed
        if report.skipped:
            row.skipped.append(str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr))
        elif report.when == "call":
            count, passed = properties.get("tally") or (1, int(report.passed))
            row.count += count
            row.passed += passed if report.passed else min(passed, count - 1)
        elif report.failed:  # in a fixture
            row.count += 1

    def pytest_sessionfinish(self) -> None:
        tried = {number: row for number, row in self.rows.items() if row.over}  # an interrupt leaves others begun
        if tried:
            text = self.table.read_text(encoding="utf-8")
            self.table.write_text(rewritten(text, tried, _commit(), _today()), encoding="utf-8")


def rewritten(text: str, rows: dict[int, Row], commit: str, date: str) -> str:
    """Put rows into the table between the marks of a text; without marks, the table is appended."""
    if BEGIN not in text:
        text = f"{text.rstrip()}\n\n## The failure tests\n{BEGIN}\n{END}\n"
    before, rest = text.split(BEGIN, 1)
    old, after = rest.split(END, 1)
    lines = {int(number): line for line in old.splitlines() for number in re.findall(r"^\| (\d+) \|", line)}
    for number, promise in PROMISES.items():
        lines.setdefault(number, f"| {number} | {promise.text} | 0 | | | | | not tried yet |")
    for number, row in rows.items():
        if row.count == 0 and row.skipped:
            holds = f"not tried: {row.skipped[0].removeprefix('Skipped: ')}"
        elif row.passed < row.count or row.count == 0:
            holds = "**no**"
        else:
            holds = "yes" if row.count >= PROMISES[number].full else "yes, in this sample"
        lines[number] = (
            f"| {number} | {PROMISES[number].text} | {row.count:,} | {row.passed:,} | {row.seconds:.0f} | {commit} | {date} "
            f"| {holds} |"
        )
    body = "\n".join(lines[number] for number in sorted(lines))
    return f"{before}{BEGIN}\n{HEAD}\n{body}\n{END}{after}"


def _commit() -> str:
    asked = ["git", "describe", "--always", "--dirty=+", "--exclude", "*"]
    done = subprocess.run(asked, cwd=Path(__file__).parent, capture_output=True, text=True)
    return done.stdout.strip() or "unknown"


def _today() -> str:
    return datetime.datetime.now(datetime.UTC).date().isoformat()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--promises-table", metavar="FILE", help="write what was seen of the promises into FILE")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "promise(number): tries a promise of the failure tests, see tests/promises.py")
    table = config.getoption("--promises-table")
    if table:
        config.pluginmanager.register(Collector(Path(table)), "promises-collector")


def pytest_collection_modifyitems(items: Iterable[pytest.Item]) -> None:
    for item in items:
        marker = item.get_closest_marker("promise")
        if marker is None:
            continue
        (number,) = marker.args
        assert number in PROMISES, f"{item.nodeid}: there is no promise {number}"
        item.user_properties.append(("promise", number))
        if TORTURE:
            item.add_marker(pytest.mark.timeout(TIMEOUT), append=False)
