"""Permissions: what the connected user of Pipedrive may do."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.domain.kinds import Entity
from tests.guide.people import add_ada
from tests.world import World


@pytest.mark.guide("Permissions", "If that user may not do something, the connector pauses and says so.")
def test_a_missing_permission_pauses_and_is_told(world: World, log: list[Any]) -> None:
    add_ada(world)
    world.pipedrive.faults.add("/api/v2/persons$", "status", status=403)

    world.fetch(Entity.PERSON)

    assert [tuple(row) for row in world.rows("SELECT state, pause_reason FROM connectors")] == [("paused", "forbidden")]
    told = next(line for line in log if line["event"] == "incoming.job.error")
    assert told["reason"] == "forbidden"
    assert "administrator" in told["advice"]
