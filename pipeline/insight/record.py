"""One record as both sides have it: a Person and its User, or an Organization and its Account, field by field."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import orjson
from sqlalchemy.orm import Session

from db import failure as failures
from db import happening, record_search
from db import record_events as asked
from db import snapshot as snapshots
from db.change import Change, waiting_changes
from db.departure import forebears
from db.failure import Failure
from db.id_mapping import NEVER, IdMapping
from db.record_events import Whose
from db.record_search import KnownBy
from db.sync_event import SyncEvent
from pipeline.domain.json_text import read_lenient
from pipeline.domain.kinds import Direction, Entity
from pipeline.insight.events import EventShape, described
from pipeline.insight.links import matched_words
from pipeline.insight.mapped import ABSENT, MappedField, labels_of, mapped_fields, value_in
from pipeline.sync.compiled import Plan, plan_for

HISTORY: Final = 50
"""Events on one page of a record's history."""
LARGEST_ID: Final = 2**63 - 1
LOOKED_BACK: Final = 300
"""Number of events searched for the last change of each field; its explanation finds older ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordSides:
    """Both sides of a record as last known.

    pipedrive  the record as last read
    report     the last report of the User or Account
    delivered  attribute → Hull's value from deliveries and later reports
    as_of      when Pipedrive last changed the record that was read
    """

    mapping: IdMapping | None
    pipedrive: Mapping[str, Any] | None
    report: Mapping[str, Any] | None
    delivered: Mapping[str, Any]
    as_of: datetime | None

    def in_hull(self, field: MappedField) -> Any:
        """What Hull holds of a field, as far as is known."""
        if field.incoming or self.report is None:
            return self.delivered.get(field.attribute)
        return field.in_report(self.report)


def read_sides(session: Session, whose: Whose) -> RecordSides:
    """What is kept of both sides."""
    key, entity = whose.connector_key, Entity(whose.entity)
    mapping = happening.joined(session, key, entity, whose.pipedrive_id, whose.hull_id)
    pipedrive = _snapshot(session, key, entity, "pipedrive", whose.pipedrive_id)
    message = _snapshot(session, key, entity, "hull", whose.hull_id)
    report = (message or {}).get(entity.hull)
    if isinstance(report, dict):
        report = {**report, "account": (message or {}).get("account") or {}}
    version = mapping.version if mapping and 0 < mapping.version < NEVER else None
    return RecordSides(
        mapping=mapping,
        pipedrive=pipedrive,
        report=report if isinstance(report, dict) else None,
        delivered=orjson.loads(mapping.delivered) if mapping and mapping.delivered else {},
        as_of=datetime.fromtimestamp(version, UTC) if version else None,
    )


def _snapshot(
    session: Session, connector_key: int, entity: Entity, side: str, record_id: int | str | None
) -> dict[str, Any] | None:
    if record_id is None:
        return None
    found = snapshots.read_snapshots(session, connector_key, entity, side, [str(record_id)])
    body = found.get(str(record_id))
    read = read_lenient(body) if body is not None else None
    return read if isinstance(read, dict) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldRow:
    """One mapped field, side by side, and the last event that touched it.

    is_heard  whether Hull's side is known: of what only goes out, Hull must have reported the record first
    """

    field: MappedField
    pipedrive: Any
    hull: Any
    last: EventShape | None
    is_refused: bool
    is_heard: bool = True

    @property
    def differs(self) -> bool:
        return self.is_heard and bool(self.pipedrive != self.hull)


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A change of the record that is on its way."""

    direction: str
    cause: str
    since: datetime
    due_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """Everything known about one record.

    state          of its id mapping; `never joined` without one
    organization   of a Person: (its Organization's id, whether that is known here)
    persons        of an Organization: number of its Persons, if Pipedrive returns it
    events, more   the latest events, and where the next page begins
    """

    whose: Whose
    title: str
    state: str
    matched: str
    first_seen_at: datetime | None
    updated_at: datetime | None
    as_of: datetime | None
    merged_into: int | None
    deleted_at: datetime | None
    awaits_account: str | None
    fields: tuple[FieldRow, ...]
    claims: tuple[KnownBy, ...]
    organization: tuple[int, bool] | None
    persons: int | None
    failures: tuple[Failure, ...]
    waiting: tuple[Waiting, ...]
    snapshot: Mapping[str, Any] | None
    report: Mapping[str, Any] | None
    events: tuple[EventShape, ...]
    more: int | None


def find_whose(
    session: Session, connector_key: int, entity: Entity, *, pipedrive_id: int | None = None, hull_id: str | None = None
) -> Whose | None:
    """Return the record with this id, if it is known; None also for an id that is too large."""
    if (pipedrive_id or 0) > LARGEST_ID or "\0" in (hull_id or ""):
        return None
    mapping = happening.joined(session, connector_key, entity, pipedrive_id, hull_id)
    if mapping is not None:
        pipedrive_id, hull_id = mapping.pipedrive_id, mapping.hull_id
        merged = forebears(session, connector_key, pipedrive_id) if pipedrive_id is not None else []
        mine = [(kind, each) for kind, each in merged if kind == entity]
        return Whose(
            connector_key=connector_key,
            entity=entity,
            pipedrive_id=pipedrive_id,
            hull_id=hull_id,
            forebears=tuple(mine),
        )
    whose = Whose(connector_key=connector_key, entity=entity, pipedrive_id=pipedrive_id, hull_id=hull_id)
    is_known = bool(asked.record_events(session, whose, limit=1)) or (
        hull_id is not None
        and any(each.entity == entity for each in record_search.find_by_ids(session, connector_key, hull_id))
    )
    return whose if is_known else None


