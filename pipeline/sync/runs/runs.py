"""Start, advance and end runs. Every step locks the run's row, in the transaction that caused the step.

At the end of a run the watermark moves, and records that changed without a webhook are reported as a gap: they were read by the
incremental fetch, and a lost webhook leaves no other trace.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from db import batch as batches
from db import batch_queue, change_writer, failure_closing, id_mapping, watermark, webhook
from db import connector as connectors
from db import delivery as deliveries
from db import run as run_rows
from db import sync_event as events
from db.batch import Batch, ClaimedBatch
from db.run import Run, Slice
from db.session import after_commit, transaction
from db.sync_event import LateRecords
from pipeline.domain.kinds import Direction, Entity, Outcome
from pipeline.domain.records import INDEX_BEHIND, INDEX_INCOMPLETE
from pipeline.settings import settings
from pipeline.sync.changes import dispatch
from pipeline.sync.event_recorder import record
from pipeline.sync.runs import missing_records, spending
from pipeline.tasks import canvases
from pipeline.telemetry import logger

ON_ITS_WAY_S = 60
"""The webhook of a record that changed this shortly before the walk may not have arrived yet."""
CATCH_UP_OVERLAP = timedelta(seconds=60)
"""The catch-up of a full fetch reads changes from this long before its start: clocks differ, and times are whole seconds."""
WALKS: Final = {"full": ("ascending", "descending"), "incremental": ("catch_up",), "backfill": ("stored",)}
"""Kind of run → its walks, from the first one on. A full fetch then catches up with the changes since its start."""


def start_run(
    connector_key: int,
    entity: Entity,
    *,
    cause: str,
    changed_only: bool = False,
    since: datetime | None = None,
    also: Callable[[Session, Run], None] = lambda _session, _run: None,
) -> int:
    """Start a full fetch, or with `since` an incremental one; return the run's id.

    also  called in the same transaction

    Raises: RunInProgress.
    """
    kind = "incremental" if since else "full"
    try:
        with transaction() as session:
            if running := run_rows.running_run(session, connector_key, entity, kind):
                raise RunInProgress(running.id)
            run = begin(session, connector_key, entity, kind, cause=cause, changed_only=changed_only, since=since)
            also(session, run)
    except IntegrityError:  # another process started the same run concurrently
        with transaction() as session:
            running = run_rows.running_run(session, connector_key, entity, kind)
        if running is None:
            raise
        raise RunInProgress(running.id) from None
    return run.id


def begin(  # noqa: PLR0913 - a run is these facts
    session: Session,
    connector_key: int,
    entity: Entity,
    kind: str,
    *,
    cause: str,
    changed_only: bool,
    since: datetime | None = None,
    plan_id: int | None = None,
    held: bool = False,
    reindexes: bool = False,
) -> Run:
    """Store a run with its first pages, which are enqueued after the commit. A `held` run has no pages yet."""
    run = Run(
        connector_key=connector_key,
        entity=entity,
        kind=kind,
        cause=cause,
        changed_only=changed_only or since is not None,
        since=since,
        settings_version=connectors.settings_in_force(session, connector_key).version,
        phase="walk" if kind == "full" else "catch_up",
        plan_id=plan_id,
        reindexes=reindexes,
        state="held" if held else "running",
        reason="needs_approval" if held else None,
    )
    session.add(run)
    session.flush()
    if not held:
        _start_walks(session, run)
    return run


def _start_walks(session: Session, run: Run) -> None:
    for walk in _first_walks(session, run):
        open_slice(session, run, walk)
    release(session, run.id)
    facts = {
        "connector_id": connectors.get_connector(session, run.connector_key).id,
        "run_id": run.id,
        "type": Entity(run.entity).hull,
        "kind": run.kind,
        "cause": run.cause,
    }
    after_commit(session, lambda: logger().info("incoming.job.start", **facts))


def _first_walks(session: Session, run: Run) -> tuple[str, ...]:
    """Return the walks that begin now: one page needs no walk from the other end, which would read it again."""
    walks = WALKS[run.kind]
    known = id_mapping.count_known(session, run.connector_key, run.entity, spending.READ_STATES)
    return walks[:1] if 0 < known <= settings().page_limit else walks


def open_slice(session: Session, run: Run, walk: str) -> None:
    """Add a walk of a run, with its first page."""
    part = Slice(run_id=run.id, walk=walk)
    session.add(part)
    session.flush()
    batches.add_page(session, run.connector_key, run.entity, run.id, part.id)


class RunInProgress(Exception):
    """A run of this kind is already in flight: `run_id`."""

    def __init__(self, run_id: int) -> None:
        self.run_id = run_id
        super().__init__(
            f"run {run_id} is in flight; wait for it, or cancel it with `pipeline runs cancel CONNECTOR {run_id}`"
        )


def _note_end(session: Session, run: Run) -> None:
    """End a run that has read everything: close failures, move the watermark, report a gap, and wake waiting records."""
    if run.kind != "backfill":
        failure_closing.close_reread(
            session,
            run.connector_key,
            run.entity,
            run_id=run.id,
            kind=run.kind,
            began_at=run.started_at,
            since=run.since,
        )
    connector = connectors.get_connector(session, run.connector_key)
    before = watermark.find_watermark(session, run.connector_key, run.entity)
    was_claimed = before is not None and before.claimed is not None
    reached = watermark.move(session, run, connector.created_at)
    if reached is not None:
        logger().info(
            "incoming.job.watermark",
            connector_id=connector.id,
            type=Entity(run.entity).hull,
            reached_at=reached.isoformat(),
        )
    if run.kind == "incremental" and was_claimed:
        _report_gap(session, run)
    _wake_waiting(session, run)


def _report_gap(session: Session, run: Run) -> None:
    missed = events.find_late(session, run.id, run.started_at, ON_ITS_WAY_S)
    subscriptions = webhook.subscriptions_of(session, run.connector_key)
    if missed is None or not subscriptions:
        return
    entity = Entity(run.entity)
    name = f"{Direction.INCOMING}.job.{Outcome.SUCCESS}"
    event = events.NewEvent(
        connector_key=run.connector_key,
        event=name,
        entity=entity,
        cause=run.cause,
        reason="gap_repaired",
        detail=_sentence(entity, missed),
        run_id=run.id,
    )
    record(session, [event], level="warning", run_id=run.id, type=entity.hull, records=missed.records)
    last = deliveries.last_delivery(session, run.connector_key, "pipedrive")
    if last is None or last < missed.first:
        webhook.note_silence(session, run.connector_key, entity)


def _sentence(entity: Entity, missed: LateRecords) -> str:
    noun = (entity.value if missed.records == 1 else entity.plural).capitalize()
    return (
        f"{missed.records} {noun}, changed from {_clock(missed.first)} to {_clock(missed.last)} UTC, reached Hull by the "
        "incremental fetch: no webhook about them arrived"
    )


def _clock(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S}"


def _wake_waiting(session: Session, run: Run) -> None:
    """Make the records due that waited for the end of this fetch."""
    builds_index = run.kind == "full" or run.reindexes
    reasons = [INDEX_BEHIND, INDEX_INCOMPLETE] if builds_index else [INDEX_BEHIND]
    if change_writer.make_due(session, run.connector_key, Direction.OUTGOING, run.entity, reasons):
        dispatch.gather_after_commit(session)


def confirm(session: Session, run_id: int) -> bool:
    """Start a held run that an operator approved. Return False if the run is not held.

    Raises: RunInProgress if another run of the kind is in flight.
    """
    run = run_rows.lock_run(session, run_id)
    if run.state != "held":
        return False
    if running := run_rows.running_run(session, run.connector_key, run.entity, run.kind):
        raise RunInProgress(running.id)
    run.state, run.reason, run.started_at = "running", None, datetime.now(UTC)
    session.flush()
    _start_walks(session, run)
    return True


def release(session: Session, run_id: int) -> None:
    """Enqueue waiting pages of a running run up to `batches_in_flight`, so that a fast remote does not fill the database."""
    wakeups = batch_queue.release_waiting(session, run_id, settings().batches_in_flight)
    if wakeups:
        after_commit(session, lambda: canvases.wake(wakeups))


def advance(session: Session, run_id: int) -> None:
    """Continue, catch up or complete a running run after one of its batches has ended. The run must be locked."""
    release(session, run_id)
    if batches.run_has_work(session, run_id):
        return
    run = run_rows.lock_run(session, run_id)
    if run.phase == "walk":
        run.phase = "catch_up"
        open_slice(session, run, "catch_up")
        release(session, run.id)
    else:
        run_rows.close_run(session, run, "done")
        _note_end(session, run)
        missing_records.compare(session, run)
        run_rows.note_finished(session, run)
        after_commit(session, lambda: log_end(run_id))


def after_failed_stage(session: Session, batch: ClaimedBatch, reason: str) -> None:
    """Stop the run of a page that cannot be read; the run continues after any other failed stage."""
    run = run_rows.lock_run(session, batch.run_id or 0)
    if run.state != "running":
        return
    if batch.stage == "extract":
        run_rows.close_run(session, run, "stopped", reason)
        after_commit(session, lambda: log_end(run.id))
    else:
        run_rows.count(session, run.id, failed=session.get_one(Batch, batch.id).records)
        advance(session, run.id)


def reopen(session: Session, run_id: int) -> None:
    """Continue the run of a failed page that is replayed.

    Raises: RunInProgress if another run of the kind is in flight.
    """
    run = run_rows.lock_run(session, run_id)
    if run.state != "stopped":
        return
    if running := run_rows.running_run(session, run.connector_key, run.entity, run.kind):
        raise RunInProgress(running.id)
    run.state, run.reason, run.finished_at = "running", None, None
    for each in run_rows.slices_of(session, run_id):
        each.anchor, each.empty_pages = None, 0  # the walk's check for repeated pages begins again
    session.flush()


def cancel(session: Session, run_id: int) -> bool:
    """Cancel a run; its running stages lose their lease. Return False if it has already ended."""
    run = run_rows.lock_run(session, run_id)
    if run.state not in ("running", "held"):
        return False
    batches.cancel_open(session, run_id)
    run_rows.close_run(session, run, "cancelled", "cancelled")
    after_commit(session, lambda: log_end(run_id))
    return True


def log_end(run_id: int) -> None:
    """Log one line with the run's counters."""
    with transaction() as session:
        run = session.get_one(Run, run_id)
        connector_id = connectors.id_of(session, run.connector_key)
    counts = {name: getattr(run, name) for name in run_rows.COUNTERS}
    took_s = ((run.finished_at or datetime.now(UTC)) - run.started_at).total_seconds()
    log = {"done": logger().info, "cancelled": logger().warning}.get(run.state, logger().error)
    name = "incoming.job.success" if run.state == "done" else "incoming.job.error"
    about = {"connector_id": connector_id, "run_id": run.id, "type": Entity(run.entity).hull}
    log(name, **about, state=run.state, reason=run.reason, took_s=took_s, **counts)
