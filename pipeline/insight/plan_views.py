"""A plan as people see it: one sentence, what becomes of each side, and what of each record."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy.orm import Session

from db import connector as connectors
from db import plan as rows
from db.job import Job, newest_jobs
from db.plan import PlanItem, SettingsPlan
from pipeline.domain.fields import read_field_definitions
from pipeline.domain.kinds import Direction, Entity
from pipeline.domain.reasons import REASONS
from pipeline.domain.settings import read_settings
from pipeline.jobs.plans import apply
from pipeline.sync.job_queue import PLAN

ACTS: Final = ("update", "create", "lookup", "link", "match", "resend", "error", "unknown", "skip", "moved", "same")
"""In the order of the page: what would be written first."""
WORDS: Final[Mapping[str, str]] = {
    "update": "updated",
    "create": "created",
    "lookup": "created or matched, after a look-up in Pipedrive",
    "link": "linked",
    "match": "matched with nothing to write",
    "resend": "sent again without a changed value",
    "error": "in error",
    "unknown": "unknown",
    "skip": "skipped",
    "moved": "left out",
    "same": "the same",
}
MEANINGS: Final[Mapping[str, str]] = {
    "never_seen": "Hull has never reported the User or Account of the record to us, so its values are not known.",
    "no_snapshot": "The record has never been read whole. It is read before anything is written, and what differs is decided then.",
    "field_not_read": "Pipedrive gives this field on request only and was not asked for it yet: everything is fetched again.",
    "mirror_incomplete": "The first full fetch has not ended: Pipedrive is asked whether the record is there already.",
    "mirror_stale": "What changed in Pipedrive was not read for an hour: Pipedrive is asked whether the record is there already.",
    "named_by_hull": "Hull names a record of Pipedrive that was never read: it is read first.",
    "new_identifiers": "The plan changes what identifies a record: stored records are read by that first, then Pipedrive is asked.",
}
"""Act that only a plan has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanReason:
    act: str
    code: str
    records: int
    meaning: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """The result for one entity in one direction.

    kind      what is written: `Users`, `Accounts`, `Persons` or `Organizations`
    fields    (attribute or field, records), the most frequent first
    problems  the same, of rejected fields
    flawed    records that would be written without a rejected field
    labels    code of a field → its name in Pipedrive, of fields known by a code alone
    """

    direction: str
    entity: str
    kind: str
    acts: dict[str, int]
    fields: tuple[tuple[str, int], ...]
    problems: tuple[tuple[str, int], ...]
    reasons: tuple[PlanReason, ...]
    labels: dict[str, str]
    flawed: int

    def label(self, field: str) -> str:
        """The name under which people know a field."""
        return self.labels.get(field, field)

    @property
    def written(self) -> int:
        return sum(self.acts.get(act, 0) for act in rows.WRITTEN)

    @property
    def sentence(self) -> str:
        """`1,180 Persons would be updated (tier), 3 in error, 0 created, 0 linked, 412 unknown (never seen)`."""
        named = ", ".join(self.label(name) for name, _ in self.fields[:3])
        more = f", and {len(self.fields) - 3} more" if len(self.fields) > 3 else ""
        updated = self.acts.get("update", 0)
        what = f" ({named}{more})" if named and updated else ""
        counted = [f"{updated:,} {self.kind} would be updated{what}"]
        counted += [f"{self.flawed:,} of them without a rejected field"] if self.flawed else []
        promised = ("error", "create", "link") if self.direction == Direction.OUTGOING else ()
        counted += [
            f"{self.acts.get(act, 0):,} {WORDS[act]}{self._why(act)}"
            for act in ("error", "create", "lookup", "link", "match", "resend", "skip", "unknown", "moved")
            if act in promised or self.acts.get(act)
        ]
        return ", ".join(counted)

    def _why(self, act: str) -> str:
        """Return the reasons of records that cannot be previewed."""
        codes = [reason.code for reason in self.reasons if reason.act == act]
        return f" ({', '.join(codes).replace('_', ' ')})" if codes and act in ("unknown", "lookup") else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanView:
    """A plan with all details.

    state    `paused` while its job is paused
    changed  names of the settings that differ from its base version
    touched  existing records that would change, or that a look-up may find
    asks     whether that number needs approval
    fetches  whether a full fetch is needed
    """

    id: int
    connector_key: int
    parent_id: int | None
    state: str
    reason: str | None
    detail: str | None
    author: str
    created_at: datetime
    ready_at: datetime | None
    ended_at: datetime | None
    ended_by: str | None
    base_version: int
    settings_version: int | None
    fields_read_at: datetime | None
    document: dict[str, Any]
    changed: tuple[str, ...]
    known: int
    examined: int
    tokens: int
    takes_s: float
    touched: int
    asks: bool
    sides: tuple[Side, ...]

    @property
    def written(self) -> int:
        """Records that would be written on either side."""
        return sum(side.written for side in self.sides)

    @property
    def looked_up(self) -> int:
        """Return the Users and Accounts that need a look-up in Pipedrive: they are matched or created."""
        return sum(side.acts.get("lookup", 0) for side in self.sides)

    @property
    def created(self) -> int:
        return sum(side.acts.get("create", 0) for side in self.sides if side.direction == Direction.OUTGOING)

    @property
    def sentence(self) -> str:
        if self.state == "paused":
            return f"Paused by a person: {self.examined:,} of about {self.known:,} known records were examined. Resume its job."
        if self.state == "computing":
            return f"Looking at every known record: {self.examined:,} of about {self.known:,} so far."
        if not self.changed and self.parent_id is None:
            return "These are the settings in force: nothing would change."
        told = [side.sentence for side in self.sides]
        return "; ".join(told) + "." if told else "No known record would change."


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemView:
    """What would become of one record. `record` names its page: the Pipedrive id where there is one."""

    record_id: str
    record: str
    act: str
    reason: str | None
    meaning: str
    detail: str | None
    fields: tuple[dict[str, Any], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemPage:
    items: tuple[ItemView, ...]
    next_after: str | None


def page_of_items(
    session: Session,
    plan_id: int,
    direction: str,
    entity: str,
    *,
    act: str | None = None,
    field: str | None = None,
    after: str = "",
    limit: int = 50,
) -> ItemPage:
    """Return the plan's items; without `act`, all except unchanged ones."""
    found = rows.page_of_items(session, plan_id, direction, entity, act=act, field=field, after=after, limit=limit + 1)
    more = found[limit - 1].record_id if len(found) > limit else None
    return ItemPage(items=tuple(map(item_of, found[:limit])), next_after=more)


def view_of(session: Session, plan: SettingsPlan) -> PlanView:
    asked = apply.to_confirm(session, plan) if plan.state == "ready" else []
    same = {
        name: getattr(plan, name) for name in PlanView.__dataclass_fields__ if name in SettingsPlan.__table__.columns
    }
    job = job_of(session, plan.connector_key, plan.id) if plan.state == "computing" else None
    if job is not None and job.state == "paused":
        same["state"] = "paused"
    return PlanView(
        **same,
        changed=_changed(connectors.get_settings(session, plan.connector_key, plan.base_version), plan.document),
        touched=sum(each.number for each in apply.reaches(plan)),
        asks=bool(asked),
        sides=_sides(Counter(plan.counts), {each: _labels(session, plan.connector_key, each) for each in Entity}),
    )


def job_of(session: Session, connector_key: int, plan_id: int) -> Job | None:
    """Return the job that computes a plan, or did."""
    return newest_jobs(session, connector_key, PLAN, [str(plan_id)]).get(str(plan_id))


def item_of(item: PlanItem) -> ItemView:
    return ItemView(
        record_id=item.record_id,
        record=str(item.pipedrive_id) if item.pipedrive_id is not None else item.record_id,
        act=item.act,
        reason=item.reason,
        meaning=meaning_of(item.reason),
        detail=item.detail,
        fields=tuple(rows.unpacked(item.fields) or ()),
    )


def meaning_of(code: str | None) -> str:
    """Return the meaning of a reason as a sentence; empty if the act says enough."""
    if code is None:
        return ""
    return MEANINGS.get(code) or (REASONS[code].meaning if code in REASONS else "")


def _changed(before: dict[str, Any], after: dict[str, Any]) -> tuple[str, ...]:
    old, new = read_settings(before).model_dump(), read_settings(after).model_dump()
    return tuple(name for name in new if old[name] != new[name])


def _labels(session: Session, connector_key: int, entity: Entity) -> dict[str, str]:
    """Show the name instead of a forty-digit code."""
    fields = connectors.find_fields(session, connector_key, entity)
    found = read_field_definitions(fields.rows) if fields else []
    return {each.code: each.name for each in found if each.is_custom}


def _sides(counts: Counter[str], labels: Mapping[Entity, dict[str, str]]) -> tuple[Side, ...]:
    found = (_side(counts, direction, entity, labels[entity]) for direction in Direction for entity in Entity)
    return tuple(side for side in found if side.acts)


def _side(counts: Counter[str], direction: Direction, entity: Entity, labels: dict[str, str]) -> Side:
    of = f"{direction}.{entity}."
    mine = {name.removeprefix(of): records for name, records in counts.items() if name.startswith(of)}
    kind = entity.plural if direction is Direction.OUTGOING else f"{entity.hull}s"
    reasons = [
        PlanReason(act=act, code=code, records=records, meaning=meaning_of(code))
        for name, records in mine.items()
        if name.startswith("reason.")
        for act, _, code in [name.removeprefix("reason.").partition(".")]
    ]
    return Side(
        direction=direction,
        entity=entity,
        kind=kind.capitalize(),
        acts={act: mine[f"act.{act}"] for act in ACTS if f"act.{act}" in mine},
        fields=_frequent(mine, "field."),
        problems=_frequent(mine, "problem."),
        flawed=mine.get("flawed", 0),
        labels={name: label for name, label in labels.items() if f"field.{name}" in mine or f"problem.{name}" in mine},
        reasons=tuple(sorted(reasons, key=lambda each: (ACTS.index(each.act), -each.records))),
    )


def _frequent(mine: Mapping[str, int], prefix: str) -> tuple[tuple[str, int], ...]:
    found = [(name.removeprefix(prefix), records) for name, records in mine.items() if name.startswith(prefix)]
    return tuple(sorted(found, key=lambda each: (-each[1], each[0])))
