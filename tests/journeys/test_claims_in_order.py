"""The claim that counts most decides, whether our tables know its record or not; what another record holds is not written."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pipeline.domain.kinds import Entity
from tests.deliveries import notify
from tests.journeys.people import age
from tests.prepared import prepared
from tests.world import World

MINE = "1" * 24


@pytest.fixture(autouse=True)
@prepared
def key(world: World) -> str:
    """Code of the field that holds the customer's number, which counts more than the e-mail. One Person is fetched."""
    code = next(field.code for field in world.company.custom_fields("person") if field.type == "varchar")
    world.change_settings(
        user_claims=[{"hull": "external_id", "service": code}, {"hull": "email", "service": "email"}],
        outgoing_user_attributes=[
            {"hull": "nickname", "service": "name"},
            {"hull": "external_id", "service": code},
            {"hull": "email", "service": "email"},
        ],
    )
    world.company.create_person(name="Old", emails=[{"value": "old@x.test", "primary": True}])
    for entity in Entity:
        age(world, entity)
        world.fetch(entity)
    world.change_rows("UPDATE id_mappings SET resolve_at = NULL")
    return code


def user(**attributes: Any) -> dict[str, Any]:
    return {"user": {"id": MINE, **attributes}, "segments": [], "changes": {}}


def writes(world: World) -> list[tuple[str, int, Any]]:
    return [(note.method, note.entity_id, json.loads(note.body)) for note in world.pipedrive.ledger.mutations]


def problems(world: World) -> list[str]:
    query = "SELECT detail FROM sync_events WHERE reason = 'held_by_another'"
    return [row.detail for row in world.rows(query)]


def test_a_record_made_a_moment_ago_is_found_by_the_claim_that_counts_more(world: World, key: str) -> None:
    made = world.company.create_person(name="New", custom_fields={key: "C-99"})["id"]
    notify(world, user(external_id="C-99", email="old@x.test", nickname="Mine"))
    world.work()

    assert writes(world) == [("PATCH", made, {"name": "Mine"})]
    assert problems(world) == ["emails: held by person 1"]


def test_where_nobody_has_the_claim_that_counts_more_the_next_one_decides(world: World, key: str) -> None:
    notify(world, user(external_id="C-99", email="old@x.test", nickname="Mine"))
    world.work()

    assert writes(world) == [("PATCH", 1, {"name": "Mine", "custom_fields": {key: "C-99"}})]
    notify(world, user(external_id="C-99", email="old@x.test", nickname="Mine II"), key="n2")
    asked = world.pipedrive.ledger.requests["list"]
    world.work()
    assert world.pipedrive.ledger.requests["list"] == asked  # once joined, nothing is looked up


def test_an_email_of_another_record_is_not_put_on_a_known_one(world: World, key: str) -> None:
    world.company.create_person(name="Other", emails=[{"value": "other@x.test", "primary": True}])
    age(world)
    world.fetch(Entity.PERSON)
    world.change_rows("UPDATE id_mappings SET resolve_at = NULL")
    world.change_rows("UPDATE id_mappings SET hull_id = :h WHERE entity = 'person' AND pipedrive_id = 1", h=MINE)
    notify(world, user(email="other@x.test", nickname="Mine"))
    world.work()
    notify(world, user(email="other@x.test", nickname="Mine"), key="n2")
    world.work()

    assert writes(world) == [("PATCH", 1, {"name": "Mine"})]
    assert problems(world)[0] == "emails: held by person 2"
    assert len(set(problems(world))) == 1
