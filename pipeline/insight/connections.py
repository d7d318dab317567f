"""How a connector is let into both systems, and what people do to a whole connector: check, pause, resume, rename, remove."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from urllib.parse import urlsplit

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from db import audit
from db import batch as batches
from db import connector as connectors
from db import run as run_rows
from db.authorisation import Connection, connection_of
from db.connector import Connector
from db.session import after_commit, transaction
from pipeline import wiring
from pipeline.domain.names import InvalidName, connector_name
from pipeline.domain.reasons import REASONS
from pipeline.errors import PipelineError
from pipeline.settings import settings
from pipeline.sync.connectors import authorisation
from pipeline.sync.connectors.company import read_company
from pipeline.sync.connectors.setup import SetupRefused
from pipeline.sync.connectors.webhook_health import Hearing, hearing
from pipeline.sync.connectors.webhooks import remove_webhooks
from pipeline.tasks import wakeups

BY_HAND: Final = "connector_paused"
DEADLINE_S: Final = 10.0
"""Somebody waits for the answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entrances:
    """How a connector is connected on both sides; never a secret.

    company        host of the Pipedrive company; empty while it is not known
    kept           name of a secret → when it was last given
    has_app        whether this installation has an app at Pipedrive, so that OAuth is possible
    callback_url   what the app must name, with the scopes
    """

    connection: Connection
    company: str
    kept: dict[str, datetime]
    hearing: Hearing
    has_app: bool
    callback_url: str
    scopes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What one system said to the credentials: `trouble` is empty where they are good."""

    system: str
    sentence: str
    trouble: str = ""
    advice: str = ""


def entrances(session: Session, connector: Connector) -> Entrances:
    """As far as is known without asking anybody."""
    chosen = settings()
    return Entrances(
        connection=connection_of(session, connector),
        company=urlsplit(connector.pipedrive_company or "").netloc,
        kept=connectors.credentials_given(session, connector.key),
        hearing=hearing(session, connector.key),
        has_app=bool(chosen.pipedrive_client_id and chosen.pipedrive_client_secret),
        callback_url=f"{chosen.public_url}/auth/callback",
        scopes=authorisation.SCOPES,
    )


def check_credentials(connector_key: int) -> list[Checked]:
    """Ask both systems now: 2 tokens of Pipedrive's day. Outside of any transaction, since somebody may be slow."""
    try:
        with transaction() as session:
            wired = wiring.open_connector(session, connector_key, deadline_s=DEADLINE_S)
    except PipelineError as unwell:
        return [_trouble("Hull", unwell)]
    return [
        _checked("Hull", lambda: f"Hull accepts the secret of connector {_title(wired.hull.app())}."),
        _checked("Pipedrive", lambda: _whose(wired.pipedrive.me())),
    ]


def pause(connector_key: int, *, by: str, why: str | None = None) -> None:
    """Let the work wait, whole, until somebody resumes it: new credentials alone do not end what a person began."""
    with transaction() as session:
        row = connectors.lock_connector(session, connector_key)
        row.state, row.pause_reason = "paused", BY_HAND
        _note(session, connector_key, by, "connector.pause", why)


def resume(connector_key: int, *, by: str) -> None:
    """Let it go on. Raises: SetupRefused when it is not connected."""
    with transaction() as session:
        row = connectors.lock_connector(session, connector_key)
        if connection_of(session, row).how is None:
            raise SetupRefused(f"{row.name} is not connected to Pipedrive: connect it under Credentials")
        row.state, row.pause_reason = "active", None
        _note(session, connector_key, by, "connector.resume")
        after_commit(session, lambda: wakeups.wake_control("sweep"))


def rename(connector_key: int, name: str, *, by: str) -> str:
    """Give it another name; its id, and what Hull and Pipedrive know of it, stay. Returns the name.

    Raises: SetupRefused.
    """
    try:
        connector_name(name)
        with transaction() as session:
            row = connectors.lock_connector(session, connector_key)
            before, row.name = row.name, name
            _note(session, connector_key, by, "connector.rename", f"was {before}")
    except InvalidName as invalid:
        raise SetupRefused(str(invalid)) from None
    except IntegrityError:
        raise SetupRefused(f"there is a connector named {name} already") from None
    return name


def remove(connector: Connector, *, by: str, why: str | None = None) -> str:
    """Forget a connector with everything kept of it, and take its webhooks away in Pipedrive.

    Neither Hull nor Pipedrive loses a record. Returns why the webhooks are still there, or nothing.
    """
    left = ""
    try:
        remove_webhooks(connector.key)
    except PipelineError as error:
        left = str(error)
    with transaction() as session:
        for run in run_rows.latest_runs(session, connector.key):
            if run.state == "running":
                batches.cancel_open(session, run.id)
        connectors.remove_rows_of(session, connector.key)
        audit.note(session, by, "connector.remove", connector.name, connector_key=connector.key, why=why)
    return left


def note(connector_key: int, by: str, action: str, why: str | None = None) -> None:
    """Write down an act whose own transaction is elsewhere."""
    with transaction() as session:
        _note(session, connector_key, by, action, why)


def _note(session: Session, connector_key: int, by: str, action: str, why: str | None = None) -> None:
    subject = connectors.get_connector(session, connector_key).name
    audit.note(session, by, action, subject, connector_key=connector_key, why=why)


def _checked(system: str, ask: Callable[[], str]) -> Checked:
    try:
        return Checked(system=system, sentence=ask())
    except PipelineError as unwell:
        return _trouble(system, unwell)


def _trouble(system: str, unwell: PipelineError) -> Checked:
    reason = REASONS.get(unwell.reason)
    return Checked(
        system=system,
        sentence=reason.meaning if reason else str(unwell),
        trouble=unwell.reason,
        advice=reason.advice if reason else "",
    )


def _title(app: dict[str, Any]) -> str:
    name = app.get("name")
    return name if isinstance(name, str) else str(app.get("id"))


def _whose(me: dict[str, Any]) -> str:
    company = read_company(me)
    who = "an administrator" if company.is_administrator else "a user who is no administrator"
    host = urlsplit(company.origin).netloc
    return f"Pipedrive lets us in as user {company.user_id} of {host}, {who}."
