"""The Celery app, and what each worker process does: when it begins, around each task, and heartbeats of live processes."""

from __future__ import annotations

import gc
from threading import Event, Thread
from typing import Any, Final

from celery import Celery, Task
from celery.exceptions import CeleryError, SoftTimeLimitExceeded
from celery.signals import (
    celeryd_init,
    setup_logging,
    task_postrun,
    task_prerun,
    worker_init,
    worker_process_init,
    worker_process_shutdown,
    worker_ready,
    worker_shutdown,
)
from celery.utils.log import current_process_index, get_multiprocessing_logger
from sqlalchemy.exc import SQLAlchemyError
from structlog.contextvars import bind_contextvars, clear_contextvars

from db import schedule, token_ledger
from db.session import transaction
from pipeline import telemetry
from pipeline.error_kinds import classify
from pipeline.settings import settings
from pipeline.tasks import broker
from pipeline.telemetry import logger
from pipeline.transform.identifiers import registrable_domain

LIVE_QUEUE: Final = "live"

broker.extend_transports()
_node = "worker"
_heartbeats_end = Event()


class TaskFailed(Exception):
    """The exception for Celery, the broker and Flower: class and place only, because its text may have values of records."""

    is_logged = True


class QuietTask(Task):  # type: ignore[misc]  # a class of a library without types
    """Replaces every error of a task by one with only a reason."""

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        try:
            return super().__call__(*arguments, **named)
        except (CeleryError, SoftTimeLimitExceeded):
            raise
        except Exception as error:
            if getattr(error, "is_logged", False):
                raise
            cause = classify(error)
            logger().error("task.error", task=self.name, reason=cause.reason, detail=cause.detail)
            failed = TaskFailed(f"{cause.reason}: {cause.detail}")
        raise failed  # outside of the except block: the cause's words would be part of the traceback


app = Celery("pipeline", task_cls=QuietTask)
app.config_from_object("celeryconfig")


@setup_logging.connect
def keep_our_logging(**_ignored: Any) -> None:
    """Use our logging instead of Celery's, also for the messages of Celery and its process pool."""
    telemetry.configure(settings().log_level, settings().log_format)
    telemetry.install(get_multiprocessing_logger())  # it passes nothing to the root logger


@worker_init.connect
def read_the_suffix_list(**_ignored: Any) -> None:
    """Read the list of public suffixes once before the pool is forked: it takes half a second."""
    registrable_domain("example.com")


@worker_process_init.connect
def collect_garbage_rarely(**_ignored: Any) -> None:
    """Collect less often: a page has 30,000 objects without cycles, and searching them took a tenth of a worker's time."""
    gc.freeze()
    gc.set_threshold(200_000, 20, 100)


@task_prerun.connect
def bind_task(task_id: str, task: Any, **_ignored: Any) -> None:
    bind_contextvars(task_id=task_id, task=task.name)


@task_postrun.connect
def unbind_task(**_ignored: Any) -> None:
    clear_contextvars()


@task_postrun.connect
def flush_ledger(**_ignored: Any) -> None:
    """Write calls to the ledger that no later transaction of the task has written; after an error the next task does so."""
    try:
        token_ledger.flush_rest()
    except SQLAlchemyError as away:
        logger().warning("ledger.flush_failed", error=type(away).__name__)


@worker_ready.connect
def sweep_on_start(**_ignored: Any) -> None:
    """Sweep when a worker starts, to find immediately what a dead worker left."""
    app.send_task("control.sweep")


@celeryd_init.connect
def remember_node(sender: str, **_ignored: Any) -> None:
    global _node  # noqa: PLW0603 - one node per worker; its processes are forked from it
    _node = sender


@worker_process_init.connect
def start_heartbeats(**_ignored: Any) -> None:
    """Note heartbeats of a process that takes live batches: the number of slots of a remote system depends on them."""
    global _heartbeats_end  # noqa: PLW0603 - of this very process
    if LIVE_QUEUE in app.amqp.queues.consume_from:
        _heartbeats_end.set()
        _heartbeats_end = Event()
        Thread(
            target=note_heartbeats_until, args=(process_name(), _heartbeats_end), name="heartbeat", daemon=True
        ).start()


@worker_process_shutdown.connect
@worker_shutdown.connect
def stop_heartbeats(**_ignored: Any) -> None:
    """Stop the heartbeats of this process."""
    _heartbeats_end.set()


def process_name() -> str:
    """Return the name of this process; the process that replaces it has the same name."""
    return f"{schedule.LIVE_PROCESS}{_node} {current_process_index() or 1}"


def note_heartbeats_until(name: str, ended: Event) -> None:
    """Note the process every few seconds until `ended` is set. A killed process counts for `ALIVE_S` more."""
    while True:
        try:
            with transaction() as session:
                schedule.note_heartbeats(session, [name])
        except SQLAlchemyError as away:
            logger().warning("heartbeat.not_noted", error=type(away).__name__)
        if ended.wait(schedule.EVERY_S):
            return
