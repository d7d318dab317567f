"""An hour in which everything happens that happens: afterwards Hull equals Pipedrive, and the watermark has never lied."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from pipeline.domain.kinds import Entity
from sandbox.pipedrive.delivery import Trouble
from tests.journeys.an_hour import Hour, an_hour
from tests.journeys.test_verify import account, compare, repair, seen, user, write
from tests.logs import captured_log

UNDER_WAY_S = 60
"""A record that changed so shortly before a walk is none of its gaps: a webhook may yet tell."""


@pytest.fixture
def hour(database: str) -> Iterator[Hour]:
    with captured_log("critical"), an_hour(persons=120, organizations=30, seed=1) as begun:
        yield begun


def settle(hour: Hour) -> None:
    """The team goes home, and the night's fetch comes: until nothing is left to do."""
    hour.rest(minutes=6)
    hour.fetch_all()
    hour.rest(minutes=12)


def unlike(hour: Hour) -> dict[str, Any]:
    """Entity → ids that only one side has, or that do not show what Pipedrive has."""
    held = hour.held()
    return {
        entity.value: sorted(
            (hour.journal.alive(entity.value) ^ set(held[entity.value]))
            | set(hour.journal.belied(entity.value, held[entity.value], hour.clock()))
        )
        for entity in Entity
    }


def false_claims(hour: Hour) -> list[Any]:
    return [claim for claim in hour.claims if claim.is_false]


def reported(hour: Hour, run_id: int) -> int:
    """Records that a walk's gap report names."""
    rows = hour.system.rows(
        "SELECT detail FROM sync_events WHERE reason = 'gap_repaired' AND run_id = :run", run=run_id
    )
    return sum(int(row.detail.split()[0]) for row in rows)


def last_walks(hour: Hour, entity: Entity) -> tuple[Any, Any]:
    """The last incremental walk, and the one before it."""
    last, before = hour.system.rows(
        "SELECT id, extract(epoch FROM started_at)::float8 AS began FROM runs"
        " WHERE entity = :entity AND kind = 'incremental' ORDER BY id DESC LIMIT 2",
        entity=entity,
    )
    return last, before


def swallow(hour: Hour, entity: Entity, number: int) -> None:
    """Rename a record in Pipedrive so long ago that no walk looks there any more, without anybody hearing of it."""
    moment = f"{hour.clock.now - timedelta(minutes=11):%Y-%m-%dT%H:%M:%SZ}"
    record = {**hour.journal.now(entity.value, number), "update_time": moment, "name": "Renamed unheard"}
    hour.system.company.load(entity.value, record)


def plant(hour: Hour) -> list[tuple[str, int]]:
    """Ten records that are each wrong in a way of their own; (entity, id)."""
    system = hour.system
    persons = [
        number for number in sorted(hour.journal.alive("person")) if hour.journal.now("person", number).get("org_id")
    ]
    linked, organizations = persons[:8], sorted(hour.journal.alive("organization"))[:2]
    for number in linked[:2]:
        write(system, user(system, number), pipedrive__name="Somebody else")
    write(system, user(system, linked[2]), pipedrive__owner_id=None)
    system.hull.incinerate(user(system, linked[3]))
    system.hull.unlink(user(system, linked[4]))
    system.change_rows("DELETE FROM id_mappings WHERE entity = 'person' AND pipedrive_id = :id", id=linked[5])
    for number in linked[6:]:
        swallow(hour, Entity.PERSON, number)
    write(system, account(system, organizations[0]), pipedrive__name="Elsewhere Ltd")
    swallow(hour, Entity.ORGANIZATION, organizations[1])
    return sorted([("person", number) for number in linked] + [("organization", number) for number in organizations])


@pytest.mark.slow
def test_an_hour_of_a_company_s_life(hour: Hour) -> None:
    hour.live(minutes=20)
    hour.client.is_open = False
    hour.live(minutes=10)
    walks = {entity: last_walks(hour, entity) for entity in Entity}
    cost = {
        entity: len(hour.journal.edited(entity.value, before.began, last.began, UNDER_WAY_S))
        for entity, (last, before) in walks.items()
    }
    hour.client.is_open = True
    hour.live(minutes=10)
    hour.system.pipedrive.grants.revoke_all()
    hour.live(minutes=3)
    assert [row.state for row in hour.system.rows("SELECT state FROM connectors")] == ["paused"]
    assert hour.person.authorise().status_code == 200
    hour.live(minutes=17)
    settle(hour)

    assert all(count for action, count in hour.team.counts.items() if action != "bulk_edit")
    assert all(
        hour.system.pipedrive.delivery.counts[what] > 10
        for what in ("sent", "lost_on_purpose", "duplicated", "refused")
    )
    assert {entity: reported(hour, last.id) for entity, (last, _) in walks.items()} == cost
    assert all(cost.values())
    assert len(hour.claims) > 20
    assert false_claims(hour) == []
    assert unlike(hour) == {"person": [], "organization": []}
    assert seen(compare(hour.system)) == []

    planted = plant(hour)
    report = compare(hour.system)
    assert sorted((entity, number) for _, entity, number in seen(report)) == planted
    repair(hour.system, report)
    hour.rest(minutes=3)
    assert seen(compare(hour.system)) == []


def test_a_watermark_that_claims_what_is_not_so_is_caught(hour: Hour) -> None:
    hour.system.pipedrive.delivery.trouble = Trouble(lost=1.0)
    hour.system.company.edit_person(7, name="Nobody was told")
    hour.clock.move(1)
    hour.watch()
    assert false_claims(hour) == []

    hour.system.change_rows("UPDATE watermarks SET reached_at = now()")
    hour.watch()

    assert [(claim.entity, claim.belied_by) for claim in false_claims(hour)] == [("person", [7])]
