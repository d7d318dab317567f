"""Folders for embedded servers, deeper than a unix socket allows."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipeline.local import servers
from pipeline.settings import Settings

DEEP = "/".join(["a-folder-of-a-deep-clone"] * 5)  # 124 bytes: more than a unix socket's path may have


@pytest.fixture(scope="session")
def shared() -> Iterator[Settings]:
    """Settings with a database that several tests start, crash and start again; none of them leaves it running."""
    with data_dir_under(tempfile.gettempdir()) as settings:
        yield settings


@pytest.fixture
def fresh() -> Iterator[Settings]:
    """Yield settings with a folder that does not exist yet."""
    with data_dir_under(tempfile.gettempdir()) as settings:
        yield settings


@pytest.fixture
def running(shared: Settings) -> Iterator[Settings]:
    """The settings of servers that run for the length of a test."""
    with servers.serve(shared, name="a test") as found:
        yield found


@contextmanager
def data_dir_under(parent: str) -> Iterator[Settings]:
    top = Path(tempfile.mkdtemp(prefix="hp-test-", dir=parent))
    settings = Settings(data_dir=top / DEEP / "data")
    try:
        yield settings
    finally:
        if settings.data_dir.is_dir():
            servers.remove(settings)
        shutil.rmtree(top)
