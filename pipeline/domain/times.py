"""Read the formats of a moment, a day, a time of day and a time span such as `2h`. Nothing here reads the clock.

Pipedrive writes moments as `2026-02-01T09:30:00Z` and allows `.000Z`; its older interface wrote `2026-02-01 09:30:00`
in UTC. Source: https://pipedrive.readme.io/docs/pipedrive-api-v2-migration-guide
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Final


def epoch_seconds(text: object) -> int | None:
    """Return the whole second since the epoch of a moment; None if it is not readable."""
    moment = _moment(text)
    return None if moment is None else int(moment.timestamp() // 1)


def version_of(record: Mapping[str, Any]) -> int | None:
    """Return when a record of Pipedrive last changed, in seconds since the epoch; None without a readable time.

    A record that was never changed may have no `update_time`: its `add_time` counts.
    """
    changed = record.get("update_time")
    return epoch_seconds(record.get("add_time") if changed is None else changed)


def epoch_milliseconds(value: object) -> int | None:
    """The same in milliseconds; also reads epoch seconds or milliseconds, as numbers or digits."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 15:
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**15:
        # Ten digits are seconds until the year 2286; thirteen are milliseconds.
        return value if value >= 10**11 else value * 1000
    moment = _moment(value)
    return None if moment is None else int(moment.timestamp() * 1000 // 1)


def iso_moment(text: str) -> str | None:
    """Return a moment as `YYYY-MM-DDTHH:MM:SSZ`; None if it is not readable."""
    moment = _moment(text)
    if moment is None:
        return None
    if len(text) == 20 and text[19] == "Z" and text[10] == "T":
        return text
    try:
        return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if moment.year >= 1000 else None
    except OverflowError:  # an offset that leads out of the years 1-9999
        return None


def iso_day(text: str) -> str | None:
    """Return a day as `YYYY-MM-DD`; a moment in UTC stays a moment, because Pipedrive gives some moments the type `date`.

    Of a moment in another zone the written day counts: in UTC a local midnight would be the day before.
    """
    if len(text) > 10:
        moment = _moment(text)
        return iso_moment(text) if moment is not None and not moment.utcoffset() else written_day(text)
    try:
        day = date.fromisoformat(text)
    except ValueError:
        return None
    return text if len(text) == 10 and text[7] == "-" else day.isoformat()


def written_day(text: str) -> str | None:
    """Return the calendar day as written, alone or in a moment, as `YYYY-MM-DD`; None if it is not readable."""
    if len(text) > 10:
        moment = _moment(text)
        return None if moment is None or moment.year < 1000 else moment.date().isoformat()
    return iso_day(text)


def iso_time(text: str) -> str | None:
    """Return a time of day as `HH:MM:SS`, without a zone; None if it is not readable."""
    try:
        at = time.fromisoformat(text)
    except ValueError:
        return None
    if len(text) == 8 and text[2] == text[5] == ":":
        return text
    return at.replace(microsecond=0, tzinfo=None).isoformat()


def _moment(text: object) -> datetime | None:
    if not isinstance(text, str) or len(text) < 19:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


_AGO: Final = re.compile(r"(\d{1,6})\s*(s|m|min|h|d)")
_UNITS: Final = {"s": "seconds", "m": "minutes", "min": "minutes", "h": "hours", "d": "days"}
HOW: Final = "write 2026-08-31T12:00, 2026-08-31, or how long ago: 15m, 2h, 3d"


def read_moment(text: str, now: datetime) -> datetime:
    """Return the moment of a text, in UTC unless it has an offset.

    Raises: ValueError with the accepted formats.
    """
    written = text.strip()
    try:
        if ago := _AGO.fullmatch(written):
            return now - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        moment = datetime.fromisoformat(written)
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise ValueError(f"{written[:40]!r} is not a valid time; {HOW}") from None
