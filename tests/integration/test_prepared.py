"""A copy of a prepared world is the world that its set-up made."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from sqlalchemy import text

from db.base import Base
from db.session import engine
from pipeline import connections
from tests.conftest import empty_database
from tests.journeys.people import fill
from tests.journeys.told_by_hull import know_everything
from tests.prepared import SEQUENCES, _content, prepared
from tests.world import World, make_world

runs: list[str] = []


@prepared
def two_persons(world: World, name: str) -> dict[str, int]:
    runs.append(name)
    fill(world, persons=2, organizations=1)
    know_everything(world)
    return {"persons": 2}


def everything(world: World) -> dict[str, Any]:
    """All that the systems hold, and what comes next in each."""
    redis = connections.shared_redis()
    with engine().connect() as connection:
        sequences = connection.execute(text(SEQUENCES), {"of_people": []}).all()
    return {
        "rows": {
            name: sorted(rows.splitlines())
            for name, rows in _content([each.name for each in Base.metadata.sorted_tables])
        },
        "sequences": sorted(map(str, sequences)),
        "redis": {key: redis.dump(key) for key in redis.scan_iter()},
        "users": world.users(),
        "accounts": world.accounts(),
        "received": list(world.hull.received),
        "calls": world.pipedrive.ledger.stats(),
        "spent": world.pipedrive.budget.spent,
        "persons": list(world.company.export("person")),
        "organizations": list(world.company.export("organization")),
        "fields": deepcopy(world.company.fields),
    }


def test_a_copy_is_what_the_set_up_made(database: str) -> None:
    runs.clear()
    with make_world() as world:
        assert two_persons(world, name="copied") == {"persons": 2}
        made = everything(world)
        world.company.create_person(name="Later")
        world.company.fields["person"].clear()
        world.hull.incinerate(world.hull.users.by_anonymous["pipedrive:1"])
        world.change_rows("DELETE FROM id_mappings")
        changed = everything(world)
    empty_database()
    connections.shared_redis().flushdb()
    with make_world() as world:
        assert two_persons(world, name="copied") == {"persons": 2}
        copied = everything(world)
        assert world.company.create_person(name="Third")["id"] == 3
        know_everything(world)
        assert set(world.users()) == {1, 2, 3}

    assert runs == ["copied"]
    assert copied == made != changed


def test_other_arguments_make_another_world(world: World) -> None:
    runs.clear()
    two_persons(world, name="of another name")

    assert runs == ["of another name"]
