"""Transforms compiled once per process, settings version and reading of the field definitions."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.orm import Session

from db import connector as connectors
from pipeline.domain.fields import FieldCatalog
from pipeline.domain.kinds import Entity
from pipeline.domain.settings import ConnectorSettings, read_settings
from pipeline.transform.field_definitions import read_field_definitions
from pipeline.transform.incoming import IncomingTransform, compile_incoming
from pipeline.transform.outgoing import OutgoingTransform, compile_outgoing

KEPT = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything that decides how records of one entity of one connector are carried over."""

    settings: ConnectorSettings
    settings_version: int
    catalog: FieldCatalog
    fields_read_at: datetime | None
    incoming: IncomingTransform
    outgoing: OutgoingTransform


_compiled: dict[tuple[int, Entity, int, datetime | None], Plan] = {}


def plan_for(session: Session, connector_key: int, entity: Entity) -> Plan:
    """The plan in force now."""
    version = connectors.settings_in_force(session, connector_key)
    fields = connectors.find_fields(session, connector_key, entity)
    read_at = fields.fetched_at if fields else None
    key = (connector_key, entity, version.id, read_at)
    if key not in _compiled:
        if len(_compiled) >= KEPT:
            _compiled.clear()
        chosen = read_settings(version.document)
        catalog = FieldCatalog.of(entity, read_field_definitions(fields.rows if fields else []))
        _compiled[key] = Plan(
            settings=chosen,
            settings_version=version.version,
            catalog=catalog,
            fields_read_at=read_at,
            incoming=compile_incoming(entity, chosen, catalog),
            outgoing=compile_outgoing(entity, chosen, catalog),
        )
    return _compiled[key]
