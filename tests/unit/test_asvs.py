"""The list of ASVS requirements in docs/asvs.md: each is there once, with a status, and the tests that are named exist.

`python -m tests.unit.test_asvs` writes the sums again.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

PROJECT = Path(__file__).parents[2]
PAGE = PROJECT / "docs" / "asvs.md"
ROW = re.compile(
    r"^\| (\d+\.\d+\.\d+(?:, \d+\.\d+\.\d+)*) \| ([12]) \| ([^|]+) \| ([^|]+) \| ([^|]*) ?\|$", re.MULTILINE
)
STATUSES = ("met", "partly", "not met", "operator", "n/a")
HOW_MANY = {"1": 70, "2": 183}
"""Requirements of each level in version 5.0.0."""
BEGIN, END = "<!-- counts: begin -->", "<!-- counts: end -->"
TEST = re.compile(r"`(test_\w+)`")


def rows() -> list[tuple[str, str, str, str]]:
    """(id, level, status, evidence)"""
    found = ROW.findall(PAGE.read_text())
    return [(each, level, status, why) for ids, level, _, status, why in found for each in ids.split(", ")]


def test_every_requirement_of_levels_1_and_2_is_listed_once() -> None:
    ids = Counter(each for each, *_ in rows())

    assert [each for each, times in ids.items() if times > 1] == []
    assert Counter(level for _, level, *_ in rows()) == HOW_MANY


def test_every_line_has_a_known_status_and_a_reason() -> None:
    assert [row for row in rows() if row[2] not in STATUSES] == []
    assert [row for row in rows() if row[2] != "n/a" and not row[3].strip()] == []


def test_every_row_of_the_page_is_read() -> None:
    lines = [line for line in PAGE.read_text().splitlines() if re.match(r"\| \d", line)]

    assert len(ROW.findall(PAGE.read_text())) == len(lines)


def test_the_sums_are_those_of_the_rows() -> None:
    text = PAGE.read_text()

    assert text == with_sums(text), "write them again with: python -m tests.unit.test_asvs"


def test_tests_that_are_named_exist() -> None:
    code = "\n".join(path.read_text() for path in (PROJECT / "tests").rglob("test_*.py"))
    known = set(re.findall(r"def (test_\w+)\(", code))
    named = {name for page in (PAGE, PROJECT / "SECURITY.md") for name in TEST.findall(page.read_text())}

    assert len(named) > 30
    assert sorted(named - known) == []


def test_files_without_a_folder_are_tests_of_the_console() -> None:
    named = set(re.findall(r"`(test_\w+\.py)`", PAGE.read_text()))

    assert {name for name in named if not (PROJECT / "tests/integration/console" / name).exists()} == set()


def with_sums(text: str) -> str:
    """The page with how many requirements have which status."""
    counted = {level: Counter(status for _, of, status, _ in rows() if of == level) for level in HOW_MANY}
    lines = [
        f"| {status} | " + " | ".join(str(counted[level][status]) for level in HOW_MANY) + " |" for status in STATUSES
    ]
    table = "\n".join(["| status | level 1 | level 2 |", "|---|---|---|", *lines])
    before, _, rest = text.partition(BEGIN)
    return f"{before}{BEGIN}\n\n{table}\n\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    PAGE.write_text(with_sums(PAGE.read_text()))
