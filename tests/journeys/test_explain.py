"""Why does this field say that? After edits on both sides the chain leads to the very value that stands there, for every field."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from db.record_events import Whose
from db.session import transaction
from pipeline.domain.kinds import Entity
from pipeline.domain.settings import Owner
from pipeline.insight.explain import Explanation, explain
from pipeline.insight.record import find_whose
from tests.journeys.both_ways import BothWays, Place, both_ways
from tests.logs import written
from tests.world import World

OWNERS: list[Owner] = ["hull", "pipedrive", "latest"]


def whose(world: World, entity: str, pipedrive_id: int) -> Whose:
    with transaction() as session:
        found = find_whose(session, world.connector_key, Entity(entity), pipedrive_id=pipedrive_id)
    assert found is not None
    return found


def why(world: World, entity: str, pipedrive_id: int, name: str, at: datetime | None = None) -> Explanation:
    with transaction() as session:
        found = find_whose(session, world.connector_key, Entity(entity), pipedrive_id=pipedrive_id)
        assert found is not None
        return explain(session, found, name, at)


def chains(life: BothWays, at: datetime | None = None) -> dict[Place, Explanation]:
    return {place: why(life.world, *place, at) for place in life.pipedrive_holds()}


@pytest.mark.parametrize("owner", OWNERS)
def test_the_chain_of_every_field_leads_to_the_value_that_stands_on_either_side(database: str, owner: Owner) -> None:
    with written("critical"), both_ways(owner=owner, seed=3, persons=20, organizations=12) as life:
        life.live(minutes=4)
        life.settle()
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
        life.settle()
        then = chains(life, at=middle)
        assert {place: (each.value, hull[place]) for place, each in then.items() if each.value != hull[place]} == {}
