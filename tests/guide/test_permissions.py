"""Permissions: what the connected user of Pipedrive may do."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.domain.kinds import Entity
from tests.authorising import Person, installed_app
from tests.guide.people import add_ada
from tests.system import SyncSystem


@pytest.mark.guide(
    "Permissions",
    "Whoever authorises without being an administrator is refused, is told so, and nothing is changed.",
)
def test_only_an_administrator_may_authorise(system: SyncSystem) -> None:
    before = system.rows("SELECT name, ciphertext FROM credentials ORDER BY name")
    system.pipedrive.grants.switches.user_id = next(user.id for user in system.company.users if not user.admin)
    with installed_app(system):
        page = Person(system).authorise()

    assert (page.status_code, "administrator" in page.text) == (400, True)
    assert system.rows("SELECT name, ciphertext FROM credentials ORDER BY name") == before


@pytest.mark.guide("Permissions", "If that user may not do something, the connector pauses and says so.")
def test_a_missing_permission_pauses_and_is_told(system: SyncSystem, log: list[Any]) -> None:
    add_ada(system)
    system.pipedrive.faults.add("/api/v2/persons$", "status", status=403)

    system.fetch(Entity.PERSON)

    assert [tuple(row) for row in system.rows("SELECT state, pause_reason FROM connectors")] == [
        ("paused", "forbidden")
    ]
    told = next(line for line in log if line["event"] == "incoming.job.error")
    assert told["reason"] == "forbidden"
    assert "administrator" in told["advice"]