def read_record(session: Session, whose: Whose) -> Record:
    """Both sides, what joins them, and what is wrong with them."""
    plan = plan_for(session, whose.connector_key, Entity(whose.entity))
    sides = read_sides(session, whose)
    mapping = sides.mapping
    recent = asked.record_events(session, whose, limit=LOOKED_BACK)
    events, more = _page(plan, recent)
    return Record(
        whose=whose,
        title=_title(sides),
        state=mapping.state if mapping else "never joined",
        matched=matched_words(mapping.matched_by if mapping and mapping.pipedrive_id else None),
        first_seen_at=mapping.first_seen_at if mapping else None,
        updated_at=mapping.updated_at if mapping else None,
        as_of=sides.as_of,
        merged_into=mapping.merged_into if mapping else None,
        deleted_at=mapping.deleted_at if mapping else None,
        awaits_account=mapping.awaits_account if mapping else None,
        fields=_rows(plan, sides, recent),
        claims=tuple(_claims(session, whose)),
        organization=_organization(session, whose, sides),
        persons=_count(sides),
        failures=tuple(_failures(session, whose)),
        waiting=tuple(_waiting(session, whose)),
        snapshot=sides.pipedrive,
        report=sides.report,
        events=tuple(events),
        more=more,
    )


def history(session: Session, whose: Whose, *, before_id: int | None = None) -> tuple[list[EventShape], int | None]:
    """A page of what happened to the record, newest first, and where the next one begins."""
    plan = plan_for(session, whose.connector_key, Entity(whose.entity))
    return _page(plan, asked.record_events(session, whose, before_id=before_id, limit=HISTORY + 1))


def _page(plan: Plan, rows: Sequence[SyncEvent]) -> tuple[list[EventShape], int | None]:
    labels = labels_of(plan)
    more = rows[HISTORY - 1].id if len(rows) > HISTORY else None
    return [described(row, labels) for row in rows[:HISTORY]], more


def _title(sides: RecordSides) -> str:
    for said in (sides.pipedrive, sides.report, sides.delivered):
        for name in ("name", "email", "domain", "pipedrive/name"):
            value = (said or {}).get(name)
            if isinstance(value, str) and value.strip():
                return value
    return ""


def _rows(plan: Plan, sides: RecordSides, recent: Sequence[SyncEvent]) -> tuple[FieldRow, ...]:
    rows = []
    for field in mapped_fields(plan):
        last = next((row for row in recent if value_in(row, field) is not ABSENT), None)
        refused = next((row for row in recent if _refuses(row, field)), None)
        is_refused = refused is not None and (last is None or refused.id > last.id)
        rows.append(
            FieldRow(
                field=field,
                pipedrive=field.in_pipedrive(sides.pipedrive),
                hull=sides.in_hull(field),
                last=described(shown) if (shown := refused if is_refused else last) is not None else None,
                is_refused=is_refused,
                is_heard=field.incoming or sides.report is not None,
            )
        )
    return tuple(rows)


def _refuses(row: SyncEvent, field: MappedField) -> bool:
    if row.field is not None:
        return row.event.endswith(".error") and bool({field.code, field.key} & set(row.field.split(", ")))
    is_error = row.event.endswith(".error")
    return is_error and (row.detail or "").startswith((f"{field.code}: ", f"{field.key}: "))


def _claims(session: Session, whose: Whose) -> list[KnownBy]:
    if whose.pipedrive_id is None:
        return []
    return record_search.known_by(session, whose.connector_key, whose.entity, whose.pipedrive_id)


def _organization(session: Session, whose: Whose, sides: RecordSides) -> tuple[int, bool] | None:
    if whose.entity != Entity.PERSON:
        return None
    linked = (sides.pipedrive or {}).get("org_id")
    if not isinstance(linked, int):
        return None
    return linked, happening.joined(session, whose.connector_key, Entity.ORGANIZATION, linked, None) is not None


def _count(sides: RecordSides) -> int | None:
    found = (sides.pipedrive or {}).get("people_count")
    return found if isinstance(found, int) else None


def _failures(session: Session, whose: Whose) -> list[Failure]:
    return failures.open_of_record(session, whose.connector_key, whose.entity, _names(whose))


def _waiting(session: Session, whose: Whose) -> list[Waiting]:
    return [_as_waiting(each) for each in waiting_changes(session, whose.connector_key, whose.entity, _names(whose))]


def _names(whose: Whose) -> dict[str, str]:
    names = {}
    if whose.pipedrive_id is not None:
        names[str(Direction.INCOMING)] = str(whose.pipedrive_id)
    if whose.hull_id is not None:
        names[str(Direction.OUTGOING)] = whose.hull_id
    return names


def _as_waiting(change: Change) -> Waiting:
    return Waiting(direction=change.direction, cause=change.cause, since=change.created_at, due_at=change.due_at)
