"""A fetch that would use up Pipedrive's day: it stops before live work suffers, and ends by itself on the next day."""

from __future__ import annotations

import pytest

from db import change_writer
from db import connector as connectors
from db.session import transaction
from pipeline import wiring
from pipeline.domain.kinds import Direction, Entity
from pipeline.errors import Retryable
from tests.deliveries import deliver, listen
from tests.journeys.pipedrive_records import age_records, create_records, hull_names, pipedrive_names
from tests.manual_clock import Clock
from tests.system import SyncSystem

pytestmark = pytest.mark.usefixtures("noon")

DAY = 100
"""Tokens: too few for the 110 that the fetch of 400 Persons takes."""
RESERVE = 0.3


def begin(system: SyncSystem, *, ours: int = DAY, theirs: int | None = DAY, reserve: float = RESERVE) -> int:
    """Start the fetch, and work until the day is spent; `ours` is the daily budget in the settings."""
    create_records(system, persons=400, organizations=0)
    age_records(system)
    system.pipedrive.budget.limit = theirs
    system.change_settings(daily_tokens=ours, live_reserve=reserve)
    run_id = system.start(Entity.PERSON)
    system.work()
    return run_id


def edit_unseen(system: SyncSystem, person: int, name: str) -> None:
    """Edit a Person with a webhook that has no usable payload, so it must be read."""
    system.company.edit_person(person, name=name)
    with transaction() as session:
        change_writer.write_changes(
            session, system.connector_key, Direction.INCOMING, Entity.PERSON, [str(person)], cause="webhook"
        )
    system.work()


def tomorrow(clock: Clock) -> None:
    """Midnight passes: for Pipedrive, for the ledger, for the counter in Redis, and for whatever waits."""
    clock.move(13 * 3_600)


def refusals(system: SyncSystem) -> int:
    return system.pipedrive.ledger.statuses[429]


def waits(system: SyncSystem) -> list[tuple[str, int, float]]:
    """(queue, attempts, seconds from midnight UTC) of the batches that wait."""
    query = """SELECT queue, attempts, abs(extract(epoch FROM due_at) - ceil(extract(epoch FROM now()) / 86400) * 86400) AS off
                 FROM batches WHERE state = 'ready'"""
    return [(row.queue, row.attempts, float(row.off)) for row in system.rows(query)]


def spent(system: SyncSystem) -> dict[str, int]:
    return {
        row.lane: row.tokens for row in system.rows("SELECT lane, sum(tokens) AS tokens FROM token_ledger GROUP BY 1")
    }


def test_the_fetch_waits_for_midnight_and_counts_no_attempt(system: SyncSystem) -> None:
    run_id = begin(system)

    assert system.run(run_id).state == "running"
    assert spent(system) == {"bulk": 70}
    assert {(queue, attempts) for queue, attempts, _ in waits(system)} == {("bulk", 0)}
    assert max(off for *_, off in waits(system)) < 60
    assert refusals(system) == 0


def test_webhooks_still_arrive_when_the_fetch_has_taken_its_share(system: SyncSystem) -> None:
    begin(system)
    webhooks = listen(system)
    system.company.edit_person(7, name="Told whole")
    deliver(system, *webhooks)
    edit_unseen(system, 8, "Read again")

    assert (hull_names(system)[7], hull_names(system)[8]) == ("Told whole", "Read again")
    assert spent(system) == {"bulk": 70, "live": 10}
    assert refusals(system) == 0


def test_on_the_next_day_the_fetch_ends_by_itself(system: SyncSystem, noon: Clock) -> None:
    run_id = begin(system)
    tomorrow(noon)
    system.work()

    assert system.run(run_id).state == "done"
    assert hull_names(system) == pipedrive_names(system)
    assert refusals(system) == 0


def test_without_a_reserve_live_work_would_have_been_refused(system: SyncSystem, noon: Clock) -> None:
    """The negative control: the same day, with nothing kept."""
    begin(system, reserve=0.0)
    edit_unseen(system, 8, "Read again")

    assert hull_names(system)[8] != "Read again"
    assert refusals(system) == 1
    assert len(system.rows("SELECT 1 FROM changes WHERE record_id = '8'")) == 1

    tomorrow(noon)
    system.work()
    assert hull_names(system)[8] == "Read again"


def test_a_day_that_others_have_spent_is_asked_for_once_and_then_left_alone(system: SyncSystem, noon: Clock) -> None:
    """By our own count there are tokens left, but Pipedrive refuses."""
    system.pipedrive.budget.limit, system.pipedrive.budget.spent = DAY, DAY
    begin(system, ours=30_000)
    for person in (8, 9, 10):
        edit_unseen(system, person, "Waits")

    assert refusals(system) == 1
    assert {queue for queue, *_ in waits(system)} == {"bulk", "live"}
    assert system.rows("SELECT 1 FROM failures") == []

    tomorrow(noon)
    system.pipedrive.budget.limit = None
    system.work()
    assert hull_names(system) == pipedrive_names(system)


def test_a_waiting_fetch_continues_as_soon_as_the_settings_allow_it(system: SyncSystem) -> None:
    run_id = begin(system, theirs=None)
    with transaction() as session:
        document = connectors.settings_in_force(session, system.connector_key).document
        connector = connectors.get_connector(session, system.connector_key)
    system.module("sync.connectors.settings_change").change_settings(
        connector, document | {"daily_tokens": 1_000}, "test"
    )
    system.work()

    assert system.run(run_id).state == "done"


def test_a_connector_of_the_same_company_finds_the_day_spent(system: SyncSystem) -> None:
    system.change_rows("UPDATE connectors SET company_id = 77")
    begin(system)
    with transaction() as session:
        other = connectors.Connector(id="other", name="other", hull_organization="hull.test", company_id=77)
        session.add(other)
        session.flush()
        connectors.add_settings(session, other.key, {"daily_tokens": DAY, "live_reserve": RESERVE}, author="test")
        budget = wiring.open_budget(session, other.key, lane="bulk")

    with pytest.raises(Retryable, match="daily_budget_spent"):
        budget.spend(10, lambda: pytest.fail("sent"))
