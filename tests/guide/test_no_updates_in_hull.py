"""Troubleshooting: changes no longer come to Hull."""

from __future__ import annotations

from typing import Any

import pytest
from flask.testing import FlaskClient

from db.connector import Connector, get_connector, settings_history
from db.session import transaction
from pipeline.domain.kinds import Entity
from tests.authorising import Person, installed_app
from tests.deliveries import deliver, listen
from tests.guide.people import add_ada, fetch_all, press
from tests.system import SyncSystem


def connector_of(system: SyncSystem) -> Connector:
    with transaction() as session:
        return get_connector(session, system.connector_key)


def lose_access(system: SyncSystem) -> None:
    """Pipedrive no longer accepts the token, until `regain_access`."""
    home = f"https://{system.company.domain}.pipedrive.com"
    system.change_rows("UPDATE connectors SET pipedrive_company = :home", home=home)
    system.pipedrive.faults.add("/api/v2/", "status", status=401, count=None)
    add_ada(system)
    system.fetch(Entity.PERSON)


def regain_access(system: SyncSystem) -> None:
    """A person opens Credentials and authorises again."""
    system.pipedrive.faults.rules.clear()
    with installed_app(system):
        assert Person(system).authorise().status_code == 200


@pytest.mark.guide(
    "I didn't get any updates from recently updated Persons or Organizations into Hull",
    "Look for incoming.job.error; if it says Unauthorized, the credentials are no longer accepted and the connector has"
    " paused.",
)
def test_refused_credentials_are_told(system: SyncSystem, log: list[Any]) -> None:
    lose_access(system)

    told = [line for line in log if line["event"] == "incoming.job.error"]
    assert [(line["error"], line["reason"]) for line in told] == [("Unauthorized", "unauthorized")]
    assert connector_of(system).state == "paused"


@pytest.mark.guide(
    "I didn't get any updates from recently updated Persons or Organizations into Hull",
    "Open Credentials and authorise again, for the same Pipedrive account: another company is refused.",
)
def test_only_the_same_company_is_accepted(system: SyncSystem) -> None:
    lose_access(system)
    system.pipedrive.faults.rules.clear()
    home = connector_of(system).pipedrive_company
    system.change_rows("UPDATE connectors SET pipedrive_company = 'https://other.pipedrive.com'")
    with installed_app(system):
        refused = Person(system).authorise()
        paused = connector_of(system).state
        system.change_rows("UPDATE connectors SET pipedrive_company = :home", home=home)
        accepted = Person(system).authorise()

    assert (refused.status_code, "another Pipedrive company" in refused.text, paused) == (400, True, "paused")
    assert (accepted.status_code, connector_of(system).state) == (200, "active")


@pytest.mark.guide(
    "I didn't get any updates from recently updated Persons or Organizations into Hull",
    "The settings stay as they are.",
)
def test_the_settings_stay(system: SyncSystem) -> None:
    with transaction() as session:
        before = [(row.version, row.document) for row in settings_history(session, system.connector_key)]
    lose_access(system)

    regain_access(system)

    with transaction() as session:
        after = [(row.version, row.document) for row in settings_history(session, system.connector_key)]
    assert after == before


@pytest.mark.guide(
    "I didn't get any updates from recently updated Persons or Organizations into Hull",
    "Then the work that waited goes on, and incoming.user.success or incoming.account.success shows again.",
)
def test_the_waiting_work_goes_on(system: SyncSystem, log: list[Any]) -> None:
    said = listen(system)
    lose_access(system)
    deliver(system, said[-1])
    system.work()
    meanwhile = system.users()

    regain_access(system)
    system.work()
    system.company.edit_person(1, name="Ada Lovelace")
    deliver(system, said[-1])
    system.work()

    assert meanwhile == {}
    assert [user["pipedrive/name"] for user in system.users().values()] == ["Ada Lovelace"]
    assert {row.state for row in system.rows("SELECT state FROM runs")} == {"done"}
    assert [line["event"] for line in log if line["event"].startswith("incoming.user")] == ["incoming.user.success"]


@pytest.mark.guide(
    "I didn't get any updates from recently updated Persons or Organizations into Hull",
    "everything is sent to Hull again, also what seemed to be there.",
)
def test_fetch_all_sends_everything_again(system: SyncSystem) -> None:
    add_ada(system)
    system.company.create_organization(name="Acme")
    fetch_all(system)
    seen = system.hull.received.count

    fetch_all(system)

    assert seen >= 2
    assert system.hull.received.count == 2 * seen


@pytest.mark.guide(
    "I didn't get any updates from recently updated Persons or Organizations into Hull",
    'The buttons "Fetch All Persons" and "Fetch All Organizations" do that; pressed while a fetch is under way, they say'
    " so.",
)
def test_the_buttons_send_everything_again(system: SyncSystem, client: FlaskClient) -> None:
    add_ada(system)
    system.company.create_organization(name="Acme")
    fetch_all(system)
    seen = system.hull.received.count

    press(client, "/orgFetchAll")
    press(client, "/personFetchAll")
    again = press(client, "/personFetchAll")
    system.work()

    assert "already in flight" in again["message"]
    assert system.hull.received.count == 2 * seen
