"""Cron expressions (five fields in UTC, or the word `nightly`): their next times, and texts for people."""

from __future__ import annotations

import zlib
from datetime import UTC, datetime, timedelta
from typing import Final

from cronsim import CronSim, CronSimError

from pipeline.domain.settings import NIGHTLY

NIGHT_HOURS: Final = 5
"""Nightly fetches are spread over the hours from midnight to five, UTC, so that connectors do not start together."""


def next_time(cron: str, after: datetime) -> datetime:
    """Return the next moment, in UTC, at which the five fields are due.

    Where day and weekday are both restricted, either one suffices, as in Debian's cron.
    Raises: ValueError for an invalid expression, or one that is not due within 50 years.
    """
    if len(cron.split()) != 5:  # CronSim also accepts six fields, with seconds first
        raise ValueError("a cron expression has five fields")
    try:
        return next(CronSim(cron, after.astimezone(UTC)))
    except CronSimError as error:
        raise ValueError(str(error)) from None
    except StopIteration:
        raise ValueError("this cron expression is never due") from None


def cron_of(full_fetch_cron: str, connector_id: str) -> str:
    """Return the five fields of the setting `full_fetch_cron`, "" for never; for `nightly` the connector's id sets the minute."""
    return nightly(connector_id) if full_fetch_cron == NIGHTLY else full_fetch_cron


def nightly(connector_id: str) -> str:
    """Return five cron fields for every night, at a minute that depends on the connector alone."""
    hour, minute = divmod(zlib.crc32(connector_id.encode()) % (NIGHT_HOURS * 60), 60)
    return f"{minute} {hour} * * *"


DAYS = ("Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")


def next_times(cron: str, connector_id: str, now: datetime, count: int = 3) -> list[datetime]:
    """Return the next times, in UTC; none for an empty or invalid cron expression."""
    fields = cron_of(cron, connector_id)
    found: list[datetime] = []
    try:
        while fields and len(found) < count:
            found.append(next_time(fields, found[-1] if found else now))
    except ValueError:  # the mistake is reported when the expression is saved
        return []
    return found


def cron_words(cron: str, connector_id: str) -> str:
    """Return `every night at 02:15` or `Mondays at 06:00`; an expression without such words unchanged."""
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
    """Return `today at 02:15`, `tomorrow at 02:15` or `Monday 9 November at 02:15`."""
    at = f"{then:%H:%M} UTC"
    if then.date() == now.date():
        return f"today at {at}"
    if then.date() == (now + timedelta(days=1)).date():
        return f"tomorrow at {at}"
    return f"{then:%A} {then.day} {then:%B} at {at}"
