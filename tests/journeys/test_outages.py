"""A remote system that answers nobody is waited for, by one call at a time; only what fails alone gives up."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from db.session import transaction
from pipeline import outages
from pipeline.domain.kinds import Entity
from tests.deliveries import deliver, listen, notify
from tests.journeys.people import PAGE, age, fill, in_pipedrive, names
from tests.journeys.told_by_hull import ANN, failures, know_everything, say, user, writes
from tests.world import World

ALL = "/api/"
ROUNDS = 12
"""More than any piece of work has attempts."""


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    yield
    outages._known.clear()


@contextmanager
def pipedrive_out(world: World, status: int = 503) -> Iterator[None]:
    world.pipedrive.faults.add(ALL, "status", status=status, count=None)
    yield
    world.pipedrive.faults.replace([])


def rounds(world: World) -> None:
    for _ in range(ROUNDS):
        world.later()
        world.work()


def test_a_fetch_goes_on_by_itself_after_pipedrive_was_out(world: World) -> None:
    fill(world, persons=3 * PAGE, organizations=0)
    age(world)
    with pipedrive_out(world):
        run = world.fetch(Entity.PERSON)
        rounds(world)
        waiting = world.rows("SELECT attempts, waits_for FROM batches WHERE state = 'ready'")
        stood = world.run(run.id).state
        (outage,) = world.rows("SELECT remote, reason, is_shared, failures FROM outages")
    rounds(world)

    assert stood == "running"
    assert {row.waits_for for row in waiting} == {"pipedrive"}
    assert all(row.attempts <= 1 for row in waiting)
    assert (outage.remote, outage.reason, outage.is_shared) == ("pipedrive", "remote_unavailable", True)
    assert world.run(run.id).state == "done"
    assert names(world) == in_pipedrive(world)
    assert world.rows("SELECT 1 FROM failures") == []
    assert world.rows("SELECT 1 FROM outages") == []


@pytest.mark.parametrize("status", [302, 404, 408, 410, 425])
def test_a_status_that_says_nothing_of_a_list_is_an_outage_too(world: World, status: int) -> None:
    fill(world, persons=3, organizations=0)
    age(world)
    with pipedrive_out(world, status):
        run = world.fetch(Entity.PERSON)
        rounds(world)
    rounds(world)

    assert world.run(run.id).state == "done"
    assert world.rows("SELECT 1 FROM outages") == []


def test_webhooks_go_on_by_themselves_after_hull_was_out(world: World) -> None:
    told = listen(world)
    fill(world, persons=5, organizations=0)
    faults = world.hull_app.extensions["hull_faults"]
    faults.replace([{"path": "firehose", "kind": "status", "status": 500, "count": None}])
    deliver(world, *told)
    world.work()
    rounds(world)
    stood = world.rows("SELECT remote FROM outages")
    faults.replace([])
    rounds(world)

    assert [row.remote for row in stood] == ["firehose"]
    assert names(world) == in_pipedrive(world)
    assert world.rows("SELECT 1 FROM failures") == []
    assert world.rows("SELECT 1 FROM changes") == []


def test_only_one_call_asks_while_many_wait(world: World) -> None:
    fill(world, persons=3 * PAGE, organizations=3 * PAGE)
    age(world)
    with pipedrive_out(world):
        world.start(Entity.PERSON)
        world.start(Entity.ORGANIZATION)
        world.work()
        before = world.rows("SELECT failures FROM outages")[0].failures
        world.later()
        world.work()
        after = world.rows("SELECT failures FROM outages")[0].failures

    assert after - before <= 2  # the probe, and the look whether it fails alone


def test_an_answer_wakes_what_waits(world: World) -> None:
    fill(world, persons=3 * PAGE, organizations=3 * PAGE)
    age(world)
    with pipedrive_out(world):
        runs = [world.start(Entity.PERSON), world.start(Entity.ORGANIZATION)]
        world.work()
    world.change_rows("UPDATE outages SET probe_at = now()")
    world.change_rows("UPDATE batches SET due_at = now() + interval '1 h' WHERE state = 'ready'")
    world.change_rows(
        "UPDATE batches SET due_at = now() WHERE id = (SELECT min(id) FROM batches WHERE state = 'ready')"
    )
    world.work()

    assert [world.run(run_id).state for run_id in runs] == ["done", "done"]


def test_what_fails_alone_while_pipedrive_answers_gives_up(world: World) -> None:
    fill(world, persons=3 * PAGE, organizations=0)
    age(world)
    world.pipedrive.faults.add("/api/v2/persons$", "status", status=503, count=None)

    run = world.fetch(Entity.PERSON)
    rounds(world)

    assert (world.run(run.id).state, world.run(run.id).reason) == ("stopped", "remote_unavailable")


def test_the_status_says_what_waits_for_which_system_and_since_when(world: World) -> None:
    from db import connector as connectors  # noqa: PLC0415 - beside what it is for

    fill(world, persons=3 * PAGE, organizations=0)
    age(world)
    with pipedrive_out(world):
        world.fetch(Entity.PERSON)
        with transaction() as session:
            found = world.module("sync.connectors.status").status_of(
                session, connectors.get_connector(session, world.connector_key)
            )

    world.change_rows("UPDATE batches SET state = 'cancelled'")
    with transaction() as session:
        (idle,) = world.module("sync.connectors.status").sentences(session, world.connector_key)

    (finding,) = [each for each in found.findings if each.topic == "outage"]
    assert "Pipedrive has not answered since" in finding.message
    assert "2 batches wait" in finding.message
    assert idle.endswith("Nothing waits for it now. The next call asks it again.")


def test_what_waited_for_pipedrive_is_decided_again(world: World) -> None:
    world.change_settings(outgoing_user_attributes=[{"hull": "nickname", "service": "name"}])
    know_everything(world)
    with pipedrive_out(world):
        say(world, user(ANN, email="ann@outage.test", nickname="Old"))
        notify(world, user(ANN, email="ann@outage.test", nickname="New"), key="newer")
        rounds(world)
    rounds(world)

    assert [(method, body["name"]) for method, _, body in writes(world)] == [("POST", "New")]


def test_what_lay_in_a_queue_is_decided_again(world: World) -> None:
    world.change_settings(outgoing_user_attributes=[{"hull": "nickname", "service": "name"}])
    know_everything(world)
    say(world, user(ANN, email="ann@outage.test", nickname="First"))
    notify(world, user(ANN, email="ann@outage.test", nickname="Old"), key="old")
    world.module("sync.changes.dispatch").dispatch_changes()
    for _ in ("extract", "transform"):
        due = world.due()
        assert due is not None
        world.step(*due)
    notify(world, user(ANN, email="ann@outage.test", nickname="New"), key="newer")
    with transaction() as session:
        world.module("sync.changes.dispatch").coalesce_deliveries(session)
    world.change_rows("UPDATE batches SET due_at = now() - interval '1 hour' WHERE state = 'ready'")
    world.work()

    assert [body["name"] for _, _, body in writes(world)] == ["First", "New"]


@contextmanager
def firehose_out(world: World) -> Iterator[None]:
    faults = world.hull_app.extensions["hull_faults"]
    faults.replace([{"path": "firehose", "kind": "status", "status": 503, "count": None}])
    yield
    faults.replace([])


def test_a_user_waits_for_hull_to_show_whose_its_person_is(world: World) -> None:
    """Its Person is known by another e-mail first, and Hull takes nothing: nobody can say yet whether it is the same User."""
    world.change_settings(outgoing_user_attributes=[{"hull": "nickname", "service": "name"}])
    know_everything(world)
    emails = [{"value": f"{each}@outage.test", "primary": each == "work"} for each in ("work", "home")]
    world.company.create_person(name="Ann", emails=emails)
    with firehose_out(world):
        say(world, user(ANN, email="home@outage.test", nickname="Mine"))
        rounds(world)
        stood = failures(world)
        waiting = world.rows("SELECT attempts, waits_for FROM changes WHERE record_id = :id", id=ANN)

    assert stood == []
    assert [row.waits_for for row in waiting] == ["firehose"]
    assert waiting[0].attempts <= 1  # the first was made before the outage was known
    assert writes(world) == []


def test_a_user_waits_for_what_was_listed_to_be_loaded(world: World) -> None:
    """The index still knows its Person by an e-mail that the Person has no more."""
    code = next(field.code for field in world.company.custom_fields("person") if field.type == "varchar")
    world.change_settings(
        user_claims=[{"hull": "external_id", "service": code}, {"hull": "email", "service": "email"}],
        outgoing_user_attributes=[{"hull": "nickname", "service": "name"}, {"hull": "email", "service": "email"}],
    )
    known = world.company.create_person(name="Old", emails=[{"value": "old@outage.test", "primary": True}])["id"]
    know_everything(world)
    world.change_rows("UPDATE id_mappings SET resolve_at = NULL, hull_id = NULL")
    with firehose_out(world):
        world.company.edit_person(known, emails=[{"value": "new@outage.test", "primary": True}])
        say(world, user(ANN, external_id="C-99", email="old@outage.test", nickname="Mine"))
        rounds(world)
        stood = failures(world)
    rounds(world)

    assert stood == []
    assert failures(world) == []
    assert [(method, body["name"]) for method, _, body in writes(world)] == [("POST", "Mine")]
