"""A live batch takes a slot of a remote system before it calls it, and waits its turn where none is free."""

from __future__ import annotations

import time
from typing import Final

from sqlalchemy.exc import SQLAlchemyError

from db import slot as slots
from db.batch import ClaimedBatch
from db.outage import REMOTES
from db.session import after_commit, transaction
from pipeline.errors import Retryable
from pipeline.settings import settings
from pipeline.tasks import canvases

TRIES: Final = 10
POLL_S: Final = 0.1
"""A slot that was taken a moment ago is waited for in place, for a second: putting the batch off takes longer."""
PAUSE_S: Final = 1.0
LONGEST_PAUSE_S: Final = 15.0
"""Those that wait try again one after the other, about one a second: each try takes a process for a moment."""


def take_slot(batch: ClaimedBatch, system: str) -> None:
    """Take a slot of the remote system for this stage. While PostgreSQL cannot be asked, the call is made without one.

    Raises: Retryable("slots_taken"), LostLease.
    """
    for _ in range(TRIES):
        try:
            with transaction() as session:
                found = slots.take(session, batch, system, at_once=settings().live_at_once, lease_s=settings().lease_s)
        except SQLAlchemyError:
            return
        if found.is_ours:
            return
        if found.is_stalled:
            break
        time.sleep(POLL_S)
    raise Retryable("slots_taken", REMOTES[system], retry_after_s=min(LONGEST_PAUSE_S, PAUSE_S * (1 + found.waiting)))


def free_slot(batch: ClaimedBatch, system: str) -> None:
    """A stage that held its slot for long has ended: wake the first batch that waits for one, or leave it to its pause."""
    try:
        with transaction() as session:
            woken = slots.next_in_turn(session, batch.connector_key, system)
            after_commit(session, lambda: canvases.wake(woken))
    except SQLAlchemyError:
        return
