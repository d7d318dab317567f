"""Credentials of a connector: the connections to Hull and Pipedrive; rename and remove the connector.

No page shows a secret. OAuth begins with a link, not with a form that redirects: by the content policy, browsers restrict
a form to its own site, also across redirects.
"""

from __future__ import annotations

from flask import request
from werkzeug.wrappers import Response

from db.connector import Connector
from db.session import transaction
from pipeline.domain.kinds import Role
from pipeline.domain.reasons import REASONS
from pipeline.operations import connectors
from pipeline.operations import credentials as operations
from pipeline.operations.credentials import CredentialCheckShape
from pipeline.operations.errors import OperationError
from pipeline.sync.connectors.webhooks import subscription_health
from pipeline.web.console.layout import connector_path, done, page
from pipeline.web.console.pages import Pages, perform, refusal_of, sentence_of

WHERE = "/c/<name>/credentials"
PASTE_TOKEN = "Paste the API token from Pipedrive."  # noqa: S105 - words for a person


def add(pages: Pages) -> None:
    pages.page(WHERE, show)
    for action in (replace_hull_secret, replace_api_token, connect, check, rename, remove):
        pages.action(f"{WHERE}/{action.__name__.replace('_', '-')}", action, needs=Role.ADMIN)


def show(
    connector: Connector,
    mistake: str = "",
    status: int = 200,
    checked: list[CredentialCheckShape] | None = None,
    at: str = "",
) -> Response:
    """Show the page; `at` names the form with the mistake."""
    entered = perform(operations.show_credentials)
    with transaction() as session:
        health = subscription_health(session, connector.key)
    return page(
        "credentials.html",
        status=status,
        connector=connector,
        tab="credentials",
        entered=entered,
        webhooks=health,
        pause=REASONS.get(connector.pause_reason or ""),
        by_hand=connector.pause_reason == connectors.BY_HAND,
        checked=checked,
        mistake=mistake,
        at=at,
    )


def replace_hull_secret(connector: Connector) -> Response:
    secret = request.form.get("secret", "").strip()
    if refusal := refusal_of(
        operations.put_hull_secret, secret=secret, malformed="Paste the connector's secret from Hull."
    ):
        return show(connector, refusal, 400, at="hull")
    return done(_where(connector), "Hull accepted the new secret. The old one was deleted.")


def replace_api_token(connector: Connector) -> Response:
    try:
        replaced = perform(operations.put_api_token, secret=request.form.get("token", "").strip())
    except OperationError as error:
        return show(connector, PASTE_TOKEN if error.code == "malformed" else sentence_of(error), 400, at="token")
    return done(_where(connector), f"Pipedrive accepted the token. {replaced.warning}".strip())


def connect(connector: Connector) -> Response:
    """Show a link to Pipedrive that is valid for ten minutes."""
    try:
        invitation = perform(operations.invite)
    except OperationError as error:
        return show(connector, sentence_of(error), 400, at="connect")
    return page("connect.html", connector=connector, tab="credentials", invitation=invitation)


def check(connector: Connector) -> Response:
    """Call Hull and Pipedrive, and show the results."""
    return show(connector, checked=perform(operations.check_credentials).checks)


def rename(connector: Connector) -> Response:
    wanted = request.form.get("wanted", "").strip()
    if refusal := refusal_of(connectors.rename_connector, name=wanted, malformed="A name has 1 to 63 characters."):
        return show(connector, refusal, 400, at="rename")
    return done(f"/c/{wanted}/credentials", f"{connector.name} is now named {wanted}.")


def remove(connector: Connector) -> Response:
    """Remove the connector if its name was entered to confirm."""
    typed = request.form.get("confirm", "").strip()
    try:
        left = perform(
            connectors.remove_connector, name=typed, why=request.form.get("why", "").strip()[:500] or None
        ).left
    except OperationError as error:
        if error.code not in ("malformed", "not_confirmed"):
            raise
        return show(connector, f"Type {connector.name} to remove it. Nothing was removed.", 400, at="remove")
    rest = f" Its webhooks could not be deleted. Pipedrive deletes them after three days: {left}" if left else ""
    return done("/", f"{connector.name} was removed.{rest}")


def _where(connector: Connector) -> str:
    return connector_path(connector, "credentials")
