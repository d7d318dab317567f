"""The claim that counts most decides, whether our tables know its record or not; what another record holds is not written."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pipeline.domain.kinds import Entity
from tests.deliveries import notify
from tests.journeys.pipedrive_records import age_records
from tests.prepared import prepared
from tests.system import SyncSystem

MINE = "1" * 24


@pytest.fixture(autouse=True)
@prepared
def key(system: SyncSystem) -> str:
    """Code of the field that holds the customer's number, which counts more than the e-mail. One Person is fetched."""
    code = next(field.code for field in system.company.custom_fields("person") if field.type == "varchar")
    system.change_settings(
        user_claims=[{"hull": "external_id", "service": code}, {"hull": "email", "service": "email"}],
        outgoing_user_attributes=[
            {"hull": "nickname", "service": "name"},
            {"hull": "external_id", "service": code},
            {"hull": "email", "service": "email"},
        ],
    )
    system.company.create_person(name="Old", emails=[{"value": "old@x.test", "primary": True}])
    for entity in Entity:
        age_records(system, entity)
        system.fetch(entity)
    system.change_rows("UPDATE id_mappings SET resolve_at = NULL")
    return code


def user(**attributes: Any) -> dict[str, Any]:
    return {"user": {"id": MINE, **attributes}, "segments": [], "changes": {}}


def writes(system: SyncSystem) -> list[tuple[str, int, Any]]:
    return [(note.method, note.entity_id, json.loads(note.body)) for note in system.pipedrive.ledger.mutations]


def problems(system: SyncSystem) -> list[str]:
    query = "SELECT detail FROM sync_events WHERE reason = 'held_by_another'"
    return [row.detail for row in system.rows(query)]


def test_a_record_made_a_moment_ago_is_found_by_the_claim_that_counts_more(system: SyncSystem, key: str) -> None:
    made = system.company.create_person(name="New", custom_fields={key: "C-99"})["id"]
    notify(system, user(external_id="C-99", email="old@x.test", nickname="Mine"))
    system.work()

    assert writes(system) == [("PATCH", made, {"name": "Mine"})]
    assert problems(system) == ["emails: held by person 1"]


def test_if_no_record_has_the_stronger_claim_the_next_one_decides(system: SyncSystem, key: str) -> None:
    notify(system, user(external_id="C-99", email="old@x.test", nickname="Mine"))
    system.work()

    assert writes(system) == [("PATCH", 1, {"name": "Mine", "custom_fields": {key: "C-99"}})]
    notify(system, user(external_id="C-99", email="old@x.test", nickname="Mine II"), key="n2")
    asked = system.pipedrive.ledger.requests["list"]
    system.work()
    assert system.pipedrive.ledger.requests["list"] == asked  # once joined, nothing is looked up


def test_an_email_of_another_record_is_not_put_on_a_known_one(system: SyncSystem, key: str) -> None:
    system.company.create_person(name="Other", emails=[{"value": "other@x.test", "primary": True}])
    age_records(system)
    system.fetch(Entity.PERSON)
    system.change_rows("UPDATE id_mappings SET resolve_at = NULL")
    system.change_rows("UPDATE id_mappings SET hull_id = :h WHERE entity = 'person' AND pipedrive_id = 1", h=MINE)
    notify(system, user(email="other@x.test", nickname="Mine"))
    system.work()
    notify(system, user(email="other@x.test", nickname="Mine"), key="n2")
    system.work()

    assert writes(system) == [("PATCH", 1, {"name": "Mine"})]
    assert problems(system)[0] == "emails: held by person 2"
    assert len(set(problems(system))) == 1
