"""Explanations: after edits on both sides, the steps of every field lead to its current value."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from db.change_writer import write_changes
from db.session import transaction
from pipeline.domain.kinds import Entity
from pipeline.domain.settings import Owner
from pipeline.operations.explanations import ExplanationAnswer, explain
from pipeline.operations.record_sides import find_record
from tests.deliveries import deliver, listen
from tests.journeys.both_ways import BothWays, Place, both_ways
from tests.journeys.hull_messages import ANN, fetch_everything, person, send_messages, user
from tests.journeys.pipedrive_records import age_records, create_records, raw_person
from tests.logs import captured_log
from tests.prepared import prepared
from tests.system import SyncSystem

OWNERS: list[Owner] = ["hull", "pipedrive", "latest"]


def why(system: SyncSystem, entity: str, pipedrive_id: int, name: str, at: datetime | None = None) -> ExplanationAnswer:
    with transaction() as session:
        found = find_record(session, system.connector_key, Entity(entity), pipedrive_id=pipedrive_id)
        assert found is not None
        return explain(session, found, name, at)


def chains(life: BothWays, at: datetime | None = None) -> dict[Place, ExplanationAnswer]:
    return {place: why(life.system, *place, at) for place in life.pipedrive_holds()}


@pytest.mark.parametrize("owner", [OWNERS[0], *(pytest.param(each, marks=pytest.mark.slow) for each in OWNERS[1:])])
def test_the_explanation_of_every_field_leads_to_its_value_on_both_sides(database: str, owner: Owner) -> None:
    with captured_log("critical"), both_ways(owner=owner, seed=3, persons=20, organizations=12) as life:
        life.live(minutes=4)
        life.finish()
        hull, pipedrive = life.hull_holds(), life.pipedrive_holds()
        middle = datetime.fromtimestamp(life.clock(), UTC)
        found = chains(life)

        assert {place: (each.value, hull[place]) for place, each in found.items() if each.value != hull[place]} == {}
        assert {place: (each.hull, hull[place]) for place, each in found.items() if each.hull != hull[place]} == {}
        assert {place: each.pipedrive for place, each in found.items()} == pipedrive
        directions = {each.direction for each in found.values()}
        assert {"incoming", "outgoing"} <= directions
        calls = [
            step
            for each in found.values()
            if each.direction == "outgoing"
            for step in each.steps
            if step.kind == "call"
        ]
        assert all("PATCH was answered with 200" in step.sentence for step in calls)

        life.clock.move(60)
        life.live(minutes=2)
        life.finish()
        then = chains(life, at=middle)
        assert {place: (each.value, hull[place]) for place, each in then.items() if each.value != hull[place]} == {}


@prepared
def four_persons(system: SyncSystem) -> None:
    system.change_settings(outgoing_user_attributes=[{"hull": "nickname", "service": "name"}])
    create_records(system, persons=4, organizations=0)
    fetch_everything(system)
    age_records(system)


@pytest.fixture
def webhooks(system: SyncSystem) -> list[dict[str, Any]]:
    """Four Persons on both sides; the list fills with the webhook of every later edit."""
    four_persons(system)
    return listen(system)


def test_an_incoming_change_names_its_webhook(system: SyncSystem, webhooks: list[dict[str, Any]]) -> None:
    """This includes new records, which are written in another way; each record has its own webhook."""
    new = system.company.create_person(name="New")["id"]
    system.company.edit_person(2, name="Edited")
    deliver(system, *webhooks)
    system.work()
    events = system.rows(
        "SELECT pipedrive_id, cause, delivery_id FROM sync_events WHERE delivery_id IS NOT NULL ORDER BY 1"
    )

    assert [tuple(row) for row in events] == [(2, "webhook", 2), (new, "webhook", 1)]
    origin = why(system, "person", 2, "pipedrive/name").steps[0]
    assert [fact.value for fact in origin.facts if fact.name == "Delivery"] == [2]


def test_records_of_one_batch_keep_the_cause_of_each(system: SyncSystem, webhooks: list[dict[str, Any]]) -> None:
    system.company.edit_person(2, name="Edited")
    system.company.edit_person(3, name="Edited too")
    deliver(system, webhooks[0])
    with transaction() as session:
        system.module("sync.changes.dispatch").coalesce_deliveries(session)
        write_changes(session, system.connector_key, "incoming", "person", ["3"], cause="replay")
    system.work()
    causes = system.rows("SELECT pipedrive_id, cause FROM sync_events WHERE cause IN ('webhook', 'replay') ORDER BY 1")

    assert [tuple(row) for row in causes] == [(2, "webhook"), (3, "replay")]


def test_a_refused_write_keeps_its_call(system: SyncSystem, webhooks: list[dict[str, Any]]) -> None:
    hull_id = str(system.users()[2]["id"])
    send_messages(system, user(hull_id, **{"pipedrive/id": 2}, nickname="x" * 300))
    events = system.rows("SELECT reason, exchange FROM sync_events WHERE event = 'outgoing.user.error'")

    assert len(events) >= 1
    assert all(row.exchange is None or '"method": "PATCH"' in row.exchange for row in events)


def test_a_write_is_found_from_its_read_back_after_their_batches_are_forgotten(
    system: SyncSystem, webhooks: list[dict[str, Any]]
) -> None:
    hull_id = str(system.users()[2]["id"])
    send_messages(system, user(hull_id, **{"pipedrive/id": 2}, nickname="Anna"))
    before = [step.kind for step in why(system, "person", 2, "pipedrive/name").steps]
    system.change_rows("DELETE FROM batches")
    after = why(system, "person", 2, "pipedrive/name")

    assert before == ["origin", "identity", "rule", "call", "read_back", "value"]
    assert [step.kind for step in after.steps] == before
    assert after.value == person(system, 2)["name"] == "Anna"


def test_a_field_that_is_not_mapped_any_more_is_explained_by_what_was(
    system: SyncSystem, webhooks: list[dict[str, Any]]
) -> None:
    system.change_settings(incoming_user_attributes=[])
    found = why(system, "person", 2, "pipedrive/name")

    assert (found.value, found.direction) == ("Person 2", "incoming")
    assert "pipedrive/name" in found.sentence


def test_an_unknown_field_has_no_explanation(system: SyncSystem, webhooks: list[dict[str, Any]]) -> None:
    found = why(system, "person", 2, "shoe size")

    assert (found.value, found.direction) == (None, None)
    assert found.sentence == "No stored event shows why shoe size has its value."


def test_a_created_user_is_explained_by_its_create(system: SyncSystem, webhooks: list[dict[str, Any]]) -> None:
    send_messages(system, user(ANN, email="ann@acme.com", nickname="Ann"))
    (row,) = system.rows("SELECT pipedrive_id FROM id_mappings WHERE hull_id = :h", h=ANN)
    found = why(system, "person", row.pipedrive_id, "nickname")

    assert found.value == "Ann"
    identity, call = (next(step for step in found.steps if step.kind == kind) for kind in ("identity", "call"))
    assert identity.sentence == "It was created in Pipedrive for this record of Hull."
    assert "POST was answered with 200" in call.sentence


def test_a_rejection_of_several_fields_explains_each_of_them(
    system: SyncSystem, webhooks: list[dict[str, Any]]
) -> None:
    system.change_settings(
        incoming_user_attributes=[
            {"hull": f"pipedrive/{each}", "service": each} for each in ("name", "first_name", "last_name")
        ]
    )
    system.company.put_raw("person", raw_person(id=50, name="A\0b", first_name="A\0b", last_name=None))
    age_records(system)
    system.fetch(Entity.PERSON)
    named = system.rows("SELECT field FROM sync_events WHERE pipedrive_id = 50 AND reason = 'unusable_text'")

    assert any(", " in row.field for row in named)
    for field in ("pipedrive/name", "pipedrive/first_name"):
        assert "rejected" in why(system, "person", 50, field).sentence, field


def test_an_outgoing_rejection_does_not_concern_the_incoming_row(
    system: SyncSystem, webhooks: list[dict[str, Any]]
) -> None:
    hull_id = str(system.users()[2]["id"])
    send_messages(system, user(hull_id, **{"pipedrive/id": 2}, nickname="A\0b"))

    assert system.rows("SELECT 1 FROM sync_events WHERE event = 'outgoing.user.error' AND field = 'name'")
    assert "rejected" not in why(system, "person", 2, "pipedrive/name").sentence
    problems = [step for step in why(system, "person", 2, "nickname").steps if step.kind == "problem"]
    assert "Correct the text in Hull." in problems[0].sentence


def test_a_moment_before_the_first_read_is_not_known(system: SyncSystem, webhooks: list[dict[str, Any]]) -> None:
    found = why(system, "person", 2, "pipedrive/name", at=datetime(2000, 1, 1, tzinfo=UTC))

    assert found.sentence.startswith("Not known: this record was first read at ")
    assert (found.value, found.steps) == (None, [])


def test_an_empty_field_names_the_fetch_that_read_it(system: SyncSystem, webhooks: list[dict[str, Any]]) -> None:
    system.change_settings(
        incoming_user_attributes=[
            {"hull": f"pipedrive/{each}", "service": each} for each in ("name", "first_name", "last_name")
        ]
    )
    system.company.put_raw("person", raw_person(id=51, name="Eva", last_name=None, emails=[]))
    age_records(system)
    run = system.fetch(Entity.PERSON)

    assert (
        f"was empty in Pipedrive when fetch run {run.id} read it"
        in why(system, "person", 51, "pipedrive/last_name").sentence
    )


def test_the_last_step_recommends_a_comparison(system: SyncSystem, webhooks: list[dict[str, Any]]) -> None:
    last = why(system, "person", 2, "pipedrive/name").steps[-1]

    assert "as last read and sent. Hull itself was not queried" in last.sentence
    assert last.facts[0].name == "Last known in Hull"
    assert last.at is None
