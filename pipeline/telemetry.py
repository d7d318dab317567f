"""Log lines: one JSON object each, a constant event name, facts as fields; never a secret, never a value of a record."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any

import structlog

from pipeline import library_log

SECRET_NAMES = frozenset(
    {
        "authorization",
        "token",
        "secret",
        "password",
        "api_token",
        "access_token",
        "refresh_token",
        "code",
        "state_token",
    }
)
QUIET_LIBRARIES = ("urllib3", "requests", "amqp", "kombu", "sqlalchemy.engine", "alembic")


def configure(level: str = "info", style: str = "json") -> None:
    """Set up structlog, have the warnings of libraries go through it, and silence what would log addresses with secrets."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            redact,
            structlog.processors.JSONRenderer() if style == "json" else structlog.dev.ConsoleRenderer(colors=False),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    library_log.install()
    for library in QUIET_LIBRARIES:
        logging.getLogger(library).setLevel(logging.WARNING)


def redact(_logger: Any, _method: str, line: MutableMapping[str, Any]) -> Mapping[str, Any]:
    """Mask every value with a secret's name."""
    for name in line:
        if name.lower() in SECRET_NAMES:
            line[name] = "[redacted]"
    return line


def logger() -> structlog.typing.FilteringBoundLogger:
    """The logger; bind `connector_id` and the like once per task with `structlog.contextvars`."""
    log: structlog.typing.FilteringBoundLogger = structlog.get_logger()
    return log
