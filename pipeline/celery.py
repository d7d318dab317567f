"""What `celery -A pipeline …` finds: the app, in a process that has been made ready for what it does."""

from __future__ import annotations

import sys

from pipeline.environment import begin_or_exit, begin_watching

WATCHING = frozenset({"beat", "flower", "inspect"})
"""Commands that need only the broker: they get neither the database nor a key."""


def _command() -> str:
    """The first of Celery's commands among the arguments."""
    return next((each for each in sys.argv[1:] if each in WATCHING | {"worker"}), "")


command = _command()
if command not in WATCHING or not begin_watching():
    begin_or_exit()

from pipeline.tasks.app import app  # noqa: E402 - the settings must be in force before Celery reads its own

if command == "flower":
    from pipeline.tasks import flower_access

    flower_access.close()

__all__ = ["app"]
