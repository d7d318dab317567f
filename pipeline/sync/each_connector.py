"""Run control work for each connector, also after an error of another one.

Every log line of the work has the connector's id. An error that a person must fix becomes a Failure of its connector.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial

from structlog.contextvars import bound_contextvars

from db import connector as connectors
from db import failure as failures
from db.outage import outages_of
from db.session import transaction
from pipeline.domain.kinds import Direction
from pipeline.error_kinds import classify
from pipeline.errors import ConfigurationError, PipelineError, Retryable
from pipeline.outages import working
from pipeline.sync.event_recorder import record_failure, traceback_of
from pipeline.sync.stage import StageFailed, pause_connector
from pipeline.telemetry import logger


def for_each_connector(
    task: str, connector_keys: Iterable[int], task_id: str | None, work: Callable[[int], object]
) -> None:
    """Do the work for each connector. Raises: the first StageFailed, after all connectors."""
    failed: list[StageFailed] = []
    for connector_key in connector_keys:
        try:
            guarded(task, connector_key, task_id, partial(work, connector_key))
        except StageFailed as one:
            failed.append(one)
    if failed:
        raise failed[0]


def guarded(task: str, connector_key: int, task_id: str | None, work: Callable[[], object]) -> None:
    """Do the work of a control task for one connector. The next tick retries a Retryable error; any other becomes a Failure.

    Raises: StageFailed.
    """
    try:
        with about_connector(connector_key):
            _run(task, connector_key, task_id, work)
    except StageFailed:
        raise
    except Exception as error:  # noqa: BLE001 - the error could not be stored; the next tick repeats the work
        cause = classify(error)
        logger().error("control.not_settled", control=task, reason=cause.reason, detail=cause.detail)
        raise StageFailed(f"{cause.reason}: {task}") from None


@contextmanager
def about_connector(connector_key: int) -> Iterator[None]:
    """Add the connector's id to every log line of this block."""
    with transaction() as session:
        connector_id = connectors.id_of(session, connector_key)
    with bound_contextvars(connector_id=connector_id):
        yield


def _run(task: str, connector_key: int, task_id: str | None, work: Callable[[], object]) -> None:
    try:
        with transaction() as session:
            has_outage = bool(outages_of(session, connector_key))
        with working(connector_key, task, has_outage=has_outage):
            work()
    except Exception as error:  # noqa: BLE001 - this is where errors become failures
        cause = classify(error)
        if isinstance(cause, Retryable):
            logger().warning("control.retry", control=task, reason=cause.reason, detail=cause.detail)
            return
        _store_failure(task, connector_key, task_id, cause, error)
        raise StageFailed(f"{cause.reason}: {task}") from None


def _store_failure(task: str, connector_key: int, task_id: str | None, cause: PipelineError, error: Exception) -> None:
    failure = failures.NewFailure(
        connector_key=connector_key,
        kind="control",
        subject=failures.control_subject(task),
        direction=Direction.INCOMING,
        entity="",
        stage=task,
        reason=cause.reason,
        detail=cause.detail,
        traceback=traceback_of(cause, error),
        task_id=task_id,
    )
    with transaction() as session:
        record_failure(session, "control.error", failure, control=task)
        if isinstance(cause, ConfigurationError):
            pause_connector(session, connector_key, Direction.INCOMING, cause)
