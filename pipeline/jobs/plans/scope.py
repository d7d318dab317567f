"""What a plan compares: the settings in force, the settings it is about, and what follows from the difference."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from sqlalchemy.orm import Session

from db import connector as connectors
from db.plan import SettingsPlan
from pipeline.domain.kinds import Direction, Entity
from pipeline.domain.settings import ConnectorSettings, read_settings
from pipeline.sync.compiled import Plan, compiled
from pipeline.sync.runs import backfill

PHASES: Final = (
    (Direction.INCOMING, Entity.ORGANIZATION),
    (Direction.INCOMING, Entity.PERSON),
    (Direction.OUTGOING, Entity.ORGANIZATION),
    (Direction.OUTGOING, Entity.PERSON),
)
"""The order in which a plan previews records: Accounts before the Users that may be linked to them."""


@dataclass(slots=True, kw_only=True)
class PlanScope:
    """One plan while it is computed or applied.

    runs    entity → the kind of run that its incoming side needs; absent if Hull receives nothing. A new fetch
            reads every record, so that
            nothing of it is left out
    sends   entities with an outgoing side that is decided again
    """

    plan: SettingsPlan
    before: ConnectorSettings
    after: ConnectorSettings
    runs: dict[Entity, str]
    sends: frozenset[Entity]
    _compiled: dict[Entity, Plan] = field(default_factory=dict)

    @property
    def links_anew(self) -> bool:
        return backfill.links_anew(self.before, self.after)

    def identifies_anew(self, entity: Entity) -> bool:
        """Whether records are known by other identifiers than before: the index has to be built again from what is stored."""
        return backfill.identifies_anew(entity, self.before, self.after)

    def looks_at(self, direction: Direction, entity: Entity) -> bool:
        return entity in (self.runs if direction is Direction.INCOMING else self.sends)

    def compiled(self, session: Session, entity: Entity) -> Plan:
        """Return how records of the entity would be synchronized."""
        if entity not in self._compiled:
            marks = connectors.marks(session, self.plan.connector_key, entity)
            self._compiled[entity] = compiled(session, self.plan.connector_key, entity, self.after, marks)
        return self._compiled[entity]


def scope_of(session: Session, plan: SettingsPlan) -> PlanScope:
    """What the plan is about. One that sees to what another had left out goes by the settings before that one's."""
    origin = _origin(session, plan)
    base = connectors.get_settings(session, plan.connector_key, origin.base_version)
    before, after = read_settings(base), read_settings(plan.document)
    kinds = {entity: backfill.kind_for(session, plan.connector_key, entity, before, after) for entity in Entity}
    return PlanScope(
        plan=plan,
        before=before,
        after=after,
        runs={
            entity: kind for entity, kind in kinds.items() if kind == "backfill" or (kind and plan.parent_id is None)
        },
        sends=frozenset(entity for entity in Entity if _sends(entity, before) != _sends(entity, after)),
    )


def _origin(session: Session, plan: SettingsPlan) -> SettingsPlan:
    while plan.parent_id is not None:
        plan = session.get_one(SettingsPlan, plan.parent_id)
    return plan


def _sends(entity: Entity, settings: ConnectorSettings) -> tuple[object, ...]:
    """Everything that decides what Pipedrive receives of an entity; incoming mappings decide who owns a field."""
    links = settings.link_users_in_service, settings.link_users_in_hull and entity is Entity.PERSON
    both_ways = {row.service for row in settings.incoming(entity)} & {row.service for row in settings.outgoing(entity)}
    return (
        settings.outgoing(entity),
        settings.claims(entity),
        settings.synchronized_segments(entity),
        settings.ignores_deleted(entity),
        settings.sync_key(entity),
        both_ways,
        links if settings.link_users_in_service or entity is Entity.PERSON else (),
    )
