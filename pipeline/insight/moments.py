"""Reads a moment as people write it: a time in ISO 8601, or how long ago."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final

_AGO: Final = re.compile(r"(\d{1,6})\s*(s|m|min|h|d)")
_UNITS: Final = {"s": "seconds", "m": "minutes", "min": "minutes", "h": "hours", "d": "days"}
HOW: Final = "write 2026-08-31T12:00, 2026-08-31, or how long ago: 15m, 2h, 3d"


def read_moment(text: str, now: datetime) -> datetime:
    """The moment a text means, in UTC unless it says otherwise.

    Raises: ValueError saying how moments are written.
    """
    written = text.strip()
    try:
        if ago := _AGO.fullmatch(written):
            return now - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        moment = datetime.fromisoformat(written)
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise ValueError(f"{written[:40]!r} is no time; {HOW}") from None
