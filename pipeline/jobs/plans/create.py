"""Create a plan: validate its settings, store it, and determine what it compares."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any, Final

import orjson
from sqlalchemy import func
from sqlalchemy.orm import Session

from db import connector as connectors
from db import field_definition, snapshot
from db import plan as plans
from db.plan import SettingsPlan
from pipeline.domain.kinds import Direction, Entity
from pipeline.domain.settings import ConnectorSettings, read_settings
from pipeline.sync import job_queue
from pipeline.sync.compiled import CompiledSettings, compiled
from pipeline.sync.connectors.settings_change import check
from pipeline.sync.runs import backfill

PHASES: Final = (
    (Direction.INCOMING, Entity.ORGANIZATION),
    (Direction.INCOMING, Entity.PERSON),
    (Direction.OUTGOING, Entity.ORGANIZATION),
    (Direction.OUTGOING, Entity.PERSON),
)
"""The order of previews: Accounts before the Users that may be linked to them."""
SIDES: Final = {Direction.INCOMING: "pipedrive", Direction.OUTGOING: "hull"}


@dataclass(slots=True, kw_only=True)
class PlanScope:
    """One plan while it is computed or applied.

    runs    entity → the kind of run that its incoming side needs; absent if Hull receives nothing
    sends   entities with an outgoing side that is decided again
    """

    plan: SettingsPlan
    before: ConnectorSettings
    after: ConnectorSettings
    runs: dict[Entity, str]
    sends: frozenset[Entity]
    _compiled: dict[Entity, CompiledSettings] = field(default_factory=dict)

    @property
    def needs_relink(self) -> bool:
        return backfill.needs_relink(self.before, self.after)

    def changes_identifiers(self, entity: Entity) -> bool:
        """Return whether records get other identifiers than before, so that the index must be built again."""
        return backfill.changes_identifiers(entity, self.before, self.after)

    def looks_at(self, direction: Direction, entity: Entity) -> bool:
        return entity in (self.runs if direction is Direction.INCOMING else self.sends)

    def compiled(self, session: Session, entity: Entity) -> CompiledSettings:
        """Return how records of the entity would be synchronized."""
        if entity not in self._compiled:
            marks = connectors.marks(session, self.plan.connector_key, entity)
            self._compiled[entity] = compiled(session, self.plan.connector_key, entity, self.after, marks)
        return self._compiled[entity]


def scope_of(session: Session, plan: SettingsPlan) -> PlanScope:
    """Return what the plan compares. A follow-up plan starts from the settings before those of the first plan."""
    origin = plan
    while origin.parent_id is not None:
        origin = session.get_one(SettingsPlan, origin.parent_id)
    base = connectors.get_settings(session, plan.connector_key, origin.base_version)
    before, after = read_settings(base), read_settings(plan.document)
    kinds = {entity: backfill.required_kind(session, plan.connector_key, entity, before, after) for entity in Entity}
    return PlanScope(
        plan=plan,
        before=before,
        after=after,
        runs={
            entity: kind for entity, kind in kinds.items() if kind == "backfill" or (kind and plan.parent_id is None)
        },
        sends=frozenset(entity for entity in Entity if _sends(entity, before) != _sends(entity, after)),
    )


def _sends(entity: Entity, settings: ConnectorSettings) -> tuple[object, ...]:
    """Return the settings that decide what Pipedrive receives of an entity; incoming mappings decide the owner of a field."""
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


def make_plan(session: Session, connector_key: int, document: Any, *, author: str, force: bool = False) -> SettingsPlan:
    """Check and store a plan; `compute.compute_now` or a worker computes it once this is committed.

    Raises: SettingsRefused naming every mistake.
    """
    chosen = check(session, connector_key, document, force=force)
    return store_plan(session, connector_key, chosen.model_dump(mode="json", exclude_unset=True), author)


def store_plan(
    session: Session, connector_key: int, document: dict[str, Any], author: str, parent_id: int | None = None
) -> SettingsPlan:
    """Store a plan with its job; `parent_id` is the applied plan that it follows up."""
    definitions = {each: field_definition.find_fields(session, connector_key, each) for each in Entity}
    plan = SettingsPlan(
        connector_key=connector_key,
        parent_id=parent_id,
        base_version=connectors.settings_in_force(session, connector_key).version,
        document=document,
        definitions=digests_of_fields(session, connector_key),
        fields_read_at=min((each.fetched_at for each in definitions.values() if each), default=None),
        author=author,
    )
    session.add(plan)
    session.flush()
    scope = scope_of(session, plan)
    plan.known = sum(
        snapshot.count_snapshots(session, connector_key, entity, SIDES[direction])
        for direction, entity in PHASES
        if scope.looks_at(direction, entity)
    )
    job_queue.enqueue(
        session, job_queue.PLAN, str(plan.id), title=f"Plan {plan.id} by {author}", connector_key=connector_key
    )
    return plan


def digests_of_fields(session: Session, connector_key: int) -> dict[str, Any]:
    """Return entity → digest of Pipedrive's field definitions."""
    found = {each: field_definition.find_fields(session, connector_key, each) for each in Entity}
    return {
        entity.value: hashlib.blake2b(
            orjson.dumps(fields.rows, option=orjson.OPT_SORT_KEYS), digest_size=16
        ).hexdigest()
        for entity, fields in found.items()
        if fields is not None
    }


def lock_open_plan(session: Session, plan_id: int) -> SettingsPlan | None:
    """Return the plan, locked; None if it is not being computed."""
    plan = plans.lock_plan(session, plan_id)
    return plan if plan is not None and plan.state == "computing" else None


def discard(session: Session, plan_id: int, *, author: str) -> bool:
    """Discard a plan and delete its items. Return False if it has already ended."""
    plan = plans.lock_plan(session, plan_id)
    if plan is None or plan.state not in ("computing", "ready", "stopped"):
        return False
    plan.state, plan.ended_by, plan.ended_at = "discarded", author, func.now()
    plans.drop_items(session, plan.id)
    return True
