"""Beat's schedule, in memory: SQL decides what is due, so there is no file that could be damaged."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

from celery.beat import ScheduleEntry, Scheduler

LONG_AGO: Final = timedelta(days=365)


class TickScheduler(Scheduler):  # type: ignore[misc]  # a class of a library without types
    """Every entry is due when beat starts: an extra tick does no harm, and hourly work is done however often beat restarts.

    Celery's signal handler closes the scheduler with its connection, and raises SystemExit. In the middle of a message
    this can be lost: beat continued after 16 of 330 signals. So beat stores that it has to end, and checks it after
    each tick.
    """

    _is_ending = False

    def setup_schedule(self) -> None:
        self.update_from_dict(self.app.conf.beat_schedule)
        for entry in self.schedule.values():
            entry.last_run_at = _never(entry)

    def tick(self, *arguments: Any, **named: Any) -> Any:
        """Send what is due; return the seconds until the next tick. Raises: SystemExit if beat received a signal since."""
        pause_s = super().tick(*arguments, **named)
        if self._is_ending:
            raise SystemExit
        return pause_s

    def close(self) -> None:
        """Keep that beat ends. The connection is left alone, since a message may be half written; it ends with the process."""
        self._is_ending = True


def _never(entry: ScheduleEntry) -> Any:
    return entry.default_now() - LONG_AGO
