"""A connector's webhooks and their health; and one delivery, for operators only: its body contains values of records."""

from __future__ import annotations

from werkzeug.wrappers import Response

from db.connector import Connector
from pipeline.domain.kinds import Role
from pipeline.operations import webhooks
from pipeline.operations.cached_answers import Shared
from pipeline.operations.webhooks import HOURS, MOST, SOURCES, WebhooksAnswer
from pipeline.web.console.layout import before_id, connector_path, done, page, query_choice, split_page
from pipeline.web.console.pages import Pages, perform, refusal_of

ENTRIES = 50


def add(pages: Pages) -> None:
    pages.page("/c/<name>/webhooks", show)
    pages.action("/c/<name>/webhooks/check", check)
    pages.page("/c/<name>/deliveries/<int:delivery_id>", show_delivery, needs=Role.OPERATOR)


def show(connector: Connector) -> Response:
    source, before = query_choice("source", SOURCES) or SOURCES[0], before_id()
    found = perform(webhooks.list_deliveries, source=source, before=before, limit=ENTRIES + 1).deliveries
    shown, more = split_page(found, ENTRIES)
    return page(
        "webhooks.html",
        connector=connector,
        tab="webhooks",
        health=_health((connector.key, source)),
        source=source,
        deliveries=shown,
        more=more,
        before=before,
        hours=HOURS,
        most=MOST,
        where=connector_path(connector, "webhooks"),
    )


def check(connector: Connector) -> Response:
    """Have a worker check the webhooks, because Pipedrive may answer slowly."""
    _health.forget()
    refusal = refusal_of(webhooks.check_webhooks)
    return done(
        connector_path(connector, "webhooks"),
        refusal or "Check started. This page shows the result in a moment.",
    )


def show_delivery(connector: Connector, delivery_id: int) -> Response:
    opened = perform(webhooks.show_delivery, id=delivery_id)
    return page("delivery.html", connector=connector, tab="webhooks", opened=opened, delivery=opened.delivery)


def _read(key: tuple[int, str]) -> WebhooksAnswer:
    return perform(webhooks.show_webhooks, source=key[1])


_health = Shared(_read, fresh_s=5.0)
"""(key of the connector, source) → health of its webhooks."""
