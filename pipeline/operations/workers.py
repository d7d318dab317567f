"""Workers: the queues and their workers, running tasks, and the last heartbeats."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Final

from pydantic import Field

from db import figures as rows
from db import schedule
from db.figures import UnfinishedBatches, oldest_due_s
from db.session import transaction
from pipeline.domain.kinds import Role
from pipeline.operations.cached_answers import BackgroundValue
from pipeline.operations.call import Call
from pipeline.operations.models import ConnectorRequest, RequestModel, Shape
from pipeline.operations.registry import operation
from pipeline.operations.runs import BatchShape
from pipeline.tasks.app import app

QUEUES: Final = ("live", "bulk", "control")
BEAT: Final = "celerybeat@"
ANSWER_S: Final = 1.0
LATE_S: Final = 120.0
"""Due work is enqueued again after 20 s: work that is due for longer than this has no worker, or too few."""
TICK_LATE_S: Final = 60.0
AT_WORK, LATELY = 50, 25
FRESH_S, STALE_S, PATIENCE_S, ANSWERED_S = 8.0, 30.0, 0.1, 4.0
"""Nodes have two seconds to answer. A page does not wait for that: until they have answered, the heartbeats count."""


class QueueShape(Shape):
    """`messages` are waiting in the queue; null if the broker did not answer."""

    name: str
    messages: int | None
    workers: list[str]
    batches: dict[str, int]


class WorkerBatchShape(BatchShape):
    connector: str
    lease_until: datetime | None
    run_id: int | None


class WorkAnswer(Shape):
    """`level` is `ok`, `warning` or `error`; `due_s` how long the oldest due work has waited.

    `broker` is `ok` or what is wrong with it, null while it has not answered; `nodes` are workers with the queues they listen to.
    """

    level: str
    sentence: str
    next_step: str
    due_s: float
    swept_at: datetime | None
    ticked_at: datetime | None
    broker: str | None
    nodes: dict[str, list[str]]
    beats: list[str]
    queues: list[QueueShape]
    at_work: list[WorkerBatchShape]
    lately: list[WorkerBatchShape]


WaitForNodes = Annotated[bool, Field(description="Wait up to four seconds for what the workers answer.")]
"""A page does not wait: it polls again soon."""


class WorkRequest(RequestModel):
    wait_for_nodes: WaitForNodes = True


class ConnectorWorkRequest(ConnectorRequest):
    wait_for_nodes: WaitForNodes = True


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerNodes:
    """What the broker and the workers answered.

    broker   `ok`, or the error
    workers  node → its queues
    beats    nodes of beat
    waiting  queue → number of messages in it
    """

    broker: str
    workers: dict[str, list[str]]
    beats: list[str]
    waiting: dict[str, int]

    @property
    def unattended(self) -> list[str]:
        """Return the queues that no worker listens to."""
        attended = {queue for queues in self.workers.values() for queue in queues}
        return [queue for queue in QUEUES if queue not in attended]


@operation("GET /workers", role=Role.VIEWER, command="workers")
def show_work(call: Call, request: WorkRequest) -> WorkAnswer:
    """Show whether work is done, for all connectors."""
    call.require_unlimited()
    return _work(None, request.wait_for_nodes)


@operation("GET /connectors/<connector>/workers", role=Role.VIEWER, command="connectors workers CONNECTOR")
def show_work_of(call: Call, request: ConnectorWorkRequest) -> WorkAnswer:
    """Show whether work is done, for one connector."""
    return _work(call.connector.key, request.wait_for_nodes)


def inspect_nodes() -> WorkerNodes:
    """Query the broker and the workers. Takes twice ANSWER_S, because the number of answers is unknown."""
    try:
        waiting = _count_messages()
        names = [name for answer in app.control.ping(timeout=ANSWER_S) or () for name in answer]
        listening = app.control.inspect(timeout=ANSWER_S).active_queues() or {}
    except Exception as error:  # noqa: BLE001 - every transport has errors of its own
        return WorkerNodes(broker=f"does not answer ({type(error).__name__})", workers={}, beats=[], waiting={})
    return WorkerNodes(
        broker="ok",
        workers={
            name: [queue["name"] for queue in listening.get(name, ())] for name in names if not name.startswith(BEAT)
        },
        beats=[name for name in names if name.startswith(BEAT)],
        waiting=waiting,
    )


def worker_command(queues: Iterable[str] = QUEUES) -> str:
    """Return the command that starts a worker of these queues."""
    return f"celery -A pipeline worker -Q {','.join(queues)}"


def any_worker_answers() -> bool:
    """Return whether a worker answers; beat, which answers as well, does not count."""
    return bool(inspect_nodes().workers)


def _count_messages() -> dict[str, int]:
    """Return queue → messages in it. A queue that was never used, or is empty, may not exist."""
    waiting = dict.fromkeys(QUEUES, 0)
    with app.connection_for_read(connect_timeout=2.0) as connection:
        connection.ensure_connection(max_retries=1, timeout=2.0)
        for queue in QUEUES:
            try:
                waiting[queue] = connection.channel().queue_declare(queue=queue, passive=True).message_count
            except connection.channel_errors:
                continue
    return waiting


def _work(connector_key: int | None, wait_for_nodes: bool) -> WorkAnswer:
    nodes = _nodes(ANSWERED_S if wait_for_nodes else PATIENCE_S)
    with transaction() as session:
        moving = rows.count_unfinished(session, connector_key)
        due_s = oldest_due_s(session, connector_key)
        beats = schedule.heartbeats(session)
        at_work = rows.list_active(session, connector_key, AT_WORK)
        lately = rows.list_recent(session, connector_key, LATELY)
    level, sentence, next_step = _assess(moving, due_s, beats, nodes)
    return WorkAnswer(
        level=level,
        sentence=sentence,
        next_step=next_step,
        due_s=due_s,
        swept_at=beats.get("sweep"),
        ticked_at=beats.get("beat"),
        broker=nodes.broker if nodes else None,
        nodes=nodes.workers if nodes else {},
        beats=nodes.beats if nodes else [],
        queues=[_queue(name, moving, nodes) for name in QUEUES],
        at_work=[WorkerBatchShape.model_validate(each) for each in at_work],
        lately=[WorkerBatchShape.model_validate(each) for each in lately],
    )


_nodes = BackgroundValue(inspect_nodes, fresh_s=FRESH_S, stale_s=STALE_S)

Assessment = tuple[str, str, str]
"""(level, the answer in a sentence, the next step)"""


def _assess(
    moving: list[UnfinishedBatches], due_s: float, beats: dict[str, datetime], nodes: WorkerNodes | None
) -> Assessment:
    """Return the assessment; the worst problem decides."""
    missing = _find_missing(moving, beats, nodes)
    if missing is not None:
        return missing
    if due_s > LATE_S:
        words = f"Work is being done, but the oldest has been due for {due_s / 60:.0f} min."
        return "warning", words, "Start more workers, or see below why they are slow."
    counts = _counts(moving)
    waiting = counts["due"] + counts["waiting"]
    if counts["running"] or waiting:
        return "ok", f"Work progresses: {_batches(counts['running'])} running, {waiting:,} wait, nothing is late.", ""
    if counts["put_off"]:
        return "ok", f"Workers are at work; {_batches(counts['put_off'])} tried again later.", ""
    return "ok", "All work is done; the workers wait for more.", ""


def _find_missing(
    moving: list[UnfinishedBatches], beats: dict[str, datetime], nodes: WorkerNodes | None
) -> Assessment | None:
    """Return which process is missing, or None. A busy node may answer late or partly; it is not missing."""
    if nodes is not None and nodes.broker != "ok":
        words = "The broker does not answer: work waits in the database, and continues automatically."
        return "error", words, "Start the broker, or correct BROKER_URL."
    if _is_late(beats.get("sweep")) and (nodes is None or not nodes.workers):
        return "error", f"No worker answers: {_waiting(moving)}", f"Start one: {worker_command()}"
    if nodes is not None and nodes.workers and nodes.unattended and all(nodes.workers.values()):
        words = f"No worker listens to {', '.join(nodes.unattended)}: {_waiting(moving)}"
        return "error", words, f"Start one: {worker_command(nodes.unattended)}"
    if _is_late(beats.get("beat")):
        words = "Workers run, but beat does not tick: no fetch starts automatically, and lost work is not found."
        return "error", words, "Start it: celery -A pipeline beat"
    return None


def _is_late(last: datetime | None) -> bool:
    return last is None or (datetime.now(UTC) - last).total_seconds() > TICK_LATE_S


def _queue(name: str, moving: list[UnfinishedBatches], nodes: WorkerNodes | None) -> QueueShape:
    workers = nodes.workers if nodes else {}
    return QueueShape(
        name=name,
        messages=nodes.waiting.get(name, 0) if nodes is not None and nodes.broker == "ok" else None,
        workers=sorted(node for node, queues in workers.items() if name in queues),
        batches={each.state: each.batches for each in moving if each.queue == name},
    )


def _counts(moving: list[UnfinishedBatches]) -> Counter[str]:
    """Return how many batches are in each state."""
    counts = Counter[str]()
    for each in moving:
        counts[each.state] += each.batches
    return counts


def _waiting(moving: list[UnfinishedBatches]) -> str:
    counts = _counts(moving)
    waiting = counts["due"] + counts["waiting"] + counts["abandoned"]
    return f"{_batches(waiting)} waiting." if waiting else "nothing is due just now."


def _batches(count: int) -> str:
    return f"{count:,} batch is" if count == 1 else f"{count:,} batches are"
