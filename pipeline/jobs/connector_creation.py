"""Create a connector on its first Hull notification if its organization is allow-listed.

    is_possible → the signature is verified → enqueue → Hull is answered to retry → step: Hull's own answer is the proof

The body of a notification is not signed, so its content is not trusted: a worker asks the organization's host, which must be one of
HULL_ORGANIZATIONS, whether id and secret are correct. Until then only the credentials are stored, encrypted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any, Final

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from db import connector as connectors
from db import job as jobs
from db.connector import Connector
from db.job import ClaimedJob
from db.session import after_commit, transaction
from pipeline import wiring
from pipeline.domain.json_text import read_lenient, write_lenient
from pipeline.domain.names import is_connector_name, is_hull_id
from pipeline.domain.settings import SettingsRefused
from pipeline.errors import ConfigurationError, Retryable
from pipeline.settings import settings
from pipeline.sync import job_queue
from pipeline.sync.connectors.settings_change import enqueue_settings_sync, known_settings, put_in_force
from pipeline.sync.connectors.setup import keep_secrets
from pipeline.sync.job_queue import CONNECTOR_CREATION, DONE, JobStep, secret_of
from pipeline.tasks.canvases import wake_control
from pipeline.telemetry import logger

MOST_AT_ONCE: Final = 20
"""Maximum of connectors that are checked at a time: the sender of one signed notification could name any number."""
REFUSED_S: Final = 600.0
"""Credentials that Hull refused are not tried again for this time."""


def is_possible(connector_id: str, organization: str) -> bool:
    """Return whether a notification of an unknown connector may create it."""
    return is_hull_id(connector_id) and organization.lower() in settings().hull_organizations


def enqueue(connector_id: str, organization: str, secret: str) -> bool:
    """Store a request to create this connector; return False if it is refused. Makes no call."""
    parts = [connector_id, organization.lower(), secret]
    text = write_lenient(parts)
    key = hashlib.blake2b(text, digest_size=16).hexdigest()
    with transaction() as session:
        if (
            connectors.find_connector(session, connector_id) is not None
            or jobs.was_refused(session, CONNECTOR_CREATION, key, within_s=REFUSED_S)
            or jobs.count_due(session, CONNECTOR_CREATION) >= MOST_AT_ONCE
        ):
            return False
        job_queue.enqueue(session, CONNECTOR_CREATION, key, secret=text.decode())
    return True


def step(job: ClaimedJob) -> JobStep:
    """Verify the credentials with Hull, and create the connector, paused until it has access to Pipedrive.

    Raises: ConfigurationError("hull_refused").
    """
    connector_id, organization, secret = read_lenient(secret_of(job).encode())
    if not is_possible(connector_id, organization):  # the list may have changed since
        raise ConfigurationError("host_refused", "the organization is not in HULL_ORGANIZATIONS")
    found = wiring.hull_client(organization, connector_id, secret).app()
    if str(found.get("id", "")).lower() != connector_id.lower():
        raise ConfigurationError("hull_refused", "Hull knows another connector by these credentials")
    try:
        with transaction() as session:
            jobs.hold(session, job)
            if connectors.find_connector(session, connector_id) is None:
                _make(session, connector_id, organization, secret, found.get("private_settings"))
    except IntegrityError:
        raise Retryable("database_unavailable", "a connector of this id or name was added in the same moment") from None
    return DONE


def _make(session: Session, connector_id: str, organization: str, secret: str, private_settings: Any) -> None:
    name = next(name for name in _names(connector_id, organization) if connectors.find_connector(session, name) is None)
    connector = Connector(
        id=connector_id, name=name, hull_organization=organization, state="paused", pause_reason="not_connected"
    )
    session.add(connector)
    session.flush()
    keep_secrets(session, connector.key, {"hull_secret": secret})
    connector.hull_settings = known_settings(private_settings)
    try:
        put_in_force(session, connector.key, connector.hull_settings, author="hull", force=True)
    except SettingsRefused:  # start with defaults; the next synchronization reports the mistakes
        connector.hull_settings = None
        put_in_force(session, connector.key, known_settings({}), author="hull")
        enqueue_settings_sync(session, connector.key)
        after_commit(session, lambda: wake_control("dispatch"))
    after_commit(session, lambda: logger().info("connector.created", connector_id=connector_id, name=name))


def _names(connector_id: str, organization: str) -> Iterator[str]:
    """Yield names for it: the name of its organization first, if no other connector has it."""
    label = organization.partition(".")[0].partition(":")[0]
    if is_connector_name(label):
        yield label
        yield f"{label[:50]}-{connector_id[-6:]}"
    yield f"hull-{connector_id}"
