"""`python -m tests.guide`: the customer's guide, sentence by sentence. Exit 0 when every test passed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.guide.report import Report

OPTIONS = ["-p", "no:terminal", "-o", "addopts=--strict-markers --strict-config -p no:cacheprovider"]
"""pytest keeps silent; the report says it all."""


def main() -> int:
    report = Report()
    pytest.main([*OPTIONS, str(Path(__file__).parent)], plugins=[report])
    totals = report.show()
    return 0 if set(totals) <= {"passed"} and not report.words else 1


if __name__ == "__main__":
    sys.exit(main())
