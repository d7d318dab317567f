"""Live batches of a few changes instead of a page. Changes are collected in batches; completed ones are cleared."""

from __future__ import annotations

from dataclasses import replace

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from db import batch as batches
from db import change as changes
from db import change_writer
from db.batch import Batch, ClaimedBatch, Wakeup, wakeup_of
from db.session import after_commit, transaction
from pipeline.domain.kinds import Direction, Entity, Outcome, event_name
from pipeline.load.incoming import PagePlan
from pipeline.sync.changes.coalesce import fold_deliveries
from pipeline.tasks import canvases
from pipeline.telemetry import logger

CHANGES_PER_BATCH = 500


def gather_changes(session: Session) -> list[Wakeup]:
    """Put due changes into batches, organizations first. Returns what is to be woken."""
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
        batches.mark_enqueued(session, batch.id)
        if direction == Direction.OUTGOING:
            batch.read_back_id = _read_back(session, batch)
        session.flush()
        made[connector_key, direction, entity] = wakeup_of(batch)
    return _in_order(made)


def _in_order(made: dict[tuple[int, str, str], Wakeup]) -> list[Wakeup]:
    """Outgoing Users of a connector come after its Accounts, in one canvas; all other batches are separate."""
    wakeups = dict(made)
    for connector_key, direction, entity in made:
        users = (connector_key, Direction.OUTGOING, Entity.PERSON)
        if (direction, entity) == (Direction.OUTGOING, Entity.ORGANIZATION) and users in wakeups:
            accounts = wakeups[connector_key, direction, entity]
            wakeups[connector_key, direction, entity] = replace(accounts, then=wakeups.pop(users))
    return list(wakeups.values())


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
    """Coalesce, collect and enqueue; return how many batches were created. Safe to run concurrently."""
    is_more = True
    while is_more:
        with transaction() as session:
            is_more = fold_deliveries(session)
    return _gather()


def _gather() -> int:
    with transaction() as session:
        wakeups = gather_changes(session)
        after_commit(session, lambda: canvases.wake(wakeups))
    return sum(1 if wakeup.then is None else 2 for wakeup in wakeups)


def go_on(session: Session) -> None:
    """A live batch has ended: what gathered behind it goes as soon as that is committed, without waiting for the sweep."""

    def gather() -> None:
        try:
            _gather()
        except SQLAlchemyError as failed:  # the sweep follows within seconds; the batch has ended whatever happens here
            logger().warning("changes.not_gathered", error=type(failed).__name__)

    after_commit(session, gather)


READ_BACK = "read_back"


def cause_of(session: Session, batch: ClaimedBatch) -> str:
    """Return the cause of the batch: that of its changes, its own, or the read-back of a send."""
    cause = changes.cause_of(session, batch.id)
    return cause or session.get_one(Batch, batch.id).cause or READ_BACK


def finish(session: Session, batch: ClaimedBatch, plan: PagePlan) -> None:
    """Clear completed changes, except those with a newer revision; write one log line for each."""
    change_writer.clear_changes(session, batch.id)
    go_on(session)
    name = event_name(Direction.INCOMING, plan.entity, Outcome.SUCCESS)
    for sending in plan.sendings:
        logger().info(name, pipedrive_id=sending.record["pipedrive_id"], effect=sending.effect)
