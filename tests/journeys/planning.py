"""Fixtures and helpers of tests of plans: make a plan, read its items, apply it."""

from __future__ import annotations

from typing import Any

import pytest

from db import plan as plans
from db.plan import PlanItem, SettingsPlan
from db.session import transaction
from pipeline.domain.kinds import Entity
from tests.journeys.hull_messages import fetch_everything
from tests.journeys.pipedrive_records import create_records
from tests.prepared import prepared
from tests.system import SyncSystem, default_settings


def with_more(name: str, *more: dict[str, str]) -> dict[str, Any]:
    return default_settings() | {name: [*default_settings().get(name, ()), *more]}


FIRST_NAME = {"hull": "pipedrive/given", "service": "first_name"}
NICKNAME = {"hull": "nickname", "service": "name"}


def planned(system: SyncSystem, document: Any) -> SettingsPlan:
    making, walking = system.module("jobs.plans.create"), system.module("jobs.plans.compute")
    with transaction() as session:
        plan_id = making.make_plan(session, system.connector_key, document, author="ana").id
    walking.compute_now(plan_id, 60)
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


def apply(system: SyncSystem, plan: SettingsPlan, **more: Any) -> Any:
    with transaction() as session:
        return system.module("jobs.plans.apply").apply(session, plan.id, author="ana", **more)


@pytest.fixture
@prepared
def known(system: SyncSystem) -> SyncSystem:
    """Six Persons and two Organizations, known on both sides."""
    create_records(system, persons=6, organizations=2)
    fetch_everything(system)
    return system


@pytest.fixture
@prepared
def hundred(system: SyncSystem) -> SyncSystem:
    """So many Persons that settings which change all of them need approval."""
    create_records(system, persons=101, organizations=0)
    fetch_everything(system)
    return system
