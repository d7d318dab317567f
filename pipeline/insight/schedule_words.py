"""When schedules are due, in words and as the next times."""

from __future__ import annotations

from datetime import datetime, timedelta

from pipeline.domain.cron import cron_of, next_time

DAYS = ("Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")


def next_times(cron: str, connector_id: str, now: datetime, count: int = 3) -> list[datetime]:
    """Return the next times, in UTC; none for an empty or invalid cron expression."""
    fields = cron_of(cron, connector_id)
    found: list[datetime] = []
    try:
        while fields and len(found) < count:
            found.append(next_time(fields, found[-1] if found else now))
    except ValueError:  # its mistake is named when it is to be saved
        return []
    return found


def cron_words(cron: str, connector_id: str) -> str:
    """`every night at 02:15`, `Mondays at 06:00`; a cron without plain words as it is."""
    if not cron:
        return "never"
    minute, hour, *days = cron_of(cron, connector_id).split()
    if len(days) != 3 or not (minute.isdigit() and hour.isdigit()) or days[:2] != ["*", "*"]:
        return f"by {cron}"
    at = f"{int(hour):02d}:{int(minute):02d} UTC"
    if days[2] == "*":
        return f"every {'night' if int(hour) < 6 else 'day'} at {at}"
    return f"{DAYS[int(days[2]) % 7]}s at {at}" if days[2].isdigit() else f"by {cron}"


def time_words(then: datetime, now: datetime) -> str:
    """`today at 02:15`, `tomorrow at 02:15`, `Monday 9 November at 02:15`."""
    at = f"{then:%H:%M} UTC"
    if then.date() == now.date():
        return f"today at {at}"
    if then.date() == (now + timedelta(days=1)).date():
        return f"tomorrow at {at}"
    return f"{then:%A} {then.day} {then:%B} at {at}"
