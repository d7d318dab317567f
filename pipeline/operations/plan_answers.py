"""Plans as answers: one sentence, the result for each entity and direction, and the preview of each record."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, Literal

from pydantic import BaseModel
from sqlalchemy.orm import Session

from db import connector as connectors
from db import field_definition
from db import plan as rows
from db.job import Job, newest_jobs
from db.plan import PlanItem, SettingsPlan
from pipeline.domain.fields import read_field_definitions
from pipeline.domain.kinds import Direction, Entity
from pipeline.domain.reasons import meaning_of
from pipeline.domain.settings import read_settings
from pipeline.jobs.plans import apply
from pipeline.operations.models import PageOnly, Shape, Text, Value
from pipeline.sync.job_queue import PLAN

Act = Literal["update", "create", "lookup", "link", "match", "resend", "error", "unknown", "skip", "moved", "same"]
WORDS: Final[Mapping[str, str]] = {
    "update": "updated",
    "create": "created",
    "lookup": "created or matched, after a look-up in Pipedrive",
    "link": "linked",
    "match": "matched, with nothing to write",
    "resend": "sent again without a changed value",
    "error": "in error",
    "unknown": "unknown",
    "skip": "skipped",
    "moved": "left out",
    "same": "the same",
}
"""What a plan does with a record → its text, in the order of the page: writes first."""
MEANINGS: Final[Mapping[str, str]] = {
    "never_seen": "Hull has never reported this User or Account to us, so its values are not known.",
    "no_snapshot": "The record has never been read completely. It is read before anything is written, and then compared.",
    "field_not_read": "Pipedrive returns this field on request only, and it was not requested yet: all records are fetched again.",
    "index_incomplete": "The first full fetch has not ended, so Pipedrive is queried for the record first.",
    "index_stale": "Changes in Pipedrive have not been read for an hour, so Pipedrive is queried for the record first.",
    "named_by_hull": "Hull names a Pipedrive record that was never read: it is read first.",
    "new_identifiers": "The plan changes what identifies a record: stored records are indexed by it, then Pipedrive is queried.",
}
"""Reason code that only a plan has → its meaning."""


class ReasonShape(Shape):
    act: str
    code: str
    records: int
    meaning: str


class CountShape(BaseModel):
    name: str
    label: str
    records: int


class SideShape(BaseModel):
    """The result for one entity in one direction; `flawed` records are sent without a field."""

    direction: str
    entity: str
    kind: str
    sentence: str
    written: int
    acts: dict[str, int]
    fields: list[CountShape]
    problems: list[CountShape]
    reasons: list[ReasonShape]
    flawed: int

    def label(self, field: str) -> str:
        """Return the name of a field in Pipedrive, if it is known."""
        return next((each.label for each in (*self.fields, *self.problems) if each.name == field), field)


class PlanShape(Shape):
    """`looked_up` counts Users and Accounts that need a look-up in Pipedrive: they are matched or created. `touched` counts
    existing records that would change, or that a look-up may find; if `asks` is true, send that number to apply the plan."""

    id: int
    parent_id: int | None
    state: str
    reason: str | None
    detail: str | None
    sentence: str
    author: str
    created_at: datetime
    ready_at: datetime | None
    ended_at: datetime | None
    ended_by: str | None
    base_version: int
    settings_version: int | None
    fields_read_at: PageOnly[datetime | None] = None
    changed: list[str]
    known: int
    examined: int
    written: int
    created: int
    looked_up: int
    tokens: int
    takes_s: float
    touched: int
    asks: bool


class PlanAnswer(PlanShape):
    """A plan with all details and its settings."""

    document: dict[str, Any]
    sides: list[SideShape]


class PlanItemShape(Shape):
    """The preview of one record; `record` is its Pipedrive id if it has one, else its Hull id."""

    record: str
    act: str
    reason: str | None
    meaning: str
    detail: Text | None
    fields: Value


class PlanItemsAnswer(Shape):
    """`next_after` is where the next page begins."""

    items: list[PlanItemShape]
    next_after: str | None


def describe_plan(session: Session, plan: SettingsPlan) -> PlanAnswer:
    """Return a plan with all details."""
    asked = apply.to_confirm(session, plan) if plan.state == "ready" else []
    changed = _changed(connectors.get_settings(session, plan.connector_key, plan.base_version), plan.document)
    labels = {each: _labels(session, plan.connector_key, each) for each in Entity}
    sides = _sides(Counter(plan.counts), labels)
    state = _state_of(session, plan)
    columns = {name: getattr(plan, name) for name in PlanAnswer.model_fields if name in SettingsPlan.__table__.columns}
    return PlanAnswer(
        **(columns | {"state": state}),
        sentence=_sentence(plan, state, changed, sides),
        changed=changed,
        written=sum(side.written for side in sides),
        created=sum(side.acts.get("create", 0) for side in sides if side.direction == Direction.OUTGOING),
        looked_up=sum(side.acts.get("lookup", 0) for side in sides),
        touched=sum(each.number for each in apply.reaches(plan)),
        asks=bool(asked),
        sides=sides,
    )


def describe_item(item: PlanItem) -> PlanItemShape:
    """Return one record of a plan."""
    return PlanItemShape(
        record=str(item.pipedrive_id) if item.pipedrive_id is not None else item.record_id,
        act=item.act,
        reason=item.reason,
        meaning=_meaning(item.reason),
        detail=item.detail,
        fields=list(rows.unpacked(item.fields) or ()),
    )


def job_of(session: Session, connector_key: int, plan_id: int) -> Job | None:
    """Return the job that computes a plan, or did."""
    return newest_jobs(session, connector_key, PLAN, [str(plan_id)]).get(str(plan_id))


def _state_of(session: Session, plan: SettingsPlan) -> str:
    """Return the state of a plan: `paused` while its job is paused."""
    job = job_of(session, plan.connector_key, plan.id) if plan.state == "computing" else None
    return "paused" if job is not None and job.state == "paused" else plan.state


def _sentence(plan: SettingsPlan, state: str, changed: list[str], sides: list[SideShape]) -> str:
    if state == "paused":
        return f"Paused by an operator: {plan.examined:,} of about {plan.known:,} known records are previewed. Resume its job."
    if state == "computing":
        return f"In progress: {plan.examined:,} of about {plan.known:,} known records are previewed."
    if not changed and plan.parent_id is None:
        return "These settings are in force already: nothing would change."
    return "; ".join(side.sentence for side in sides) + "." if sides else "No known record would change."


def _meaning(code: str | None) -> str:
    """Return the meaning of a reason as a sentence; empty if there is no reason."""
    return MEANINGS.get(code or "") or meaning_of(code)


def _changed(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    old, new = read_settings(before).model_dump(), read_settings(after).model_dump()
    return [name for name in new if old[name] != new[name]]


def _labels(session: Session, connector_key: int, entity: Entity) -> dict[str, str]:
    """Return code of a custom field → its name."""
    fields = field_definition.find_fields(session, connector_key, entity)
    found = read_field_definitions(fields.rows) if fields else []
    return {each.code: each.name for each in found if each.is_custom}


def _sides(counts: Counter[str], labels: Mapping[Entity, dict[str, str]]) -> list[SideShape]:
    found = (_side(counts, direction, entity, labels[entity]) for direction in Direction for entity in Entity)
    return [side for side in found if side.acts]


def _side(counts: Counter[str], direction: Direction, entity: Entity, labels: dict[str, str]) -> SideShape:
    of = f"{direction}.{entity}."
    mine = {name.removeprefix(of): records for name, records in counts.items() if name.startswith(of)}
    kind = (entity.plural if direction is Direction.OUTGOING else f"{entity.hull}s").capitalize()
    acts = {act: mine[f"act.{act}"] for act in WORDS if f"act.{act}" in mine}
    fields, flawed, reasons = _counts(mine, "field.", labels), mine.get("flawed", 0), _reasons(mine)
    return SideShape(
        direction=direction,
        entity=entity,
        kind=kind,
        sentence=_side_sentence(direction, kind, acts, fields, reasons, flawed),
        written=sum(acts.get(act, 0) for act in rows.WRITTEN),
        acts=acts,
        fields=fields,
        problems=_counts(mine, "problem.", labels),
        reasons=reasons,
        flawed=flawed,
    )


def _counts(mine: Mapping[str, int], prefix: str, labels: Mapping[str, str]) -> list[CountShape]:
    """Return the fields and the number of their records, the most frequent first."""
    found = [(name.removeprefix(prefix), records) for name, records in mine.items() if name.startswith(prefix)]
    return [
        CountShape(name=name, label=labels.get(name, name), records=records)
        for name, records in sorted(found, key=lambda each: (-each[1], each[0]))
    ]


def _reasons(mine: Mapping[str, int]) -> list[ReasonShape]:
    found = [
        ReasonShape(act=act, code=code, records=records, meaning=_meaning(code))
        for name, records in mine.items()
        if name.startswith("reason.")
        for act, _, code in [name.removeprefix("reason.").partition(".")]
    ]
    return sorted(found, key=lambda each: (list(WORDS).index(each.act), -each.records))


def _side_sentence(
    direction: Direction,
    kind: str,
    acts: Mapping[str, int],
    fields: list[CountShape],
    reasons: list[ReasonShape],
    flawed: int,
) -> str:
    """Return `1,180 Persons would be updated (tier), 3 in error, 0 created, 0 linked, 412 unknown (never seen)`."""
    named = ", ".join(each.label for each in fields[:3])
    more = f", and {len(fields) - 3} more" if len(fields) > 3 else ""
    updated = acts.get("update", 0)
    counted = [f"{updated:,} {kind} would be updated" + (f" ({named}{more})" if named and updated else "")]
    counted += [f"{flawed:,} of them without a rejected field"] if flawed else []
    always = ("error", "create", "link") if direction is Direction.OUTGOING else ()
    counted += [
        f"{acts.get(act, 0):,} {WORDS[act]}{_codes(reasons, act)}"
        for act in ("error", "create", "lookup", "link", "match", "resend", "skip", "unknown", "moved")
        if act in always or acts.get(act)
    ]
    return ", ".join(counted)


def _codes(reasons: list[ReasonShape], act: str) -> str:
    """Return the reasons of records that cannot be previewed."""
    codes = [reason.code for reason in reasons if reason.act == act]
    return f" ({', '.join(codes).replace('_', ' ')})" if codes and act in ("unknown", "lookup") else ""
