"""`python -m tests.defects`: the defects of the connector this one replaces, each with its tests. Exit 0 when all passed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.defects.report import Report

OPTIONS = ["-p", "no:terminal", "-o", "addopts=--strict-markers --strict-config -p no:cacheprovider"]
"""pytest keeps silent; the report says it all."""


def main() -> int:
    report = Report()
    pytest.main([*OPTIONS, str(Path(__file__).parent)], plugins=[report])
    totals = report.show()
    return 0 if set(totals) == {"passed"} and not report.words else 1


if __name__ == "__main__":
    sys.exit(main())
