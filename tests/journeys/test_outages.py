"""Work waits for a remote system that does not answer, and one call at a time probes it; only work that fails alone fails."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from db.session import transaction
from pipeline import outages
from pipeline.domain.kinds import Entity
from tests.deliveries import deliver, listen, notify
from tests.journeys.hull_messages import ANN, failures, fetch_everything, send_messages, user, writes
from tests.journeys.pipedrive_records import PAGE, age_records, create_records, hull_names, pipedrive_names
from tests.system import SyncSystem

ALL = "/api/"
ROUNDS = 12
"""More than any piece of work has attempts."""


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    yield
    outages._known.clear()


@contextmanager
def pipedrive_out(system: SyncSystem, status: int = 503) -> Iterator[None]:
    system.pipedrive.faults.add(ALL, "status", status=status, count=None)
    yield
    system.pipedrive.faults.replace([])


def rounds(system: SyncSystem) -> None:
    for _ in range(ROUNDS):
        system.end_pauses()
        system.work()


def test_a_fetch_continues_after_an_outage_of_pipedrive(system: SyncSystem) -> None:
    create_records(system, persons=3 * PAGE, organizations=0)
    age_records(system)
    with pipedrive_out(system):
        run = system.fetch(Entity.PERSON)
        rounds(system)
        waiting = system.rows("SELECT attempts, waits_for FROM batches WHERE state = 'ready'")
        stood = system.run(run.id).state
        (outage,) = system.rows("SELECT remote, reason, is_shared, failures FROM outages")
    rounds(system)

    assert stood == "running"
    assert {row.waits_for for row in waiting} == {"pipedrive"}
    assert all(row.attempts <= 1 for row in waiting)
    assert (outage.remote, outage.reason, outage.is_shared) == ("pipedrive", "remote_unavailable", True)
    assert system.run(run.id).state == "done"
    assert hull_names(system) == pipedrive_names(system)
    assert system.rows("SELECT 1 FROM failures") == []
    assert system.rows("SELECT 1 FROM outages") == []


@pytest.mark.parametrize("status", [302, 404, 408, 410, 425])
def test_a_status_without_a_list_is_an_outage_too(system: SyncSystem, status: int) -> None:
    create_records(system, persons=3, organizations=0)
    age_records(system)
    with pipedrive_out(system, status):
        run = system.fetch(Entity.PERSON)
        rounds(system)
    rounds(system)

    assert system.run(run.id).state == "done"
    assert system.rows("SELECT 1 FROM outages") == []


def test_webhooks_go_on_by_themselves_after_hull_was_out(system: SyncSystem) -> None:
    webhooks = listen(system)
    create_records(system, persons=5, organizations=0)
    faults = system.hull_app.extensions["hull_faults"]
    faults.replace([{"path": "firehose", "kind": "status", "status": 500, "count": None}])
    deliver(system, *webhooks)
    system.work()
    rounds(system)
    stood = system.rows("SELECT remote FROM outages")
    faults.replace([])
    rounds(system)

    assert [row.remote for row in stood] == ["firehose"]
    assert hull_names(system) == pipedrive_names(system)
    assert system.rows("SELECT 1 FROM failures") == []
    assert system.rows("SELECT 1 FROM changes") == []


def test_only_one_call_asks_while_many_wait(system: SyncSystem) -> None:
    create_records(system, persons=3 * PAGE, organizations=3 * PAGE)
    age_records(system)
    with pipedrive_out(system):
        system.start(Entity.PERSON)
        system.start(Entity.ORGANIZATION)
        system.work()
        before = system.rows("SELECT failures FROM outages")[0].failures
        system.end_pauses()
        system.work()
        after = system.rows("SELECT failures FROM outages")[0].failures

    assert after - before <= 2  # the probe, and the look whether it fails alone


def test_an_answer_wakes_what_waits(system: SyncSystem) -> None:
    create_records(system, persons=3 * PAGE, organizations=3 * PAGE)
    age_records(system)
    with pipedrive_out(system):
        runs = [system.start(Entity.PERSON), system.start(Entity.ORGANIZATION)]
        system.work()
    system.change_rows("UPDATE outages SET probe_at = now()")
    system.change_rows("UPDATE batches SET due_at = now() + interval '1 h' WHERE state = 'ready'")
    system.change_rows(
        "UPDATE batches SET due_at = now() WHERE id = (SELECT min(id) FROM batches WHERE state = 'ready')"
    )
    system.work()

    assert [system.run(run_id).state for run_id in runs] == ["done", "done"]


def test_what_fails_alone_while_pipedrive_answers_gives_up(system: SyncSystem) -> None:
    create_records(system, persons=3 * PAGE, organizations=0)
    age_records(system)
    system.pipedrive.faults.add("/api/v2/persons$", "status", status=503, count=None)

    run = system.fetch(Entity.PERSON)
    rounds(system)

    assert (system.run(run.id).state, system.run(run.id).reason) == ("stopped", "remote_unavailable")


def test_the_status_names_what_waits_for_which_system_and_since_when(system: SyncSystem) -> None:
    from db import connector as connectors  # noqa: PLC0415 - beside what it is for

    create_records(system, persons=3 * PAGE, organizations=0)
    age_records(system)
    with pipedrive_out(system):
        system.fetch(Entity.PERSON)
        with transaction() as session:
            found = system.module("sync.connectors.status").status_of(
                session, connectors.get_connector(session, system.connector_key)
            )

    system.change_rows("UPDATE batches SET state = 'cancelled'")
    with transaction() as session:
        (idle,) = system.module("sync.connectors.status").sentences(session, system.connector_key)

    (finding,) = [each for each in found.findings if each.topic == "outage"]
    assert "Pipedrive has not answered since" in finding.message
    assert "2 batches wait" in finding.message
    assert idle.endswith("Nothing waits for it now. The next call asks it again.")


def test_what_waited_for_pipedrive_is_decided_again(system: SyncSystem) -> None:
    system.change_settings(outgoing_user_attributes=[{"hull": "nickname", "service": "name"}])
    fetch_everything(system)
    with pipedrive_out(system):
        send_messages(system, user(ANN, email="ann@outage.test", nickname="Old"))
        notify(system, user(ANN, email="ann@outage.test", nickname="New"), key="newer")
        rounds(system)
    rounds(system)

    assert [(method, body["name"]) for method, _, body in writes(system)] == [("POST", "New")]


def test_what_lay_in_a_queue_is_decided_again(system: SyncSystem) -> None:
    system.change_settings(outgoing_user_attributes=[{"hull": "nickname", "service": "name"}])
    fetch_everything(system)
    send_messages(system, user(ANN, email="ann@outage.test", nickname="First"))
    notify(system, user(ANN, email="ann@outage.test", nickname="Old"), key="old")
    system.module("sync.changes.dispatch").dispatch_changes()
    for _ in ("extract", "transform"):
        due = system.next_batch()
        assert due is not None
        system.run_batch_stage(*due)
    notify(system, user(ANN, email="ann@outage.test", nickname="New"), key="newer")
    with transaction() as session:
        system.module("sync.changes.dispatch").coalesce_deliveries(session)
    system.change_rows("UPDATE batches SET due_at = now() - interval '1 hour' WHERE state = 'ready'")
    system.work()

    assert [body["name"] for _, _, body in writes(system)] == ["First", "New"]


@contextmanager
def firehose_out(system: SyncSystem) -> Iterator[None]:
    faults = system.hull_app.extensions["hull_faults"]
    faults.replace([{"path": "firehose", "kind": "status", "status": 503, "count": None}])
    yield
    faults.replace([])


def test_a_user_waits_until_hull_shows_the_user_of_its_person(system: SyncSystem) -> None:
    """Its Person has another e-mail first, and Hull accepts nothing: it is not known yet whether it is the same User."""
    system.change_settings(outgoing_user_attributes=[{"hull": "nickname", "service": "name"}])
    fetch_everything(system)
    emails = [{"value": f"{each}@outage.test", "primary": each == "work"} for each in ("work", "home")]
    system.company.create_person(name="Ann", emails=emails)
    with firehose_out(system):
        send_messages(system, user(ANN, email="home@outage.test", nickname="Mine"))
        rounds(system)
        stood = failures(system)
        waiting = system.rows("SELECT attempts, waits_for FROM changes WHERE record_id = :id", id=ANN)

    assert stood == []
    assert [row.waits_for for row in waiting] == ["firehose"]
    assert waiting[0].attempts <= 1  # the first was made before the outage was known
    assert writes(system) == []


def test_a_user_waits_for_what_was_listed_to_be_loaded(system: SyncSystem) -> None:
    """The index still knows its Person by an e-mail that the Person has no more."""
    code = next(field.code for field in system.company.custom_fields("person") if field.type == "varchar")
    system.change_settings(
        user_claims=[{"hull": "external_id", "service": code}, {"hull": "email", "service": "email"}],
        outgoing_user_attributes=[{"hull": "nickname", "service": "name"}, {"hull": "email", "service": "email"}],
    )
    known = system.company.create_person(name="Old", emails=[{"value": "old@outage.test", "primary": True}])["id"]
    fetch_everything(system)
    system.change_rows("UPDATE id_mappings SET resolve_at = NULL, hull_id = NULL")
    with firehose_out(system):
        system.company.edit_person(known, emails=[{"value": "new@outage.test", "primary": True}])
        send_messages(system, user(ANN, external_id="C-99", email="old@outage.test", nickname="Mine"))
        rounds(system)
        stood = failures(system)
    rounds(system)

    assert stood == []
    assert failures(system) == []
    assert [(method, body["name"]) for method, _, body in writes(system)] == [("POST", "Mine")]
