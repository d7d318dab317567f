"""Find and count failures, by one filter for pages, commands and replays."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import ColumnElement, Integer, cast, func, literal, select, text, tuple_
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session, defer

from db.base import changed_rows
from db.failure import OF_RECORDS, Failure
from db.replay import ReplayItem
from db.statement import Statement, texts

EXACT = (
    *(
        "fingerprint",
        "direction",
        "entity",
        "reason",
        "field",
        "kind",
        "settings_version",
        "run_id",
        "batch_id",
        "state",
    ),
)
"""Parts of a filter that are compared as they are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureFilter:
    """None matches everything; `since` and `until` compare the time of the last failed attempt."""

    connector_key: int | None = None
    ids: tuple[int, ...] = ()
    fingerprint: str | None = None
    direction: str | None = None
    entity: str | None = None
    reason: str | None = None
    field: str | None = None
    kind: str | None = None
    settings_version: int | None = None
    run_id: int | None = None
    batch_id: int | None = None
    since: datetime | None = None
    until: datetime | None = None
    state: str | None = "open"

    @property
    def words(self) -> dict[str, Any]:
        """Return the parts that are set, except the state: to be stored and shown."""
        named = {name: getattr(self, name) for name in EXACT if name != "state"}
        times = {name: at.isoformat() for name in ("since", "until") if (at := getattr(self, name)) is not None}
        ids = {"ids": list(self.ids)} if self.ids else {}
        return {name: value for name, value in named.items() if value is not None} | times | ids

    @property
    def conditions(self) -> list[ColumnElement[bool]]:
        """Return the filter as SQL conditions."""
        exact = [getattr(Failure, name) == value for name in EXACT if (value := getattr(self, name)) is not None]
        more: list[ColumnElement[bool]] = []
        if self.connector_key is not None:
            more.append(Failure.connector_key == self.connector_key)
        if self.ids:
            more.append(Failure.id.in_(self.ids))
        if self.since is not None:
            more.append(Failure.updated_at >= self.since)
        if self.until is not None:
            more.append(Failure.updated_at < self.until)
        return [*more, *exact]


EVERY_OPEN: Final = FailureFilter()


LARGE_COLUMNS: Final = (Failure.payload, Failure.traceback, Failure.exchange)


def find_failures(
    session: Session,
    chosen: FailureFilter = EVERY_OPEN,
    *,
    before_id: int | None = None,
    limit: int = 50,
    reads_payloads: bool = True,
) -> list[Failure]:
    """Return failures, newest first; only those with a lower id than `before_id` if it is given.

    reads_payloads  False leaves out the payload, the traceback and the exchange; access to them raises an error
    """
    query = select(Failure).where(*chosen.conditions).order_by(Failure.id.desc()).limit(limit)
    if not reads_payloads:
        query = query.options(*(defer(column, raiseload=True) for column in LARGE_COLUMNS))
    return list(session.scalars(query if before_id is None else query.where(Failure.id < before_id)))


def failures_by_id(session: Session, ids: Sequence[int]) -> dict[int, Failure]:
    """Return id → failure, open or closed, for those that are stored."""
    return {each.id: each for each in session.scalars(select(Failure).where(Failure.id.in_(ids)))}


def count_failures(session: Session, chosen: FailureFilter) -> int:
    return session.scalar(select(func.count()).select_from(Failure).where(*chosen.conditions)) or 0


@dataclass(frozen=True, slots=True)
class GroupRow:
    """Failures with the same cause. `sample` is the newest of them."""

    fingerprint: str
    count: int
    first_at: datetime
    last_at: datetime
    sample: Failure


def group_failures(session: Session, chosen: FailureFilter, *, limit: int = 100) -> list[GroupRow]:
    """Return failures grouped by cause, the largest group first."""
    grouped = (
        select(
            Failure.fingerprint,
            func.count().label("failures"),
            func.min(Failure.created_at).label("first_at"),
            func.max(Failure.updated_at).label("last_at"),
            func.max(Failure.id).label("sample_id"),
        )
        .where(*chosen.conditions)
        .group_by(Failure.fingerprint)
        .order_by(func.count().desc(), Failure.fingerprint)
        .limit(limit)
    )
    rows = session.execute(grouped).all()
    samples = failures_by_id(session, [row.sample_id for row in rows])
    return [GroupRow(*row[:4], sample=samples[row.sample_id]) for row in rows if row.sample_id in samples]


