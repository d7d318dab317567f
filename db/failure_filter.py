"""Read failures: one filter for pages, commands and replays, groups by cause, and the failures of a record, run or batch."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Integer, cast, func, literal, select, text, tuple_
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session, defer

from db.failure import OF_RECORDS, Failure
from db.replay import ReplayItem
from db.statement import Statement, texts

EXACT = ("fingerprint", "direction", "entity", "reason", "field", "kind", "settings_version", "state")
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
    since: datetime | None = None
    until: datetime | None = None
    state: str | None = "open"

    @property
    def words(self) -> dict[str, Any]:
        """What was chosen, to be kept and shown."""
        named = {name: getattr(self, name) for name in EXACT if name != "state"}
        times = {name: at.isoformat() for name in ("since", "until") if (at := getattr(self, name)) is not None}
        ids = {"ids": list(self.ids)} if self.ids else {}
        return {name: value for name, value in named.items() if value is not None} | times | ids

    @property
    def conditions(self) -> list[ColumnElement[bool]]:
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


def page_of_failures(
    session: Session, chosen: FailureFilter, *, before_id: int | None = None, limit: int = 50
) -> list[Failure]:
    """Newest first."""
    query = select(Failure).where(*chosen.conditions).order_by(Failure.id.desc()).limit(limit)
    return list(session.scalars(query if before_id is None else query.where(Failure.id < before_id)))


def count_failures(session: Session, chosen: FailureFilter) -> int:
    return session.scalar(select(func.count()).select_from(Failure).where(*chosen.conditions)) or 0


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupRow:
    """Failures with the same cause. `sample` is the newest of them."""

    fingerprint: str
    count: int
    first_at: datetime
    last_at: datetime
    sample: Failure


def group_failures(session: Session, chosen: FailureFilter, *, limit: int = 100) -> list[GroupRow]:
    """The groups, those first that hold most."""
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
    newest = select(Failure).where(Failure.id.in_([row.sample_id for row in rows]))
    samples = {each.id: each for each in session.scalars(newest)}
    return [
        GroupRow(
            fingerprint=row.fingerprint,
            count=row.failures,
            first_at=row.first_at,
            last_at=row.last_at,
            sample=samples[row.sample_id],
        )
        for row in rows
        if row.sample_id in samples
    ]


def failed_by_day(session: Session, chosen: FailureFilter, days: int) -> dict[str, list[int]]:
    """Fingerprint → how many began to fail on each of the last days, today last."""
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
    """Every failure of the same record, batch or task, newest first, itself among them."""
    query = select(Failure).filter_by(connector_key=failure.connector_key, subject=failure.subject)
    return list(session.scalars(query.order_by(Failure.id.desc()).limit(limit)))


def causes_of(
    session: Session, connector_key: int, state: str | None, *, limit: int = 500
) -> list[tuple[str, str | None, int | None]]:
    """(reason, field, settings version) as they occur among failures, for lists to choose from."""
    query = select(Failure.reason, Failure.field, Failure.settings_version).filter_by(connector_key=connector_key)
    found = session.execute((query if state is None else query.filter_by(state=state)).distinct().limit(limit))
    return [(reason, field, version) for reason, field, version in found]


def freeze_items(session: Session, replay_id: int, chosen: FailureFilter) -> int:
    """Put the failures that are open now on a replay's list, oldest first; returns how many."""
    mine = (
        select(literal(replay_id), Failure.id).where(*chosen.conditions, Failure.state == "open").order_by(Failure.id)
    )
    made = insert(ReplayItem).from_select(["replay_id", "failure_id"], mine)
    return session.execute(made).rowcount  # type: ignore[attr-defined,no-any-return]


def open_ids(session: Session, chosen: FailureFilter) -> list[int]:
    """The open ones that are meant, oldest first."""
    return list(
        session.scalars(select(Failure.id).where(*chosen.conditions, Failure.state == "open").order_by(Failure.id))
    )


_COUNT_FIELDS = Statement("""
    SELECT count(DISTINCT record_id) FROM failures
     WHERE connector_key = :c AND state = 'open' AND kind = 'field' AND direction = :d AND entity = :e
       AND field = ANY(CAST(:fields AS text[]))""")


def find_open(session: Session, connector_key: int, subject: str) -> Failure | None:
    """The open failure of this subject."""
    return session.scalar(select(Failure).filter_by(connector_key=connector_key, subject=subject, state="open"))


def find_failures(
    session: Session,
    *,
    connector_key: int | None = None,
    ids: Sequence[int] = (),
    reason: str | None = None,
    entity: str | None = None,
    since: datetime | None = None,
    state: str | None = "open",
    limit: int | None = 100,
) -> list[Failure]:
    """Failures by filter, newest first."""
    query = select(Failure).order_by(Failure.id.desc())
    exact = {"connector_key": connector_key, "reason": reason, "entity": entity, "state": state}
    query = query.filter_by(**{name: value for name, value in exact.items() if value is not None})
    if ids:
        query = query.where(Failure.id.in_(ids))
    if since is not None:
        query = query.where(Failure.updated_at >= since)
    return list(session.scalars(query if limit is None else query.limit(limit)))


def open_of_record(
    session: Session, connector_key: int, entity: str, names: Mapping[str, str], *, limit: int = 100
) -> list[Failure]:
    """The open failures of one record and of its fields, newest first; `names` are direction → what the record is called there."""
    mine = select(Failure).filter_by(connector_key=connector_key, state="open", entity=entity)
    mine = mine.where(tuple_(Failure.direction, Failure.record_id).in_(names.items()), Failure.kind.in_(OF_RECORDS))
    return list(session.scalars(mine.order_by(Failure.id.desc()).limit(limit)))


def failures_of(
    session: Session, connector_key: int, *, run_id: int | None = None, batch_id: int | None = None, limit: int = 20
) -> list[Failure]:
    """Open failures of a run or of a batch, newest first, without what they hold."""
    query = select(Failure).filter_by(connector_key=connector_key, state="open")
    query = query.filter_by(run_id=run_id) if run_id is not None else query.filter_by(batch_id=batch_id)
    light = defer(Failure.payload), defer(Failure.traceback), defer(Failure.exchange)
    return list(session.scalars(query.options(*light).order_by(Failure.id.desc()).limit(limit)))


def count_new(session: Session, connector_key: int, hours: int) -> int:
    """Return the open failures of the last hours, without rejected fields of synchronized records."""
    mine = select(func.count(Failure.id)).filter_by(connector_key=connector_key, state="open")
    mine = mine.where(Failure.kind != "field")
    return session.scalar(mine.where(Failure.created_at > func.now() - func.make_interval(0, 0, 0, 0, hours))) or 0


def count_fields(session: Session, connector_key: int, direction: str, entity: str, fields: Collection[str]) -> int:
    """Return how many records have one of these fields rejected."""
    scope = {"c": connector_key, "d": direction, "e": entity, "fields": texts(fields)}
    row = _COUNT_FIELDS.row(session, scope)
    return int(row[0]) if row else 0


def count_open_up_to(session: Session, connector_key: int, most: int) -> int:
    """How many are open, counted no further than `most`: what every page shows must not read 200,000 rows."""
    some = select(Failure.id).filter_by(connector_key=connector_key, state="open").limit(most).subquery()
    return session.scalar(select(func.count()).select_from(some)) or 0
