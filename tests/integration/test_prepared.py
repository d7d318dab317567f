"""A copy of a prepared system equals the system that its set-up made."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from sqlalchemy import text

from db.base import Base
from db.session import engine
from pipeline import connections
from tests.conftest import empty_database
from tests.journeys.hull_messages import fetch_everything
from tests.journeys.pipedrive_records import create_records
from tests.prepared import SEQUENCES, _content, prepared
from tests.system import SyncSystem, make_system

runs: list[str] = []


@prepared
def two_persons(system: SyncSystem, name: str) -> dict[str, int]:
    runs.append(name)
    create_records(system, persons=2, organizations=1)
    fetch_everything(system)
    return {"persons": 2}


def everything(system: SyncSystem) -> dict[str, Any]:
    """Return all data of the systems, and their next ids."""
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
        "users": system.users(),
        "accounts": system.accounts(),
        "received": list(system.hull.received),
        "calls": system.pipedrive.ledger.stats(),
        "spent": system.pipedrive.budget.spent,
        "persons": list(system.company.export("person")),
        "organizations": list(system.company.export("organization")),
        "fields": deepcopy(system.company.fields),
    }


def test_a_copy_equals_the_system_of_its_set_up(database: str) -> None:
    runs.clear()
    with make_system() as system:
        assert two_persons(system, name="copied") == {"persons": 2}
        made = everything(system)
        system.company.create_person(name="Later")
        system.company.fields["person"].clear()
        system.hull.incinerate(system.hull.users.by_anonymous["pipedrive:1"])
        system.change_rows("DELETE FROM id_mappings")
        changed = everything(system)
    empty_database()
    connections.shared_redis().flushdb()
    with make_system() as system:
        assert two_persons(system, name="copied") == {"persons": 2}
        copied = everything(system)
        assert system.company.create_person(name="Third")["id"] == 3
        fetch_everything(system)
        assert set(system.users()) == {1, 2, 3}

    assert runs == ["copied"]
    assert copied == made != changed


def test_other_arguments_make_another_system(system: SyncSystem) -> None:
    runs.clear()
    two_persons(system, name="of another name")

    assert runs == ["of another name"]
