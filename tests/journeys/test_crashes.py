"""Killed anywhere, a fetch resumes: whatever was half done is done again, and Hull ends up with Pipedrive's state."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest

from db import batch as batches
from db import batch_queue, sync_event
from db import run as run_rows
from db.failure_filter import find_failures
from db.session import transaction
from pipeline.clients.http_transport import HttpTransport
from pipeline.clients.hull import HullClient
from pipeline.clients.pipedrive import PipedriveClient
from pipeline.domain.kinds import Entity
from tests.deliveries import deliver, listen
from tests.journeys.pipedrive_records import PAGE, age_records, create_records, hull_names, pipedrive_names
from tests.system import SyncSystem

PERSONS = 3 * PAGE


class Killed(BaseException):
    """What `kill -9` is to a worker: nothing of ours catches it."""


def die(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, *, turn: int = 0, after: bool) -> None:
    """Kill the worker at call number `turn` of owner.name, before or after it does its work."""
    real, calls = getattr(owner, name), itertools.count()

    def wrapped(*args: Any, **options: Any) -> Any:
        if (mine := next(calls)) == turn and not after:
            raise Killed
        answer = real(*args, **options)
        if mine == turn:
            raise Killed
        return answer

    monkeypatch.setattr(owner, name, wrapped)


def survive(system: SyncSystem) -> int:
    """Work until nothing is left, and replace killed workers. Return the number of kills."""
    for deaths in range(50):
        try:
            system.work()
        except Killed:
            system.expire_leases()
        else:
            return deaths
    raise AssertionError("they never stop dying")


POINTS: list[tuple[Any, str, bool]] = [
    (PipedriveClient, "list_page", False),
    (PipedriveClient, "list_page", True),
    (PipedriveClient, "fields", True),
    (batches, "hold", False),
    (batches, "hold", True),
    (batches, "pass_to_transform", True),
    (run_rows, "count", True),
    (batch_queue, "release_waiting", True),
    (batches, "pass_to_load", True),
    (HullClient, "post_batches", False),
    (HullClient, "post_batches", True),
    (HttpTransport, "call", False),
    (HttpTransport, "call", True),
    (sync_event, "log_events", True),
    (batches, "end", True),
]


@pytest.mark.parametrize("turn", [0, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("owner", "name", "after"), POINTS)
def test_a_fetch_resumes_from_every_point(
    system: SyncSystem, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, after: bool, turn: int
) -> None:
    create_records(system, persons=PERSONS, organizations=6)
    age_records(system)
    run_id = system.start(Entity.PERSON)
    die(monkeypatch, owner, name, turn=turn, after=after)

    deaths = survive(system)

    run = system.run(run_id)
    assert deaths == (0 if (name, turn > 0) == ("fields", True) else 1)
    assert run.state == "done"
    assert hull_names(system) == pipedrive_names(system)
    assert (run.new, run.changed, run.same, run.failed, run.shells) == (PERSONS, 0, 0, 0, 6)
    assert run.read in {PERSONS, PERSONS + PAGE}  # a page that was on its way when the walks met is read all the same
    logged = [event for event in system.events() if event[0] == "incoming.user.success"]
    assert len(logged) == PERSONS
    assert system.rows("SELECT 1 FROM failures") == []
    assert system.rows("SELECT 1 FROM batches WHERE state NOT IN ('done')") == []


@pytest.mark.parametrize(
    ("owner", "name", "after"), [point for point in POINTS if point[1] not in {"fields", "count", "release_waiting"}]
)
def test_a_live_batch_resumes_from_every_point(
    system: SyncSystem, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, after: bool
) -> None:
    create_records(system, persons=5, organizations=0)
    age_records(system)
    system.fetch(Entity.PERSON)
    webhooks = listen(system)
    for number in (2, 4):
        system.company.edit_person(number, name=f"Edited {number}")
    webhooks[1]["data"]["update_time"] = "2020-01-01T00:00:00Z"  # too old to be used: this one is read again
    deliver(system, *webhooks)
    die(monkeypatch, owner, name, after=after)

    survive(system)

    assert hull_names(system) == pipedrive_names(system)
    assert system.rows("SELECT 1 FROM changes") == []
    logged = [event for event in system.events() if event[0] == "incoming.user.success"]
    assert len(logged) == 5 + 2


def always(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, when: Callable[..., bool]) -> None:
    real = getattr(owner, name)

    def wrapped(*args: Any, **options: Any) -> Any:
        if when(*args, **options):
            raise Killed
        return real(*args, **options)

    monkeypatch.setattr(owner, name, wrapped)


def test_a_stage_that_kills_its_worker_every_time_is_given_up(
    system: SyncSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_records(system, persons=PERSONS, organizations=0)
    age_records(system)
    run_id = system.start(Entity.PERSON)
    poison = system.next_batch()
    assert poison is not None
    system.run_batch_stage(*poison)
    always(monkeypatch, batches, "pass_to_load", lambda session, batch_id, staged: batch_id == poison[0])

    deaths = survive(system)

    assert deaths == 8
    failures = system.rows("SELECT reason, stage, batch_id, attempts FROM failures")
    assert [tuple(row) for row in failures] == [("worker_lost", "transform", poison[0], 9)]
    assert system.run(run_id).state == "done"
    assert len(system.users()) == PERSONS - PAGE  # its page waits for a replay; nobody else's suffered


def test_what_killed_every_worker_comes_through_once_its_cause_is_gone(
    system: SyncSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_records(system, persons=5, organizations=0)
    system.start(Entity.PERSON)
    with monkeypatch.context() as patch:
        always(patch, HullClient, "post_batches", lambda *_args, **_options: True)
        survive(system)
    with transaction() as session:
        for failure in find_failures(session):
            system.module("jobs.replays.start").replay_failure(session, failure, by="ada", why="more memory")
    system.work()

    assert hull_names(system) == pipedrive_names(system)


def test_a_worker_killed_while_it_stores_an_error_loses_nothing(
    system: SyncSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_records(system, persons=PERSONS, organizations=0)
    age_records(system)
    system.pipedrive.faults.add("/api/v2/persons$", "status", status=503)
    run_id = system.start(Entity.PERSON)
    die(monkeypatch, batches, "put_off", after=True)

    survive(system)

    assert system.run(run_id).state == "done"
    assert hull_names(system) == pipedrive_names(system)
