"""Download a file of Users or Accounts that a person chose in Hull, and coalesce its records into changes, 100 at a time.

The request is answered "ok" once the job is stored. A worker then downloads the file into our tables, one piece per
transaction, so that a kill loses one piece. It reads the records after the whole file is stored: then it does not matter that the
address of the file expires. After a kill or a time slice, it continues after the last committed record.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import count, islice
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session

from db import export_file as files
from db import job as jobs
from db import sync_event as events
from db.job import ClaimedJob, Job
from db.session import after_commit, transaction
from pipeline import wiring
from pipeline.domain.kinds import Direction, Entity, Outcome, event_name
from pipeline.errors import Rejected, Retryable
from pipeline.sync import job_queue
from pipeline.sync.changes.outgoing_changes import coalesce_messages
from pipeline.sync.event_recorder import EventRecorder
from pipeline.sync.job_queue import CONTINUE, DONE, EXPORT, JobStep, order_of
from pipeline.tasks import canvases
from pipeline.telemetry import logger
from pipeline.transform.exports import FORMATS, Record, message_of, read_records, unpack
from pipeline.transform.hull_reports import hull_id_of

PIECE_BYTES: Final = 1024 * 1024
PIECE_S: Final = 10.0
"""A slow download stores a piece after this time."""
MAX_BYTES: Final = 1024**3
LONGEST_S: Final = 6 * 3600.0
SLICE_S: Final = 120.0
"""After this time another task continues the file. A task may take four minutes."""
WHOLE_S: Final = 190.0
"""A server that cannot continue in the middle of a file has this time to send the whole file."""
CHUNK: Final = 100
AT_LEAST_S: Final = 60.0
"""A task writes changes for at least this time, after it has skipped the records of earlier tasks."""
FINISHED: Final = "finished"
"""Checkpoint of an export that is complete: its file is deleted."""
NAMED: Final = 100
"""Maximum of broken lines of one file with an event each; others are only counted."""


class ExportOrder(BaseModel):
    """The file to download. segments: id → segment, as Hull sent them."""

    model_config = ConfigDict(frozen=True)

    url: str = Field(repr=False)
    form: str
    entity: Entity
    segments: dict[str, dict[str, Any]] = {}
    segment_id: str | None = None

    @property
    def title(self) -> str:
        """Return the title of the job."""
        segment = self.segments.get(self.segment_id or "", {}).get("name") or self.segment_id
        noun = f"{self.entity.hull.capitalize()}s"
        return f"{noun} of segment {str(segment)[:100]}" if segment else f"{noun} chosen in Hull"


def download(job: ClaimedJob, url: str, began: float) -> bool:
    """Download the file of an export, or as much as there is time for; return whether it is complete.

    began  monotonic time at which the task began
    Raises: Rejected, Retryable; the part that was read is kept.
    """
    with transaction() as session:
        kept = files.find_file(session, job.id)
    if kept.is_whole:
        return True
    if time.time() - job.created_at.timestamp() > LONGEST_S:
        raise Rejected("export_gone", "it was not downloaded within six hours")
    downloads = wiring.export_downloads(job.connector_key)
    with downloads.open(
        url,
        max_bytes=MAX_BYTES,
        start=kept.size_bytes,
        validator=kept.validator,
        total_bytes=kept.total_bytes,
    ) as file:
        # The server ignores ranges and sends the same file from its beginning, as it would for the next task.
        is_again = kept.size_bytes > 0 and file.start == 0 and file.validator in ("", kept.validator)
        if file.start == 0:
            with transaction() as session:
                jobs.hold(session, job)
                files.begin_file(session, job.id, validator=file.validator, total_bytes=file.total_bytes)
        writer = _Writer(job, file.start, resets_attempts=not is_again)
        ends_at = began + (WHOLE_S if is_again else SLICE_S)
        try:
            for piece in file.pieces:
                writer.write(piece)
                if time.monotonic() > ends_at:
                    if is_again:
                        raise Retryable("export_too_slow", f"{writer.size_bytes} bytes in {WHOLE_S:.0f} s")
                    return False
        finally:
            writer.flush()
    if file.total_bytes not in (None, writer.size_bytes):
        raise Retryable(
            "remote_unavailable", f"{writer.size_bytes} of {file.total_bytes} bytes of the file were received"
        )
    with transaction() as session:
        jobs.hold(session, job)
        files.end_file(session, job.id)
    return True


class _Writer:
    """Stores a file in pieces. A stored piece is progress, so attempts are counted from zero again."""

    def __init__(self, job: ClaimedJob, size_bytes: int, *, resets_attempts: bool) -> None:
        self.size_bytes = size_bytes
        self._job = job
        self._resets_attempts = resets_attempts
        self._held = bytearray()
        self._flushed_at = time.monotonic()

    def write(self, content: bytes) -> None:
        self._held += content
        self.size_bytes += len(content)
        if len(self._held) >= PIECE_BYTES or time.monotonic() - self._flushed_at > PIECE_S:
            self.flush()

    def flush(self) -> None:
        """Store what was written. Raises: LostLease."""
        if not self._held:
            return
        with transaction() as session:
            (jobs.checkpoint if self._resets_attempts else jobs.hold)(session, self._job)
            files.add_piece(session, self._job.id, bytes(self._held))
        self._held.clear()
        self._flushed_at = time.monotonic()


def enqueue(connector_key: int, order: ExportOrder) -> None:
    """Store the job of an export; the same file is not downloaded twice concurrently.

    Raises: Rejected("export_malformed"), Rejected("export_host_refused"); both are also events of the connector.
    """
    try:
        if order.form not in FORMATS:
            raise Rejected("export_malformed", "its format is neither json nor csv")
        wiring.export_downloads().check(order.url)
    except Rejected as refused:
        with transaction() as session:
            _record_refused(session, connector_key, "outgoing.job.error", [refused])
        raise
    text = order.model_dump_json()
    digest = hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
    with transaction() as session:
        key = f"{connector_key}:{digest}"
        job_queue.enqueue(session, EXPORT, key, title=order.title, connector_key=connector_key, secret=text)


def _record_refused(session: Session, connector_key: int, name: str, refused: list[Rejected], entity: str = "") -> None:
    """Record an event and a log line for each."""
    recorder = EventRecorder()
    for each in refused:
        event = events.NewEvent(
            connector_key=connector_key, event=name, entity=entity, cause=EXPORT, reason=each.reason, detail=each.detail
        )
        recorder.add(event, level="warning", detail=each.detail)
    recorder.write(session)


def step(job: ClaimedJob) -> JobStep:
    """Download the file and write its changes, or as much of both as there is time for. Reading starts at the file's beginning.

    Raises: Rejected, Retryable.
    """
    if job.checkpoint == FINISHED:  # the worker was killed right after it had finished
        return DONE
    order, began, tally = order_of(job, ExportOrder), time.monotonic(), _Tally()
    is_whole = download(job, order.url, began)
    if not is_whole or time.monotonic() - began > SLICE_S / 2:
        return CONTINUE
    with transaction() as session:
        mark = files.find_file(session, job.id).mark
    position, ends_at = job.progress if mark == job.checkpoint else 0, 0.0
    text = unpack(_pieces(job), max_bytes=MAX_BYTES)
    for chunk in _chunks(read_records(text, order.form, skip=position)):
        ends_at = ends_at or max(began + SLICE_S, time.monotonic() + AT_LEAST_S)
        position += len(chunk)
        _coalesce(job, order, chunk, tally, progress=(position, mark))
        if time.monotonic() > ends_at:
            return CONTINUE
    _finish(job, order, position, tally)
    return DONE


@dataclass(slots=True)
class _Tally:
    """Numbers of records and broken lines that this task has read."""

    records: int = 0
    broken: int = 0


def _pieces(job: ClaimedJob) -> Iterator[bytes]:
    """Yield the stored file, one piece per transaction."""
    for number in count():
        with transaction() as session:
            piece = files.find_piece(session, job.id, number)
        if piece is None:
            return
        yield piece


def _chunks(items: Iterator[Record | Rejected]) -> Iterable[list[Record | Rejected]]:
    while chunk := list(islice(items, CHUNK)):
        yield chunk


def _coalesce(
    job: ClaimedJob, order: ExportOrder, chunk: list[Record | Rejected], tally: _Tally, *, progress: tuple[int, str]
) -> None:
    """Write changes, events and the progress in one transaction under the token."""
    messages, broken = {}, []
    for item in chunk:
        try:
            if isinstance(item, Rejected):
                raise item
            messages[hull_id_of(item)] = message_of(item, order.entity, order.segments, order.segment_id)
        except Rejected as refused:
            broken.append(refused)
    connector_key = job.connector_key or 0
    with transaction() as session:
        jobs.checkpoint(session, job, *progress)
        rank = int(job.created_at.timestamp() * 1000)  # what Hull sent later is newer
        coalesce_messages(
            session, connector_key, order.entity, messages.values(), cause="export", is_export=True, rank=rank
        )
        name = event_name(Direction.OUTGOING, order.entity, Outcome.ERROR)
        _record_refused(session, connector_key, name, broken[: max(0, NAMED - tally.broken)], order.entity)
    tally.records += len(messages)
    tally.broken += len(broken)


def _finish(job: ClaimedJob, order: ExportOrder, lines: int, tally: _Tally) -> None:
    connector_key = job.connector_key or 0
    with transaction() as session:
        jobs.checkpoint(session, job, lines, FINISHED)
        files.drop_file(session, job.id)
        if more := tally.broken - NAMED:
            rest = Rejected("export_line_broken", f"and {more} more lines") if more > 0 else None
            _record_refused(session, connector_key, "outgoing.job.error", [rest] if rest else [], order.entity)
        after_commit(session, lambda: canvases.wake_control("dispatch"))
    logger().info(
        "outgoing.job.success",
        type=order.entity.hull,
        job="export",
        lines=lines,
        records=tally.records,
        broken=tally.broken,
    )


def abort(session: Session, job: Job, _by: str) -> None:
    """Delete the stored file. Changes of its records stay, and the others can be sent from Hull again."""
    jobs.lock_open(session, job.id)  # before the file, in the order of the worker
    files.drop_file(session, job.id)
