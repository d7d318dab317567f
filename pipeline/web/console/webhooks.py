"""A connector's webhooks and their health; and one delivery, for operators, because its body contains values."""

from __future__ import annotations

from flask import request
from werkzeug.wrappers import Response

from db import connector as connectors
from db import delivery
from db.connector import Connector
from db.session import transaction
from pipeline.domain.kinds import Role
from pipeline.operations import webhooks
from pipeline.operations.cached_answers import Shared
from pipeline.operations.webhooks import HOURS, MOST, SOURCES, WebhooksAnswer, find_delivery, webhook_health
from pipeline.web import auth
from pipeline.web.console.layout import before_id, connector_path, done, page, split_page
from pipeline.web.console.pages import Pages, refusal_of

ENTRIES = 50


def add(pages: Pages) -> None:
    pages.page("/c/<name>/webhooks", show)
    pages.action("/c/<name>/webhooks/check", check)
    pages.page("/c/<name>/deliveries/<int:delivery_id>", show_delivery, needs=Role.OPERATOR)


def show(connector: Connector) -> Response:
    source = request.args.get("source", "")
    source = source if source in SOURCES else SOURCES[0]
    before = before_id()
    with transaction() as session:
        found = delivery.latest_deliveries(session, connector.key, source, before_id=before, limit=ENTRIES + 1)
    shown, more = split_page(found, ENTRIES)
    return page(
        "webhooks.html",
        connector=connector,
        tab="webhooks",
        listening=_standing((connector.key, source)),
        source=source,
        deliveries=shown,
        more=more,
        before=before,
        hours=HOURS,
        most=MOST,
        where=connector_path(connector, "webhooks"),
    )


def check(connector: Connector) -> Response:
    """Handed to a worker: Pipedrive may take its time, and a page must not."""
    _standing.forget()
    refusal = refusal_of(webhooks.check_webhooks)
    return done(
        connector_path(connector, "webhooks"),
        refusal or "The webhooks are being checked; this page shows the result in a moment.",
    )


def show_delivery(connector: Connector, delivery_id: int) -> Response:
    with transaction() as session:
        opened = find_delivery(session, connector.key, delivery_id)
    if opened is None:
        raise auth.missing("There is no such delivery.", "Deliveries are kept for 30 days.")
    return page("delivery.html", connector=connector, tab="webhooks", opened=opened, delivery=opened.delivery)


def _read(asked: tuple[int, str]) -> WebhooksAnswer:
    connector_key, source = asked
    with transaction() as session:
        return webhook_health(session, connectors.get_connector(session, connector_key), source)


_standing = Shared(_read, fresh_s=5.0)
