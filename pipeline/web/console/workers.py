"""`/workers` and a connector's Workers: is work being done?"""

from __future__ import annotations

from urllib.parse import quote

from werkzeug.wrappers import Response

from db.connector import Connector
from pipeline.operations.cached_answers import Shared
from pipeline.operations.workers import WorkAnswer, show_work, show_work_of
from pipeline.web.console.calls import perform
from pipeline.web.console.frame import page
from pipeline.web.console.guard import Pages

TAB = ("workers", "Workers")


def add(pages: Pages) -> None:
    pages.page("/workers", show, shows_all=True)
    pages.page("/c/<name>/workers", show_of)


def show() -> Response:
    return page("workers.html", work=_seen(None), where="/workers")


def show_of(connector: Connector) -> Response:
    where = f"/c/{quote(connector.name, safe='')}/workers"
    return page("workers.html", connector=connector, tab="workers", work=_seen(connector.key), where=where)


def _read(connector_key: int | None) -> WorkAnswer:
    return perform(show_work if connector_key is None else show_work_of, wait_for_nodes=False)


_seen = Shared(_read)
"""Of one connector by its key, or of all by None."""
