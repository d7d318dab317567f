"""Which fields of Pipedrive the dashboard offers: all that can be read, or only those that take a value."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlalchemy.orm import Session

from db import connector as connectors
from db.session import transaction
from pipeline import wiring
from pipeline.domain.fields import FieldCatalog, find_source, is_listed, is_writable, read_field_definitions
from pipeline.domain.kinds import Entity
from pipeline.errors import PipelineError
from pipeline.sync import definitions
from pipeline.sync.connectors.company import read_currency
from pipeline.telemetry import logger

FRESH: Final = timedelta(minutes=1)
"""A field that was made in Pipedrive a moment ago is looked for here next; 10 tokens each time."""
DEADLINE_S: Final = 8.0
"""A person has a list open and waits."""


def offered(connector_key: int, entity: Entity, *, writable: bool) -> list[dict[str, str]]:
    """Return value and label of each field, in Pipedrive's order; the last known ones if Pipedrive does not answer.

    Raises: PipelineError if no fields are known and Pipedrive does not answer.
    """
    catalog = FieldCatalog.of(entity, read_field_definitions(_rows(connector_key, entity)))
    return [
        {"value": definition.code, "label": definition.name}
        for definition in catalog.by_code.values()
        if (source := find_source(definition.code, catalog)) is not None
        and is_listed(source, catalog)
        and (not writable or is_writable(source, entity))
    ]


def read_anew(connector_key: int) -> None:
    """Read the fields of both entities from Pipedrive and store them. Raises: PipelineError."""
    found = ask_fields(connector_key)
    with transaction() as session:
        keep_fields(session, connector_key, found)


def ask_fields(connector_key: int) -> dict[Entity, list[Any]]:
    """Read the fields of both entities from Pipedrive, 10 tokens each, outside of any transaction. Raises: PipelineError."""
    with transaction() as session:
        wired = wiring.open_connector(session, connector_key, deadline_s=DEADLINE_S)
    return {entity: wired.pipedrive.fields(entity) for entity in Entity}


def keep_fields(session: Session, connector_key: int, found: Mapping[Entity, list[Any]]) -> None:
    """Store the fields that Pipedrive has returned."""
    for entity, rows in found.items():
        definitions.keep(session, connector_key, entity, rows)


def read_default_currency(connector_key: int) -> None:
    """Read the account's default currency from Pipedrive. Raises: PipelineError."""
    with transaction() as session:
        wired = wiring.open_connector(session, connector_key, deadline_s=DEADLINE_S)
    currency = read_currency(wired.pipedrive.me())
    if currency is not None:
        with transaction() as session:
            connectors.keep_default_currency(session, connector_key, currency)


def see_that_known(connector_key: int) -> str:
    """Read fields that were never read; return why Pipedrive did not return them, or an empty text."""
    with transaction() as session:
        unknown = [entity for entity in Entity if connectors.find_fields(session, connector_key, entity) is None]
    try:
        for entity in unknown:
            _read(connector_key, entity)
    except PipelineError as unwell:
        logger().warning("fields.not_refreshed", reason=unwell.reason, detail=unwell.detail)
        return str(unwell)
    return ""


def _rows(connector_key: int, entity: Entity) -> list[Any]:
    with transaction() as session:
        known = connectors.find_fields(session, connector_key, entity)
    if known is not None and datetime.now(UTC) - known.fetched_at < FRESH:
        return known.rows
    try:
        return _read(connector_key, entity)
    except PipelineError as unwell:
        if known is None:
            raise
        logger().warning("fields.not_refreshed", reason=unwell.reason, detail=unwell.detail, type=entity.hull)
        return known.rows


def _read(connector_key: int, entity: Entity) -> list[Any]:
    """Pipedrive is called outside of any transaction: no other work waits for a slow answer."""
    with transaction() as session:
        wired = wiring.open_connector(session, connector_key, deadline_s=DEADLINE_S)
    rows = wired.pipedrive.fields(entity)
    with transaction() as session:
        definitions.keep(session, connector_key, entity, rows)
    return rows
