"""Turn deliveries into changes, and due changes into live batches; clear completed changes.

Many deliveries about one record are coalesced into one change. An invalid delivery is stored with a reason, and the others
continue. A webhook with a readable head and an unusable body is a hint: its record is read again.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from db import batch_queue, change_writer, webhook
from db import change as changes
from db import connector as connectors
from db import delivery as deliveries
from db import sync_event as events
from db.batch import Batch, ClaimedBatch, Wakeup, wakeup_of
from db.change_writer import DeliverySummary
from db.connector import Names
from db.delivery import Delivery
from db.schedule import catch_up_soon
from db.session import after_commit, transaction
from db.webhook import Newest
from pipeline.domain.json_text import is_nested_deeper, read_lenient
from pipeline.domain.kinds import Direction, Entity, Outcome, event_name
from pipeline.error_kinds import classify, may_come_back
from pipeline.errors import PipelineError, Rejected, Skip
from pipeline.load.incoming import PageDiff
from pipeline.sync.changes.outgoing_changes import LEVELS, HullMessage, take_messages, write_messages
from pipeline.sync.event_recorder import EventRecorder, Level
from pipeline.tasks import canvases
from pipeline.telemetry import logger
from pipeline.transform.webhooks import WebhookAction, WebhookHead, decode_head, find_head

DELIVERIES_AT_ONCE = 500
BYTES_AT_ONCE: Final = 16 * 1024 * 1024
"""Limit of body bytes in one round, because parsing needs several times this memory. A larger body has its own round."""
AHEAD_MS: Final = 5 * 60 * 1000
"""A webhook that is further ahead of the database's clock is only a hint."""
_PIPEDRIVE: Final = "pipedrive"
CHANGES_PER_BATCH = 500
READ_BACK = "read_back"


def dispatch_changes() -> int:
    """Coalesce, collect and enqueue; return how many batches were created. Safe to run concurrently."""
    is_more = True
    while is_more:
        with transaction() as session:
            is_more = coalesce_deliveries(session)
    return _gather()


def _gather() -> int:
    with transaction() as session:
        wakeups = gather_changes(session)
        after_commit(session, lambda: canvases.wake(wakeups))
    return sum(1 if wakeup.then is None else 2 for wakeup in wakeups)


def coalesce_deliveries(session: Session) -> bool:
    """Turn new deliveries into changes; return whether there may be more."""
    waiting = deliveries.claim_new_deliveries(session, DELIVERIES_AT_ONCE, BYTES_AT_ONCE)
    if not waiting:
        return False
    now = _Round(connectors=connectors.names_of_all(session))
    for delivery in waiting:
        coalesce = _coalesce_webhook if delivery.source == _PIPEDRIVE else _coalesce_notification
        try:
            now.marks[delivery.id] = "processed", coalesce(delivery, now)
        except Exception as error:
            if may_come_back(error):
                raise
            _refuse(now, delivery, error)
    change_writer.write_webhooks(session, list(now.summaries.values()))
    webhook.note_webhooks(session, now.newest.values())
    _write_messages(session, waiting, now)
    deliveries.mark_deliveries(session, now.marks)
    now.recorder.write(session)
    for connector_key in sorted(now.to_catch_up):
        catch_up_soon(session, connector_key)
    return len(waiting) == DELIVERIES_AT_ONCE or sum(len(each.body) for each in waiting) >= BYTES_AT_ONCE


@dataclass(slots=True)
class _Round:
    """The results of some deliveries, written together."""

    connectors: dict[int, Names]
    summaries: dict[tuple[int, Entity, int], DeliverySummary] = field(default_factory=dict)
    newest: dict[tuple[int, Entity, int], Newest] = field(default_factory=dict)
    messages: dict[int, list[HullMessage]] = field(default_factory=dict)
    marks: dict[int, tuple[str, str | None]] = field(default_factory=dict)
    recorder: EventRecorder = field(default_factory=EventRecorder)
    to_catch_up: set[int] = field(default_factory=set)


