"""Log lines: one JSON object each, a constant event name, facts as fields; never a secret, never a value of a record.

Log records of libraries become our lines too: Celery's failed tasks, dead workers, an unavailable broker. Their texts may
contain anything: an exception's message, a traceback, the arguments of a task, an address with a password. A line has only
the constant part of the text, numbers, names, and of an exception its type and place.
"""

from __future__ import annotations

import logging
import re
import sys
import traceback
from collections.abc import Callable, Mapping, MutableMapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import structlog

from pipeline.masking import LONGEST_READ, mask_emails

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
    install()
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


EVENTS: Final = {"celery.app.trace": "task.error", "celery.worker.request": "task.error", "celery.beat": "beat.log"}
"""Logger → the event name of its lines; those of others are `library.log`."""
TALKATIVE: Final = ("celery", "kombu", "amqp", "billiard", "multiprocessing")
"""Libraries with texts that name tasks, nodes and signals; text arguments of other libraries are dropped."""
SAFE_NAMES: Final = frozenset({"id", "name", "description", "hostname", "internal", "runtime"})
"""Of the facts that Celery gives by name."""

_CONTEXT: Final = {"id": "task_id", "name": "task"}
_PASSWORD = re.compile(r"//[^/@\s]*@")
_PLACEHOLDER = re.compile(r"%%|%(?:\((?P<name>\w{1,40})\))?[-+ #0]{0,5}[\d*.]{0,10}[diouxXeEfFgGcrsa]")
LONGEST: Final = 300


def install(logger: logging.Logger | None = None) -> None:
    """Have a logger, the root by default, write through structlog; once, however often it is called."""
    chosen = logger or logging.getLogger()
    if not any(isinstance(handler, LibraryLog) for handler in chosen.handlers):
        chosen.addHandler(LibraryLog(logging.WARNING))


class LibraryLog(logging.Handler):
    """Passes records to structlog. Exceptions that are already logged, by their `is_logged`, are left out."""

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info if isinstance(record.exc_info, tuple) else (None, None, None)
        if getattr(error[0], "is_logged", False):
            return
        facts: dict[str, Any] = {"logger": record.name, "message": text_of(record)}
        if error[0] is not None:
            facts |= {"error": error[0].__name__, "at": place_of(error[2])}
        context = record.args if isinstance(record.args, Mapping) else getattr(record, "data", None)
        if isinstance(context, Mapping):
            facts |= {ours: context[theirs] for theirs, ours in _CONTEXT.items() if theirs in context}
        log = structlog.get_logger()
        write = log.error if record.levelno >= logging.ERROR else log.warning
        write(EVENTS.get(record.name, "library.log"), **facts)


def text_of(record: logging.LogRecord) -> str:
    """Return the record's text, without arguments that may contain secrets."""
    may_speak = record.name.split(".")[0] in TALKATIVE
    given = record.args or ()
    template = str(record.msg)[:LONGEST_READ]
    if not given:
        words = template.partition("\n")[0]  # what follows is put together from values: a traceback, an object's fields
    elif isinstance(given, Mapping):
        named = {name: str(value) if name in SAFE_NAMES else "…" for name, value in given.items()}
        words = _filled(template, lambda name: named.get(name, "…"))
    else:
        values = iter([_safe(value, may_speak=may_speak) for value in given])
        words = _filled(template, lambda _: next(values, "…"))
    return " ".join(mask_emails(_PASSWORD.sub("//", words)).split())[:LONGEST]


def _filled(template: str, value: Callable[[str], str]) -> str:
    filled = _PLACEHOLDER.sub(lambda found: "%" if found[0] == "%%" else value(found["name"] or ""), template)
    return filled[:LONGEST_READ]


def _safe(value: object, *, may_speak: bool) -> str:
    if isinstance(value, BaseException):
        return type(value).__name__
    if isinstance(value, bool | int | float):
        return str(value)
    if may_speak and isinstance(value, str) and "\n" not in value and len(value) <= LONGEST:
        return value
    return "…"


def place_of(trace: TracebackType | Any) -> str:
    """File and line where it was raised."""
    try:
        frames = traceback.extract_tb(trace)
    except AttributeError:  # billiard's own kind of traceback, of another process
        return ""
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
