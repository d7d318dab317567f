"""Events per hour: counted once when the hour is over, so that the same events are not counted every minute."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Integer, text
from sqlalchemy.orm import Mapped, Session, mapped_column

from db.base import Base

DAYS = 15


class HourlyCount(Base):
    """Events of live changes and incremental fetches; a full fetch has its own events, and is not part of a usual day."""

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


def count_an_hour(session: Session) -> datetime | None:
    """Count the newest hour that is over and has not been counted; returns it.

    One at a time: at a first start there are two weeks to count.
    """
    hour: datetime | None = session.scalar(_UNCOUNTED, {"days": DAYS - 1})
    if hour is not None:
        session.execute(_COUNT, {"hour": hour})
    return hour


@dataclass(frozen=True, slots=True)
class Volume:
    """events  of the last hour that is over
    usual   of the same hour on earlier days of the same kind: working days, or the days of weekends
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
    """None until the last hour has been counted."""
    row = session.execute(_VOLUME, {"key": connector_key}).one_or_none()
    return Volume(row.events, tuple(row.usual)) if row else None


def drop_old_hours(session: Session) -> None:
    session.execute(text("DELETE FROM hourly_counts WHERE hour < now() - make_interval(days => :days)"), {"days": DAYS})
