"""Keeps a lease for as long as its holder works, and publishes in the process how long it is certainly good."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread

from sqlalchemy.orm import Session

from db.session import transaction
from pipeline.fencing import Lease, holding
from pipeline.settings import settings
from pipeline.telemetry import logger

AGAIN_SHARE = 1 / 30
"""Of a lease, how soon an extension that failed is tried again."""


@contextmanager
def lease_kept(extend: Callable[[Session, float], bool], *, began: float) -> Iterator[Lease]:
    """Have `extend` prolong the lease every third of its length until the work is done; writes inside depend on it.

    extend  gets the length in seconds; returns False when the lease is not ours any more
    began   `time.monotonic()` from before the claim was sent
    """
    lease_s = settings().lease_s
    lease, ended = Lease(lease_s, began), Event()

    def keep() -> None:
        wait_s = lease_s / 3
        while not ended.wait(wait_s):
            wait_s = lease_s / 3
            asked = time.monotonic()
            try:
                with transaction() as session:
                    is_ours = extend(session, lease_s)
            except Exception as error:  # noqa: BLE001 - whatever it is, the next extension may succeed
                logger().warning("lease.not_extended", error=type(error).__name__)
                wait_s = lease_s * AGAIN_SHARE
                continue
            if not is_ours:
                lease.lost()
                return
            lease.extended(asked)

    Thread(target=keep, name="lease", daemon=True).start()
    try:
        with holding(lease):
            yield lease
    finally:
        ended.set()
