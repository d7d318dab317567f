"""Cron expressions: five fields in UTC, and the word `nightly`."""

from __future__ import annotations

import zlib
from datetime import UTC, datetime
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
    if len(cron.split()) != 5:  # CronSim also reads six fields, the first of which are seconds
        raise ValueError("a cron expression has five fields")
    try:
        return next(CronSim(cron, after.astimezone(UTC)))
    except CronSimError as error:
        raise ValueError(str(error)) from None
    except StopIteration:
        raise ValueError("this cron expression is never due") from None


def cron_of(full_fetch_cron: str, connector_id: str) -> str:
    """Return the five fields of the setting `full_fetch_cron`, "" for never; `nightly` is a minute of the connector's own."""
    return nightly(connector_id) if full_fetch_cron == NIGHTLY else full_fetch_cron


def nightly(connector_id: str) -> str:
    """Return five cron fields for every night, at a minute that depends on the connector alone."""
    hour, minute = divmod(zlib.crc32(connector_id.encode()) % (NIGHT_HOURS * 60), 60)
    return f"{minute} {hour} * * *"
