"""New settings reach the records that were carried over before: the mapping of an attribute is not only for what comes next.

What is stored of a record is whole, so most new mappings need nothing from Pipedrive: a backfill carries what is stored over
once more. A field that Pipedrive gives on request only was not asked for before; then everything is fetched again.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy.orm import Session

from db import connector as connectors
from db import id_mapping
from db import run as run_rows
from pipeline.domain.fields import FieldCatalog
from pipeline.domain.kinds import Entity
from pipeline.domain.settings import ConnectorSettings
from pipeline.tasks import runs
from pipeline.transform.field_definitions import read_field_definitions
from pipeline.transform.incoming import compile_incoming

CAUSE = "settings"


@dataclass(frozen=True, slots=True, kw_only=True)
class Called:
    """A run that a change of settings calls for: `backfill` from what is stored, or a `full` fetch; `resend` tells Hull all."""

    entity: Entity
    kind: str
    resend: bool


def carry_over(session: Session, connector_key: int, before: ConnectorSettings, after: ConnectorSettings) -> None:
    """Begin what the change of settings calls for, in the transaction that puts them in force."""
    for each in called_for(session, connector_key, before, after):
        _begin(session, connector_key, each.entity, each.kind, resend=each.resend)


def called_for(
    session: Session, connector_key: int, before: ConnectorSettings, after: ConnectorSettings
) -> list[Called]:
    """By which runs the records of before would get what is new."""
    found = []
    for entity in Entity:
        if _says_the_same(entity, before, after) or not id_mapping.any_read(session, connector_key, entity):
            continue
        fields = connectors.find_fields(session, connector_key, entity)
        catalog = FieldCatalog.of(entity, read_field_definitions(fields.rows if fields else []))
        known = set(compile_incoming(entity, before, catalog).include_fields)
        wanted = set(compile_incoming(entity, after, catalog).include_fields)
        kind = "backfill" if wanted <= known else "full"
        found.append(Called(entity=entity, kind=kind, resend=_links_anew(before, after)))
    return found


def _says_the_same(entity: Entity, before: ConnectorSettings, after: ConnectorSettings) -> bool:
    """Whether a record of this entity means the same to Hull as it did."""
    links_anew = entity is Entity.PERSON and _links_anew(before, after)
    return (before.incoming(entity), before.claims(entity)) == (
        after.incoming(entity),
        after.claims(entity),
    ) and not links_anew


def _links_anew(before: ConnectorSettings, after: ConnectorSettings) -> bool:
    """Links are said along with a record, and no digest tells whether they were."""
    return after.link_users_in_hull and not before.link_users_in_hull


def _begin(session: Session, connector_key: int, entity: Entity, kind: str, *, resend: bool) -> None:
    """One of the kind that is under way began under settings that hold no more: it gives way to the new one."""
    if under_way := run_rows.running_run(session, connector_key, entity, kind):
        runs.cancel(session, under_way.id)
        session.flush()
    runs.begin(session, connector_key, entity, kind, cause=CAUSE, changed_only=not resend)
