"""The Celery app, and what each worker process does when it begins."""

from __future__ import annotations

import gc
from typing import Any

from celery import Celery, Task
from celery.exceptions import CeleryError, SoftTimeLimitExceeded
from celery.signals import setup_logging, task_postrun, task_prerun, worker_init, worker_process_init, worker_ready
from celery.utils.log import get_multiprocessing_logger
from sqlalchemy.exc import SQLAlchemyError
from structlog.contextvars import bind_contextvars, clear_contextvars

from db import token_ledger
from pipeline import telemetry
from pipeline.error_kinds import classify
from pipeline.settings import settings
from pipeline.tasks import broker, live_processes
from pipeline.transform.identifiers import registrable_domain

broker.extend_transports()


class TaskFailed(Exception):
    """What Celery, the broker and Flower are given of an exception: its class and place. Its words may hold values of records."""

    is_logged = True


class QuietTask(Task):  # type: ignore[misc]  # a class of a library without types
    """A task error with nothing but a reason, whatever was raised."""

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        try:
            return super().__call__(*arguments, **named)
        except (CeleryError, SoftTimeLimitExceeded):
            raise
        except Exception as error:
            if getattr(error, "is_logged", False):
                raise
            cause = classify(error)
            telemetry.logger().error("task.error", task=self.name, reason=cause.reason, detail=cause.detail)
            failed = TaskFailed(f"{cause.reason}: {cause.detail}")
        raise failed  # outside of the except block: the cause's words would be part of the traceback


app = Celery("pipeline", task_cls=QuietTask)
app.config_from_object("celeryconfig")
live_processes.register(app)


@setup_logging.connect
def keep_our_logging(**_ignored: Any) -> None:
    """Celery would configure its own logging; ours stays, and also writes what Celery and its pool of processes report."""
    telemetry.configure(settings().log_level, settings().log_format)
    telemetry.install(get_multiprocessing_logger())  # it passes nothing to the root logger


@worker_init.connect
def read_the_suffix_list(**_ignored: Any) -> None:
    """The list of public suffixes takes half a second to read: once, before the pool is forked, instead of in every child."""
    registrable_domain("example.com")


@worker_process_init.connect
def collect_garbage_rarely(**_ignored: Any) -> None:
    """A page is 30,000 dicts and lists that all die together, and none in a circle: looking for circles among them every 700
    objects took a tenth of a worker's time."""
    gc.freeze()
    gc.set_threshold(200_000, 20, 100)


@task_prerun.connect
def bind_task(task_id: str, task: Any, **_ignored: Any) -> None:
    bind_contextvars(task_id=task_id, task=task.name)


@task_postrun.connect
def unbind_task(**_ignored: Any) -> None:
    clear_contextvars()


@task_postrun.connect
def settle_the_ledger(**_ignored: Any) -> None:
    """Calls that no transaction of the task came after are written down now; where that fails, the next one does it."""
    try:
        token_ledger.settle_rest()
    except SQLAlchemyError as away:
        telemetry.logger().warning("ledger.not_settled", error=type(away).__name__)


@worker_ready.connect
def look_at_once(**_ignored: Any) -> None:
    """A starting worker does not wait for the next tick to find what a dead one left behind."""
    app.send_task("control.sweep")
