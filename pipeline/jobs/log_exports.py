"""Write the log of a connector to a file in a job, a page of events at a time.

    enqueue → step, by a worker: one part of the file per transaction → lines_of, for the download

The file is stored in PostgreSQL, compressed, for RETENTION_HOURS. After a kill, a worker continues after the last part.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from pydantic import TypeAdapter
from sqlalchemy.orm import Session

from db import event_log
from db import job as jobs
from db import log_export as exports
from db.connector import Connector
from db.event_log import EventFilter, TooManyEvents
from db.job import ClaimedJob, Job
from db.log_export import LogExport
from db.session import after_commit, transaction
from db.sync_event import SyncEvent
from pipeline.errors import PipelineError
from pipeline.slow_work import SlowLane
from pipeline.sync import job_queue
from pipeline.sync.job_queue import CONTINUE, DONE, LOG_EXPORT, JobStep, order_of
from pipeline.tasks import canvases

CSV: Final = "text/csv"
NDJSON: Final = "application/x-ndjson"
COLUMNS: Final = (
    "id", "at", "event", "entity", "pipedrive_id", "hull_id", "reason", "field", "detail", "cause", "run_id", "batch_id",
    "settings_version", "delivery_id", "exchange", "before", "after",
)  # fmt: skip


FORMULAS: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""First characters with which a spreadsheet takes a text for a formula, also as wide characters of East Asia."""
EXPORTED: Final = 100_000
"""Maximum of events of one file; the next file continues by `before`."""
MOST_AT_ONCE: Final = 5
"""Maximum of files of one connector that are being written."""
PAGE: Final = 1_000
SLOWEST_MS: Final = 10_000
DOWNLOADS: Final = SlowLane("downloads", at_once=2, waiting=6, patience_s=20.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """ending  of a file's name; head  its first line"""

    ending: str
    head: str
    line: Callable[[SyncEvent], str]


class TooMany(Exception):
    """The maximum number of files of this connector is being written."""


def facts(row: SyncEvent) -> dict[str, Any]:
    """Return an event as column → value, JSON as text."""
    values = {name: getattr(row, name) for name in COLUMNS}
    values["at"] = row.at.astimezone(UTC).isoformat()
    for name in ("before", "after"):
        body = values[name]
        values[name] = bytes(body).decode("utf-8", "replace") if body is not None else None
    return values


def enqueue(
    session: Session, connector: Connector, kind: str, wanted: EventFilter, before_id: int | None, *, by: str
) -> LogExport:
    """Start a file; a worker is notified after the commit. Raises: TooMany."""
    if exports.count_unfinished(session, connector.key) >= MOST_AT_ONCE:
        raise TooMany
    now = datetime.now(UTC)
    export = LogExport(
        connector_key=connector.key,
        kind=kind,
        file_name=f"{connector.id}-events-{now:%Y%m%dT%H%M%S}.{FORMS[kind].ending}",
        requested_by=by,
        before_id=before_id,
    )
    session.add(export)
    session.flush()
    session.refresh(export)
    sealed = TypeAdapter(EventFilter).dump_json(wanted).decode()  # it may hold an e-mail
    job_queue.enqueue(
        session, LOG_EXPORT, str(export.id), title=export.file_name, connector_key=connector.key, secret=sealed
    )
    after_commit(session, lambda: canvases.wake_control("dispatch"))
    return export


def step(job: ClaimedJob) -> JobStep:
    """Write the next part of the file. Raises: Rejected, LostLease."""
    wanted, export_id = order_of(job, EventFilter), int(job.dedupe_key)
    with transaction() as session:
        export = session.get(LogExport, export_id)
        if export is None or export.is_ready:  # deleted, or the worker was killed after the last part
            return DONE
        key, form, written, before_id = export.connector_key, FORMS[export.kind], export.events, export.before_id
        head = form.head if export.parts == 0 else ""
    limit = min(PAGE, EXPORTED - written)
    try:
        with event_log.bounded(SLOWEST_MS) as session:
            rows = event_log.page_of_events(session, key, wanted, before_id=before_id, limit=limit)
            lines = head + "".join(map(form.line, rows))
        state = "done" if len(rows) < limit or written + len(rows) >= EXPORTED else None
    except TooManyEvents:
        rows, lines, state = [], head, "cut"
    with transaction() as session:
        last_id = rows[-1].id if rows else before_id
        exports.add_part(session, export_id, lines.encode("utf-8", "backslashreplace"), len(rows), last_id)
        if state is not None:
            exports.end_export(session, export_id, state)
        jobs.hold(session, job)
    return CONTINUE if state is None else DONE


def stop(session: Session, job: ClaimedJob, _cause: PipelineError) -> None:
    """Note that the job has failed."""
    exports.end_export(session, int(job.dedupe_key), "failed")


def abort(session: Session, job: Job, _by: str) -> None:
    """Note that the file was aborted."""
    exports.end_export(session, int(job.dedupe_key), "aborted")


def lines_of(export: LogExport) -> Iterator[bytes]:
    """Yield the file, part by part, each read in its own transaction."""
    with DOWNLOADS.entered():
        for n in range(export.parts):
            with transaction() as session:
                lines = exports.part_of(session, export.id, n)
            if lines is None:
                return
            yield lines


def _csv_line(row: SyncEvent) -> str:
    return _joined([_safe(value) for value in facts(row).values()])


def _joined(cells: Any) -> str:
    written = io.StringIO()
    csv.writer(written, lineterminator="\r\n").writerow(cells)
    return written.getvalue()


def _safe(value: Any) -> Any:
    if isinstance(value, str) and value.startswith(FORMULAS):
        return f"'{value}"
    return "" if value is None else value


def _json_line(row: SyncEvent) -> str:
    whole = {
        name: _parsed(value) if name in ("exchange", "before", "after") else value for name, value in facts(row).items()
    }
    return json.dumps(whole, ensure_ascii=False) + "\n"


def _parsed(value: str | None) -> Any:
    if value is None:
        return None
    try:
        return json.loads(value)
    except ValueError:
        return value


FORMS: Final[Mapping[str, Form]] = {
    CSV: Form(ending="csv", head=_joined(COLUMNS), line=_csv_line),
    NDJSON: Form(ending="jsonl", head="", line=_json_line),
}
"""Content type → how a file of it is written."""
