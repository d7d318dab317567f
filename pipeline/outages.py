"""Outages of remote systems: one call at a time probes the system, all other work waits.

    OutageGate.enter  before a call: during an outage, let one probe through and raise Retryable("remote_outage") for all other
                      work; a live batch takes a slot of the system, or raises Retryable("slots_taken")
    OutageGate.ended  after it: a failure starts or prolongs the outage, an answer ends it and wakes the waiting work

A process queries the database only while it knows of an outage, from its own failure or from the claim of its batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from threading import Lock
from typing import Final

from sqlalchemy.exc import SQLAlchemyError

from db import outage as outages
from db.session import transaction
from db.slot import SYSTEMS
from pipeline.errors import Retryable
from pipeline.telemetry import logger

PROBE_S: Final = 90.0
"""A probe without an answer after this time may be followed by another one."""


@dataclass(slots=True)
class OutageWork:
    """Work that makes calls, and the outcome of its last unanswered one.

    subject   its name in the row of an outage
    remote    the system that did not answer, or that it waits for
    is_first  the failure started the outage: the system had answered until then
    only_checks  the calls only check whether the system answers at all; an answer does not mean that others can continue
    take_slot  takes a slot of a remote system, or raises; None if the calls need none
    slot       the system that it holds a slot of
    """

    connector_key: int
    subject: str
    remote: str = ""
    is_first: bool = False
    is_shared: bool = False
    wait_s: float = 0.0
    only_checks: bool = False
    take_slot: Callable[[str], None] | None = None
    slot: str = ""
    lock: Lock = field(default_factory=Lock, repr=False)

    def enter(self, remote: str) -> None:
        """Take a slot of the system before it is called; parallel threads of one piece of work share it."""
        system = SYSTEMS.get(remote)
        if self.take_slot is None or self.only_checks or system is None:
            return
        with self.lock:
            if self.slot != system:
                self.take_slot(system)
                self.slot = system


_work: ContextVar[OutageWork | None] = ContextVar("work", default=None)
_known: set[int] = set()
"""Keys of the connectors for which this process knows of an outage."""


def current_work() -> OutageWork | None:
    """Return the work that makes the calls of this context."""
    return _work.get()


@contextmanager
def working(
    connector_key: int, subject: str, *, has_outage: bool, take_slot: Callable[[str], None] | None = None
) -> Iterator[OutageWork]:
    """Set the work that makes the calls in the block. `has_outage` is the database's value for its connector."""
    (_known.add if has_outage else _known.discard)(connector_key)
    work = OutageWork(connector_key, subject, take_slot=take_slot)
    token = _work.set(work)
    try:
        yield work
    finally:
        _work.reset(token)


class OutageGate:
    """Delays the calls of one connector during an outage. A call outside of `working` is a person's and never waits."""

    def __init__(self, connector_key: int) -> None:
        self._key = connector_key

    def enter(self, remote: str) -> bool:
        """Return whether an outage of the system is known, which an answer would end.

        Raises: Retryable("remote_outage") while another call probes the system, Retryable("slots_taken"), LostLease.
        """
        work = _work.get()
        if work is not None:
            work.enter(remote)
        return self._key in _known and self._is_open(remote)

    def _is_open(self, remote: str) -> bool:
        work = _work.get()
        waits = work is not None and not work.only_checks
        state = self._ask(remote, probe_s=PROBE_S if waits else 0.0)
        if state.wait_s > 0 and work is not None and waits:
            work.remote, work.is_first = remote, False
            raise Retryable("remote_outage", outages.REMOTES.get(remote, remote), retry_after_s=state.wait_s)
        return state.is_open

    def ended(self, remote: str, trouble: Retryable | None, *, is_known: bool) -> None:
        """Note a failure, or the first answer after one."""
        if trouble is not None:
            self._failed(remote, trouble)
        elif is_known:
            self._answered(remote)

    def limited(self, remote: str) -> None:
        """Note that the system answered several times in a row that there were too many calls."""
        self._failed(outages.limit_of(remote), Retryable("rate_limited", "HTTP 429"))

    def _ask(self, remote: str, *, probe_s: float) -> outages.OutageAnswer:
        try:
            with transaction() as session:
                return outages.ask(session, self._key, remote, probe_s=probe_s)
        except SQLAlchemyError:  # unknown; the call itself will show it
            return outages.OutageAnswer(is_open=False, wait_s=0.0)

    def _failed(self, remote: str, trouble: Retryable) -> None:
        work = _work.get()
        subject = work.subject if work is not None else "a person's call"
        _known.add(self._key)
        try:
            with transaction() as session:
                noted = outages.note_failure(
                    session, self._key, remote, subject=subject, reason=trouble.reason, detail=trouble.detail
                )
        except SQLAlchemyError as away:
            logger().warning("outage.not_noted", error=type(away).__name__)
            return
        if noted.is_first:
            logger().warning("remote.silent", remote=remote, reason=trouble.reason, detail=trouble.detail)
        if work is not None and trouble.reason != "rate_limited":
            work.is_first = noted.is_first or (work.is_first and work.remote == remote)
            work.remote, work.is_shared, work.wait_s = remote, noted.is_shared, noted.wait_s

    def _answered(self, remote: str) -> None:
        try:
            with transaction() as session:
                work = _work.get()
                since = outages.end(session, self._key, remote, wake=not (work is not None and work.only_checks))
        except SQLAlchemyError:  # the next answer ends it
            return
        if since is not None:
            logger().warning("remote.answers_again", remote=remote, since=since.isoformat())
