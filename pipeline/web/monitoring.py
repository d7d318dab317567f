"""Monitoring: `/healthz` for everyone, `/readyz` and `/metrics` for internal requests, and the watchdog.

`/healthz` depends on nothing, so it always answers. `/readyz` is for alerts: its checks run in threads, and a check that
takes longer than READY_WITHIN_S is reported. A load balancer should use `/healthz`, because webhooks are accepted while
the broker or the workers are down. The watchdog evaluates the alert rules while no worker does: workers cannot report
their own absence.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, wait
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Final

from flask import Blueprint, Response, jsonify
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from db import connector as connectors
from db import event_count
from db.figures import Figure, all_figures, oldest_due_s
from db.schedule import heartbeats
from db.session import is_read_only, transaction
from pipeline.settings import settings
from pipeline.sync.alerts import HEARTBEAT, watch
from pipeline.tasks.app import app as tasks_app
from pipeline.telemetry import logger
from pipeline.web.answers import internal_only

PROGRESS_BOUND_S = 120.0
"""Due work is queued again after 20 s, so older work has no worker."""

READY_WITHIN_S = 3.0
BROKER_TIMEOUT_S = 2.0
WATCHDOG_EVERY_S: Final = 60.0
EVALUATION_OVERDUE: Final = timedelta(minutes=3)
"""Workers evaluate every minute; restarting them takes less than this."""
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

GAUGES = {
    "deliveries": (
        "Webhooks and notifications that are not processed yet, by source and state",
        ("source", "state"),
    ),
    "batches": ("Batches that have not ended, and those that failed, by direction and state", ("direction", "state")),
    "runs": ("Fetches that run, wait for approval or stopped, by entity and state", ("entity", "state")),
    "run_records": ("Records that a running fetch has read so far, by entity and kind", ("entity", "kind")),
    "run_tokens": ("Tokens that a running fetch has taken so far, by entity and kind", ("entity", "kind")),
    "run_age_seconds": ("Age of a running fetch, by entity and kind", ("entity", "kind")),
    "failures": ("Open failures, by entity and reason", ("entity", "reason")),
    "alerts": ("Open alerts, by rule", ("rule",)),
    "connectors": ("Connectors, by state", ("state",)),
    "watermark_age_seconds": ("Seconds since the moment until when Hull has all changes, by entity", ("entity",)),
    "watermark_excepted": ("Records that the watermark excludes, by entity", ("entity",)),
    "shells": ("Accounts with a known Pipedrive id only, by entity", ("entity",)),
    "tokens": ("Tokens of Pipedrive's daily budget spent today (UTC), by lane", ("lane",)),
    "daily_tokens": ("Daily tokens of the connector's Pipedrive company by its settings; 0 means no limit", ()),
}
"""Subject → (help, labels besides the connector: kind and state, state alone, or none)."""


def blueprint() -> Blueprint:
    """Return the routes."""
    routes = Blueprint("monitoring", __name__)
    routes.add_url_rule("/healthz", view_func=healthz)
    routes.add_url_rule("/readyz", view_func=internal_only(readyz))
    routes.add_url_rule("/metrics", view_func=internal_only(metrics))
    return routes


def healthz() -> Response:
    """Return `ok`: this process answers."""
    return jsonify(status="ok")


def readyz() -> tuple[Response, int]:
    """Return the state of the database, the broker and the progress of work: each `ok` or the fault."""
    found = _CHECKS.run()
    is_ready = all(answer == "ok" for answer in found.values())
    status = HTTPStatus.OK if is_ready else HTTPStatus.SERVICE_UNAVAILABLE
    return jsonify(status="ok" if is_ready else "unavailable", checks=found), status


def metrics() -> Response:
    """Return all metrics, read from the database, so that every web process returns the same."""
    with transaction() as session:
        figures = all_figures(session)
        counts = event_count.totals(session)
        names = {row.key: row.id for row in connectors.all_connectors(session)}
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Figures(figures, counts, names))
    return Response(generate_latest(registry), content_type=CONTENT_TYPE)


def broker_answers() -> str:
    """Connect to the broker and return `ok`. Raises any error of the broker's client."""
    with tasks_app.connection_for_write(settings().broker_url, connect_timeout=BROKER_TIMEOUT_S) as connection:
        connection.ensure_connection(max_retries=1, interval_start=0, interval_step=0, timeout=BROKER_TIMEOUT_S)
    return "ok"


