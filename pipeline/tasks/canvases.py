"""All canvases, and the messages that request a control task.

    incoming            = extract | transform | load
    outgoing            = extract | transform | load | transform the read-back | load the read-back
    accounts_then_users = outgoing Accounts | outgoing Users that may link to them
    fetch               = a group of the first pages; each extract enqueues its successor
    replay              = the canvas from the failed stage; outgoing = the whole canvas

A message has the id of a batch and nothing else. There are no chords, and no chain passes data.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from celery import chain, group
from celery.canvas import Signature
from kombu.exceptions import OperationalError

from db.batch import Wakeup
from pipeline.domain.kinds import Direction
from pipeline.tasks.app import app
from pipeline.telemetry import logger

STAGES = ("extract", "transform", "load")


def incoming(batch_id: int, queue: str, first: str = "extract") -> Signature:
    """Return the stages of an incoming batch, from `first` on."""
    return chain(_stages(Direction.INCOMING, batch_id, queue, first))


def outgoing(batch_id: int, read_back_id: int | None, queue: str, first: str = "extract") -> Signature:
    """Return the stages of an outgoing batch, then those of its read-back."""
    stages = _stages(Direction.OUTGOING, batch_id, queue, first)
    if read_back_id is not None:
        stages += _stages(Direction.INCOMING, read_back_id, queue, "transform")
    return chain(stages)


def accounts_then_users(accounts: Wakeup, users: Wakeup) -> Signature:
    """Return the stages of a batch of Accounts, then of one of Users. If the first one stops, the sweep enqueues the second."""
    return _canvas(replace(accounts, then=None)) | _canvas(users)


def wake(wakeups: Iterable[Wakeup], countdown_s: float | None = None) -> None:
    """Enqueue batches. If the broker is down, the sweep repeats it, because the rows keep what is due."""
    canvases = [_canvas(wakeup) for wakeup in wakeups]
    if not canvases:
        return
    work = canvases[0] if len(canvases) == 1 else group(canvases)
    try:
        work.apply_async(countdown=countdown_s)
    except (OperationalError, OSError) as unreachable:
        logger().warning("broker.unreachable", error=type(unreachable).__name__, batches=len(canvases))


def _canvas(wakeup: Wakeup) -> Signature:
    if wakeup.then is not None:
        return accounts_then_users(wakeup, wakeup.then)
    if wakeup.direction == Direction.OUTGOING:
        return outgoing(wakeup.batch_id, wakeup.read_back_id, wakeup.queue, wakeup.stage)
    return incoming(wakeup.batch_id, wakeup.queue, wakeup.stage)


def _stages(direction: Direction, batch_id: int, queue: str, first: str) -> list[Signature]:
    remaining = STAGES[STAGES.index(first) :]
    return [app.signature(f"{direction}.{stage}", args=(batch_id,), immutable=True, queue=queue) for stage in remaining]


def wake_control(name: str, countdown_s: float | None = None) -> None:
    """Request a control task now; if the broker is down, its tick follows soon."""
    _send(f"control.{name}", countdown=countdown_s)


def request_webhook_check(connector_key: int) -> bool:
    """Request a check of a connector's webhooks now; return False if the broker is down."""
    return _send("control.ensure_webhooks", kwargs={"connector_key": connector_key})


def _send(name: str, **options: Any) -> bool:
    try:
        app.send_task(name, **options)
    except Exception as unreachable:  # noqa: BLE001 - the broker's client raises many classes, and the tick follows
        logger().warning("broker.unreachable", error=type(unreachable).__name__)
        return False
    return True