def failed_by_day(session: Session, chosen: FailureFilter, days: int) -> dict[str, list[int]]:
    """Return fingerprint → how many failures were created on each of the last days, today last."""
    today = func.date(func.now())
    ago = today - func.date(Failure.created_at)
    since = Failure.created_at >= today - text(f"{int(days) - 1}")
    days_ago = cast(ago, Integer).label("ago")
    query = select(Failure.fingerprint, days_ago, func.count()).where(*chosen.conditions, since)
    found: dict[str, list[int]] = {}
    for fingerprint, age, count in session.execute(query.group_by(Failure.fingerprint, text("ago"))):
        series = found.setdefault(fingerprint, [0] * days)
        if 0 <= age < days:
            series[days - 1 - age] = count
    return found


def same_subject(session: Session, failure: Failure, *, limit: int = 20) -> list[Failure]:
    """Return all failures of the same record, batch or task, this one included, newest first."""
    query = select(Failure).filter_by(connector_key=failure.connector_key, subject=failure.subject)
    return list(session.scalars(query.order_by(Failure.id.desc()).limit(limit)))


def causes_of(
    session: Session, connector_key: int, state: str | None, *, limit: int = 500
) -> list[tuple[str, str | None, int | None]]:
    """Return each combination of (reason, field, settings version) that failures have, for lists to choose from."""
    query = select(Failure.reason, Failure.field, Failure.settings_version).filter_by(connector_key=connector_key)
    found = session.execute((query if state is None else query.filter_by(state=state)).distinct().limit(limit))
    return [(reason, field, version) for reason, field, version in found]


def freeze_items(session: Session, replay_id: int, chosen: FailureFilter) -> int:
    """Store the failures that are open now as items of a replay, oldest first; return how many."""
    mine = select(literal(replay_id), Failure.id).where(*chosen.conditions, Failure.state == "open")
    items = insert(ReplayItem).from_select(["replay_id", "failure_id"], mine.order_by(Failure.id))
    return changed_rows(session, items)


def open_ids(session: Session, chosen: FailureFilter) -> list[int]:
    """Return the ids of the open failures of the filter, oldest first."""
    mine = select(Failure.id).where(*chosen.conditions, Failure.state == "open")
    return list(session.scalars(mine.order_by(Failure.id)))


_COUNT_FIELDS = Statement("""
    SELECT count(DISTINCT record_id) FROM failures
     WHERE connector_key = :c AND state = 'open' AND kind = 'field' AND direction = :d AND entity = :e
       AND field = ANY(CAST(:fields AS text[]))""")


def find_open(session: Session, connector_key: int, subject: str) -> Failure | None:
    """Return the open failure of a subject."""
    return session.scalar(select(Failure).filter_by(connector_key=connector_key, subject=subject, state="open"))


def open_of_record(
    session: Session, connector_key: int, entity: str, names: Mapping[str, str], *, limit: int = 100
) -> list[Failure]:
    """Return the open failures of one record and of its fields, newest first.

    names  direction → the record's id in that direction
    """
    mine = select(Failure).filter_by(connector_key=connector_key, state="open", entity=entity)
    mine = mine.where(tuple_(Failure.direction, Failure.record_id).in_(names.items()), Failure.kind.in_(OF_RECORDS))
    return list(session.scalars(mine.order_by(Failure.id.desc()).limit(limit)))


def count_new(session: Session, connector_key: int, hours: int) -> int:
    """Return the open failures of the last hours, without rejected fields of synchronized records."""
    mine = select(func.count(Failure.id)).filter_by(connector_key=connector_key, state="open")
    mine = mine.where(Failure.kind != "field")
    return session.scalar(mine.where(Failure.created_at > func.now() - timedelta(hours=hours))) or 0


def count_fields(session: Session, connector_key: int, direction: str, entity: str, fields: Collection[str]) -> int:
    """Return how many records have one of these fields rejected."""
    scope = {"c": connector_key, "d": direction, "e": entity, "fields": texts(fields)}
    row = _COUNT_FIELDS.row(session, scope)
    return int(row[0]) if row else 0


def count_open_up_to(session: Session, connector_key: int, most: int) -> int:
    """Return how many failures are open, `most` at the highest: a number on every page must not read 200,000 rows."""
    some = select(Failure.id).filter_by(connector_key=connector_key, state="open").limit(most).subquery()
    return session.scalar(select(func.count()).select_from(some)) or 0