def _database() -> str:
    with transaction() as session:
        return "read_only" if is_read_only(session) else "ok"


def _progress() -> str:
    with transaction() as session:
        age_s = oldest_due_s(session)
    return "ok" if age_s < PROGRESS_BOUND_S else f"work has been due for {age_s:.0f} s"


class _Checks:
    """Checks that run concurrently. A check that is still running is not started again."""

    def __init__(self, checks: Mapping[str, Callable[[], str]]) -> None:
        self._checks = checks
        self._running: dict[str, Future[str]] = {}
        self._lock = threading.Lock()

    def run(self) -> dict[str, str]:
        """Return each check's name with `ok` or the fault, within READY_WITHIN_S."""
        results = {name: self._start(name) for name in self._checks}
        wait(results.values(), READY_WITHIN_S)
        late = f"no answer within {READY_WITHIN_S:g} s"
        return {name: result.result() if result.done() else late for name, result in results.items()}

    def _start(self, name: str) -> Future[str]:
        """Start a check in a daemon thread, which does not keep the process alive if the check hangs."""
        with self._lock:
            result = self._running.get(name)
            if result is None or result.done():
                result = self._running[name] = Future()
                threading.Thread(target=self._run, args=(name, result), name=f"readyz-{name}", daemon=True).start()
            return result

    def _run(self, name: str, result: Future[str]) -> None:
        try:
            result.set_result(self._checks[name]())
        except Exception as failure:  # noqa: BLE001 - the answer is that the check failed, not why
            logger().warning("readiness.failed", check=name, error=type(failure).__name__)
            result.set_result("unreachable")


CHECKS = {"database": _database, "broker": broker_answers, "progress": _progress}
_CHECKS = _Checks(CHECKS)


class _Figures:
    """A Prometheus collector of figures and event counts."""

    def __init__(
        self, figures: list[Figure], counts: list[tuple[int, str, int]], connector_ids: dict[int, str]
    ) -> None:
        self._figures, self._counts = figures, counts
        self._ids = connector_ids

    def collect(self) -> Iterable[Metric]:
        for subject, (described, labels) in GAUGES.items():
            family = GaugeMetricFamily(f"pipeline_{subject}", described, labels=["connector", *labels])
            for figure in self._figures:
                if figure.subject == subject:
                    connector = self._ids.get(figure.connector_key or 0, "")
                    values = [figure.kind, figure.state][2 - len(labels) :]
                    family.add_metric([connector, *values], figure.amount)
            yield family
        yield self._events()
        due = GaugeMetricFamily(
            "pipeline_oldest_due_age_seconds", "How long the oldest due work has waited for a worker"
        )
        for figure in self._figures:
            if figure.subject == "oldest_due":
                due.add_metric([], figure.amount)
        yield due

    def _events(self) -> Metric:
        """Return the event counts by direction and outcome: their rates show throughput and success."""
        family = CounterMetricFamily(
            "pipeline_events",
            "Sync events, by name and its parts",
            labels=["connector", "event", "direction", "outcome"],
        )
        for key, event, count in self._counts:
            family.add_metric([self._ids.get(key, ""), event, event.split(".")[0], event.split(".")[-1]], count)
        return family


def start_watchdog() -> None:
    """Start the thread that evaluates alerts while no worker does."""
    threading.Thread(target=_watch, name="watchdog", daemon=True).start()


def evaluate_if_overdue() -> bool:
    """Evaluate and send alerts if no worker has done so recently; return whether they were evaluated."""
    with transaction() as session:
        last = heartbeats(session).get(HEARTBEAT)
    if last is not None and datetime.now(UTC) - last < EVALUATION_OVERDUE:
        return False
    watch()
    return True


def _watch() -> None:
    pause = threading.Event()
    while not pause.wait(WATCHDOG_EVERY_S):
        try:
            if evaluate_if_overdue():
                logger().warning("alerts.evaluated_by_web")
        except Exception as failure:  # noqa: BLE001 - the database may be away now and back in a minute
            logger().warning("alerts.not_evaluated", error=type(failure).__name__)
