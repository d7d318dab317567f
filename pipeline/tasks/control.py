"""Control tasks: what beat's ticks set going. Each decides in SQL what is due, so that a second or a late tick does no harm."""

from __future__ import annotations

from celery import Task

from db import batch as batches
from db import connector as connectors
from db import heartbeat, id_mapping, subscription
from db.session import after_commit, transaction
from pipeline import wiring
from pipeline.domain.kinds import Entity
from pipeline.tasks import canvases, errands, live, webhooks
from pipeline.tasks.app import app
from pipeline.tasks.each_connector import for_each_connector
from pipeline.tasks.hull_ids import CHUNK, ask_hull, learn
from pipeline.telemetry import logger

RESOLVE_ROUND = 20
"""Searches to one task: enough to be quick, few enough that others get their turn."""


@app.task(name="control.sweep", bind=True)
def sweep(self: Task) -> None:
    """Hand over again what is due and what got lost, and bring new deliveries on their way."""
    ticked_by = (self.request.headers or {}).get("ticked_by")
    with transaction() as session:
        found = batches.sweep(session)
        heartbeat.note_heartbeats(session, ["sweep", "beat"] if ticked_by == "beat" else ["sweep"])
        after_commit(session, lambda: canvases.wake(wakeup for wakeup, _ in found))
    lost = sum(1 for _, why in found if why == "lost")
    if lost:
        logger().warning("sweep.recovered", swept_total=lost, batches=[wakeup.batch_id for wakeup, _ in found])
    errands.dispatch()
    live.dispatch_changes()


@app.task(name="control.dispatch")
def dispatch() -> None:
    """A delivery, a change or an errand has just been stored: do not wait for the next sweep."""
    errands.dispatch()
    live.dispatch_changes()


@app.task(name="control.resolve_hull_ids", bind=True)
def resolve_hull_ids(self: Task, connector_key: int | None = None) -> None:
    """Learn the ids Hull gave to what was delivered: the firehose answers nothing, so Hull's search is asked."""
    with transaction() as session:
        keys = [row.key for row in connectors.all_connectors(session) if row.state == "active"]
    for_each_connector(
        "resolve_hull_ids", keys if connector_key is None else [connector_key], self.request.id, _resolve_in_rounds
    )


def _resolve_in_rounds(connector_key: int) -> None:
    if resolve(connector_key):
        app.send_task("control.resolve_hull_ids", args=(connector_key,))


def resolve(connector_key: int) -> bool:
    """One round for one connector; True when there may be more to do."""
    with transaction() as session:
        wired = wiring.open_connector(session, connector_key)
        taken = id_mapping.take_unresolved(session, connector_key, CHUNK * RESOLVE_ROUND)
    for entity in Entity:
        ids = sorted(pipedrive_id for name, pipedrive_id in taken if name == entity)
        for at in range(0, len(ids), CHUNK):
            chunk = ids[at : at + CHUNK]
            found = ask_hull(wired, entity, chunk)
            with transaction() as session:
                learn(session, connector_key, entity, found)
                id_mapping.note_unresolved(session, connector_key, entity, set(chunk) - set(found))
    return len(taken) == CHUNK * RESOLVE_ROUND


@app.task(name="control.ensure_webhooks", bind=True)
def ensure_webhooks(self: Task, connector_key: int | None = None) -> None:
    """See that Pipedrive still tells us of every change."""
    with transaction() as session:
        due = subscription.connectors_to_check(session, subject=webhooks.SUBJECT, rest_s=webhooks.REST_S)
    keys = due if connector_key is None else [connector_key]
    for_each_connector(webhooks.TASK, keys, self.request.id, webhooks.ensure_webhooks)


def wake_control(name: str, countdown_s: float | None = None) -> None:
    """Ask for a control task now; if the broker is away, its tick comes soon enough."""
    try:
        app.send_task(f"control.{name}", countdown=countdown_s)
    except Exception as unreachable:  # noqa: BLE001 - whatever the broker's client raises, the tick will come
        logger().warning("broker.unreachable", error=type(unreachable).__name__)


def request_webhook_check(connector_key: int) -> bool:
    """Have a worker look at the webhooks of a connector now, whenever that was last done; False when the broker is away."""
    try:
        app.send_task("control.ensure_webhooks", kwargs={"connector_key": connector_key})
    except Exception as unreachable:  # noqa: BLE001 - whatever the broker's client raises
        logger().warning("broker.unreachable", error=type(unreachable).__name__)
        return False
    return True
