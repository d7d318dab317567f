"""How long this worker may write to remote systems: until the end of its lease, by the process's monotonic clock.

    lease keeper   → Lease.extended   each time PostgreSQL has confirmed the extension
    every write    ← write_deadline_s before it is sent; its deadline ends before the lease does

PostgreSQL's fencing token protects our tables only. A worker that is cut off from PostgreSQL cannot see that another one has
taken over its work, so it stops while its lease is still valid.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from pipeline.errors import LostLease, Retryable

LEAST_SHARE = 1 / 3
"""Of a lease, what must be left before a write may start. The lease keeper extends after a third, so a healthy worker has two."""
RESERVE_SHARE = 1 / 30
"""Of a lease, what is left when the last write has ended."""


class Lease:
    """What one piece of work may rely on. `began` is a time of `time.monotonic` from before the claim was sent."""

    def __init__(self, length_s: float, began: float) -> None:
        self.length_s = length_s
        self._good_until = began + length_s
        self._is_lost = False

    def extended(self, began: float) -> None:
        """Note an extension that PostgreSQL confirmed; `began` is from before the statement was sent."""
        self._good_until = began + self.length_s

    def lost(self) -> None:
        """Note that PostgreSQL knows another owner."""
        self._is_lost = True

    def write_deadline_s(self, longest_s: float) -> float:
        """Return how long a write that starts now may take: `longest_s`, or less where the lease ends earlier.

        Raises: LostLease; Retryable("lease_uncertain") when too little of the lease is left to start one.
        """
        if self._is_lost:
            raise LostLease("lease_lost", "seen by the lease keeper")
        left_s = self._good_until - time.monotonic()
        if left_s < self.length_s * LEAST_SHARE:
            raise Retryable("lease_uncertain", f"{left_s:.1f} s of the lease are left")
        return min(longest_s, left_s - self.length_s * RESERVE_SHARE)


_held: ContextVar[Lease | None] = ContextVar("lease", default=None)


@contextmanager
def holding(lease: Lease) -> Iterator[None]:
    """Make every write in the block depend on this lease. Threads need a copy of the caller's context."""
    token = _held.set(lease)
    try:
        yield
    finally:
        _held.reset(token)


def write_deadline_s(longest_s: float) -> float:
    """Return how long a write that starts now may take; work without a lease (a person's own call) has its whole time.

    Raises: as `Lease.write_deadline_s`.
    """
    lease = _held.get()
    return longest_s if lease is None else lease.write_deadline_s(longest_s)
