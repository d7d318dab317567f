"""For machines that watch: `/healthz`, `/readyz`, `/metrics`.

`/readyz` is for alerts. A balancer should go by `/healthz`: webhooks are taken in while the broker or the workers are away.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from http import HTTPStatus

from flask import Blueprint, Response, jsonify
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from sqlalchemy import text

from db import connector as connectors
from db.figures import Figure, all_figures, oldest_due_s
from db.session import transaction
from pipeline.settings import settings
from pipeline.tasks.app import app as tasks_app
from pipeline.telemetry import logger

PROGRESS_BOUND_S = 120.0
"""Due work is handed over again after 20 s: what is older has no worker."""

BROKER_TIMEOUT_S = 2.0
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

GAUGES = {
    "deliveries": ("Webhooks and notifications kept, by source and state", ("source", "state")),
    "batches": ("Batches, by direction and state", ("direction", "state")),
    "runs": ("Full and incremental fetches, by entity and state", ("entity", "state")),
    "failures": ("Open failures, by entity and reason", ("entity", "reason")),
    "alerts": ("Open alerts, by rule", ("rule",)),
    "connectors": ("Connectors, by state", ("state",)),
    "watermark_age_seconds": ("How long ago the moment is up to which Hull is in step, by entity", ("entity",)),
    "watermark_excepted": ("Records of which the watermark is not true, by entity", ("entity",)),
    "shells": ("Accounts known by their Pipedrive id alone, by entity", ("entity",)),
    "tokens": ("Tokens of Pipedrive's daily budget spent today (UTC), by lane", ("lane",)),
    "daily_tokens": ("Tokens a day that the connector's Pipedrive company has by its settings; 0 is without limit", ()),
}
"""Subject → (help, names of the labels that stand beside the connector: of kind and state, of state alone, or none)."""


def room() -> Blueprint:
    """The routes."""
    routes = Blueprint("operations", __name__)
    routes.add_url_rule("/healthz", view_func=healthz)
    routes.add_url_rule("/readyz", view_func=readyz)
    routes.add_url_rule("/metrics", view_func=metrics)
    return routes


def healthz() -> Response:
    """This process answers."""
    return jsonify(status="ok")


def readyz() -> tuple[Response, int]:
    """Database, broker and progress: each `ok` or what is wrong, in a word."""
    checks = {"database": _database, "broker": broker_answers, "progress": _progress}
    found = {name: _ask(name, check) for name, check in checks.items()}
    is_ready = all(answer == "ok" for answer in found.values())
    status = HTTPStatus.OK if is_ready else HTTPStatus.SERVICE_UNAVAILABLE
    return jsonify(status="ok" if is_ready else "unavailable", checks=found), status


def metrics() -> Response:
    """Everything, counted by the database when it is asked: any number of web processes say the same."""
    with transaction() as session:
        figures = all_figures(session)
        names = {row.key: row.id for row in connectors.all_connectors(session)}
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Figures(figures, names))
    return Response(generate_latest(registry), content_type=CONTENT_TYPE)


def broker_answers() -> str:
    """Raises whatever the broker's client raises."""
    with tasks_app.connection_for_write(settings().broker_url, connect_timeout=BROKER_TIMEOUT_S) as connection:
        connection.ensure_connection(max_retries=1, interval_start=0, interval_step=0, timeout=BROKER_TIMEOUT_S)
    return "ok"


def _database() -> str:
    with transaction() as session:
        session.execute(text("SELECT 1"))
    return "ok"


def _progress() -> str:
    with transaction() as session:
        age_s = oldest_due_s(session)
    return "ok" if age_s < PROGRESS_BOUND_S else f"work has been due for {age_s:.0f} s"


def _ask(name: str, check: Callable[[], str]) -> str:
    try:
        return check()
    except Exception as failure:  # noqa: BLE001 - a probe's business is that it failed, not how
        logger().warning("readiness.failed", check=name, error=type(failure).__name__)
        return "unreachable"


class _Figures:
    """A collector over figures that were read already."""

    def __init__(self, figures: list[Figure], connector_ids: dict[int, str]) -> None:
        self._figures = figures
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
        due = GaugeMetricFamily(
            "pipeline_oldest_due_age_seconds", "How long the oldest due work has waited for a worker"
        )
        for figure in self._figures:
            if figure.subject == "oldest_due":
                due.add_metric([], figure.amount)
        yield due
