"""A plan says what new settings would do, and applying it does just that."""

from __future__ import annotations

from typing import Any

import pytest

from db import plan as plans
from db.plan import PlanItem, SettingsPlan
from db.session import transaction
from pipeline.domain.kinds import Entity
from tests.journeys.people import fill
from tests.journeys.told_by_hull import know_everything, say, user, writes
from tests.world import World, default_settings


def with_more(name: str, *more: dict[str, str]) -> dict[str, Any]:
    return default_settings() | {name: [*default_settings().get(name, ()), *more]}


FIRST_NAME = {"hull": "pipedrive/given", "service": "first_name"}
NICKNAME = {"hull": "nickname", "service": "name"}


@pytest.fixture
def known(world: World) -> World:
    """Six Persons and two Organizations, known on both sides."""
    fill(world, persons=6, organizations=2)
    know_everything(world)
    return world


def planned(world: World, document: Any) -> SettingsPlan:
    making, walking = world.room("planning.making"), world.room("planning.walking")
    with transaction() as session:
        plan_id = making.make_plan(session, world.connector_key, document, author="ana").id
    walking.go_on(plan_id, 60)
    with transaction() as session:
        return session.get_one(SettingsPlan, plan_id)


def items(plan: SettingsPlan, act: str | None = None) -> list[PlanItem]:
    with transaction() as session:
        return [
            item
            for direction in ("incoming", "outgoing")
            for entity in Entity
            for item in plans.page_of_items(session, plan.id, direction, entity, act=act)
        ]


def changes_of(item: PlanItem) -> dict[str, tuple[Any, Any]]:
    return {
        each["field"]: (each["before"], each["after"]) for each in plans.unpacked(item.fields) if "problem" not in each
    }


def apply(world: World, plan: SettingsPlan, **more: Any) -> Any:
    with transaction() as session:
        return world.room("planning.applying").apply(session, plan.id, author="ana", **more)


def test_what_hull_is_told_is_what_was_planned_field_by_field(known: World) -> None:
    before = known.users()
    tokens = known.pipedrive.ledger.stats()["requests_total"]
    plan = planned(known, with_more("incoming_user_attributes", FIRST_NAME))

    assert (plan.state, plan.counts["incoming.person.act.update"]) == ("ready", 6)
    expected = {item.pipedrive_id: changes_of(item) for item in items(plan)}
    assert known.pipedrive.ledger.stats()["requests_total"] == tokens
    apply(known, plan)
    known.work()

    after = known.users()
    assert expected == {
        key: {
            name: (before[key].get(name), value)
            for name, value in user.items()
            if before[key].get(name) != value and name.startswith("pipedrive/")
        }
        for key, user in after.items()
    }
    assert known.pipedrive.ledger.stats()["requests_total"] == tokens


def test_what_pipedrive_is_sent_is_what_was_planned_field_by_field(known: World) -> None:
    ids = {row.pipedrive_id: row.hull_id for row in known.rows("SELECT * FROM id_mappings WHERE entity = 'person'")}
    say(known, *(user(hull_id, nickname=f"Nick {key}") for key, hull_id in ids.items()), user("f" * 24, nickname="New"))
    known.pipedrive.ledger.mutations.clear()

    plan = planned(known, default_settings() | {"outgoing_user_attributes": [NICKNAME]})
    expected = {
        (item.pipedrive_id, tuple((name, after) for name, (_, after) in changes_of(item).items()))
        for item in items(plan)
    }
    apply(known, plan)
    known.work()

    assert expected == {
        (key if method == "PATCH" else None, tuple(body.items())) for method, key, body in writes(known)
    }
    assert plan.counts["outgoing.person.act.update"] == 6
    assert plan.counts["outgoing.person.act.create"] == 1
