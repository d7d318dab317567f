"""What people do to a whole connector: pause, resume, rename, remove."""

from __future__ import annotations

from typing import Final

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from db import audit
from db import batch as batches
from db import connector as connectors
from db import run as run_rows
from db.authorisation import connection_of
from db.connector import Connector
from db.session import after_commit, transaction
from pipeline.domain.names import InvalidName, connector_name
from pipeline.errors import PipelineError
from pipeline.sync.connectors.setup import SetupRefused
from pipeline.sync.connectors.webhooks import remove_webhooks
from pipeline.tasks import wakeups

BY_HAND: Final = "connector_paused"


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
