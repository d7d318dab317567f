"""A sales team that works in the company, so that there is always something to synchronise.

In: a seed, weights, a rate. Out: changes of the company, as people make them in the app; `counts` by kind of deed. The same seed
does the same to the same company.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from uuid import UUID

from sandbox.company import Company, Invalid
from sandbox.company.model import editing_as
from sandbox.control import number
from sandbox.pipedrive import deeds

logger = logging.getLogger(__name__)

TRIES = 20  # until a deed is found for which there is something to do it to
MOST_BEHIND_S = 1.0  # of a machine too slow for the rate; the rest is let go


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """How often each deed is done, as against the others. Raises: ValueError for negative ones, or nothing but zeros."""

    edit_name: float = 12
    edit_email: float = 12
    edit_phone: float = 10
    edit_custom_field: float = 20
    edit_owner: float = 8
    edit_link: float = 6
    edit_website: float = 4
    create_person: float = 8
    create_person_with_organization: float = 4
    create_organization: float = 3
    delete: float = 3
    undelete: float = 1
    merge: float = 1
    bulk_edit: float = 0.5

    def __post_init__(self) -> None:
        given = asdict(self)
        if any(number(weight, deed) < 0 for deed, weight in given.items()) or not any(given.values()):
            raise ValueError("weights: must not be negative, nor all 0")


DEEDS: dict[str, Callable[[deeds.Desk], bool]] = {known.name: getattr(deeds, known.name) for known in fields(Weights)}


class SalesTeam:
    """`act` does one thing; `start` has a thread do so at a rate, by the clock of the wall."""

    def __init__(self, company: Company, *, seed: int | str = 1, weights: Weights | None = None) -> None:
        self.weights = weights or Weights()
        self.counts: Counter[str] = Counter(dict.fromkeys(DEEDS, 0))
        self.rate_per_s = 0.0
        self._company = company
        self._lock = threading.Lock()
        self._shift = threading.RLock()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self.reseed(seed)

    def reseed(self, seed: int | str) -> None:
        """Begin the draws anew."""
        with self._lock:
            self._desk = deeds.Desk(self._company, random.Random(str(seed)))
            self._gaps = random.Random(f"{seed}:gaps")

    def act(self) -> str | None:
        """Do one plausible thing, as one of the users; tells which, or None when nothing could be done."""
        with self._lock:
            desk, weights = self._desk, asdict(self.weights)
            for deed in desk.draw.choices(list(weights), list(weights.values()), k=TRIES):
                if self._do(desk, deed):
                    self.counts[deed] += 1
                    return deed
            return None

    def start(self, rate_per_s: float) -> None:
        """Act so often on average, in a thread, until `stop`; a team at work changes its pace. Raises: ValueError."""
        if number(rate_per_s, "rate") <= 0:
            raise ValueError("rate: must be above 0")
        with self._shift:
            self.stop()
            self.rate_per_s = rate_per_s
            self._stopped = threading.Event()
            self._thread = threading.Thread(target=self._work, args=(self._stopped,), name="sales-team", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Go home; nothing is done any more once this returns."""
        with self._shift:
            self._stopped.set()
            if self._thread is not None:
                self._thread.join()
            self._thread, self.rate_per_s = None, 0.0

    def _do(self, desk: deeds.Desk, deed: str) -> bool:
        user = desk.draw.choice(self._company.users)
        trace = UUID(int=desk.draw.getrandbits(128), version=4)
        with editing_as(user_id=user.id, correlation=trace):
            try:
                return DEEDS[deed](desk)
            except Invalid:
                return False

    def _work(self, stopped: threading.Event) -> None:
        due = time.monotonic()
        while not stopped.wait(max(0.0, due - time.monotonic())):
            try:
                self.act()
            except Exception:
                logger.exception("the sales team stumbled")
            due = max(due, time.monotonic() - MOST_BEHIND_S) + self._gaps.expovariate(self.rate_per_s)
