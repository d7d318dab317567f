"""The log as a file to take away: streamed page by page, and whatever is wrong is said before the first line goes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import chain
from typing import Final

from werkzeug.wrappers import Response

from db import audit
from db.connector import Connector
from db.event_log import EventFilter
from db.session import transaction
from pipeline.insight import log
from pipeline.insight.log import TooMuch
from pipeline.web.console.guard import who

Export = Callable[[int, EventFilter, int | None], Iterator[str]]
CSV: Final = "text/csv"
NDJSON: Final = "application/x-ndjson"
KINDS: Final[Mapping[str, tuple[str, Export]]] = {CSV: ("csv", log.export_csv), NDJSON: ("jsonl", log.export_json)}
"""Content type → the ending of the file's name, and what makes its lines."""


def streamed(
    connector: Connector, kind: str, wanted: EventFilter, before_id: int | None, *, chosen: Sequence[str]
) -> Response:
    """The file; `chosen` are the parts of the filter, by which the audit log names it.

    Raises: TooMuch, and nothing has gone out.
    """
    ending, export = KINDS[kind]
    lines = export(connector.key, wanted, before_id)
    first = [next(lines, ""), next(lines, "")]
    with transaction() as session:
        subject = f"{ending}: {', '.join(chosen) or 'everything'}"
        audit.note(session, who().name, "logs.export", subject, connector_key=connector.key)
    name = f"{connector.id}-events-{datetime.now(UTC):%Y%m%dT%H%M%S}.{ending}"
    answer = Response(_until_too_much(chain(first, lines)), content_type=f"{kind}; charset=utf-8")
    answer.headers["Content-Disposition"] = f'attachment; filename="{name}"'
    return answer


def _until_too_much(lines: Iterator[str]) -> Iterator[bytes]:
    """The head has gone out by then: an export that takes too long ends early, and the last line tells where it stood."""
    try:
        for line in lines:
            yield line.encode("utf-8", "backslashreplace")
    except TooMuch:
        return
