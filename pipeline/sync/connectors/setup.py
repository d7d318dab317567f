"""Add connectors and change their credentials.

Both remote systems are called first, outside of any transaction; the results are stored in one transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeVar

from cryptography.fernet import InvalidToken
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from db import connector as connectors
from db import failure_closing
from db import job as jobs
from db.connector import ACCESS_TOKEN, API_TOKEN, REFRESH_TOKEN, Connector
from db.session import after_commit, transaction
from pipeline import wiring
from pipeline.accounts import second_factor
from pipeline.domain import names
from pipeline.domain.kinds import Entity
from pipeline.domain.reasons import REASONS, describe
from pipeline.errors import PipelineError
from pipeline.settings import settings as environment
from pipeline.sync import definitions
from pipeline.sync.connectors.company import Company, join, read_company
from pipeline.sync.connectors.settings_change import (
    enqueue_settings_sync,
    known_settings,
    put_in_force,
)
from pipeline.tasks import canvases
from pipeline.vault import Vault

T = TypeVar("T")

HULL_SECRET: Final = "hull_secret"  # noqa: S105 - a name
"""Name of the credential."""
FIXED_BY: Final[Mapping[str, frozenset[str]]] = {
    "hull": frozenset({"hull_refused", "credential_missing", "secret_unreadable"}),
    "pipedrive": frozenset(
        {
            "unauthorized",
            "forbidden",
            "webhooks_forbidden",
            "credential_missing",
            "secret_unreadable",
            "not_connected",
            "uninstalled",
            "host_refused",
            "app_missing",
            "app_refused",
        }
    ),
}
"""System → the reasons of a pause or of a failed control task that new credentials for it fix."""


class SetupRefused(Exception):
    """The connector was not added or not changed; the text has the cause and the next step."""


def add_connector(
    name: str,
    *,
    hull_organization: str,
    hull_id: str,
    hull_secret: str,
    pipedrive_token: str | None = None,
    settings: dict[str, Any] | None = None,
    also: Callable[[Session, Connector], None] = lambda _session, _connector: None,
) -> Connector:
    """Join a Hull organization to a Pipedrive company after both have accepted the credentials.

    pipedrive_token  None leaves the connector paused, with its work waiting, until an administrator authorises it
    settings         the first version; None imports the settings stored in Hull, or the defaults
    also             called in the transaction that stores the connector
    Raises: SetupRefused, SettingsRefused.
    """
    name, hull_id = _valid(names.connector_name, name), _valid(names.hull_id, hull_id)
    _check_secrets(hull_secret, pipedrive_token)
    secrets = {HULL_SECRET: hull_secret} | ({API_TOKEN: pipedrive_token} if pipedrive_token else {})
    with transaction() as session:
        if connectors.find_connector(session, name) or connectors.find_connector(session, hull_id):
            raise _taken(name, hull_id)
    app = _ask_hull(hull_organization, hull_id, hull_secret)
    from_hull = known_settings(app.get("private_settings"))
    calls = wiring.CallsToCount()
    found = _try_token(pipedrive_token, calls) if pipedrive_token else None
    with transaction() as session:
        connector = _new_row(session, Connector(id=hull_id, name=name, hull_organization=hull_organization))
        calls.count_for(connector.key)
        keep_secrets(session, connector.key, secrets)
        connector.hull_settings = from_hull
        if found is None:
            connector.state, connector.pause_reason = "paused", "not_connected"
        else:
            join(connector, found.company)
            for entity, rows in found.fields.items():
                definitions.keep(session, connector.key, entity, rows)
        if settings is None:  # the transform reports a deleted field; the other fields work
            put_in_force(session, connector.key, from_hull, author="hull", force=True)
        else:
            put_in_force(session, connector.key, settings, author="setup")
        also(session, connector)
    return connector


@dataclass(frozen=True, slots=True, kw_only=True)
class ProvenCredentials:
    """New secrets by name that Hull or Pipedrive has accepted. `company` is the company of the API token."""

    secrets: Mapping[str, str]
    company: Company | None


def prove_credentials(
    connector: Connector, *, hull_secret: str | None = None, pipedrive_token: str | None = None
) -> ProvenCredentials:
    """Try new secrets at Hull and Pipedrive, outside of any transaction.

    Raises: SetupRefused, also if the token belongs to another company: the ids of one are not valid in the other.
    """
    _check_secrets(hull_secret, pipedrive_token)
    given = {HULL_SECRET: hull_secret, API_TOKEN: pipedrive_token}
    with transaction() as session:
        known = connectors.get_connector(session, connector.key)
    if hull_secret:
        _ask_hull(known.hull_organization, known.id, hull_secret)
    company = _read_company(connector.key, pipedrive_token, known.pipedrive_company) if pipedrive_token else None
    return ProvenCredentials(secrets={name: secret for name, secret in given.items() if secret}, company=company)


def store_credentials(session: Session, connector_key: int, proven: ProvenCredentials) -> None:
    """Replace secrets by proven ones, end a pause that the old ones caused, and continue the work after the commit.

    Raises: SetupRefused if the connector was joined to another company since they were tried.
    """
    row = connectors.get_connector(session, connector_key)
    keep_secrets(session, row.key, proven.secrets)
    if HULL_SECRET in proven.secrets:
        end_pause(session, row, "hull")
        enqueue_settings_sync(session, row.key)
    if proven.company is not None:
        connectors.drop_credentials(session, row.key, ACCESS_TOKEN, REFRESH_TOKEN)
        _ask("Pipedrive", partial(join, row, proven.company))
        end_pause(session, row, "pipedrive")
    after_commit(session, wake_work)


@dataclass(frozen=True, slots=True)
class _Found:
    """What an API token gives access to: the company, and the field definitions of both entities."""

    company: Company
    fields: dict[Entity, list[dict[str, Any]]]


def _try_token(token: str, calls: wiring.CallsToCount) -> _Found:
    client = wiring.try_token(token, calls.note)
    company = _ask("Pipedrive", lambda: read_company(client.me()))
    return _Found(company, {entity: _ask("Pipedrive", partial(client.fields, entity)) for entity in Entity})


def _read_company(connector_key: int, token: str, origin: str | None) -> Company:
    calls = wiring.CallsToCount()
    try:
        return _ask("Pipedrive", lambda: read_company(wiring.try_token(token, calls.note, origin).me()))
    finally:
        calls.count_for(connector_key)


def end_pause(session: Session, connector: Connector, system: str) -> None:
    """End a pause that new credentials for this system fix, and close the failures of control tasks that they fix."""
    if connector.state == "paused" and connector.pause_reason in FIXED_BY[system]:
        connector.state, connector.pause_reason = "active", None
    failure_closing.close_control(session, connector.key, FIXED_BY[system])


def wake_work() -> None:
    """After new credentials: enqueue waiting work, the check of webhooks, and scheduled fetches."""
    for name in ("sweep", "ensure_webhooks", "start_scheduled"):
        canvases.wake_control(name)


def renew_secrets(session: Session) -> int:
    """Encrypt every stored secret again with the newest of SECRET_KEYS; return their number.

    The times at which a secret expires and was stored do not change.
    """
    vault, count = Vault(environment().secret_keys), 0
    for connector in connectors.all_connectors(session):
        for credential in connectors.lock_credentials(session, connector.key):
            credential.ciphertext = vault.renew(credential.ciphertext)
            count += 1
    for job in jobs.lock_with_secret(session):
        with suppress(InvalidToken):  # the key is gone: the job fails with that reason
            job.secret = vault.renew(job.secret or b"")
            count += 1
    return count + second_factor.renew_secrets(session)


def _new_row(session: Session, connector: Connector) -> Connector:
    session.add(connector)
    try:
        session.flush()
    except IntegrityError:
        raise _taken(connector.name, connector.id) from None
    return connector


def _taken(name: str, hull_id: str) -> SetupRefused:
    return SetupRefused(
        f"a connector named {name} or with the id {hull_id} already exists; see `pipeline connectors list`"
    )


def keep_secrets(session: Session, connector_key: int, secrets: Mapping[str, str]) -> None:
    """Seal and store secrets by name."""
    vault = Vault(environment().secret_keys)
    for name, secret in secrets.items():
        connectors.keep_credential(session, connector_key, name, vault.seal(connector_key, name, secret))


def _valid(check: Callable[[str], str], given: str) -> str:
    try:
        return check(given)
    except names.InvalidName as invalid:
        raise SetupRefused(str(invalid)) from None


def _check_secrets(hull_secret: str | None, pipedrive_token: str | None) -> None:
    """Both are sent in headers. Raises: SetupRefused."""
    for what, given in (
        ("the connector's secret in Hull", hull_secret),
        ("the API token of Pipedrive", pipedrive_token),
    ):
        if given:
            _valid(partial(names.secret, what=what), given)


NO_ANSWER: Final = (
    "Hull: no usable answer for this organization. Check its name: a public host name, called at port 443; "
    "list any other host with its port in HULL_ORGANIZATIONS."
)
"""The same text for every host that is refused, internal, missing or not Hull, so that it cannot be used to probe hosts."""


def _ask_hull(organization: str, hull_id: str, secret: str) -> dict[str, Any]:
    """Return the connector as stored in Hull. Raises: SetupRefused."""
    try:
        return wiring.hull_client(organization, hull_id, secret).app()
    except PipelineError as error:
        if error.reason != "hull_refused":
            raise SetupRefused(NO_ANSWER) from None
    raise SetupRefused(f"Hull: hull_refused. {describe('hull_refused')}")


def _ask(system: str, question: Callable[[], T]) -> T:
    try:
        return question()
    except PipelineError as error:
        advice = describe(error.reason) if error.reason in REASONS else ""
        raise SetupRefused(f"{system}: {error}. {advice}".strip()) from None
