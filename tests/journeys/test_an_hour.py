"""An hour with lost webhooks, an outage and lost access: at its end Hull equals Pipedrive, and no watermark was ever wrong."""

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

MAY_STILL_ARRIVE_S = 60
"""A change this shortly before a walk is no gap: its webhook may still arrive."""


@pytest.fixture
def hour(database: str) -> Iterator[Hour]:
    with captured_log("critical"), an_hour(persons=120, organizations=30, seed=1) as begun:
        yield begun


def finish(hour: Hour) -> None:
    """Stop the team, run the nightly fetch, and wait until nothing is due."""
    hour.rest(minutes=6)
    hour.fetch_all()
    hour.rest(minutes=12)


def differences(hour: Hour) -> dict[str, Any]:
    """Return entity → ids that only one side has, or that Hull does not show as they are in Pipedrive."""
    held = hour.in_hull()
    return {
        entity.value: sorted(
            (hour.journal.existing(entity.value) ^ set(held[entity.value]))
            | set(hour.journal.outdated(entity.value, held[entity.value], hour.clock()))
        )
        for entity in Entity
    }


def false_claims(hour: Hour) -> list[Any]:
    return [claim for claim in hour.claims if claim.is_false]


def reported(hour: Hour, run_id: int) -> int:
    """Return the number of records in the gap report of a run."""
    rows = hour.system.rows(
        "SELECT detail FROM sync_events WHERE reason = 'gap_repaired' AND run_id = :run", run=run_id
    )
    return sum(int(row.detail.split()[0]) for row in rows)


def last_walks(hour: Hour, entity: Entity) -> tuple[Any, Any]:
    """Return the last incremental run and the one before it."""
    last, before = hour.system.rows(
        "SELECT id, extract(epoch FROM started_at)::float8 AS began FROM runs"
        " WHERE entity = :entity AND kind = 'incremental' ORDER BY id DESC LIMIT 2",
        entity=entity,
    )
    return last, before


def edit_silently(hour: Hour, entity: Entity, number: int) -> None:
    """Rename a record in Pipedrive without a webhook, with a time that no walk reads again."""
    moment = f"{hour.clock.now - timedelta(minutes=11):%Y-%m-%dT%H:%M:%SZ}"
    record = {**hour.journal.current(entity.value, number), "update_time": moment, "name": "Renamed silently"}
    hour.system.company.load(entity.value, record)


def corrupt(hour: Hour) -> list[tuple[str, int]]:
    """Make ten records wrong, each in its own way. Return their (entity, id)."""
    system = hour.system
    persons = [
        number
        for number in sorted(hour.journal.existing("person"))
        if hour.journal.current("person", number).get("org_id")
    ]
    linked, organizations = persons[:8], sorted(hour.journal.existing("organization"))[:2]
    for number in linked[:2]:
        write(system, user(system, number), pipedrive__name="Someone Else")
    write(system, user(system, linked[2]), pipedrive__owner_id=None)
    system.hull.incinerate(user(system, linked[3]))
    system.hull.unlink(user(system, linked[4]))
    system.change_rows("DELETE FROM id_mappings WHERE entity = 'person' AND pipedrive_id = :id", id=linked[5])
    for number in linked[6:]:
        edit_silently(hour, Entity.PERSON, number)
    write(system, account(system, organizations[0]), pipedrive__name="Elsewhere Ltd")
    edit_silently(hour, Entity.ORGANIZATION, organizations[1])
    return sorted([("person", number) for number in linked] + [("organization", number) for number in organizations])


@pytest.mark.slow
def test_hull_equals_pipedrive_after_an_hour_of_trouble(hour: Hour) -> None:
    hour.run(minutes=20)
    hour.intake.is_open = False
    hour.run(minutes=10)
    walks = {entity: last_walks(hour, entity) for entity in Entity}
    cost = {
        entity: len(hour.journal.edited(entity.value, before.began, last.began, MAY_STILL_ARRIVE_S))
        for entity, (last, before) in walks.items()
    }
    hour.intake.is_open = True
    hour.run(minutes=10)
    hour.system.pipedrive.grants.revoke_all()
    hour.run(minutes=3)
    assert [row.state for row in hour.system.rows("SELECT state FROM connectors")] == ["paused"]
    assert hour.person.authorise().status_code == 200
    hour.run(minutes=17)
    finish(hour)

    assert all(count for action, count in hour.team.counts.items() if action != "bulk_edit")
    assert all(
        hour.system.pipedrive.delivery.counts[what] > 10
        for what in ("sent", "lost_on_purpose", "duplicated", "refused")
    )
    assert {entity: reported(hour, last.id) for entity, (last, _) in walks.items()} == cost
    assert all(cost.values())
    assert len(hour.claims) > 20
    assert false_claims(hour) == []
    assert differences(hour) == {"person": [], "organization": []}
    assert seen(compare(hour.system)) == []

    corrupted = corrupt(hour)
    report = compare(hour.system)
    assert sorted((entity, number) for _, entity, number in seen(report)) == corrupted
    repair(hour.system, report)
    hour.rest(minutes=3)
    assert seen(compare(hour.system)) == []


def test_a_wrong_watermark_is_found(hour: Hour) -> None:
    hour.system.pipedrive.delivery.trouble = Trouble(lost=1.0)
    hour.system.company.edit_person(7, name="No webhook")
    hour.clock.move(1)
    hour.check_watermarks()
    assert false_claims(hour) == []

    hour.system.change_rows("UPDATE watermarks SET reached_at = now()")
    hour.check_watermarks()

    assert [(claim.entity, claim.outdated) for claim in false_claims(hour)] == [("person", [7])]
