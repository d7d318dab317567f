"""Credentials of a connector: how it is let into Hull and Pipedrive, and what people do to a whole connector.

Secrets are only ever written: no page shows one. The way to Pipedrive is a link, not a form that redirects: browsers hold a form to
its own site, also over redirects, by the content policy.
"""

from __future__ import annotations

from collections.abc import Callable

from flask import request
from werkzeug.wrappers import Response

from db.connector import Connector
from db.session import transaction
from pipeline.domain.reasons import REASONS
from pipeline.domain.roles import Role
from pipeline.errors import PipelineError
from pipeline.insight import connections
from pipeline.insight.connections import Checked
from pipeline.sync.connectors import authorisation, field_lists, setup
from pipeline.sync.connectors.setup import SetupRefused
from pipeline.web.console import guard
from pipeline.web.console.frame import done, page
from pipeline.web.console.guard import Pages

TAB = ("credentials", "Credentials")
WHERE = "/c/<name>/credentials"
LONGEST_SECRET = 1000


def add(pages: Pages) -> None:
    pages.page(WHERE, show)
    for act in (replace_hull_secret, replace_api_token, connect, check, pause, resume, rename, remove):
        pages.action(f"{WHERE}/{act.__name__.replace('_', '-')}", act, needs=Role.ADMIN)


def show(
    connector: Connector, mistake: str = "", status: int = 200, checked: list[Checked] | None = None, at: str = ""
) -> Response:
    """How it stands; `at` is the form that a mistake belongs to."""
    with transaction() as session:
        entered = connections.entrances(session, connector)
    return page(
        "credentials.html",
        status=status,
        connector=connector,
        tab="credentials",
        entered=entered,
        pause=REASONS.get(connector.pause_reason or ""),
        by_hand=connector.pause_reason == connections.BY_HAND,
        checked=checked,
        mistake=mistake,
        at=at,
    )


def replace_hull_secret(connector: Connector) -> Response:
    secret = given_secret("secret")
    if not secret:
        return show(connector, "Paste the connector's secret from Hull.", 400, at="hull")
    if trouble := attempt(lambda: setup.change_credentials(connector, hull_secret=secret)):
        return show(connector, trouble, 400, at="hull")
    connections.note(connector.key, guard.who().name, "credentials.hull")
    return done(_where(connector), "Hull accepts the new secret; the old one is forgotten.")


def replace_api_token(connector: Connector) -> Response:
    token = given_secret("token")
    if not token:
        return show(connector, "Paste the API token from Pipedrive.", 400, at="token")
    if trouble := attempt(lambda: setup.change_credentials(connector, pipedrive_token=token)):
        return show(connector, trouble, 400, at="token")
    connections.note(connector.key, guard.who().name, "credentials.pipedrive_token")
    trouble = field_lists.see_that_known(connector.key)
    return done(_where(connector), f"Pipedrive accepts the token. {trouble}".strip())


def connect(connector: Connector) -> Response:
    """The answer is a page with a link that is good for ten minutes."""
    try:
        link = authorisation.invite(connector)
    except PipelineError as refused:
        return show(connector, sentence_of(refused), 400, at="connect")
    connections.note(connector.key, guard.who().name, "credentials.invite")
    return page("connect.html", connector=connector, tab="credentials", link=link, scopes=authorisation.SCOPES)


def check(connector: Connector) -> Response:
    """Both systems are asked while the person waits."""
    return show(connector, checked=connections.check_credentials(connector.key))


def pause(connector: Connector) -> Response:
    connections.pause(connector.key, by=guard.who().name, why=given_why())
    return done(_where(connector), f"{connector.name} is paused: its work is kept and waits.")


def resume(connector: Connector) -> Response:
    try:
        connections.resume(connector.key, by=guard.who().name)
    except SetupRefused as refused:
        return show(connector, f"{refused}.", 400, at="state")
    return done(_where(connector), f"{connector.name} is active; what waited goes on.")


def rename(connector: Connector) -> Response:
    wanted = request.form.get("wanted", "").strip()
    try:
        connections.rename(connector.key, wanted, by=guard.who().name)
    except SetupRefused as refused:
        return show(connector, f"{refused}.", 400, at="rename")
    return done(f"/c/{wanted}/credentials", f"{connector.name} is named {wanted} from now on.")


def remove(connector: Connector) -> Response:
    """The name is typed to confirm."""
    if request.form.get("confirm", "").strip() != connector.name:
        return show(connector, f"Type {connector.name} to remove it. Nothing was removed.", 400, at="remove")
    left = connections.remove(connector, by=guard.who().name, why=given_why())
    words = (
        f" Its webhooks could not be taken away in Pipedrive, which does so after three days: {left}" if left else ""
    )
    return done("/", f"{connector.name} is removed.{words}")


def attempt(act: Callable[[], object]) -> str:
    """Do it; returns why it was refused, and what to do, or nothing."""
    try:
        act()
    except SetupRefused as refused:
        return str(refused)
    except PipelineError as refused:
        return sentence_of(refused)
    return ""


def sentence_of(refused: PipelineError) -> str:
    """What happened and what to do, for a person."""
    reason = REASONS.get(refused.reason)
    return f"{reason.meaning} {reason.advice}" if reason else str(refused)


def given_secret(name: str) -> str:
    """As it was pasted, without the spaces around it; one that cannot be one is none."""
    text = request.form.get(name, "").strip()
    return text if len(text) <= LONGEST_SECRET and text.isascii() and text.isprintable() else ""


def given_why() -> str | None:
    return request.form.get("why", "").strip()[:500] or None


def _where(connector: Connector) -> str:
    return f"/c/{connector.name}/credentials"
