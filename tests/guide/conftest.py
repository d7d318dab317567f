"""What the guide's tests share: the log, the web app's door, and the two people everybody knows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from flask.testing import FlaskClient
from structlog.testing import capture_logs

from pipeline import telemetry


@pytest.fixture
def log() -> Iterator[list[Any]]:
    """Every log line from info on, as dicts, as they are written."""
    telemetry.configure("info")
    with capture_logs() as lines:
        yield lines
    telemetry.configure("error")


@pytest.fixture
def client(database: str) -> Iterator[FlaskClient]:
    """The web app, as Hull and people reach it."""
    from pipeline.web.app import create_app  # noqa: PLC0415 - Celery reads its settings when it is imported

    yield create_app(wake=lambda: None).test_client()
    telemetry.configure("error")
