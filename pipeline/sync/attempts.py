"""One attempt at a batch or a job: its lease is extended while it runs; after an error, how long the work waits.

Waiting is not an attempt: for a slot, an unavailable service of ours, or an outage of a remote system. Only an error
while others get answers counts, up to a limit. If no other work calls the remote system, a cheap call checks it.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Event, Thread
from typing import Final

from sqlalchemy.orm import Session

from db.outage import alone_of
from db.session import transaction
from pipeline import wiring
from pipeline.domain.kinds import Entity
from pipeline.errors import PipelineError, Retryable
from pipeline.fencing import Lease, holding
from pipeline.outages import OutageWork
from pipeline.settings import settings
from pipeline.telemetry import logger
from pipeline.wiring import Wired

AGAIN_SHARE = 1 / 30
"""Of a lease, how soon an extension that failed is tried again."""
MAX_ATTEMPTS = 8
ASK_AGAIN_S: Final = 120.0
"""Longest wait of other work during an outage; it is woken as soon as a probe is answered."""
HERE_PAUSE_S: Final = (5.0, 15.0)
"""Pause between two attempts while PostgreSQL, Redis or the broker is unavailable, random each time."""
OUR_SYSTEMS: Final = {
    "database_unavailable": "database",
    "redis_unavailable": "redis",
    "broker_unavailable": "broker",
    "lease_uncertain": "database",
}
"""Reason → which of our own systems it waits for."""
OUT: Final = frozenset({"remote_unavailable", "remote_unreachable", "html_answer"})
"""Reasons that may mean an outage of the whole remote system, not only of this call."""
INSTALLATION: Final = frozenset({"app_refused"})
"""Reasons that lie in the configuration of this installation: every connector waits until it is corrected."""
TURNS: Final = {
    "rate_limited": "rate limit",
    "daily_budget_spent": "daily budget",
    "time_is_up": "turn",
    "slots_taken": "turn",
}
"""Reason → what is waited for: one's turn."""
CHECKS: Final[Mapping[str, Callable[[Wired], object]]] = {
    "pipedrive": lambda wired: wired.pipedrive.me(),
    "pipedrive search": lambda wired: wired.pipedrive.search(Entity.PERSON, "nobody@example.com", limit=1),
    "hull": lambda wired: wired.hull.app(),
}
"""Remote system → a cheap call that shows whether it answers. The firehose has none: other calls must be answered by it."""
BACKOFF_BASE_S = 1.0
BACKOFF_CAP_S = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """How long to wait, for what, and whether it was an attempt."""

    wait_s: float
    counted: bool
    waits_for: str | None = None


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


def check_alone(cause: PipelineError, work: OutageWork | None) -> None:
    """After a failure: learn whether the remote system answers, so that this work alone fails at it. Costs two tokens, or 20."""
    if work is None or cause.reason not in OUT or work.is_first or work.remote not in CHECKS:
        return
    work.only_checks = True
    try:
        with transaction() as session:
            wired = wiring.open_connector(session, work.connector_key)
        CHECKS[work.remote](wired)
    except PipelineError:
        return
    finally:
        work.only_checks = False
    work.is_first = True


def patience(cause: Retryable, work: OutageWork | None, attempts: int) -> Pause:  # noqa: PLR0911 - one for each kind of wait
    """Return how work continues after an error: only an error while others get answers counts as an attempt."""
    if cause.reason in TURNS:
        wait_s = cause.retry_after_s if cause.retry_after_s is not None else backoff_s(attempts)
        return Pause(wait_s=wait_s, counted=False, waits_for=TURNS[cause.reason])
    if cause.reason == "remote_waits":
        wait_s = min(ASK_AGAIN_S, cause.retry_after_s or ASK_AGAIN_S) + random.uniform(0.0, 5.0)
        return Pause(wait_s=wait_s, counted=False, waits_for=work.remote if work else None)
    if cause.reason in OUR_SYSTEMS:
        wait_s = random.uniform(*HERE_PAUSE_S)
        return Pause(wait_s=wait_s, counted=False, waits_for=OUR_SYSTEMS[cause.reason])
    if cause.reason in INSTALLATION:
        wait_s = max(ASK_AGAIN_S, work.wait_s if work else 0.0)
        return Pause(wait_s=wait_s, counted=False, waits_for=work.remote if work else None)
    if cause.reason in OUT and work is not None and work.remote:
        if not work.is_first:
            return Pause(wait_s=max(work.wait_s, cause.retry_after_s or 0.0), counted=False, waits_for=work.remote)
        wait_s = max(alone_s(attempts), cause.retry_after_s or 0.0)
        return Pause(wait_s=wait_s, counted=True, waits_for=alone_of(work.remote))
    return Pause(wait_s=cause.retry_after_s if cause.retry_after_s is not None else backoff_s(attempts), counted=True)


def backoff_s(attempt: int, *, draw: Callable[[float, float], float] = random.uniform) -> float:
    """Full jitter: between half a second and base·2ⁿ, at most the cap, so that workers do not retry in sync."""
    return max(0.5, draw(0.0, min(BACKOFF_CAP_S, BACKOFF_BASE_S * 2.0**attempt)))


def alone_s(attempt: int) -> float:
    """Longer pauses for what a remote system fails at while it answers others: eight attempts take about ten minutes."""
    return random.uniform(0.5, 1.0) * min(BACKOFF_CAP_S, 4.0 ** (attempt - 1))
