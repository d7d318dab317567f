"""Writes stop as soon as the lease does not cover them, and what was sent until then is known."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from pipeline.domain.kinds import Entity
from pipeline.errors import LostLease, Rejected, Retryable
from pipeline.fencing import Lease, holding, write_deadline_s
from pipeline.load.outgoing import CHECK_EVERY, RecordWrite, send


class Pipedrive:
    """Creates records as the real client does: only while the lease covers the call."""

    def __init__(self, then: Callable[[int], None] = lambda _made: None) -> None:
        self.made = 0
        self._then = then
        self._lock = threading.Lock()

    def create(self, _entity: Entity, fields: dict[str, Any]) -> dict[str, Any]:
        write_deadline_s(60.0)
        with self._lock:
            self.made += 1
            self._then(self.made)
        return {"id": self.made, **fields}


def wanted(count: int) -> list[RecordWrite]:
    return [RecordWrite(hull_id=str(each), pipedrive_id=None, fields={}) for each in range(count)]


def test_no_create_starts_once_the_lease_does_not_cover_it() -> None:
    lease = Lease(30.0, time.monotonic())

    def cut_off(made: int) -> None:
        if made == 5:  # as if the extensions had failed since
            lease.extended(time.monotonic() - 25)

    pipedrive = Pipedrive(cut_off)
    with holding(lease):
        done = send(pipedrive, Entity.PERSON, wanted(100), at_once=2)  # type: ignore[arg-type]  # of it, only `create` is called

    assert pipedrive.made <= 6
    assert len(done.sent) == pipedrive.made
    assert len(done.sent) + len(done.rest) == 100
    assert isinstance(done.stop, Retryable)
    assert done.stop.reason == "lease_uncertain"


def test_outcomes_are_known_when_the_database_does_not_answer() -> None:
    looks: list[int] = []

    def check() -> None:
        looks.append(1)
        if len(looks) == 2:
            raise Retryable("database_unavailable")

    pipedrive = Pipedrive()
    done = send(pipedrive, Entity.PERSON, wanted(100), at_once=1, check=check)  # type: ignore[arg-type]  # as above

    assert pipedrive.made == len(done.sent) == CHECK_EVERY
    assert not any(each.unsure for each in done.sent)
    assert isinstance(done.stop, Retryable)
    assert done.stop.reason == "database_unavailable"
    assert len(done.rest) == 100 - CHECK_EVERY


def test_a_lost_lease_ends_the_sending() -> None:
    def check() -> None:
        raise LostLease("lease_lost")

    pipedrive = Pipedrive()
    with pytest.raises(LostLease):
        send(pipedrive, Entity.PERSON, wanted(50), at_once=8, check=check)  # type: ignore[arg-type]  # as above

    assert pipedrive.made == 0


def test_the_rest_is_left_when_the_time_limit_is_reached() -> None:
    pipedrive = Pipedrive()
    done = send(pipedrive, Entity.PERSON, wanted(3), at_once=2, ends_at=time.monotonic())  # type: ignore[arg-type]  # as above

    assert pipedrive.made == 0
    assert isinstance(done.stop, Retryable)
    assert done.stop.reason == "time_limit_reached"
    assert len(done.rest) == 3


def test_a_refusal_is_the_record_s_own() -> None:
    def refuse(made: int) -> None:
        if made == 2:
            raise Rejected("bad_request")

    done = send(Pipedrive(refuse), Entity.PERSON, wanted(4), at_once=1)  # type: ignore[arg-type]  # as above

    assert [each.refused is not None for each in done.sent] == [False, True, False, False]
    assert done.stop is None
