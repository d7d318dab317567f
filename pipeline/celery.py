"""What `celery -A pipeline …` finds: the app, in a process that has been made ready for work."""

from __future__ import annotations

from pipeline.environment import begin_or_exit

begin_or_exit()

from pipeline.tasks.app import app  # noqa: E402 - the settings must be in force before Celery reads its own

__all__ = ["app"]
