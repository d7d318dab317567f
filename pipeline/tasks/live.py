"""Live batches: a handful of changes instead of a page. Changes gather in batches.

A webhook's payload is used when it is whole and newer than what was carried over; otherwise the record is read again,
100 ids to a request.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy.orm import Session

from db import batch as batches
from db import change as changes
from db import id_mapping
from db import sync_event as events
from db.batch import Batch, ClaimedBatch, Wakeup, wakeup_of
from db.change import Change
from db.id_mapping import Known
from db.session import after_commit, transaction
from db.snapshot import read_snapshots
from pipeline import wiring
from pipeline.domain.kinds import Direction, Entity, Outcome, event_name
from pipeline.domain.lenient_json import read_lenient, write_lenient
from pipeline.domain.reasons import describe
from pipeline.errors import Rejected, Skip
from pipeline.extract.pages import ids_of, read_by_ids
from pipeline.load.incoming import PagePlan
from pipeline.tasks import canvases
from pipeline.tasks.folding import DELIVERIES_AT_ONCE, fold_deliveries
from pipeline.tasks.plans import Plan, plan_for, refresh_plan
from pipeline.tasks.staging import pack_page
from pipeline.telemetry import logger
from pipeline.transform.times import epoch_seconds
from pipeline.transform.webhooks import complete_record, decode_webhook

CHANGES_PER_BATCH = 500


def gather_changes(session: Session) -> list[Wakeup]:
    """Put due changes into batches, organizations first. Returns what is to be woken."""
    wakeups = []
    for connector_key, direction, entity in changes.due_groups(session):
        batch = Batch(connector_key=connector_key, direction=direction, entity=entity, queue="live", state="ready")
        session.add(batch)
        session.flush()
        count = changes.claim_changes(
            session, connector_key, direction, entity, batch_id=batch.id, limit=CHANGES_PER_BATCH
        )
        if not count:
            session.delete(batch)
            continue
        batches.mark_enqueued(session, batch.id)
        if direction == Direction.OUTGOING:
            batch.read_back_id = _read_back(session, batch)
        session.flush()
        wakeups.append(wakeup_of(batch))
    return wakeups


def _read_back(session: Session, outgoing: Batch) -> int:
    """The batch that will carry Pipedrive's answers back to Hull; it has nothing to do before they are there."""
    batch = Batch(
        connector_key=outgoing.connector_key,
        direction=Direction.INCOMING,
        entity=outgoing.entity,
        queue="live",
        stage="transform",
    )
    session.add(batch)
    session.flush()
    return batch.id


def dispatch_changes() -> int:
    """Fold, gather and wake; returns how many batches were made. Safe to run by several at once."""
    folded = DELIVERIES_AT_ONCE
    while folded == DELIVERIES_AT_ONCE:
        with transaction() as session:
            folded = fold_deliveries(session)
    with transaction() as session:
        wakeups = gather_changes(session)
        after_commit(session, lambda: canvases.wake(wakeups))
    return len(wakeups)


def extract_changes(batch: ClaimedBatch) -> None:
    """Bring in the newest state of every record the batch's changes name, from their payloads or by reading them."""
    entity = Entity(batch.entity)
    with transaction() as session:
        wired = wiring.open_connector(session, batch.connector_key, lane=batch.queue)
        plan = plan_for(session, batch.connector_key, entity)
    if plan.fields_read_at is None:
        plan = refresh_plan(wired, entity)
    with transaction() as session:
        mine = changes.changes_of(session, batch.id)
        told = _told(session, batch, plan, mine)
    to_read = [int(change.record_id) for change in mine if int(change.record_id) not in told]
    read = read_by_ids(wired.pipedrive, entity, to_read, plan.incoming.include_fields)
    present = set(ids_of(read))
    with transaction() as session:
        batches.hold(session, batch)
        _note_gone(session, batch, mine, [record_id for record_id in to_read if record_id not in present])
        body = write_lenient({"data": [*told.values(), *read]})
        batches.pass_to_transform(session, batch.id, pack_page(body), len(mine))


def _told(session: Session, batch: ClaimedBatch, plan: Plan, mine: list[Change]) -> dict[int, dict[str, Any]]:
    """Pipedrive id → record, for webhooks whose own words are whole and newer than what was carried over."""
    entity = Entity(batch.entity)
    spoken = {change.record_id: bytes(change.payload) for change in mine if change.payload is not None}
    known = id_mapping.known(session, batch.connector_key, entity, [int(record_id) for record_id in spoken])
    kept = read_snapshots(session, batch.connector_key, entity, "pipedrive", list(spoken))
    told = {}
    for record_id, payload in spoken.items():
        snapshot = kept.get(record_id)
        record = _whole(payload, read_lenient(snapshot) if snapshot else None, plan)
        if record is not None and _is_newest(record, known.get(int(record_id)), plan):
            told[int(record_id)] = record
    return told


def _whole(payload: bytes, snapshot: dict[str, Any] | None, plan: Plan) -> dict[str, Any] | None:
    """The record a webhook tells of, or None when only a read can say what it is now."""
    try:
        webhook = decode_webhook(read_lenient(payload), plan.catalog)
    except (Rejected, Skip):  # its head named a record when it was folded: a hint is all it is
        return None
    if webhook.record is None:
        return None
    record, unsure = complete_record(webhook, snapshot, plan.incoming.custom_fields)
    return None if unsure or not plan.incoming.system_fields <= record.keys() else record


def _is_newest(record: dict[str, Any], known: Known | None, plan: Plan) -> bool:
    """Newer than what was carried over, or the very same: the echo of our own write, for one, needs no reading."""
    version = epoch_seconds(record.get("update_time"))
    if version is None or known is None or known.version != version:
        return version is not None and (known is None or known.version < version)
    try:
        return plan.incoming.read(record).digest == known.digest
    except (Rejected, Skip):
        return False


def _note_gone(session: Session, batch: ClaimedBatch, mine: list[Change], gone: list[int]) -> None:
    """Records that Pipedrive no longer shows: told, not retried."""
    causes = {change.record_id: change.cause for change in mine}
    name = event_name(Direction.INCOMING, Entity(batch.entity), Outcome.SKIP)
    for pipedrive_id in gone:
        logger().info(name, pipedrive_id=pipedrive_id, reason="gone", advice=describe("gone"))
    events.log_events(
        session,
        [
            events.NewEvent(
                connector_key=batch.connector_key,
                event=name,
                entity=batch.entity,
                cause=causes[str(pipedrive_id)],
                reason="gone",
                pipedrive_id=pipedrive_id,
                batch_id=batch.id,
            )
            for pipedrive_id in gone
        ],
    )


def cause_of(session: Session, batch: ClaimedBatch) -> str:
    """Why the batch's records are carried over: that of its changes, or the read-back of what was sent."""
    first = next(iter(changes.changes_of(session, batch.id)), None)
    return first.cause if first else "read_back"


def finish(session: Session, batch: ClaimedBatch, plan: PagePlan) -> None:
    """The changes were carried over: they are cleared, unless they moved on; one log line for each."""
    changes.clear_changes(session, batch.id)
    name = event_name(Direction.INCOMING, plan.entity, Outcome.SUCCESS)
    for sending in plan.sendings:
        logger().info(name, pipedrive_id=sending.record["pipedrive_id"], effect=sending.effect)
