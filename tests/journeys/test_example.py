"""`pipeline up` over data that was used before: the example is replaced, and connectors of the user are kept."""

from __future__ import annotations

import pytest

from db import connector as connectors
from db.session import transaction
from pipeline.local import example
from tests.system import CONNECTOR_ID, SyncSystem

SANDBOX = {
    "hull_connector_id": CONNECTOR_ID,
    "hull_organization": "acme.hull.test",
    "hull_secret": "x",
    "api_token": "x",
    "pipedrive_url": "http://pipedrive.test",
    "hull_url": "http://hull.test",
}


def _names() -> list[str]:
    with transaction() as session:
        return [row.name for row in connectors.all_connectors(session)]


@pytest.mark.parametrize(("name", "hull_id"), [("acme", CONNECTOR_ID), (example.NAME, "another")])
def test_a_connector_that_a_person_set_up_is_kept(system: SyncSystem, name: str, hull_id: str) -> None:
    system.change_rows(f"UPDATE connectors SET name = '{name}'")  # noqa: S608 - a name of this test

    with pytest.raises(example.ExampleNotAdded, match=f"pipeline connectors remove {name}"):
        example.add(SANDBOX | {"hull_connector_id": hull_id}, arrival_url="http://here.test")

    assert _names() == [name]


def test_the_example_of_an_earlier_sandbox_is_replaced(system: SyncSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    with transaction() as session:
        now = connectors.settings_in_force(session, system.connector_key).document
        connectors.add_settings(session, system.connector_key, now, author=example.AUTHOR)

    def reached(*_given: object, **_named: object) -> None:
        raise InterruptedError

    monkeypatch.setattr(example.setup, "add_connector", reached)
    with pytest.raises(InterruptedError):
        example.add(SANDBOX, arrival_url="http://here.test")

    assert _names() == []
