"""Numbers of events, by minute and kind and by hour, so that charts do not count millions of rows.

By minute and kind: each tick counts the events since the last one and moves the mark, in one transaction. So each event is read
once, and writers of events have no extra work. The mark never passes a transaction in flight, so an event that commits late is
counted too.

By hour: the usual number of events in an hour, for alerts. It counts events of live changes and incremental fetches only, once,
when the hour is over; the counts by minute do not have the fetch of an event.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Integer, Row, text
from sqlalchemy.orm import Mapped, Session, mapped_column

from db.base import Base

KEEP_MINUTES: Final = timedelta(hours=6)
KEEP_HOURS: Final = timedelta(days=90)
EVER: Final = "1970-01-01 00:00:00+00"
"""Time of the rows that sum up counts past their retention: a total never shrinks."""
MOST_AT_ONCE: Final = timedelta(hours=1)
LONGEST_WRITE: Final = timedelta(minutes=10)
"""No transaction of the pipeline takes this long; longer ones are of other programs, which only read."""
FRESH: Final = timedelta(seconds=90)
"""If the mark is younger than this, a query also counts the events after it."""


class EventCount(Base):
    """Events of one kind.

    at  start of the minute; of the hour after KEEP_MINUTES; `EVER` after KEEP_HOURS
    """

    __tablename__ = "event_counts"

    connector_key: Mapped[int] = mapped_column(Integer, primary_key=True)
    at: Mapped[datetime] = mapped_column(primary_key=True)
    event: Mapped[str] = mapped_column(primary_key=True)
    reason: Mapped[str] = mapped_column(primary_key=True)
    """Empty for an event without one."""
    n: Mapped[int]


class EventTotal(Base):
    """n  number of all events with this name up to the mark"""

    __tablename__ = "event_totals"

    connector_key: Mapped[int] = mapped_column(Integer, primary_key=True)
    event: Mapped[str] = mapped_column(primary_key=True)
    n: Mapped[int]


class CountMark(Base):
    """Up to when events are counted by minute.

    counted_to  all events before this moment are counted
    above_id    all events from `counted_to` on have a higher id: the next tick reads from there
    seen_id     the newest id at `seen_at`: the next `above_id`, once `counted_to` is past `seen_at`
    """

    __tablename__ = "event_count_mark"

    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    counted_to: Mapped[datetime]
    above_id: Mapped[int]
    seen_at: Mapped[datetime]
    seen_id: Mapped[int]


_BEGIN = text("""
    INSERT INTO event_count_mark (id, counted_to, above_id, seen_at, seen_id)
    SELECT 1, coalesce((SELECT at FROM sync_events ORDER BY id LIMIT 1), now()), 0, now(), 0
     WHERE NOT EXISTS (SELECT 1 FROM event_count_mark)
    ON CONFLICT DO NOTHING""")

_TAKE = text("SELECT counted_to, above_id, seen_at, seen_id FROM event_count_mark WHERE id = 1 FOR UPDATE SKIP LOCKED")

_NEWEST_ID = text("SELECT coalesce(pg_sequence_last_value(pg_get_serial_sequence('sync_events', 'id')::regclass), 0)")

_COUNTABLE = text("""
    SELECT clock_timestamp() AS now,
           greatest(least(now() - interval '1 s', min(xact_start)), now() - CAST(:longest AS interval)) AS countable
      FROM pg_stat_activity
     WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'""")
"""The moment before which no event can be added any more: the time of an event is the start of its transaction."""

_KIND: Final = "event || CASE WHEN field IS NOT NULL AND event LIKE '%.error' THEN '.field' ELSE '' END"
"""A rejected field, `incoming.user.error.field`, is counted separately from rejected records."""

_ADD = text(f"""
    WITH counted AS MATERIALIZED (
             SELECT connector_key, date_trunc('minute', at) AS minute, {_KIND} AS event, coalesce(reason, '') AS reason,
                    count(*) AS n
               FROM sync_events WHERE id > :above AND at >= :begin AND at < :end GROUP BY 1, 2, 3, 4),
         totals AS (
             INSERT INTO event_totals AS t (connector_key, event, n)
             SELECT connector_key, event, sum(n) FROM counted GROUP BY 1, 2 ORDER BY 1, 2
             ON CONFLICT (connector_key, event) DO UPDATE SET n = t.n + excluded.n)
    INSERT INTO event_counts AS c (connector_key, at, event, reason, n)
    SELECT connector_key, minute, event, reason, n FROM counted ORDER BY 1, 2, 3, 4
    ON CONFLICT (connector_key, at, event, reason) DO UPDATE SET n = c.n + excluded.n""")  # noqa: S608 - a constant of ours

