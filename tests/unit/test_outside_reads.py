"""Tests need nothing outside the checkout, and CI accepts no skipped test."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import conftest, outside_reads
from tests.outside_reads import PROJECT, OutsideReadError, is_outside


@pytest.mark.parametrize("read", [lambda path: path.read_bytes(), lambda path: list(path.iterdir()), os.scandir])
def test_a_file_beside_the_checkout_cannot_be_read(
    read: Callable[[Path], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outside_reads, "PLACES", (f"{PROJECT}/", f"{PROJECT.parent}/"))
    monkeypatch.setattr(outside_reads, "ANCESTORS", {str(PROJECT.parent)})
    monkeypatch.setattr(outside_reads, "refused", [])

    with pytest.raises(OutsideReadError, match="put what the test needs into tests/data"):
        read(PROJECT.parent / "shared")

    assert outside_reads.refused == [str(PROJECT.parent / "shared")]


@pytest.mark.parametrize(
    "path", [__file__, tempfile.gettempdir(), os.devnull, "/etc/hosts", os.__file__, str(PROJECT.parent)]
)
def test_other_files_can_be_read(path: str) -> None:
    assert not is_outside(path)


def test_a_checkout_among_temporary_files_sees_its_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outside_reads, "PLACES", ("/srv/a/clone/", "/srv/a/", "/srv/"))
    monkeypatch.setattr(outside_reads, "ANCESTORS", {"/srv/a"})

    assert is_outside("/srv/a/shared/file")
    assert not is_outside("/srv/a/clone/../clone/file")
    assert is_outside("/srv/a/clone/../shared")
    assert not is_outside("/srv/b")


def report(outcome: str, reason: str = "") -> pytest.TestReport:
    return pytest.TestReport("test", ("file", 1, "test"), {}, outcome, reason, "setup")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("outcome", "reason", "expected"),
    [
        ("skipped", "needs Node.js", "failed"),
        ("skipped", "needs root: run the tests as root", "skipped"),
        ("passed", "", "passed"),
        ("failed", "x", "failed"),
    ],
)
def test_ci_counts_a_skipped_test_as_failed(outcome: str, reason: str, expected: str) -> None:
    judged = report(outcome, reason)

    conftest.fail_if_skipped(judged)

    assert judged.outcome == expected