def _coalesce_webhook(delivery: Delivery, now: _Round) -> str | None:
    """Return why the payload is only a hint, if it is."""
    head, unreadable = _head(delivery)
    company_id = now.connectors[delivery.connector_key].company_id
    if company_id is not None and head.company_id is not None and head.company_id != company_id:
        raise Rejected("webhook_other_company", f"of company {head.company_id}")
    doubt = unreadable or _doubt(delivery, head)
    key = (delivery.connector_key, head.entity, head.pipedrive_id)
    rank = head.sent_at_ms if doubt is None else _received_ms(delivery)
    summary = DeliverySummary(
        delivery_id=delivery.id,
        entity=head.entity,
        record_id=str(head.pipedrive_id),
        rank=rank,
        is_usable=doubt is None,
        is_created=head.action is WebhookAction.CREATE,
        is_deleted=head.action is WebhookAction.DELETE,
    )
    _add(now, key, summary, head)
    if head.merged_from_id is not None:  # it is also the deletion of the other record
        other = replace(summary, record_id=str(head.merged_from_id), is_created=False, is_deleted=True)
        _add(now, (delivery.connector_key, head.entity, head.merged_from_id), other, head)
    if doubt is None:
        return None
    name = event_name(Direction.INCOMING, head.entity, Outcome.RETRY)
    _note(now, delivery, name, doubt, entity=head.entity, pipedrive_id=head.pipedrive_id)
    return doubt.reason


def _head(delivery: Delivery) -> tuple[WebhookHead, PipelineError | None]:
    """Return the record of a webhook, and why the rest of it could not be read."""
    body = bytes(delivery.body)
    try:
        payload = read_lenient(body)
    except ValueError:
        head = find_head(body)
        if head is None:
            raise Rejected("webhook_without_id", "the body cannot be read, and names no record") from None
        return head, Rejected("webhook_unreadable", "cut off, too deep, or no JSON")
    head = decode_head(payload)
    return head, Rejected("webhook_unreadable", "nested too deeply") if is_nested_deeper(payload, LEVELS) else None


def _doubt(delivery: Delivery, head: WebhookHead) -> PipelineError | None:
    """Return why the body is not used although its head is readable; None if it is used."""
    if head.is_old_format:
        return Rejected("webhook_old_format", "of version 1.0")
    ahead_ms = head.latest_ms - _received_ms(delivery)
    if ahead_ms > AHEAD_MS:
        return Rejected("webhook_future_dated", f"{ahead_ms // 1000} s ahead of this clock")
    return None


def _received_ms(delivery: Delivery) -> int:
    return int(delivery.received_at.timestamp() * 1000)


def _add(now: _Round, key: tuple[int, Entity, int], summary: DeliverySummary, head: WebhookHead) -> None:
    earlier = now.summaries.get(key)
    now.summaries[key] = summary if earlier is None else _both(earlier, summary)
    if not summary.is_usable:
        return
    received = Newest(
        connector_key=key[0],
        entity=key[1],
        pipedrive_id=key[2],
        sent_at_ms=head.sent_at_ms,
        version=None if summary.is_deleted or head.updated_ms is None else head.updated_ms // 1000,
        is_deleted=summary.is_deleted,
        delivery_id=summary.delivery_id,
    )
    before = now.newest.get(key)
    now.newest[key] = received if before is None else webhook.newer_of(before, received)


def _both(earlier: DeliverySummary, later: DeliverySummary) -> DeliverySummary:
    """Combine two deliveries about one record: the later one counts, and its body is used only if neither is a hint.

    If both have the same millisecond, their order is unknown and the record is read; a deletion is kept and checked.
    """
    newest = earlier if earlier.rank > later.rank or (earlier.rank == later.rank and earlier.is_deleted) else later
    is_clear = earlier.rank != later.rank
    return replace(
        newest,
        is_usable=newest.is_usable if newest.is_deleted else earlier.is_usable and later.is_usable and is_clear,
        is_created=earlier.is_created or later.is_created,
    )


def _note(
    now: _Round,
    delivery: Delivery,
    name: str,
    cause: PipelineError,
    *,
    entity: str = "",
    pipedrive_id: int | None = None,
) -> None:
    """Add an event and its log line, with the id of the delivery that has the body."""
    event = events.NewEvent(
        connector_key=delivery.connector_key,
        event=name,
        entity=entity,
        cause="webhook" if delivery.source == _PIPEDRIVE else "notification",
        reason=cause.reason,
        detail=f"delivery {delivery.id}: {cause.detail}",
        pipedrive_id=pipedrive_id,
        delivery_id=delivery.id,
    )
    level: Level = "info" if isinstance(cause, Skip) else "warning"
    connector_id = now.connectors[delivery.connector_key].connector_id
    now.recorder.add(event, level=level, connector_id=connector_id, detail=cause.detail)


