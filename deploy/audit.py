"""Check the pinned packages for known vulnerabilities with pip-audit, and report if the check was not possible.

    python deploy/audit.py            the locks of this project

Exit 0: every pinned package was checked, none has a known vulnerability. 1: some have; each is listed. 3: not checked: the
service did not answer, or knows some or all of the packages not. pip-audit itself ends with 0 then, so its answer is counted
against the locks.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).parent.parent
LOCKS = ("requirements.lock", "requirements-dev.lock")
CHECKED, VULNERABLE, NOT_CHECKED = 0, 1, 3
TIMEOUT_S = 300
SHOWN = 5
_PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)(?P<marker>\s*;)?", re.MULTILINE)


@dataclass(frozen=True)
class Verdict:
    """Exit status and the lines to print."""

    status: int
    lines: tuple[str, ...]


def pinned(text: str) -> set[str]:
    """Names that a lock pins for every system; those with a marker may be none of this one's."""
    return {_plain(found[1]) for found in _PIN.finditer(text) if not found["marker"]}


def judge(answer: str, wanted: set[str]) -> Verdict:
    """Return the result of pip-audit's JSON for the packages to check."""
    try:
        rows: list[dict[str, Any]] = json.loads(answer)["dependencies"]
        vulnerable = [row for row in rows if row.get("vulns")]
        checked = {_plain(row["name"]) for row in rows if "vulns" in row}
    except (ValueError, KeyError, TypeError, AttributeError):
        return _not_checked("pip-audit gave no answer that can be read")
    if vulnerable:
        found = [
            f"  {row['name']} {row['version']}: {', '.join(each['id'] for each in row['vulns'])}" for row in vulnerable
        ]
        return Verdict(VULNERABLE, (f"{len(found)} packages have known vulnerabilities:", *found))
    missing = sorted(wanted - checked)
    if missing or not wanted:
        some = ", ".join(missing[:SHOWN]) + (", …" if len(missing) > SHOWN else "")
        return _not_checked(f"{len(missing)} of {len(wanted)} pinned packages were not looked up ({some})")
    return Verdict(CHECKED, (f"{len(checked)} packages checked, no known vulnerability.",))


def _not_checked(why: str) -> Verdict:
    step = "Vulnerabilities are not checked. Before a release, run this where the vulnerability service can be reached."
    return Verdict(NOT_CHECKED, (f"NOT CHECKED: {why}.", step))


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def audit(locks: Sequence[Path], command: Sequence[str]) -> Verdict:
    """Run pip-audit over the locks. An error of its own is no verdict."""
    wanted = {name for lock in locks for name in pinned(lock.read_text("utf-8"))}
    given = [part for lock in locks for part in ("-r", str(lock))]
    options = ["--disable-pip", "--require-hashes", "--format", "json", "--progress-spinner", "off"]
    try:
        done = subprocess.run(  # noqa: S603 - pip-audit, over files of ours
            [*command, *options, *given], capture_output=True, text=True, check=False, timeout=TIMEOUT_S
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return _not_checked(f"pip-audit did not run to its end ({type(error).__name__})")
    verdict = judge(done.stdout, wanted)
    if done.returncode not in (0, 1) or (done.returncode == 1 and verdict.status == CHECKED):
        return _not_checked(f"pip-audit ended with status {done.returncode}")
    return verdict


def main() -> int:
    verdict = audit([PROJECT / name for name in LOCKS], [sys.executable, "-m", "pip_audit"])
    sys.stdout.write("\n".join(verdict.lines) + "\n")
    return verdict.status


if __name__ == "__main__":
    sys.exit(main())
