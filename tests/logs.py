"""Capture log lines in tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from structlog.contextvars import merge_contextvars
from structlog.testing import capture_logs

from pipeline import telemetry


@contextmanager
def captured_log(level: str = "debug", *, with_bound: bool = False) -> Iterator[list[Any]]:
    """Give a list that fills with all log lines from `level` on, as dicts. Outside of this, tests log errors only.

    with_bound  add what is bound for a whole task, such as the connector's id
    """
    telemetry.configure(level)
    try:
        with capture_logs([merge_contextvars] if with_bound else ()) as lines:
            yield lines
    finally:
        telemetry.configure("error")
