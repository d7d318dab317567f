"""Sets a connector up, and changes what was set: credentials that work, settings that mean something.

Nothing is stored before both remote systems have answered: rows and checks share one transaction.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from difflib import get_close_matches
from functools import partial
from typing import Any, Final, TypeVar

from celery.schedules import ParseException
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from db import batch as batches
from db import connector as connectors
from db import failure as failures
from db.connector import ACCESS_TOKEN, API_TOKEN, REFRESH_TOKEN, Connector, SettingsVersion
from db.session import transaction
from pipeline import wiring
from pipeline.domain.fields import FieldCatalog
from pipeline.domain.kinds import Entity
from pipeline.domain.reasons import REASONS, describe
from pipeline.domain.settings import NIGHTLY, ConnectorSettings, SettingsRefused, read_settings
from pipeline.errors import PipelineError
from pipeline.settings import settings as environment
from pipeline.tasks import backfill, control, schedules
from pipeline.tasks.company import join, read_company
from pipeline.transform.field_definitions import read_field_definitions
from pipeline.transform.field_sources import find_source, is_listed
from pipeline.transform.record_shapes import SYSTEM
from pipeline.vault import Vault
from pipeline.wiring import Wired

T = TypeVar("T")

NAME_RULE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
MAPPED: Final[Mapping[str, Entity]] = {
    "user_claims": Entity.PERSON,
    "incoming_user_attributes": Entity.PERSON,
    "outgoing_user_attributes": Entity.PERSON,
    "account_claims": Entity.ORGANIZATION,
    "incoming_account_attributes": Entity.ORGANIZATION,
    "outgoing_account_attributes": Entity.ORGANIZATION,
}
"""Settings whose rows name Pipedrive fields, and whose fields they are."""

HEALED: Final[Mapping[str, frozenset[str]]] = {
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
"""System → the reasons, of a pause or of a control task that gave up, that new credentials for it put right."""


class SetupRefused(Exception):
    """The connector was not set up, or not changed; the text says why and what to do."""


def add_connector(
    name: str,
    *,
    hull_organization: str,
    hull_id: str,
    hull_secret: str,
    pipedrive_token: str | None = None,
    settings: dict[str, Any] | None = None,
) -> Connector:
    """Join a Hull organization to a Pipedrive company, once both have accepted the credentials.

    pipedrive_token  None leaves the connector paused, and its work waiting, until somebody authorises it
    settings         the first version; None takes over what Hull holds for this connector, else the defaults
    Raises: SetupRefused, SettingsRefused.
    """
    if not NAME_RULE.fullmatch(name):
        raise SetupRefused(f"{name!r} is no name for a connector: use letters, digits, dot, dash and underscore")
    secrets = {"hull_secret": hull_secret} | ({API_TOKEN: pipedrive_token} if pipedrive_token else {})
    with transaction() as session:
        connector = _new_row(session, Connector(id=hull_id, name=name, hull_organization=hull_organization))
        _keep_secrets(session, connector.key, secrets)
        wired = wiring.open_connector(session, connector.key)
        from_hull = known_settings(_ask("Hull", wired.hull.app).get("private_settings"))
        if pipedrive_token:
            _ask("Pipedrive", lambda: join(connector, read_company(wired.pipedrive.me())))
            read_fields(session, wired)
        else:
            connector.state, connector.pause_reason = "paused", "not_connected"
        if settings is None:  # a field that went since is reported by the transform; it stops only itself
            _put_in_force(session, connector.key, from_hull, author="hull", force=True)
        else:
            _put_in_force(session, connector.key, settings, author="setup")
    return connector


def change_settings(connector: Connector, document: Any, author: str, *, force: bool = False) -> SettingsVersion:
    """Put a new version of the settings in force; an equal document makes none and returns the one in force.

    force  take over codes that Pipedrive does not know
    Raises: SettingsRefused naming every mistake.
    """
    with transaction() as session:
        return _put_in_force(session, connector.key, document, author=author, force=force)


def change_credentials(
    connector: Connector, *, hull_secret: str | None = None, pipedrive_token: str | None = None
) -> None:
    """Replace secrets once they are proven; a pause that their predecessors caused ends.

    Raises: SetupRefused, also when the token belongs to another company: ids of one mean nothing in the other.
    """
    given = {"hull_secret": hull_secret, API_TOKEN: pipedrive_token}
    with transaction() as session:
        row = connectors.get_connector(session, connector.key)
        _keep_secrets(session, row.key, {name: secret for name, secret in given.items() if secret})
        if pipedrive_token:
            connectors.drop_credentials(session, row.key, ACCESS_TOKEN, REFRESH_TOKEN)
        wired = wiring.open_connector(session, row.key)
        if hull_secret:
            _ask("Hull", wired.hull.app)
            heal(session, row, "hull")
        if pipedrive_token:
            _ask("Pipedrive", lambda: join(row, read_company(wired.pipedrive.me())))
            heal(session, row, "pipedrive")
    go_on()


def heal(session: Session, connector: Connector, system: str) -> None:
    """End a pause that new credentials for this system put right, any other stays; what they kept from ticks is closed."""
    if connector.state == "paused" and connector.pause_reason in HEALED[system]:
        connector.state, connector.pause_reason = "active", None
    failures.close_control(session, connector.key, HEALED[system])


def go_on() -> None:
    """After credentials have come: look at what waits, at the webhooks, and at what is to be fetched."""
    for name in ("sweep", "ensure_webhooks", "start_scheduled"):
        control.wake_control(name)


def renew_secrets() -> int:
    """Encrypt every stored secret again with the newest of SECRET_KEYS; returns how many there are.

    When a secret expires, and when it was given, stays as it is.
    """
    vault, count = Vault(environment().secret_keys), 0
    with transaction() as session:
        for connector in connectors.all_connectors(session):
            for credential in connectors.lock_credentials(session, connector.key):
                credential.ciphertext = vault.renew(credential.ciphertext)
                count += 1
    return count


def read_fields(session: Session, wired: Wired) -> None:
    """Read the field definitions of both entities."""
    for entity in Entity:
        rows = _ask("Pipedrive", partial(wired.pipedrive.fields, entity))
        connectors.keep_fields(session, wired.key, entity, rows)


def known_settings(private_settings: object) -> dict[str, Any]:
    """What Hull keeps for the connector, less what we have no name for: tokens, empty values, switches of other connectors."""
    given = private_settings if isinstance(private_settings, dict) else {}
    known = {name: given[name] for name in ConnectorSettings.model_fields if given.get(name) is not None}
    for name in MAPPED.keys() & known.keys():
        if isinstance(known[name], list):
            known[name] = [_pair(row) for row in known[name]]
    return {"link_users_in_hull": True, **known}


def find_mistakes(session: Session, connector_key: int, chosen: ConnectorSettings) -> tuple[list[str], list[str]]:
    """(mistakes, codes that Pipedrive does not know as far as the field definitions say)."""
    mistakes = []
    try:
        if chosen.full_fetch_cron not in ("", NIGHTLY):
            schedules.next_time(chosen.full_fetch_cron, datetime.now(UTC))
    except (ValueError, ParseException, RuntimeError):
        mistakes.append(
            f"full_fetch_cron: {chosen.full_fetch_cron!r} is not five cron fields (minute hour day month weekday, in "
            "UTC) that ever come due, as 15 2 * * * does, nor `nightly`, nor empty for never"
        )
    return mistakes, [
        f"{setting}.{position}.service: {complaint}"
        for setting, entity in MAPPED.items()
        if setting in chosen.model_fields_set and (catalog := _catalog(session, connector_key, entity)) is not None
        for position, row in enumerate(getattr(chosen, setting))
        if (complaint := _unknown_code(row.service, catalog))
    ]


def _new_row(session: Session, connector: Connector) -> Connector:
    session.add(connector)
    try:
        session.flush()
    except IntegrityError:
        raise SetupRefused(
            f"there is a connector named {connector.name} or with the id {connector.id} already; see "
            "`pipeline connectors list`"
        ) from None
    return connector


def _keep_secrets(session: Session, connector_key: int, secrets: Mapping[str, str]) -> None:
    vault = Vault(environment().secret_keys)
    for name, secret in secrets.items():
        connectors.keep_credential(session, connector_key, name, vault.seal(connector_key, name, secret))


def _ask(system: str, question: Callable[[], T]) -> T:
    try:
        return question()
    except PipelineError as error:
        advice = describe(error.reason) if error.reason in REASONS else ""
        raise SetupRefused(f"{system}: {error}. {advice}".strip()) from None


def _put_in_force(
    session: Session, connector_key: int, document: Any, *, author: str, force: bool = False
) -> SettingsVersion:
    chosen = read_settings(document)
    mistakes, unknown = find_mistakes(session, connector_key, chosen)
    if mistakes or (unknown and not force):
        raise SettingsRefused(mistakes + ([] if force else unknown))
    written = chosen.model_dump(mode="json", exclude_unset=True)
    history = connectors.settings_history(session, connector_key)
    if history and history[0].document == written:
        return history[0]
    schedules.plan(session, connectors.get_connector(session, connector_key), chosen)
    if not history or _day(read_settings(history[0].document)) != _day(chosen):
        batches.try_now(session, connector_key)
    version = connectors.add_settings(session, connector_key, written, author=author)
    if history:
        backfill.carry_over(session, connector_key, read_settings(history[0].document), chosen)
    return version


def _day(chosen: ConnectorSettings) -> tuple[int, float]:
    """What decides how long a fetch waits for the next day."""
    return chosen.daily_tokens, chosen.live_reserve


def _pair(row: Any) -> Any:
    """A row of Hull's tables may carry switches of other connectors, `overwrite` for one."""
    return {name: row[name] for name in ("hull", "service") if name in row} if isinstance(row, dict) else row


