"""Refuse to read files beside the checkout: all data that a test needs is in the repository.

A refused read raises OutsideReadError and is added to `refused`, in case the caller ignores the error.
Not checked: processes that a test starts, and a checkout directly in the folder for temporary files.
"""

from __future__ import annotations

import os
import site
import sys
import tempfile
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[1]
CACHE = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
ALLOWED = {
    str(Path(folder).resolve())
    for folder in (
        PROJECT, tempfile.gettempdir(), os.environ.get("TEST_DATA_DIR", tempfile.gettempdir()), CACHE,
        sys.prefix, sys.base_prefix, *site.getsitepackages(), site.getusersitepackages(),
    )
}  # fmt: skip
ANCESTORS = {str(folder) for folder in PROJECT.parents} - {"/"} - ALLOWED
PLACES = tuple(sorted((f"{folder}/" for folder in ALLOWED | ANCESTORS), key=len, reverse=True))
"""Longest first: the first match is the nearest folder."""

refused: list[str] = []


class OutsideReadError(AssertionError):
    """A test opened a file beside the checkout."""


def watch() -> None:
    """Check every file and folder that this process opens from now on, until it ends."""
    sys.addaudithook(_check)


def is_outside(path: str) -> bool:
    """Return whether a path, or what it links to, is in a folder that holds the checkout but not in an allowed folder."""
    return any(_nearest(full) in ANCESTORS for full in (os.path.abspath(path), os.path.realpath(path)))


def _nearest(full: str) -> str:
    """Return the nearest known folder that holds a path; empty for none and for the folders themselves."""
    return "" if full in ANCESTORS else next((place[:-1] for place in PLACES if f"{full}/".startswith(place)), "")


def _check(event: str, arguments: tuple[Any, ...]) -> None:
    if event not in {"open", "os.listdir", "os.scandir"} or not isinstance(arguments[0], str):
        return
    if is_outside(arguments[0]):
        refused.append(arguments[0])
        raise OutsideReadError(f"{arguments[0]} is outside the checkout: put what the test needs into tests/data")
