"""The time of our regular expressions is linear in the length of any text."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from functools import cache

import pytest

from tests.integration.regular_expressions import Found, as_line, compiled, written

ESCAPED = "pipeline/load/outgoing.py: the name of a field"
COMPOSED: dict[str, str | None] = {
    ESCAPED: r"(?<![\w.])name(?=[.:\[\]'\"` ]|$)",
    "sandbox/faults.py: self.path": None,
    "sandbox/faults.py: self.query": None,
    "sandbox/faults.py: pattern": None,
    "sandbox/faults.py: fault.find.encode()": None,
}
"""Patterns put together while the program runs → one of them. None: who drives the sandbox wrote it, for answers of the sandbox."""
CPU_S = 900
"""Of the whole process that runs them, as a last bound: the kernel ends it."""


@cache
def patterns() -> dict[str, Found]:
    direct, _ = written()
    templates = [text for text in COMPOSED.values() if text is not None]
    made = {text: Found("composed", text, 0, ("anywhere",)) for text in templates}
    return {**compiled(), **direct, **made}


def judged(listed: list[Found]) -> list[str]:
    """Return what is wrong with each pattern, empty for nothing; all in one process of their own, which may be ended."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.integration.regular_expressions"],
        input="\n".join(map(as_line, listed)),
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S)),
    )
    answers = [json.loads(line)["wrong"] for line in done.stdout.splitlines()]
    assert len(answers) == len(listed), f"ended at {listed[len(answers)].where}: {done.stderr[-2000:]}"
    return answers


def test_every_pattern_is_found() -> None:
    """Those that are known to be there, and not one that is put together out of sight."""
    names = {found.where for found in patterns().values()}

    assert {
        "pipeline/masking.py:_NUMBER",
        "pipeline/transform/webhooks.py:_WORDS",
        "db/statement.py:_PARAMETER",
    } <= names
    assert len(patterns()) > 50
    assert {place if "re.escape" not in place else ESCAPED for place in written()[1]} == set(COMPOSED)


@pytest.mark.slow
def test_every_pattern_takes_time_in_proportion_to_its_text() -> None:
    listed = list(patterns().values())

    assert {found.where: wrong for found, wrong in zip(listed, judged(listed), strict=True) if wrong} == {}


def test_a_quadratic_pattern_would_be_noticed() -> None:
    """The negative control: earlier patterns of this code, and the textbook's."""
    quadratic = {
        r"[^\s<>\"',;:]+@[^\s<>\"',;:]+": ("anywhere",),
        r"(<textarea\b.*?</textarea>|<[^>]*>)": ("anywhere",),
        r"%[-+ #0]*[\d*.]*[dsx]": ("anywhere",),
        r"(a+)+b": ("anchored",),
    }
    results = judged([Found("here", pattern, 0, uses) for pattern, uses in quadratic.items()])

    assert [pattern for pattern, wrong in zip(quadratic, results, strict=True) if not wrong] == []