_MOVE = text("""
    UPDATE event_count_mark
       SET counted_to = :to, above_id = :above, seen_at = :seen_at, seen_id = :seen_id WHERE id = 1""")


def count_new_events(session: Session) -> bool:
    """Count the events since the last call, at most those of one hour; return True if there are more.

    Do nothing if another process counts at this moment.
    """
    session.execute(_BEGIN)
    mark = session.execute(_TAKE).one_or_none()
    if mark is None:
        return False
    newest_id = session.execute(_NEWEST_ID).scalar_one()  # before the clock is read: every later event has a higher id
    clock = session.execute(_COUNTABLE, {"longest": LONGEST_WRITE}).one()
    to = min(clock.countable, mark.counted_to + MOST_AT_ONCE)
    if to <= mark.counted_to:
        return False
    session.execute(_ADD, {"above": mark.above_id, "begin": mark.counted_to, "end": to})
    session.execute(_MOVE, {"to": to, **_marks(mark, to, newest_id, clock.now)})
    return bool(to < clock.countable)


def _marks(mark: Row[Any], to: datetime, newest_id: int, now: datetime) -> dict[str, Any]:
    """Return the ids of the mark. Once the mark has passed `seen_at`, the next tick reads from `seen_id` on."""
    if mark.seen_at <= to:
        return {"above": mark.seen_id, "seen_at": now, "seen_id": newest_id}
    return {"above": mark.above_id, "seen_at": mark.seen_at, "seen_id": mark.seen_id}


@dataclass(frozen=True, slots=True)
class CountedEvents:
    """n events of one kind in the minute or hour that begins `at`."""

    at: datetime
    event: str
    reason: str
    n: int


_COUNTS = text(f"""
    SELECT date_trunc(:unit, at, 'UTC') AS at, event, reason, sum(n)::bigint AS n FROM (
           SELECT at, event, reason, n FROM event_counts WHERE connector_key = :c AND at >= :since
            UNION ALL
           SELECT at, {_KIND}, coalesce(reason, ''), 1 FROM sync_events
            WHERE id > :above AND at >= :counted_to AND at >= :since AND connector_key = :c
              AND CAST(:counted_to AS timestamptz) > now() - CAST(:fresh AS interval)
              AND EXISTS (SELECT 1 FROM event_count_mark WHERE counted_to = :counted_to)) counted
     GROUP BY 1, 2, 3 ORDER BY 1, 2, 3""")  # noqa: S608 - a constant of ours
"""The mark is a parameter, because a planner without it reads whole days. If it has moved since, events after the old mark are not
counted directly, so that none is counted twice.
"""


def counts_since(session: Session, connector_key: int, since: datetime, unit: str = "hour") -> list[CountedEvents]:
    """Return counts since a moment, by `hour` or `minute`; the first minute is counted completely.

    Events after the mark are counted directly, unless the mark is too old: see `counted_to`.
    """
    mark = session.get(CountMark, 1, populate_existing=True)
    above, counted_to = (mark.above_id, mark.counted_to) if mark else (0, since)
    scope = {"c": connector_key, "since": since, "unit": unit, "fresh": FRESH, "above": above, "counted_to": counted_to}
    return [CountedEvents(*row) for row in session.execute(_COUNTS, scope)]


def counted_to(session: Session) -> datetime | None:
    """Return up to when all events are counted; None before the first tick."""
    mark = session.get(CountMark, 1)
    return mark.counted_to if mark else None


_MERGE = """
    WITH gone AS (DELETE FROM event_counts WHERE at < now() - CAST(:age AS interval) AND at <> {home} RETURNING *)
    INSERT INTO event_counts AS c (connector_key, at, event, reason, n)
    SELECT connector_key, {home}, event, reason, sum(n) FROM gone GROUP BY 1, 2, 3, 4
    ON CONFLICT (connector_key, at, event, reason) DO UPDATE SET n = c.n + excluded.n"""
