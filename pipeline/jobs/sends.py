"""Send chosen Users or Accounts to Pipedrive in a job, fifty records at a time.

After a kill it continues after the last coalesced page; coalescing a page twice changes nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, Final

from pydantic import BaseModel, ConfigDict
from sqlalchemy.orm import Session

from db import job as jobs
from db import sync_event as events
from db.job import ClaimedJob, Job
from db.session import after_commit, transaction
from pipeline import wiring
from pipeline.clients.hull import FoundReports
from pipeline.domain.kinds import Direction, Entity, Outcome, event_name
from pipeline.sync import job_queue
from pipeline.sync.changes.outgoing_changes import coalesce_messages
from pipeline.sync.event_recorder import record
from pipeline.sync.job_queue import CONTINUE, DONE, SEND, JobStep, order_of
from pipeline.tasks import canvases
from pipeline.telemetry import logger

MOST_IDS: Final = 5_000
PER_PAGE: Final = 50
"""Reports to a search of Hull."""
COUNTED_AT_ONCE: Final = 1_000
"""Ids to one search that only counts."""


class SendOrder(BaseModel):
    """What to send: these Hull ids, or all members of a segment. rank: when it was requested, in ms since the epoch."""

    model_config = ConfigDict(frozen=True)

    entity: Entity
    ids: tuple[str, ...] = ()
    segment: str | None = None
    rank: int

    @property
    def title(self) -> str:
        """Return the title of the job."""
        noun = self.entity.hull.capitalize()
        if self.segment is not None:
            return f"{noun}s of segment {self.segment}"
        return f"1 {noun}" if len(self.ids) == 1 else f"{len(self.ids):,} {noun}s"

    def clause(self, page: int) -> dict[str, Any] | None:
        """Return the request to Hull's search for that page; None after the last id."""
        if self.segment is not None:
            return {"term": {"segment_ids": self.segment}}
        ids = self.ids[page * PER_PAGE : (page + 1) * PER_PAGE]
        return {"terms": {"id": list(ids)}} if ids else None


def enqueue(session: Session, connector_key: int, order: SendOrder) -> None:
    """Store the job; the same send is not run twice concurrently. A worker is notified after the commit."""
    chosen = order.model_dump_json(exclude={"rank"})
    digest = hashlib.blake2b(chosen.encode(), digest_size=16).hexdigest()
    job_queue.enqueue(
        session,
        SEND,
        f"{connector_key}:{digest}",
        title=order.title,
        connector_key=connector_key,
        secret=order.model_dump_json(),
    )
    after_commit(session, lambda: canvases.wake_control("dispatch"))


def step(job: ClaimedJob) -> JobStep:
    """Send the next page. Raises: Rejected, Retryable, LostLease."""
    order, key, page = order_of(job, SendOrder), job.connector_key or 0, job.progress
    if (clause := order.clause(page)) is None:
        return _end(order, page)
    answer = _find_page(key, order.entity, clause, 1 if order.segment is None else page + 1)
    with transaction() as session:
        messages = [_message(order.entity, report) for report in answer.reports]
        coalesce_messages(session, key, order.entity, messages, cause="send", is_export=True, rank=order.rank)
        after_commit(session, lambda: canvases.wake_control("dispatch"))
        missing = _log_missing(session, key, order, page, {str(each.get("id")) for each in answer.reports})
        of = answer.total if order.segment is not None else len(order.ids)
        jobs.checkpoint(session, job, page + 1, f"{of} {read_checkpoint(job.checkpoint)[1] + missing}")
    if order.segment is not None and (not answer.reports or page + 1 >= answer.pages):
        return _end(order, page + 1)
    return CONTINUE


def _end(order: SendOrder, pages: int) -> JobStep:
    logger().info("outgoing.job.success", type=order.entity.hull, job=SEND, pages=pages)
    return DONE


def _find_page(connector_key: int, entity: Entity, clause: dict[str, Any], page: int) -> FoundReports:
    """Return one page of the Users or Accounts that a clause selects, as Hull has them now."""
    with transaction() as session:
        wired = wiring.open_connector(session, connector_key)
    return wired.hull.find_reports(entity, {"bool": {"filter": [clause]}}, page=page, per_page=PER_PAGE)


def _message(entity: Entity, report: dict[str, Any]) -> dict[str, Any]:
    """Return a report of Hull's search in the form of a notification's message: an export has no changes."""
    plain = {name: value for name, value in report.items() if name != "account"}
    if entity is Entity.ORGANIZATION:
        return {"account": plain, "account_segment_ids": report.get("segment_ids") or []}
    return {"user": plain, "account": report.get("account") or {}, "segment_ids": report.get("segment_ids") or []}


def _log_missing(session: Session, connector_key: int, order: SendOrder, page: int, found: set[str]) -> int:
    """Log the ids of a page that Hull does not have, and return how many they are."""
    asked = order.ids[page * PER_PAGE : (page + 1) * PER_PAGE] if order.segment is None else ()
    missing = [each for each in asked if each not in found]
    name = event_name(Direction.OUTGOING, order.entity, Outcome.SKIP)
    record(
        session,
        [
            events.NewEvent(
                connector_key=connector_key,
                event=name,
                entity=order.entity,
                cause=SEND,
                reason="not_in_hull",
                hull_id=each,
            )
            for each in missing
        ],
    )
    return len(missing)


def count(connector_key: int, entity: Entity, segment: str | None, ids: Sequence[str] = ()) -> int:
    """Return how many Hull has in a segment now, or of these ids. Raises: what Hull's client raises."""
    with transaction() as session:
        wired = wiring.open_connector(session, connector_key)
    clauses: list[dict[str, Any]] = (
        [{"term": {"segment_ids": segment}}]
        if segment is not None
        else [{"terms": {"id": list(ids[at : at + COUNTED_AT_ONCE])}} for at in range(0, len(ids), COUNTED_AT_ONCE)]
    )
    queries = [{"bool": {"filter": [clause]}} for clause in clauses]
    return sum(int(wired.hull.find_reports(entity, query, per_page=1).total) for query in queries)


def progress_of(job: Job) -> tuple[int, int | None, int]:
    """Return (number of sent records, total or None before the first page, number of records missing in Hull)."""
    of, missing = read_checkpoint(job.checkpoint)
    seen = job.progress * PER_PAGE
    return (seen if of is None else min(of, seen)) - missing, of, missing


def read_checkpoint(mark: str | None) -> tuple[int | None, int]:
    """Return (total or None before the first page, number of records missing in Hull) of a checkpoint."""
    of, _, missing = (mark or "").partition(" ")
    return (int(of) if of.isdigit() else None), (int(missing) if missing.isdigit() else 0)
