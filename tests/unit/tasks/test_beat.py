"""Beat ends after a signal, whenever it arrives."""

from __future__ import annotations

from typing import Any

import pytest
from celery import Celery, beat

from pipeline.tasks.beat import TickScheduler


class ScriptedScheduler(TickScheduler):
    """A scheduler that gets a signal during its first message, where the broker's client loses the SystemExit."""

    service: beat.Service
    sent: int = 0

    def apply_async(self, *_arguments: Any, **_named: Any) -> None:
        self.sent += 1
        self.service.sync()  # what Celery's signal handler does before it raises


def test_a_signal_ends_it_even_if_its_exception_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    app = Celery("test", broker="memory://")
    app.conf.beat_schedule = {"sweep": {"task": "control.sweep", "schedule": 10.0}}
    service = beat.Service(app, scheduler_cls=ScriptedScheduler, remote_control=False)
    service.scheduler.service = service

    def sleep(_pause_s: float) -> None:
        raise AssertionError("it sleeps until the next tick")

    monkeypatch.setattr(beat.time, "sleep", sleep)
    service.start()

    assert service.scheduler.sent == 1
    assert service._is_shutdown.is_set()
