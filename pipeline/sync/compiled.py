"""Transforms compiled once per process, settings version and reading of the field definitions."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.orm import Session

from db import connector as connectors
from db import field_definition
from db.batch import ClaimedBatch
from db.connector import Marks
from db.session import transaction
from pipeline.domain.fields import FieldCatalog, find_source, read_field_definitions
from pipeline.domain.kinds import Entity
from pipeline.domain.settings import ConnectorSettings, read_settings
from pipeline.transform.hull_reports import attribute_name
from pipeline.transform.incoming import IncomingTransform, compile_incoming
from pipeline.transform.outgoing import OutgoingTransform, compile_outgoing

KEPT = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledSettings:
    """Everything that defines how records of one entity of one connector are synchronized."""

    settings: ConnectorSettings
    settings_version: int
    catalog: FieldCatalog
    fields_read_at: datetime | None
    incoming: IncomingTransform
    outgoing: OutgoingTransform
    shared: frozenset[str]
    """Attributes that are mapped in both directions."""

    def claim_field(self, claim: str) -> tuple[str, str, bool] | None:
        """Return (key, type, whether it is a custom field) of a claim's first field."""
        rules = (rule for rule in self.settings.claims(self.catalog.entity) if rule.hull == claim)
        source = next((found for rule in rules if (found := find_source(rule.service, self.catalog))), None)
        return (source.key, source.type, source.is_custom) if source else None


_compiled: dict[tuple[int, Entity, int, datetime | None], CompiledSettings] = {}


def compiled_for(session: Session, connector_key: int, entity: Entity) -> CompiledSettings:
    """Return the compiled settings in force now."""
    marks = connectors.marks(session, connector_key, entity)
    key = (connector_key, entity, marks.settings_id, marks.fields_read_at)
    if key not in _compiled:
        if len(_compiled) >= KEPT:
            _compiled.clear()
        _compiled[key] = _compile(session, connector_key, entity, marks)
    return _compiled[key]


def compiled_of(batch: ClaimedBatch) -> CompiledSettings:
    """Return the compiled settings that were in force when the batch was claimed, or else the current ones."""
    entity = batch.entity
    known = _compiled.get((batch.connector_key, entity, batch.marks.settings_id, batch.marks.fields_read_at))
    if known is not None:
        return known
    with transaction() as session:
        return compiled_for(session, batch.connector_key, entity)


def _compile(session: Session, connector_key: int, entity: Entity, marks: Marks) -> CompiledSettings:
    chosen = read_settings(connectors.settings_in_force(session, connector_key).document)
    return compiled(session, connector_key, entity, chosen, marks)


def compiled(
    session: Session, connector_key: int, entity: Entity, chosen: ConnectorSettings, marks: Marks
) -> CompiledSettings:
    """Compile these settings, in force or not."""
    fields = field_definition.find_fields(session, connector_key, entity)
    catalog = FieldCatalog.of(
        entity,
        read_field_definitions(fields.rows if fields else []),
        default_currency=connectors.default_currency(session, connector_key),
    )
    return CompiledSettings(
        settings=chosen,
        settings_version=marks.settings_version,
        catalog=catalog,
        fields_read_at=marks.fields_read_at,
        incoming=compile_incoming(entity, chosen, catalog),
        outgoing=compile_outgoing(entity, chosen, catalog),
        shared=frozenset(
            {attribute_name(row.hull) for row in chosen.incoming(entity)}
            & {attribute_name(row.hull) for row in chosen.outgoing(entity)}
        ),
    )
