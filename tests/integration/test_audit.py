"""An audit that could not check anything reports that, and never looks like one without findings."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from deploy.audit import CHECKED, LOCKS, NOT_CHECKED, PROJECT, VULNERABLE, audit, judge, pinned

WANTED = {"requests", "urllib3"}


def answer(**packages: Any) -> str:
    """Return output of pip-audit: the vulnerabilities of each package, or why it was skipped."""
    rows = [
        {"name": name, "skip_reason": given}
        if isinstance(given, str)
        else {"name": name, "version": "1", "vulns": given}
        for name, given in packages.items()
    ]
    return json.dumps({"dependencies": rows, "fixes": []})


@pytest.mark.parametrize(
    ("output", "status"),
    [
        (answer(requests=[], urllib3=[]), CHECKED),
        (answer(Requests=[], URLLIB3=[], more=[]), CHECKED),
        (answer(requests=[], urllib3=[{"id": "CVE-1"}]), VULNERABLE),
        (answer(requests="not found", urllib3=[{"id": "CVE-1"}]), VULNERABLE),
        (answer(requests=[], urllib3="Dependency not found on PyPI and could not be audited"), NOT_CHECKED),
        (answer(requests="not found", urllib3="not found"), NOT_CHECKED),
        (answer(requests=[]), NOT_CHECKED),
        (answer(), NOT_CHECKED),
        ("", NOT_CHECKED),
        ("No known vulnerabilities found", NOT_CHECKED),
        ("[]", NOT_CHECKED),
        ('{"dependencies": [7]}', NOT_CHECKED),
    ],
)
def test_only_packages_that_were_looked_up_count_as_checked(output: str, status: int) -> None:
    result = judge(output, WANTED)

    assert result.status == status
    assert ("no known vulnerability" in " ".join(result.lines)) == (status == CHECKED)
    assert ("NOT CHECKED" in " ".join(result.lines)) == (status == NOT_CHECKED)


def test_a_lock_without_packages_is_not_checked() -> None:
    assert judge(answer(requests=[]), set()).status == NOT_CHECKED


@pytest.mark.parametrize(
    ("program", "status"),
    [
        (f"print({answer(requests=[], urllib3=[])!r})", CHECKED),
        (f"print({answer(requests=[], urllib3=[])!r}); raise SystemExit(1)", NOT_CHECKED),
        (f"print({answer(requests=[], urllib3=[{'id': 'CVE-1'}])!r}); raise SystemExit(1)", VULNERABLE),
        ("raise SystemExit('no connection')", NOT_CHECKED),
        ("raise SystemExit(2)", NOT_CHECKED),
    ],
)
def test_a_failed_program_is_an_error(tmp_path: Path, program: str, status: int) -> None:
    lock = tmp_path / "requirements.lock"
    lock.write_text(
        "requests==2.34.0 \\\n    --hash=sha256:00\nurllib3==2.8.0\ncolorama==0.4.6 ; sys_platform == 'win32'\n"
    )

    assert audit([lock], [sys.executable, "-c", program]).status == status


def test_a_missing_program_is_an_error(tmp_path: Path) -> None:
    lock = tmp_path / "requirements.lock"
    lock.write_text("requests==2.34.0\n")

    assert audit([lock], [str(tmp_path / "pip-audit")]).status == NOT_CHECKED


def test_the_locks_name_their_packages() -> None:
    names = [pinned((PROJECT / lock).read_text("utf-8")) for lock in LOCKS]

    assert {"celery", "requests", "psycopg2-binary"} <= names[0]
    assert {"pytest", "pip-audit"} <= names[1]
