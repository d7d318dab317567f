"""Each process that carries out live batches gives a heartbeat, so that the slots of a remote system are a share of what runs."""

from __future__ import annotations

from threading import Event, Thread
from typing import Any

from celery import Celery
from celery.signals import celeryd_init, worker_process_init, worker_process_shutdown, worker_shutdown
from celery.utils.log import current_process_index
from sqlalchemy.exc import SQLAlchemyError

from db import heartbeat
from db.session import transaction
from pipeline.telemetry import logger

QUEUE = "live"

_node = "worker"
_ended = Event()


def register(app: Celery) -> None:
    """Have every process of this app that takes live batches give heartbeats from its start to its end."""

    @celeryd_init.connect(weak=False)
    def remember_node(sender: str, **_ignored: Any) -> None:
        global _node  # noqa: PLW0603 - one node per worker; its processes are forked from it
        _node = sender

    @worker_process_init.connect(weak=False)
    def begin(**_ignored: Any) -> None:
        global _ended  # noqa: PLW0603 - of this very process
        if QUEUE in app.amqp.queues.consume_from:
            _ended.set()
            _ended = Event()
            Thread(target=give_heartbeats, args=(process_name(), _ended), name="heartbeat", daemon=True).start()

    worker_process_shutdown.connect(end)
    worker_shutdown.connect(end)


def end(**_ignored: Any) -> None:
    """Give no more heartbeats from this process."""
    _ended.set()


def process_name() -> str:
    """Return what this process is called; the one that replaces it is called the same."""
    return f"{heartbeat.LIVE_PROCESS}{_node} {current_process_index() or 1}"


def give_heartbeats(name: str, ended: Event) -> None:
    """Note the process every few seconds until it ends. One that is killed counts for `ALIVE_S` more."""
    while True:
        try:
            with transaction() as session:
                heartbeat.note_heartbeats(session, [name])
        except SQLAlchemyError as away:
            logger().warning("heartbeat.not_noted", error=type(away).__name__)
        if ended.wait(heartbeat.EVERY_S):
            return
