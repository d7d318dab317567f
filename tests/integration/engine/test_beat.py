"""Beat has its schedule in memory: a file of an earlier start cannot stop it, and no entry waits for its whole interval first."""

from __future__ import annotations

from pathlib import Path

import celery.beat
import pytest

from pipeline.settings import settings


@pytest.mark.usefixtures("database")
def test_a_damaged_schedule_file_does_not_end_beat() -> None:
    from pipeline.tasks.app import app  # noqa: PLC0415 - Celery reads its settings when it is imported

    left_behind = settings().data_dir / "celerybeat-schedule"
    for name in (left_behind, *(Path(f"{left_behind}{end}") for end in (".db", ".dat", ".dir", ".bak"))):
        name.write_bytes(b"\x00short")
    service = celery.beat.Service(app, scheduler_cls=app.conf.beat_scheduler)

    scheduler = service.get_scheduler()

    assert set(scheduler.schedule) == set(app.conf.beat_schedule)
    assert all(entry.is_due().is_due for entry in scheduler.schedule.values())
    assert left_behind.read_bytes() == b"\x00short"


@pytest.mark.usefixtures("database")
def test_an_entry_waits_for_its_interval_after_its_tick() -> None:
    from pipeline.tasks.app import app  # noqa: PLC0415 - as above

    scheduler = celery.beat.Service(app, scheduler_cls=app.conf.beat_scheduler).get_scheduler()

    assert not scheduler.reserve(scheduler.schedule["tidy"]).is_due().is_due