_INTO_HOURS = text(_MERGE.format(home="date_trunc('hour', at, 'UTC')"))
_INTO_ONE = text(_MERGE.format(home=f"CAST('{EVER}' AS timestamptz)"))


def merge_old_counts(session: Session) -> None:
    """Merge old minutes into hours, and hours past their retention into one sum."""
    session.execute(_INTO_HOURS, {"age": KEEP_MINUTES})
    session.execute(_INTO_ONE, {"age": KEEP_HOURS})


_TOTALS = text("SELECT connector_key, event, n FROM event_totals ORDER BY connector_key, event")


def totals(session: Session) -> list[tuple[int, str, int]]:
    """Return (connector key, event name, number of all events), for counters that never decrease."""
    return [(row.connector_key, row.event, row.n) for row in session.execute(_TOTALS)]


DAYS = 15


class HourlyCount(Base):
    """Events of live changes and incremental fetches in one hour. Events of full fetches are not counted."""

    __tablename__ = "hourly_counts"

    connector_key: Mapped[int] = mapped_column(Integer, primary_key=True)
    hour: Mapped[datetime] = mapped_column(primary_key=True)
    events: Mapped[int]


_UNCOUNTED = text("""
    SELECT h FROM generate_series(date_trunc('hour', now()) - make_interval(days => :days),
                                  date_trunc('hour', now()) - interval '1 hour', interval '1 hour') AS h
     WHERE EXISTS (SELECT 1 FROM connectors c WHERE c.created_at < h + interval '1 hour'
                      AND NOT EXISTS (SELECT 1 FROM hourly_counts k WHERE k.connector_key = c.key AND k.hour = h))
     ORDER BY h DESC LIMIT 1""")

_COUNT = text("""
    INSERT INTO hourly_counts (connector_key, hour, events)
    SELECT c.key, CAST(:hour AS timestamptz), coalesce(e.events, 0)
      FROM connectors c
      LEFT JOIN (SELECT connector_key, count(*) AS events FROM sync_events
                  WHERE at >= CAST(:hour AS timestamptz) AND at < CAST(:hour AS timestamptz) + interval '1 hour'
                    AND (run_id IS NULL OR run_id NOT IN (SELECT id FROM runs WHERE kind <> 'incremental'))
                  GROUP BY connector_key) e ON e.connector_key = c.key
     WHERE c.created_at < CAST(:hour AS timestamptz) + interval '1 hour'
        ON CONFLICT DO NOTHING""")


def count_last_hour(session: Session) -> datetime | None:
    """Count the newest hour that is over and not counted yet; return it.

    One hour for each call: at the first start there are two weeks to count.
    """
    hour: datetime | None = session.scalar(_UNCOUNTED, {"days": DAYS - 1})
    if hour is not None:
        session.execute(_COUNT, {"hour": hour})
    return hour


@dataclass(frozen=True, slots=True)
class Volume:
    """Numbers of events.

    events  in the last hour that is over
    usual   in the same hour of earlier days of the same kind: working days, or days of weekends
    """

    events: int
    usual: tuple[int, ...]


_VOLUME = text("""
    WITH last AS (SELECT connector_key, hour, events FROM hourly_counts
                   WHERE connector_key = :key AND hour = date_trunc('hour', now()) - interval '1 hour')
    SELECT last.events, array_remove(array_agg(past.events), NULL) AS usual
      FROM last LEFT JOIN hourly_counts past
        ON past.connector_key = last.connector_key AND past.hour < last.hour
       AND extract(hour FROM past.hour) = extract(hour FROM last.hour)
       AND (extract(isodow FROM past.hour) > 5) = (extract(isodow FROM last.hour) > 5)
       AND past.hour > (SELECT created_at FROM connectors WHERE key = :key)
     GROUP BY last.events""")


def last_volume(session: Session, connector_key: int) -> Volume | None:
    """Return the events of the last hour that is over; None until it is counted."""
    row = session.execute(_VOLUME, {"key": connector_key}).one_or_none()
    return Volume(row.events, tuple(row.usual)) if row else None


def drop_old_hours(session: Session) -> None:
    session.execute(text("DELETE FROM hourly_counts WHERE hour < now() - make_interval(days => :days)"), {"days": DAYS})