def _coalesce_notification(delivery: Delivery, now: _Round) -> str | None:
    """Take the messages of a notification. Return why the last unusable one was left out, if there is one."""
    body = read_lenient(bytes(delivery.body))
    entity = Entity.PERSON if body["channel"] == "user:update" else Entity.ORGANIZATION
    taken, refused = take_messages(
        delivery.connector_key,
        entity,
        body["messages"],
        cause="notification",
        is_export=body.get("is_export") is True,
        rank=_received_ms(delivery),
        delivery_id=delivery.id,
    )
    now.messages[delivery.id] = taken
    for each in refused:
        _note(now, delivery, event_name(Direction.OUTGOING, entity, Outcome.ERROR), each, entity=entity)
    return refused[-1].reason if refused else None


def _refuse(now: _Round, delivery: Delivery, error: Exception) -> None:
    cause = classify(error)
    if delivery.source == _PIPEDRIVE and cause.reason == "webhook_without_id":
        now.to_catch_up.add(delivery.connector_key)
    now.marks[delivery.id] = "refused", cause.reason
    _note(now, delivery, _refusal(delivery, cause), cause)


def _refusal(delivery: Delivery, cause: PipelineError) -> str:
    """Return the name of the event about a delivery without an effect."""
    direction = Direction.INCOMING if delivery.source == _PIPEDRIVE else Direction.OUTGOING
    return f"{direction}.job.{Outcome.SKIP if isinstance(cause, Skip) else Outcome.ERROR}"


def _write_messages(session: Session, waiting: list[Delivery], now: _Round) -> None:
    """Write all messages together; after a defect, write each delivery separately, so that only one is refused."""
    try:
        with session.begin_nested():
            write_messages(session, [message for messages in now.messages.values() for message in messages])
    except Exception as error:
        if may_come_back(error):
            raise  # the database is unavailable: all deliveries stay as they are
        logger().error("deliveries.not_coalesced_together", detail=classify(error).detail)
        for delivery in waiting:
            try:
                with session.begin_nested():
                    write_messages(session, now.messages.get(delivery.id, ()))
            except Exception as alone:
                if may_come_back(alone):
                    raise
                _refuse(now, delivery, alone)


def gather_changes(session: Session) -> list[Wakeup]:
    """Put due changes into batches, Organizations before Persons. Return their wake-ups."""
    made: dict[tuple[int, str, str], Wakeup] = {}
    for connector_key, direction, entity in changes.due_groups(session):
        batch = Batch(connector_key=connector_key, direction=direction, entity=entity, queue="live", state="ready")
        session.add(batch)
        session.flush()
        count = change_writer.claim_changes(
            session, connector_key, direction, entity, batch_id=batch.id, limit=CHANGES_PER_BATCH
        )
        if not count:
            session.delete(batch)
            continue
        batch_queue.mark_enqueued(session, batch.id)
        if direction == Direction.OUTGOING:
            batch.read_back_id = _read_back(session, batch)
        session.flush()
        made[connector_key, direction, entity] = wakeup_of(batch)
    return _in_order(made)


def _read_back(session: Session, outgoing: Batch) -> int:
    """Create the batch that will bring Pipedrive's answers back to Hull; it waits until they are staged."""
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


def _in_order(made: dict[tuple[int, str, str], Wakeup]) -> list[Wakeup]:
    """Chain the outgoing Users of a connector after its Accounts; all other batches are separate."""
    wakeups = dict(made)
    for connector_key, direction, entity in made:
        users = (connector_key, Direction.OUTGOING, Entity.PERSON)
        if (direction, entity) == (Direction.OUTGOING, Entity.ORGANIZATION) and users in wakeups:
            accounts = wakeups[connector_key, direction, entity]
            wakeups[connector_key, direction, entity] = replace(accounts, then=wakeups.pop(users))
    return list(wakeups.values())


def finish(session: Session, batch: ClaimedBatch, plan: PageDiff) -> None:
    """Clear completed changes, except those with a newer revision; write one log line for each."""
    change_writer.clear_changes(session, batch.id)
    gather_after_commit(session)
    name = event_name(Direction.INCOMING, plan.entity, Outcome.SUCCESS)
    for sending in plan.sendings:
        logger().info(name, pipedrive_id=sending.record["pipedrive_id"], effect=sending.effect)


def gather_after_commit(session: Session) -> None:
    """Gather the waiting changes after the commit, without waiting for the sweep."""

    def gather() -> None:
        try:
            _gather()
        except SQLAlchemyError as failed:  # the sweep follows within seconds
            logger().warning("changes.not_gathered", error=type(failed).__name__)

    after_commit(session, gather)


def cause_of(session: Session, batch: ClaimedBatch) -> str:
    """Return the cause of the batch: that of its changes, its own, or the read-back of a send."""
    cause = changes.cause_of(session, batch.id)
    return cause or session.get_one(Batch, batch.id).cause or READ_BACK
