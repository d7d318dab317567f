"""Monitoring: `/healthz` for anybody; `/readyz` and `/metrics` for internal requests only; and the watchdog.

`/healthz` calls nothing else, so it always answers. `/readyz` is for alerts: its checks run in their own threads, and
one that has not answered within READY_WITHIN_S is reported as such. A load balancer should use `/healthz`: webhooks are
accepted while the broker or the workers are down. The watchdog evaluates the alert rules while the workers do not:
workers cannot report their own absence.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
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
"""Due work is handed over again after 20 s: what is older has no worker."""

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
    "run_age_seconds": ("How long a running fetch has been going, by entity and kind", ("entity", "kind")),
    "failures": ("Open failures, by entity and reason", ("entity", "reason")),
    "alerts": ("Open alerts, by rule", ("rule",)),
    "connectors": ("Connectors, by state", ("state",)),
    "watermark_age_seconds": ("Age of the moment up to which Hull is up to date, by entity", ("entity",)),
    "watermark_excepted": ("Records of which the watermark is not true, by entity", ("entity",)),
    "shells": ("Accounts known by their Pipedrive id alone, by entity", ("entity",)),
    "tokens": ("Tokens of Pipedrive's daily budget spent today (UTC), by lane", ("lane",)),
    "daily_tokens": ("Tokens a day that the connector's Pipedrive company has by its settings; 0 is without limit", ()),
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
    """Answer that this process answers."""
    return jsonify(status="ok")


def readyz() -> tuple[Response, int]:
    """Return the state of the database (also whether it is writable), the broker and the progress: each `ok` or the fault."""
    found = _CHECKS.run()
    is_ready = all(answer == "ok" for answer in found.values())
    status = HTTPStatus.OK if is_ready else HTTPStatus.SERVICE_UNAVAILABLE
    return jsonify(status="ok" if is_ready else "unavailable", checks=found), status


def metrics() -> Response:
    """Return all metrics, counted by the database per request: every web process returns the same."""
    with transaction() as session:
        figures = all_figures(session)
        counts = event_count.totals(session)
        names = {row.key: row.id for row in connectors.all_connectors(session)}
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Figures(figures, counts, names))
    return Response(generate_latest(registry), content_type=CONTENT_TYPE)


def broker_answers() -> str:
    """Raises any error of the broker's client."""
    with tasks_app.connection_for_write(settings().broker_url, connect_timeout=BROKER_TIMEOUT_S) as connection:
        connection.ensure_connection(max_retries=1, interval_start=0, interval_step=0, timeout=BROKER_TIMEOUT_S)
    return "ok"


def _database() -> str:
    with transaction() as session:
        return "read_only" if is_read_only(session) else "ok"


def _broker() -> str:
    return broker_answers()


def _progress() -> str:
    with transaction() as session:
        age_s = oldest_due_s(session)
    return "ok" if age_s < PROGRESS_BOUND_S else f"work has been due for {age_s:.0f} s"


def _run_check(name: str, check: Callable[[], str]) -> str:
    try:
        return check()
    except Exception as failure:  # noqa: BLE001 - a probe's business is that it failed, not how
        logger().warning("readiness.failed", check=name, error=type(failure).__name__)
        return "unreachable"


class _Checks:
    """Checks that run concurrently. A check that is still running is not started again."""

    def __init__(self, checks: Mapping[str, Callable[[], str]]) -> None:
        self._checks = checks
        self._running: dict[str, _Answer] = {}
        self._lock = threading.Lock()

    def run(self) -> dict[str, str]:
        """Name → `ok` or what is wrong, within READY_WITHIN_S."""
        deadline = time.monotonic() + READY_WITHIN_S
        asked = {name: self._start(name) for name in self._checks}
        return {name: answer.wait(deadline - time.monotonic()) for name, answer in asked.items()}

    def _start(self, name: str) -> _Answer:
        with self._lock:
            answer = self._running.get(name)
            if answer is None or answer.is_given():
                answer = self._running[name] = _Answer()
                thread = threading.Thread(
                    target=answer.find, args=(name, self._checks[name]), name=f"readyz-{name}", daemon=True
                )
                thread.start()
            return answer


class _Answer:
    """What one check finds."""

    def __init__(self) -> None:
        self._given = threading.Event()
        self._text = "unreachable"

    def is_given(self) -> bool:
        return self._given.is_set()

    def find(self, name: str, check: Callable[[], str]) -> None:
        try:
            self._text = _run_check(name, check)
        finally:
            self._given.set()

    def wait(self, seconds: float) -> str:
        return self._text if self._given.wait(max(seconds, 0.0)) else f"no answer within {READY_WITHIN_S:g} s"


_CHECKS = _Checks({"database": _database, "broker": _broker, "progress": _progress})


class _Figures:
    """A collector over figures and counts of events that were read already."""

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
        """Its rate by `direction` and `outcome` shows throughput and success."""
        family = CounterMetricFamily(
            "pipeline_events",
            "Sync events, by name and its parts",
            labels=["connector", "event", "direction", "outcome"],
        )
        for key, event, count in self._counts:
            family.add_metric([self._ids.get(key, ""), event, event.split(".")[0], event.split(".")[-1]], count)
        return family


def start_watchdog() -> None:
    """Evaluate in a thread as long as the process lives."""
    threading.Thread(target=_watch, name="watchdog", daemon=True).start()


def evaluate_if_overdue() -> bool:
    """Evaluate and send alerts, if no worker did for too long; return whether it did."""
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
                logger().warning("alerts.judged_by_web")
        except Exception as failure:  # noqa: BLE001 - the database may be away now and back in a minute
            logger().warning("alerts.not_judged", error=type(failure).__name__)
