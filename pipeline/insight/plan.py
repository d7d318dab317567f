"""Plans of settings, as people decide about them; `plan_views` is how they look.

make, again     a plan is asked for
read, latest    one plan as a whole; the last ones
items           what it says of single records
apply, discard  what becomes of it
held, confirm   runs that wait for a yes, see `pipeline.sync.runs.approval`
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from db import audit
from db import plan as rows
from db import run as run_rows
from db.plan import SettingsPlan
from db.session import transaction
from pipeline.domain.kinds import Entity
from pipeline.insight.plan_views import ItemPage, PlanView, item_of, view_of
from pipeline.jobs.plans import apply as plan_apply
from pipeline.jobs.plans import compute, create
from pipeline.jobs.plans.apply import Applied, PlanRefused
from pipeline.sync.connectors.settings_change import read_unknown_fields
from pipeline.sync.runs import approval, runs
from pipeline.sync.runs.approval import AskFirst


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldRun:
    run_id: int
    entity: str
    kind: str
    touched: int
    sentence: str
    started_at: datetime


def make(connector_key: int, document: Any, *, who: str, force: bool = False) -> int:
    """Ask for a plan; a small one is ready when this returns, any other is computed by a worker.

    Raises: SettingsRefused naming every mistake.
    """
    read_unknown_fields(connector_key, document)
    with transaction() as session:
        plan = create.make_plan(session, connector_key, document, author=who, force=force)
        audit.note(session, who, "settings.plan", f"plan {plan.id}", connector_key=connector_key)
    compute.go_on(plan.id)
    return plan.id


def again(connector_key: int, plan_id: int, *, who: str) -> int | None:
    """Ask for a plan of the same settings; None where there is no such plan."""
    with transaction() as session:
        found = _mine(session, connector_key, plan_id)
    return None if found is None else make(connector_key, found.document, who=who, force=True)


def finish(plan_id: int) -> None:
    """Compute the plan to its end, in turns with whatever worker is at it."""
    compute.go_on(plan_id, float("inf"))


def read(connector_key: int, plan_id: int) -> PlanView | None:
    with transaction() as session:
        found = _mine(session, connector_key, plan_id)
        return None if found is None else view_of(session, found)


def latest(connector_key: int, *, before_id: int | None = None, limit: int = 50) -> list[PlanView]:
    """Newest first."""
    with transaction() as session:
        found = rows.latest_plans(session, connector_key, before_id=before_id, limit=limit)
        return [view_of(session, each) for each in found]


def items(
    plan_id: int,
    direction: str,
    entity: str,
    *,
    act: str | None = None,
    field: str | None = None,
    after: str = "",
    limit: int = 50,
) -> ItemPage:
    """What the plan says of single records; without `act` of all but those that stay the same."""
    with transaction() as session:
        found = rows.page_of_items(
            session, plan_id, direction, entity, act=act, field=field, after=after, limit=limit + 1
        )
    more = found[limit - 1].record_id if len(found) > limit else None
    return ItemPage(items=tuple(map(item_of, found[:limit])), next_after=more)


def apply(connector_key: int, plan_id: int, *, who: str, confirmed: int | None = None) -> Applied:
    """Put the plan's settings in force, and do just what it says.

    confirmed  the number of records that a person said yes to; -1 is to whatever it is
    Raises: PlanRefused, and where that is for good the plan says so itself; AskFirst when a person must say yes first.
    """
    try:
        with transaction() as session:
            if _mine(session, connector_key, plan_id) is None:
                raise PlanRefused("plan_not_ready", f"there is no plan {plan_id}", is_over=False)
            applied = plan_apply.apply(session, plan_id, author=who, confirmed=confirmed)
            detail = {"settings_version": applied.settings_version, "left_out": applied.left_out}
            audit.note(session, who, "settings.apply", f"plan {plan_id}", connector_key=connector_key, detail=detail)
    except PlanRefused as refused:
        with transaction() as session:
            plan_apply.refuse(session, plan_id, refused, author=who)
        raise
    if applied.follow_up is not None:
        compute.go_on(applied.follow_up)
    return applied


def discard(connector_key: int, plan_id: int, *, who: str) -> bool:
    """Forget it. False when it has ended already."""
    with transaction() as session:
        if _mine(session, connector_key, plan_id) is None or not plan_apply.discard(session, plan_id, author=who):
            return False
        audit.note(session, who, "settings.discard", f"plan {plan_id}", connector_key=connector_key)
    return True


def held(connector_key: int) -> list[HeldRun]:
    """Runs that wait for a yes."""
    with transaction() as session:
        return [
            HeldRun(
                run_id=run.id,
                entity=run.entity,
                kind=run.kind,
                touched=(touched := approval.reach(session, connector_key, Entity(run.entity)).touched),
                sentence=approval.held_sentence(run, touched),
                started_at=run.started_at,
            )
            for run in run_rows.held_runs(session, connector_key)
        ]


def confirm(connector_key: int, run_id: int, *, who: str, number: int | None) -> bool:
    """Let a held run begin, if the number is the one that it would touch, or -1. False when it is not held (any more).

    Raises: RunInProgress; AskFirst when the number is another one.
    """
    with transaction() as session:
        mine = {run.id: run for run in run_rows.held_runs(session, connector_key)}
        if run_id not in mine:
            return False
        reach = approval.reach(session, connector_key, Entity(mine[run_id].entity))
        if number not in (-1, reach.touched):
            raise AskFirst([reach])
        audit.note(session, who, "runs.confirm", f"run {run_id}", connector_key=connector_key)
        return runs.confirm(session, run_id)


def _mine(session: Session, connector_key: int, plan_id: int) -> SettingsPlan | None:
    found = rows.get_plan(session, plan_id)
    return found if found is not None and found.connector_key == connector_key else None
