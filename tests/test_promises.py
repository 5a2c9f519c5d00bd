"""The table of the failure tests says what was seen, no more and no less."""

import re

import pytest

import promises
from promises import BEGIN, END, PROMISES, Collector, Row, Tally, cases, rewritten


def table(text):
    """Read a table back: {number: cells after it}."""
    rows = re.findall(r"^\| (\d+) \| (.*) \|$", text, flags=re.MULTILINE)
    return {int(number): [cell.strip() for cell in cells.split("|")] for number, cells in rows}


def test_promises_are_numbered_without_gaps_and_each_is_tried_more_often_under_torture():
    assert list(PROMISES) == list(range(1, 1 + len(PROMISES)))
    assert len(PROMISES) >= 36
    assert all(0 < promise.sample <= promise.full for promise in PROMISES.values())
    assert len(cases(1)) == promises.count(1)


def test_a_table_begins_with_every_promise_untried_and_keeps_what_stands_around_it():
    text = rewritten("# Measurements\n", {1: Row(50, 50, 12.4)}, "abc", "2026-11-24")
    found = table(text)
    assert list(found) == list(PROMISES)
    assert found[1][1:] == ["50", "50", "12", "abc", "2026-11-24", "yes"]
    assert found[2][-1] == "not tried yet"
    assert text.startswith("# Measurements\n")


def test_rows_that_were_not_tried_again_stay_as_they_were():
    text = rewritten(f"before\n{BEGIN}\n{END}\nafter\n", {5: Row(1000, 1000, 3.0)}, "old", "yesterday")
    text = rewritten(text, {6: Row(20, 20, 1.0)}, "new", "today")
    assert table(text)[5][4:6] == ["old", "yesterday"]
    assert table(text)[6][4:6] == ["new", "today"]
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")


@pytest.mark.parametrize(
    ("row", "holds"),
    [
        (Row(50, 50), "yes"),
        (Row(4, 4), "yes, in this sample"),
        (Row(50, 49), "**no**"),
        (Row(0, 0), "**no**"),  # collected, but nothing was tried
        (Row(0, 0, skipped=["Skipped: no mount"]), "not tried: no mount"),
    ],
)
def test_a_promise_holds_only_where_all_of_the_full_count_passed(row, holds):
    assert table(rewritten("", {1: row}, "abc", "today"))[1][-1] == holds


def test_a_loop_that_breaks_in_its_third_case_has_passed_two_of_five():
    tally = Tally()
    for case in tally(range(5)):
        if case == 2:
            break
    assert tally.seen == [5, 2]


class Report:
    """What pytest reports of a test, as far as the collector reads it."""

    def __init__(self, when, outcome, properties, duration=1.0):
        self.when, self.user_properties, self.duration = when, list(properties.items()), duration
        self.passed, self.failed, self.skipped = (outcome == each for each in ("passed", "failed", "skipped"))
        self.longrepr = ("file", 1, "Skipped: why") if self.skipped else ""


def test_the_collector_adds_tests_of_a_promise_up_and_ignores_others(tmp_path):
    collector = Collector(tmp_path / "table.md")
    for report in [
        Report("call", "passed", {"promise": 1}),
        Report("call", "failed", {"promise": 1}),
        Report("setup", "failed", {"promise": 1}),
        Report("call", "passed", {"promise": 2, "tally": [200, 200]}),
        Report("call", "failed", {"promise": 3, "tally": [10, 10]}),  # failed after its loop
        Report("setup", "skipped", {"promise": 4}),
        Report("call", "failed", {}),
    ]:
        collector.pytest_runtest_logreport(report)
    seen = {number: (row.count, row.passed) for number, row in collector.rows.items()}
    assert seen == {1: (3, 1), 2: (200, 200), 3: (10, 9), 4: (0, 0)}
    assert collector.rows[4].skipped == ["Skipped: why"]


def test_a_session_that_is_interrupted_writes_only_what_came_to_an_end(tmp_path):
    collector = Collector(tmp_path / "table.md")
    collector.table.write_text("")
    collector.pytest_runtest_logreport(Report("setup", "passed", {"promise": 1}))
    collector.pytest_sessionfinish()
    assert collector.table.read_text() == ""
    collector.pytest_runtest_logreport(Report("call", "passed", {"promise": 2}))
    collector.pytest_sessionfinish()
    found = table(collector.table.read_text())
    assert [found[1][-1], found[2][-1]] == ["not tried yet", "yes, in this sample"]
