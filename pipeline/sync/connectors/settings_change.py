"""Change the settings of a connector: refused whole with every mistake named, or put in force with all consequences."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from difflib import get_close_matches
from typing import Any, Final

from sqlalchemy.orm import Session

from db import batch_queue, field_definition
from db import connector as connectors
from db.connector import Connector, SettingsVersion
from db.session import transaction
from pipeline.domain.cron import next_time
from pipeline.domain.fields import SYSTEM, FieldCatalog, find_source, is_listed, read_field_definitions
from pipeline.domain.kinds import Direction, Entity
from pipeline.domain.settings import NIGHTLY, ConnectorSettings, SettingsRefused, read_settings
from pipeline.errors import PipelineError
from pipeline.sync import definitions, job_queue
from pipeline.sync.runs import backfill, schedules
from pipeline.telemetry import logger
from pipeline.transform.targets import find_conflicts

MAPPED: Final[Mapping[str, Entity]] = {
    "user_claims": Entity.PERSON,
    "incoming_user_attributes": Entity.PERSON,
    "outgoing_user_attributes": Entity.PERSON,
    "account_claims": Entity.ORGANIZATION,
    "incoming_account_attributes": Entity.ORGANIZATION,
    "outgoing_account_attributes": Entity.ORGANIZATION,
}
"""Settings with rows that name Pipedrive fields, and the entity of these fields."""
_DIRECTIONS: Final = {each.value: each for each in Direction}


def change_settings(
    connector: Connector, document: Any, author: str, *, force: bool = False, confirmed: bool = False
) -> SettingsVersion:
    """Put a new version of the settings in force; an equal document creates none and returns the one in force.

    force      accept codes that Pipedrive does not know
    confirmed  start the resulting runs whatever their size; otherwise they may need approval, see `approval`
    Raises: SettingsRefused with every mistake.
    """
    read_unknown_fields(connector.key, document)
    with transaction() as session:
        version = put_in_force(session, connector.key, document, author=author, force=force, confirmed=confirmed)
        enqueue_settings_sync(session, connector.key)
        return version


def read_unknown_fields(connector_key: int, document: Any) -> None:
    """Read the field definitions again if a document names an unknown field: it may be new. Read the default currency
    if the document is the first to write an amount.

    Never inside a transaction; errors of Pipedrive are ignored. Fields that remain unknown are reported as mistakes.
    """
    try:
        chosen = read_settings(document)
    except SettingsRefused:
        return
    with transaction() as session:
        is_unknown = bool(find_unknown(session, connector_key, chosen))
        catalogs = [_catalog(session, connector_key, entity) for entity in Entity]
        lacks = any(
            each is not None and definitions.lacks_currency(session, connector_key, each, chosen) for each in catalogs
        )
    try:
        if is_unknown:
            for entity in Entity:
                definitions.reread_fields(connector_key, entity)
        if lacks:
            definitions.read_default_currency(connector_key)
    except PipelineError as unwell:
        logger().warning("fields.not_refreshed", reason=unwell.reason, detail=unwell.detail)


def enqueue_settings_sync(session: Session, connector_key: int) -> None:
    """Have a worker import what was changed in Hull, then push what was edited here; one job for any number of requests."""
    job_queue.enqueue(session, job_queue.SETTINGS_SYNC, str(connector_key), connector_key=connector_key)


def check(session: Session, connector_key: int, document: Any, *, force: bool = False) -> ConnectorSettings:
    """Return the settings of a document that may be put in force. Raises: SettingsRefused naming every mistake."""
    chosen = read_settings(document)
    mistakes, unknown = find_mistakes(session, connector_key, chosen)
    if mistakes or (unknown and not force):
        raise SettingsRefused(mistakes + ([] if force else unknown))
    return chosen


def put_in_force(
    session: Session,
    connector_key: int,
    document: Any,
    *,
    author: str,
    force: bool = False,
    confirmed: bool = False,
    plan_id: int | None = None,
) -> SettingsVersion:
    """Do the same as part of a transaction; `plan_id` is the plan that is being applied."""
    chosen = check(session, connector_key, document, force=force)
    written = chosen.model_dump(mode="json", exclude_unset=True)
    history = connectors.settings_history(session, connector_key)
    if history and history[0].document == written:
        return history[0]
    schedules.plan(session, connectors.get_connector(session, connector_key), chosen)
    if not history or _day(read_settings(history[0].document)) != _day(chosen):
        batch_queue.try_now(session, connector_key)
    version = connectors.add_settings(session, connector_key, written, author=author)
    if history:
        before = read_settings(history[0].document)
        backfill.start_required_runs(session, connector_key, before, chosen, plan_id=plan_id, confirmed=confirmed)
    return version


def known_settings(private_settings: object) -> dict[str, Any]:
    """Return the settings in Hull that we know: no tokens, empty values or switches of other connectors."""
    given = private_settings if isinstance(private_settings, dict) else {}
    known = {name: given[name] for name in ConnectorSettings.model_fields if given.get(name) is not None}
    for name in MAPPED.keys() & known.keys():
        if isinstance(known[name], list):
            known[name] = [_pair(row) for row in known[name]]
    return {"link_users_in_hull": True, **known}


def find_mistakes(session: Session, connector_key: int, chosen: ConnectorSettings) -> tuple[list[str], list[str]]:
    """Return (mistakes, codes that are not in the known field definitions)."""
    mistakes = []
    try:
        if chosen.full_fetch_cron not in ("", NIGHTLY):
            next_time(chosen.full_fetch_cron, datetime.now(UTC))
    except ValueError:
        mistakes.append(
            f"full_fetch_cron: {chosen.full_fetch_cron!r} is not valid: write five cron fields (minute hour day month "
            "weekday, in UTC) such as 15 2 * * *, write `nightly`, or leave it empty for never"
        )
    for setting, entity in MAPPED.items():
        if (direction := _DIRECTIONS.get(setting.partition("_")[0])) is not None:
            catalog = _catalog(session, connector_key, entity) or FieldCatalog.of(entity, [])
            conflicts = find_conflicts(chosen, catalog, direction)
            mistakes += [f"{setting}.{each.position}.{each.column}: {each.why}" for each in conflicts]
    return mistakes, [words for _, _, words in find_unknown(session, connector_key, chosen)]


def find_unknown(session: Session, connector_key: int, chosen: ConnectorSettings) -> list[tuple[str, str, str]]:
    """Return (setting, code, message) of every field that is not in the known field definitions."""
    return [
        (setting, row.service, f"{setting}.{position}.service: {complaint}")
        for setting, entity in MAPPED.items()
        if setting in chosen.model_fields_set and (catalog := _catalog(session, connector_key, entity)) is not None
        for position, row in enumerate(getattr(chosen, setting))
        if (complaint := _unknown_code(row.service, catalog))
    ]


def _day(chosen: ConnectorSettings) -> tuple[int, float]:
    """Return what decides how long a fetch waits for the next day."""
    return chosen.daily_tokens, chosen.live_reserve


def _pair(row: Any) -> Any:
    """Return a row of Hull's tables without the switches of other connectors, such as `overwrite`."""
    return {name: row[name] for name in ("hull", "service") if name in row} if isinstance(row, dict) else row


def _catalog(session: Session, connector_key: int, entity: Entity) -> FieldCatalog | None:
    fields = field_definition.find_fields(session, connector_key, entity)
    return FieldCatalog.of(entity, read_field_definitions(fields.rows)) if fields else None


def _unknown_code(code: str, catalog: FieldCatalog) -> str | None:
    """Return the message about an unknown code, with similar fields."""
    source = find_source(code, catalog)
    if source is not None and is_listed(source, catalog):
        return None
    meant = _close_to(code, catalog)
    suggestion = f"; did you mean {' or '.join(meant)}?" if meant else ""
    return f"Pipedrive has no {catalog.entity.value.capitalize()} field {code!r}{suggestion}"


def _close_to(code: str, catalog: FieldCatalog) -> list[str]:
    """Return codes with a similar spelling or a similar field name."""
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
