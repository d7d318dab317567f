"""Log lines as they would be written, for tests that read them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from structlog.testing import capture_logs

from pipeline import telemetry


@contextmanager
def written(level: str = "debug") -> Iterator[list[Any]]:
    """Every line from `level` on, as dicts; the tests' own level is `error`."""
    telemetry.configure(level)
    try:
        with capture_logs() as lines:
            yield lines
    finally:
        telemetry.configure("error")