def _catalog(session: Session, connector_key: int, entity: Entity) -> FieldCatalog | None:
    fields = connectors.find_fields(session, connector_key, entity)
    return FieldCatalog.of(entity, read_field_definitions(fields.rows)) if fields else None


def _unknown_code(code: str, catalog: FieldCatalog) -> str | None:
    """What to say of a code that leads nowhere, with the fields that may have been meant."""
    source = find_source(code, catalog)
    if source is not None and is_listed(source, catalog):
        return None
    meant = _close_to(code, catalog)
    suggestion = f"; did you mean {' or '.join(meant)}?" if meant else ""
    return f"Pipedrive has no {catalog.entity.value.capitalize()} field {code!r}{suggestion}"


def _close_to(code: str, catalog: FieldCatalog) -> list[str]:
    """Codes that look alike, or whose field's name does."""
    named = {each.name.lower(): each.code for each in catalog.by_code.values()}
    spelled = {each: each for each in (*SYSTEM[catalog.entity], *catalog.by_code)}
    choices = {**named, **spelled}
    close = get_close_matches(code.lower().replace("_", " "), named, n=2, cutoff=0.75)
    close += get_close_matches(code, spelled, n=2, cutoff=0.7)
    meant = list(dict.fromkeys(choices[each] for each in close))[:3]
    return [_with_name(each, catalog) for each in meant]


def _with_name(code: str, catalog: FieldCatalog) -> str:
    definition = catalog.find(code)
    return f"{code} ({definition.name})" if definition and definition.is_custom else code
