"""How much went through, which way, and with what outcome: of a day by the hour, of an hour by the minute."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from sqlalchemy.orm import Session

from db import event_count
from db.event_count import CountedEvents

STEPS: Final = {"hour": timedelta(hours=1), "minute": timedelta(minutes=1)}
SPANS: Final = {"hour": 24, "minute": 60}
"""How many hours, or minutes, are looked back upon, the present one included."""
COURSES: Final = ("incoming", "outgoing", "skipped", "failed")
"""What arrived in Hull, what arrived in Pipedrive, what was left alone on purpose, and what gave up."""
RECORDS: Final = frozenset({"user", "account"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """values  one for each time of the `Traffic`"""

    name: str
    values: tuple[int, ...]
    today: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """as_of  up to when everything is counted; what came later may be missing. None before anything was ever counted"""

    unit: str
    times: tuple[datetime, ...]
    midnight: datetime
    as_of: datetime | None
    courses: tuple[Course, ...]

    def course(self, name: str) -> Course:
        return next(each for each in self.courses if each.name == name)


def traffic(session: Session, connector_key: int, now: datetime, unit: str = "hour") -> Traffic:
    """What went through in the last day by the `hour`, or in the last hour by the `minute`; and since midnight, UTC."""
    times = times_until(now, unit)
    midnight = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    counts = event_count.counts_since(session, connector_key, times[0], unit)
    todays = counts if unit == "hour" else event_count.counts_since(session, connector_key, midnight, "hour")
    counted_to = event_count.counted_to(session)
    is_fresh = counted_to is not None and now - counted_to < event_count.FRESH
    return Traffic(
        unit=unit,
        times=times,
        midnight=midnight,
        as_of=now if is_fresh else counted_to,
        courses=tuple(_course(name, times, midnight, counts, todays) for name in COURSES),
    )


def times_until(now: datetime, unit: str) -> tuple[datetime, ...]:
    """The beginnings of the last hours or minutes."""
    newest = now.astimezone(UTC).replace(second=0, microsecond=0)
    newest = newest.replace(minute=0) if unit == "hour" else newest
    return tuple(newest - STEPS[unit] * back for back in reversed(range(SPANS[unit])))


def course_of(event: str) -> str | None:
    """`incoming.user.success` → `incoming`; None for what is told of no record's way."""
    direction, _, rest = event.partition(".")
    subject, _, outcome = rest.partition(".")
    if direction not in ("incoming", "outgoing"):
        return None
    if outcome == "error":
        return "failed"
    if subject not in RECORDS:
        return None
    return {"success": direction, "skip": "skipped"}.get(outcome)


def _course(
    name: str, times: Sequence[datetime], midnight: datetime, counts: list[CountedEvents], todays: list[CountedEvents]
) -> Course:
    by_time: dict[datetime, int] = {}
    for each in counts:
        if course_of(each.event) == name:
            by_time[each.at] = by_time.get(each.at, 0) + each.n
    today = sum(each.n for each in todays if each.at >= midnight and course_of(each.event) == name)
    return Course(name=name, values=tuple(by_time.get(at, 0) for at in times), today=today)
