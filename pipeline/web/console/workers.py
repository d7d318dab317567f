"""`/workers` and a connector's Workers: is work being done?"""

from __future__ import annotations

from urllib.parse import quote

from werkzeug.wrappers import Response

from db.connector import Connector
from db.session import transaction
from pipeline.insight import machinery
from pipeline.insight.shared import Shared
from pipeline.insight.workers import Work, work_of
from pipeline.web.console.frame import page
from pipeline.web.console.guard import Pages
from pipeline.web.console.patient import Patient

TAB = ("workers", "Workers")
FRESH_S, STALE_S, PATIENCE_S = 8.0, 30.0, 0.1
"""Nodes are given two seconds to answer, and nobody waits for that: until they have, the heartbeats tell."""


def add(pages: Pages) -> None:
    pages.page("/workers", show, shows_all=True)
    pages.page("/c/<name>/workers", show_of)


def show() -> Response:
    return page("workers.html", work=work_seen(None), nodes=_nodes(), where="/workers")


def show_of(connector: Connector) -> Response:
    where = f"/c/{quote(connector.name, safe='')}/workers"
    return page(
        "workers.html", connector=connector, tab="workers", work=work_seen(connector.key), nodes=_nodes(), where=where
    )


def _read(connector_key: int | None) -> Work:
    nodes = _nodes()
    with transaction() as session:
        return work_of(session, nodes, connector_key)


_nodes = Patient(machinery.look, fresh_s=FRESH_S, stale_s=STALE_S, patience_s=PATIENCE_S)
work_seen = Shared(_read)
"""Of one connector by its key, or of all by None."""
