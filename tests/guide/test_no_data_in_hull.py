"""Troubleshooting: nothing came to Hull."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from flask.testing import FlaskClient

from db.connector import get_connector
from db.session import transaction
from pipeline.domain.kinds import Entity
from pipeline.domain.settings import SettingsRefused
from tests.guide.people import add_acme, add_ada, fetch_all
from tests.system import CONNECTOR_ID, HULL_SECRET, SyncSystem

TIMELESS = {"update_time": None, "add_time": None}


@pytest.mark.guide(
    "I didn't get any Pipedrive organization/person data in Hull",
    "a field that Pipedrive does not have is refused when it is entered, and named.",
)
def test_a_field_that_does_not_exist_is_refused(system: SyncSystem) -> None:
    fetch_all(system)  # the field definitions are read the first time somebody needs them
    with transaction() as session:
        connector = get_connector(session, system.connector_key)

    with pytest.raises(SettingsRefused, match="emial"):
        system.module("sync.connectors.settings_change").change_settings(
            connector, {"user_claims": [{"hull": "email", "service": "emial"}]}, "me"
        )


@pytest.mark.guide(
    "I didn't get any Pipedrive organization/person data in Hull",
    "Attributes that you map after a fetch reach the records that are here already, from what is stored of them or by a "
    "fetch that begins by itself.",
)
@pytest.mark.parametrize("service", ["name", "open_deals_count"])
def test_new_attributes_reach_the_records_that_are_here(system: SyncSystem, service: str) -> None:
    system.change_settings(incoming_user_attributes=[])
    ada = add_ada(system)
    system.fetch(Entity.PERSON)

    with transaction() as session:
        connector = get_connector(session, system.connector_key)
    mapped = [{"hull": "crm_value", "service": service}]
    system.module("sync.connectors.settings_change").change_settings(
        connector, {"incoming_user_attributes": mapped}, "test"
    )
    system.work()

    assert system.users()[ada]["crm_value"] is not None


def two_with_one_e_mail(system: SyncSystem) -> None:
    add_ada(system)
    add_ada(system)


def two_with_one_domain(system: SyncSystem) -> None:
    add_acme(system)
    add_acme(system)


@pytest.mark.guide(
    "I didn't get any Pipedrive organization/person data in Hull",
    "Look for incoming.user.error, incoming.user.skip, incoming.account.error and incoming.account.skip in the logs."
    " Each carries a reason and says what to do.",
)
@pytest.mark.parametrize(
    ("event", "reason", "happens"),
    [
        (
            "incoming.user.error",
            "no_update_time",
            lambda system: system.company.put_raw("person", {"id": 1, **TIMELESS}),
        ),
        ("incoming.user.skip", "duplicate_claim", two_with_one_e_mail),
        (
            "incoming.account.error",
            "no_update_time",
            lambda system: system.company.put_raw("organization", {"id": 1, **TIMELESS}),
        ),
        ("incoming.account.skip", "duplicate_claim", two_with_one_domain),
    ],
)
def test_the_log_says_why(
    system: SyncSystem, log: list[Any], event: str, reason: str, happens: Callable[[SyncSystem], object]
) -> None:
    happens(system)

    fetch_all(system)

    told = [line for line in log if line["event"] == event]
    assert {line["reason"] for line in told} == {reason}
    assert all(line["advice"] for line in told)


@pytest.mark.guide(
    "I didn't get any Pipedrive organization/person data in Hull",
    "A record that cannot be read does not stop the others.",
)
def test_the_others_go_on(system: SyncSystem) -> None:
    system.company.put_raw("person", {"id": 1, **TIMELESS})
    ada = add_ada(system)

    run = system.fetch(Entity.PERSON)

    assert (run.state, list(system.users())) == ("done", [ada])


@pytest.mark.guide("I didn't get any Pipedrive organization/person data in Hull", "it says what is wrong in sentences.")
def test_the_status_says_what_is_wrong(system: SyncSystem, client: FlaskClient) -> None:
    system.company.put_raw("person", {"id": 1, **TIMELESS})
    system.fetch(Entity.PERSON)

    status = client.get(f"/status?ship={CONNECTOR_ID}&organization=hull.test&secret={HULL_SECRET}").get_json()

    assert status["status"] == "warning"
    assert any("update time" in message for message in status["messages"])
