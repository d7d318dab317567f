"""Beat's schedule, in memory: what is due is decided in SQL, so nothing of it is worth a file that can be damaged."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

from celery.beat import ScheduleEntry, Scheduler

LONG_AGO: Final = timedelta(days=365)


class TickScheduler(Scheduler):  # type: ignore[misc]  # a class of a library without types
    """Every entry is due when beat starts: a tick too many does no harm, and hourly work is done however often beat restarts."""

    def setup_schedule(self) -> None:
        self.update_from_dict(self.app.conf.beat_schedule)
        for entry in self.schedule.values():
            entry.last_run_at = _never(entry)


def _never(entry: ScheduleEntry) -> Any:
    return entry.default_now() - LONG_AGO
