"""Create a plan: its settings are validated like settings to be put in force, and it is stored for a worker."""

from __future__ import annotations

import hashlib
from typing import Any, Final

import orjson
from sqlalchemy.orm import Session

from db import connector as connectors
from db import plan as plans
from db import snapshot
from db.plan import SettingsPlan
from pipeline.domain.kinds import Direction, Entity
from pipeline.jobs.plans.scope import PHASES, scope_of
from pipeline.sync import job_queue
from pipeline.sync.connectors.settings_change import check

SIDES: Final = {Direction.INCOMING: "pipedrive", Direction.OUTGOING: "hull"}


def make_plan(session: Session, connector_key: int, document: Any, *, author: str, force: bool = False) -> SettingsPlan:
    """Write a plan down; `compute.compute_now` or a worker computes it once this is committed.

    Raises: SettingsRefused naming every mistake.
    """
    chosen = check(session, connector_key, document, force=force)
    return _add(session, connector_key, chosen.model_dump(mode="json", exclude_unset=True), author)


def plan_anew(session: Session, earlier: SettingsPlan, *, author: str) -> SettingsPlan:
    """See to what an applied plan had left out: records that moved since, or were not there yet."""
    return _add(session, earlier.connector_key, earlier.document, author, parent_id=earlier.id)


def _add(
    session: Session, connector_key: int, document: dict[str, Any], author: str, parent_id: int | None = None
) -> SettingsPlan:
    definitions = {each: connectors.find_fields(session, connector_key, each) for each in Entity}
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
        session, job_queue.PLAN, str(plan.id), title=f"Plan {plan.id} of {author}", connector_key=connector_key
    )
    return plan


def digests_of_fields(session: Session, connector_key: int) -> dict[str, Any]:
    """Return entity → a mark that changes with Pipedrive's field definitions."""
    found = {each: connectors.find_fields(session, connector_key, each) for each in Entity}
    return {
        entity.value: hashlib.blake2b(
            orjson.dumps(fields.rows, option=orjson.OPT_SORT_KEYS), digest_size=16
        ).hexdigest()
        for entity, fields in found.items()
        if fields is not None
    }


def lock_open_plan(session: Session, plan_id: int) -> SettingsPlan | None:
    """The plan, held, while it is still being computed."""
    plan = plans.lock_plan(session, plan_id)
    return plan if plan is not None and plan.state == "computing" else None
