"""Compare a plan with its effects: what it states of each User and Account, and what applying it wrote, logged and called."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, cast

from db import change_writer
from db import plan as plans
from db.plan import SettingsPlan
from db.session import transaction
from pipeline.domain.kinds import Direction, Entity
from tests.journeys.hull_messages import work_until_idle
from tests.journeys.planning import apply
from tests.system import SyncSystem

Record = tuple[str, str]
"""(entity, Hull id)"""


@dataclass(slots=True)
class Effects:
    """What happened to one record."""

    created: list[dict[str, Any]] = field(default_factory=list)
    updated: list[dict[str, Any]] = field(default_factory=list)
    joined: bool = False
    success: int = 0
    errors: list[str] = field(default_factory=list)

    @property
    def act(self) -> str:
        """Return the action of a plan that has these effects."""
        if self.created:
            return "create"
        if self.updated:
            return "link" if all(set(body) == {"org_id"} for body in self.updated) else "update"
        if self.errors:
            return "error"
        return "match" if self.joined else "same"

    @property
    def written(self) -> dict[str, Any]:
        """Return field → the last written value."""
        flat: dict[str, Any] = {}
        for body in (*self.created, *self.updated):
            flat |= {**body, **body.get("custom_fields", {})}
        flat.pop("custom_fields", None)
        return flat


@dataclass(slots=True)
class Outcome:
    """A plan and its effects.

    planned, reasons, fields  record → its action in the plan, its reason, and the values to write
    seen                      record → what happened to it
    applied                   result of applying the plan
    touched                   number of existing records that the operator must confirm
    """

    plan: SettingsPlan
    planned: dict[Record, str]
    reasons: dict[Record, str | None]
    fields: dict[Record, dict[str, Any]]
    seen: dict[Record, Effects]
    applied: Any
    touched: int

    def acts(self, *acts: str) -> set[Record]:
        return {record for record, act in self.planned.items() if act in acts}


def plan_and_apply(system: SyncSystem, document: dict[str, Any], *, slice_of: int = 500) -> Outcome:
    """Plan these settings, apply the plan, and run all work."""
    compute = system.module("jobs.plans.compute")
    before, compute.SLICE = compute.SLICE, slice_of
    try:
        system.module("sync.connectors.settings_change").read_unknown_fields(system.connector_key, document)
        with transaction() as session:
            plan_id = (
                system.module("jobs.plans.create").make_plan(session, system.connector_key, document, author="ana").id
            )
        compute.compute_now(plan_id, float("inf"))
    finally:
        compute.SLICE = before
    with transaction() as session:
        plan = session.get_one(SettingsPlan, plan_id)
    assert not system.rows("SELECT 1 FROM changes"), "all changes must be done before planning"
    assert plan.state == "ready", (plan.state, plan.reason, plan.detail)
    found = all_items(plan)
    since = mark_moment(system)
    touched = sum(each.number for each in system.module("jobs.plans.apply").reaches(plan))
    applied = apply(system, plan, confirmed=-1)
    system.work()
    work_until_idle(system)
    return Outcome(
        plan=plan,
        planned={(item.entity, item.record_id): item.act for item in found},
        reasons={(item.entity, item.record_id): item.reason for item in found},
        fields={(item.entity, item.record_id): _after(item) for item in found},
        seen=effects_since(system, since),
        applied=applied,
        touched=touched,
    )


def all_items(plan: SettingsPlan) -> list[plans.PlanItem]:
    """Return all outgoing items, the unchanged ones too."""
    with transaction() as session:
        return [
            item
            for entity in Entity
            for act in (
                "create",
                "lookup",
                "update",
                "link",
                "resend",
                "same",
                "match",
                "skip",
                "error",
                "unknown",
                "moved",
            )
            for item in plans.page_of_items(session, plan.id, "outgoing", entity, act=act, limit=1_000)
        ]


def _after(item: plans.PlanItem) -> dict[str, Any]:
    return {each["field"]: each["after"] for each in plans.unpacked(item.fields) or () if "problem" not in each}


@dataclass(frozen=True, slots=True)
class Mark:
    """The state of the system at one moment."""

    last_event: int
    joined: dict[Record, int]
    at: datetime


def mark_moment(system: SyncSystem) -> Mark:
    """Return the state of the system now, and count calls from here on."""
    system.pipedrive.ledger.mutations.clear()
    return Mark(_last_event(system), _joined(system), _now(system))


def effects_since(system: SyncSystem, since: Mark) -> dict[Record, Effects]:
    """Return record → effects since a moment, from the calls, the log and the id map."""
    found: dict[Record, Effects] = {}
    now = _joined(system)
    hull_id = {(entity, pipedrive_id): record for (entity, record), pipedrive_id in now.items()}
    for note in system.pipedrive.ledger.mutations:
        entity = "person" if "/persons" in note.path else "organization"
        seen = found.setdefault((entity, hull_id.get((entity, note.entity_id), f"unknown {note.entity_id}")), Effects())
        (seen.created if note.method == "POST" else seen.updated).append(json.loads(note.body))
    for record, pipedrive_id in now.items():
        if since.joined.get(record) != pipedrive_id:
            found.setdefault(record, Effects()).joined = True
    query = (
        "SELECT event, entity, hull_id, reason, field FROM sync_events WHERE id > :since AND event LIKE 'outgoing.%'"
    )
    for row in system.rows(query, since=since.last_event):
        seen = found.setdefault((row.entity, row.hull_id), Effects())
        if row.event.endswith("success"):
            seen.success += 1
        elif row.event.endswith("error") and row.field is None:
            seen.errors.append(row.reason)
    query = """SELECT entity, record_id, reason FROM failures
                WHERE state = 'open' AND direction = 'outgoing' AND updated_at >= :at"""
    for row in system.rows(query, at=since.at):
        found.setdefault((row.entity, row.record_id), Effects()).errors.append(row.reason)
    return found


def _now(system: SyncSystem) -> datetime:
    return cast("datetime", system.rows("SELECT clock_timestamp() AS at")[0].at)


def _joined(system: SyncSystem) -> dict[Record, int]:
    query = (
        "SELECT entity, hull_id, pipedrive_id FROM id_mappings WHERE hull_id IS NOT NULL AND pipedrive_id IS NOT NULL"
    )
    return {(row.entity, row.hull_id): row.pipedrive_id for row in system.rows(query)}


def _last_event(system: SyncSystem) -> int:
    return int(system.rows("SELECT coalesce(max(id), 0) AS id FROM sync_events")[0].id)


def send_again(system: SyncSystem, records: Iterable[Record]) -> dict[Record, Effects]:
    """Process these records again with their last reports from Hull. Return the effects."""
    since = mark_moment(system)
    for entity in Entity:
        mine = [hull_id for kind, hull_id in records if kind == entity]
        with transaction() as session:
            change_writer.write_changes(session, system.connector_key, Direction.OUTGOING, entity, mine, cause="test")
    system.work()
    work_until_idle(system)
    return effects_since(system, since)
