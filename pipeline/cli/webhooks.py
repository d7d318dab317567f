"""`pipeline connectors webhooks`, and what adding a connector does about webhooks."""

from __future__ import annotations

import click

from db.connector import Connector
from db.session import transaction
from db.subscription import subscriptions_of
from pipeline.cli.audited import audited
from pipeline.cli.opening import open_database
from pipeline.cli.showing import Failed, columns_of, connector_argument, find_connector, json_option, say, show, table
from pipeline.errors import PipelineError
from pipeline.sync.connectors.webhooks import ensure_webhooks

COLUMNS = ("entity", "state", "webhook_id", "last_status", "healed", "sound_at", "checked_at")


@click.command()
@connector_argument
@json_option
@audited("webhooks.check")
def webhooks(connector: str) -> None:
    """See that Pipedrive sends its changes to PUBLIC_URL, and show how its webhooks stand; safe to run again.

    \b
    Example:
      PUBLIC_URL=https://pipeline.example.com pipeline connectors webhooks acme
    """
    open_database()
    with transaction() as session:
        found = find_connector(session, connector)
    if unheard := hear(found):
        raise Failed(unheard, "check that PUBLIC_URL is right and reaches the web process from outside")
    with transaction() as session:
        standing = [columns_of(row, *COLUMNS) for row in subscriptions_of(session, found.key)]

    def human() -> None:
        say(f"Pipedrive sends the changes of {found.name} here.")
        table("", COLUMNS, [tuple(row.values()) for row in standing])

    show({"id": found.id, "webhooks": "ok", "subscriptions": standing}, human)


def hear(connector: Connector) -> str:
    """Subscribe to what is missing; returns why Pipedrive refused, or nothing. Without webhooks fetches still work."""
    try:
        ensure_webhooks(connector.key)
    except PipelineError as error:
        return str(error)
    return ""
