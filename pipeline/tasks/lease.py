"""Keeps a lease for as long as its holder works."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread

from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from db.session import transaction
from pipeline.settings import settings
from pipeline.telemetry import logger


@contextmanager
def lease_kept(extend: Callable[[Session, float], None]) -> Iterator[None]:
    """Have `extend` prolong the lease by so many seconds, every third of its length, until the work is done."""
    lease_s = settings().lease_s
    ended = Event()

    def keep() -> None:
        while not ended.wait(lease_s / 3):
            try:
                with transaction() as session:
                    extend(session, lease_s)
            except DBAPIError:
                logger().warning("lease.not_extended")

    Thread(target=keep, name="lease", daemon=True).start()
    try:
        yield
    finally:
        ended.set()
