"""Log lines as they would be written, for tests that read them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from structlog.contextvars import merge_contextvars
from structlog.testing import capture_logs

from pipeline import telemetry


@contextmanager
def captured_log(level: str = "debug", *, with_bound: bool = False) -> Iterator[list[Any]]:
    """Every line from `level` on, as dicts; the tests' own level is `error`.

    with_bound  with what was bound for a whole task, the connector's id for one
    """
    telemetry.configure(level)
    try:
        with capture_logs([merge_contextvars] if with_bound else ()) as lines:
            yield lines
    finally:
        telemetry.configure("error")
