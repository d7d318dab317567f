"""Control tasks, started by beat's ticks. Each decides in SQL what is due, so a second or a late tick does no harm."""

from __future__ import annotations

from celery import Task

from db import batch_queue, schedule, shell, webhook
from db import connector as connectors
from db.session import after_commit, transaction
from pipeline.jobs import runtime
from pipeline.jobs.replays import advance
from pipeline.sync import alerts, duplicates, job_queue, upkeep
from pipeline.sync.changes import dispatch as change_dispatch
from pipeline.sync.changes import hull_ids
from pipeline.sync.connectors import webhooks
from pipeline.sync.each_connector import for_each_connector
from pipeline.sync.runs import schedules
from pipeline.tasks import canvases
from pipeline.tasks.app import app
from pipeline.telemetry import logger


@app.task(name="control.sweep", bind=True)
def sweep(self: Task) -> None:
    """Enqueue again what is due or was lost, and process new deliveries."""
    ticked_by = (self.request.headers or {}).get("ticked_by")
    with transaction() as session:
        found = batch_queue.sweep(session)
        schedule.note_heartbeats(session, ["sweep", "beat"] if ticked_by == "beat" else ["sweep"])
        after_commit(session, lambda: canvases.wake(wakeup for wakeup, _ in found))
    lost = sum(1 for _, why in found if why == "lost")
    if lost:
        logger().warning("sweep.recovered", swept_total=lost, batches=[wakeup.batch_id for wakeup, _ in found])
    job_queue.dispatch()
    change_dispatch.dispatch_changes()


@app.task(name="control.dispatch")
def dispatch() -> None:
    """Process a delivery, a change or a job that was just stored, without waiting for the sweep."""
    job_queue.dispatch()
    change_dispatch.dispatch_changes()


@app.task(name="control.resolve_hull_ids", bind=True)
def resolve_hull_ids(self: Task, connector_key: int | None = None) -> None:
    """Query Hull's search for the ids of delivered records, because the firehose returns nothing."""
    with transaction() as session:
        keys = [row.key for row in connectors.all_connectors(session) if row.state == "active"]
    for_each_connector(
        "resolve_hull_ids", keys if connector_key is None else [connector_key], self.request.id, _resolve_in_rounds
    )


def _resolve_in_rounds(connector_key: int) -> None:
    if hull_ids.resolve(connector_key):
        app.send_task("control.resolve_hull_ids", args=(connector_key,))


@app.task(name="control.ensure_webhooks", bind=True)
def ensure_webhooks(self: Task, connector_key: int | None = None) -> None:
    """Check that Pipedrive still sends every change."""
    with transaction() as session:
        due = webhook.connectors_to_check(session, subject=webhooks.SUBJECT, rest_s=webhooks.REST_S)
    keys = due if connector_key is None else [connector_key]
    for_each_connector(webhooks.TASK, keys, self.request.id, webhooks.ensure_webhooks)


@app.task(name="control.watch")
def watch() -> None:
    """Evaluate the alert rules and send what changed."""
    alerts.watch()


@app.task(name="control.record_outcomes")
def record_outcomes() -> None:
    """Record the outcomes of paused and aborted replays, which have no job to do so."""
    advance.record_left_outcomes()


@app.task(name="control.count_events")
def count_events() -> None:
    """Count what happened since the last tick."""
    upkeep.count_events()


@app.task(name="control.find_duplicates", bind=True)
def find_duplicates(self: Task) -> None:
    """Look for records that were created twice, for every connector."""
    with transaction() as session:
        keys = [connector.key for connector in connectors.all_connectors(session)]
    for_each_connector("find_duplicates", keys, self.request.id, duplicates.find)


@app.task(name="control.tidy")
def tidy() -> None:
    """Create the partitions of the coming days and delete what is past its retention."""
    upkeep.tidy()


@app.task(name="control.start_scheduled", bind=True)
def start_scheduled(self: Task) -> None:
    """Start the fetches that are due."""
    with transaction() as session:
        due = schedule.connectors_with_due(session)
    for_each_connector("start_scheduled", due, self.request.id, schedules.start_due)


@app.task(name="control.fill_shells", bind=True)
def fill_shells(self: Task) -> None:
    """Read the Organizations that only a Person has named, for every connector that has some."""
    with transaction() as session:
        keys = shell.connectors_with_shells(session)
    for_each_connector("fill_shells", keys, self.request.id, schedules.fill_shells)


@app.task(name=job_queue.TASK, bind=True)
def job(self: Task, job_id: int) -> None:
    """Run one job."""
    runtime.run_job(job_id, self.request.id)
