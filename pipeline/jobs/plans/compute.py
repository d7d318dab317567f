"""Compute a plan slice by slice.

A slice and the plan's progress are one transaction under the plan's row lock: a killed worker loses one slice, and two workers on
one plan alternate.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from typing import Final

from sqlalchemy import func
from sqlalchemy.orm import Session

from db import job as jobs
from db import plan as plans
from db import snapshot
from db.job import ClaimedJob, Job
from db.plan import NewItem
from db.session import transaction
from pipeline.domain.budget import plan_cost
from pipeline.domain.kinds import Direction, Entity
from pipeline.errors import PipelineError
from pipeline.jobs.plans.create import PHASES, PlanScope, discard, lock_open_plan, scope_of
from pipeline.jobs.plans.preview import preview_records, preview_reports
from pipeline.settings import settings
from pipeline.sync.job_queue import CONTINUE, DONE, JobStep
from pipeline.sync.outgoing.event_log import HARMLESS
from pipeline.sync.outgoing.preview import NO_SNAPSHOT
from pipeline.sync.runs import backfill
from pipeline.telemetry import logger

SLICE: Final = 500
LEFT: Final = frozenset({"left", *HARMLESS})
"""Reasons of omitted fields that are not problems."""
NEVER_SEEN: Final = "never_seen"
AT_ONCE_S: Final = 1.0
"""How long a request computes before it leaves the plan to a worker."""


def step(job: ClaimedJob) -> JobStep:
    """Compute the next slice of a plan."""
    plan_id = int(job.dedupe_key)
    with transaction() as session:
        resume(session, job.dedupe_key)
        jobs.hold(session, job)
    if compute_slice(plan_id):
        return CONTINUE
    with transaction() as session:
        plan = plans.get_plan(session, plan_id)
    if plan is not None:
        logger().info("connector.plan.ready", plan_id=plan_id, records=plan.examined, state=plan.state)
    return DONE


def resume(session: Session, key: str) -> None:
    """Continue a plan after its job had failed; another plan stays as it is."""
    plan = plans.lock_plan(session, int(key))
    if plan is not None and plan.state == "stopped":
        plan.state, plan.reason, plan.detail, plan.ended_at = "computing", None, None, None


def stop(session: Session, job: ClaimedJob, cause: PipelineError) -> None:
    """Write into the plan why its job failed."""
    plan = lock_open_plan(session, int(job.dedupe_key))
    if plan is not None:
        plan.state, plan.reason, plan.detail, plan.ended_at = "stopped", cause.reason, cause.detail, func.now()


def abort(session: Session, job: Job, by: str) -> None:
    """Discard the plan, unless it is ready."""
    plan = plans.lock_plan(session, int(job.dedupe_key))
    if plan is not None and plan.state in ("computing", "stopped"):
        discard(session, plan.id, author=by)


def compute_now(plan_id: int, for_s: float = AT_ONCE_S) -> None:
    """Compute for `for_s` seconds, so that a small plan is ready when its page is shown."""
    until = time.monotonic() + for_s
    while compute_slice(plan_id) and time.monotonic() < until:
        pass


def compute_slice(plan_id: int) -> bool:
    """Compute the next slice; return whether there may be more to do."""
    with transaction() as session:
        plan = lock_open_plan(session, plan_id)
        if plan is None:
            return False
        scope = scope_of(session, plan)
        while plan.phase < len(PHASES) and not scope.looks_at(*PHASES[plan.phase]):
            plan.phase, plan.cursor = plan.phase + 1, ""
        if plan.phase == len(PHASES):
            _finish(session, scope)
            return False
        _slice(session, scope, *PHASES[plan.phase])
        return True


def _finish(session: Session, scope: PlanScope) -> None:
    """Set the number of unknown records, the cost, and the state ready."""
    plan = scope.plan
    counts = Counter(plan.counts)
    known = {each: backfill.reach(session, plan.connector_key, each).known for each in Entity}
    counts |= Counter({f"known.{entity}": records for entity, records in known.items()})
    if plan.parent_id is None:
        for entity in scope.runs:
            _add_unknown(counts, f"incoming.{entity}", NO_SNAPSHOT, known[entity] - _count_incoming(counts, entity))
        for entity in scope.sends:
            never = snapshot.count_unreported(session, plan.connector_key, entity)
            _add_unknown(counts, f"outgoing.{entity}", NEVER_SEEN, never)
    plan.counts = dict(counts)
    shares_ownership = [
        entity
        for entity in scope.sends
        if any(owner != "hull" for owner in scope.compiled(session, entity).outgoing.owners.values())
    ]
    cost = plan_cost(
        updates=_total(counts, "outgoing", "update", "link"),
        creates=_total(counts, "outgoing", "create", "lookup"),
        read_before=sum(counts[f"outgoing.{entity}.act.update"] for entity in shares_ownership),
        fetched=tuple(_count_incoming(counts, entity) for entity, kind in scope.runs.items() if kind == "full"),
        sent=_total(counts, "incoming", *plans.WRITTEN, "same"),
        page_limit=settings().page_limit,
    )
    plan.tokens, plan.takes_s = cost.tokens, cost.takes_s
    plan.state, plan.ready_at = "ready", func.now()


def _add_unknown(counts: Counter[str], side: str, reason: str, records: int) -> None:
    if records > 0:
        counts[f"{side}.act.unknown"] += records
        counts[f"{side}.reason.unknown.{reason}"] += records


def _count_incoming(counts: Counter[str], entity: Entity) -> int:
    return sum(n for name, n in counts.items() if name.startswith(f"incoming.{entity}.act."))


def _total(counts: Counter[str], direction: str, *acts: str) -> int:
    return sum(counts[f"{direction}.{entity}.act.{act}"] for entity in Entity for act in acts)


def _slice(session: Session, scope: PlanScope, direction: Direction, entity: Entity) -> None:
    """Preview the next records, store the results, and advance."""
    plan = scope.plan
    where = (session, plan.connector_key, entity)
    earlier = plans.line_of(session, plan)[1:]
    if direction is Direction.INCOMING:
        bodies = snapshot.page_of_snapshots(*where, after=plan.cursor, limit=SLICE, left_out_by=earlier)
        ids, items = list(bodies), preview_records(session, scope, entity, bodies) if bodies else []
        items = plans.add_items(session, plan.id, items)
    else:
        reports = snapshot.page_of_reports(*where, after=plan.cursor, limit=SLICE, left_out_by=earlier)
        ids, items = list(reports), preview_reports(session, scope, entity, reports) if reports else []
    plan.counts = dict(Counter(plan.counts) + counted(items))
    plan.examined += len(ids)
    if len(ids) < SLICE:
        plan.phase, plan.cursor = plan.phase + 1, ""
    else:
        plan.cursor = ids[-1]


def counted(items: Iterable[NewItem]) -> Counter[str]:
    """Return the counts of these items, as `SettingsPlan.counts` has them."""
    counts: Counter[str] = Counter()
    for item in items:
        of = f"{item.direction}.{item.entity}"
        counts[f"{of}.act.{item.act}"] += 1
        if item.act not in ("same", *plans.WRITTEN) and item.reason:
            counts[f"{of}.reason.{item.act}.{item.reason}"] += 1
        for change in item.fields:
            counts[f"{of}.{'problem' if 'problem' in change else 'field'}.{change['field']}"] += 1
        if item.act in plans.CARRIED and any(change.get("problem", "left") not in LEFT for change in item.fields):
            counts[f"{of}.flawed"] += 1
    return counts
