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
from tests.world import World


def connector_of(world: World) -> Connector:
    with transaction() as session:
        return get_connector(session, world.connector_key)


def lose_access(world: World) -> None:
    """Pipedrive no longer accepts the token, until `regain_access`."""
    home = f"https://{world.company.domain}.pipedrive.com"
    world.change_rows("UPDATE connectors SET pipedrive_company = :home", home=home)
    world.pipedrive.faults.add("/api/v2/", "status", status=401, count=None)
    add_ada(world)
    world.fetch(Entity.PERSON)


def regain_access(world: World) -> None:
    """A person opens Credentials and authorises again."""
    world.pipedrive.faults.rules.clear()
    with installed_app(world):
        assert Person(world).authorise().status_code == 200


@pytest.mark.guide(
    "I didn't get any updates from recently updated Persons or Organizations into Hull",
    "Look for incoming.job.error; if it says Unauthorized, the credentials are no longer accepted and the connector has"
    " paused.",
)
def test_refused_credentials_are_told(world: World, log: list[Any]) -> None:
    lose_access(world)

    told = [line for line in log if line["event"] == "incoming.job.error"]
    assert [(line["error"], line["reason"]) for line in told] == [("Unauthorized", "unauthorized")]
    assert connector_of(world).state == "paused"


@pytest.mark.guide(
    "I didn't get any updates from recently updated Persons or Organizations into Hull",
    "Open Credentials and authorise again, for the same Pipedrive account: another company is refused.",
)
def test_only_the_same_company_is_accepted(world: World) -> None:
    lose_access(world)
    world.pipedrive.faults.rules.clear()
    home = connector_of(world).pipedrive_company
    world.change_rows("UPDATE connectors SET pipedrive_company = 'https://other.pipedrive.com'")
    with installed_app(world):
        refused = Person(world).authorise()
        paused = connector_of(world).state
        world.change_rows("UPDATE connectors SET pipedrive_company = :home", home=home)
        accepted = Person(world).authorise()

    assert (refused.status_code, "another Pipedrive company" in refused.text, paused) == (400, True, "paused")
    assert (accepted.status_code, connector_of(world).state) == (200, "active")


@pytest.mark.guide(
    "I didn't get any updates from recently updated Persons or Organizations into Hull",
    "The settings stay as they are.",
)
def test_the_settings_stay(world: World) -> None:
    with transaction() as session:
        before = [(row.version, row.document) for row in settings_history(session, world.connector_key)]
    lose_access(world)

    regain_access(world)

    with transaction() as session:
        after = [(row.version, row.document) for row in settings_history(session, world.connector_key)]
    assert after == before


@pytest.mark.guide(
    "I didn't get any updates from recently updated Persons or Organizations into Hull",
    "Then the work that waited goes on, and incoming.user.success or incoming.account.success shows again.",
)
def test_the_waiting_work_goes_on(world: World, log: list[Any]) -> None:
    said = listen(world)
    lose_access(world)
    deliver(world, said[-1])
    world.work()
    meanwhile = world.users()

    regain_access(world)
    world.work()
    world.company.edit_person(1, name="Ada Lovelace")
    deliver(world, said[-1])
    world.work()

    assert meanwhile == {}
    assert [user["pipedrive/name"] for user in world.users().values()] == ["Ada Lovelace"]
    assert {row.state for row in world.rows("SELECT state FROM runs")} == {"done"}
    assert [line["event"] for line in log if line["event"].startswith("incoming.user")] == ["incoming.user.success"]


@pytest.mark.guide(
    "I didn't get any updates from recently updated Persons or Organizations into Hull",
    "everything is sent to Hull again, also what seemed to be there.",
)
def test_fetch_all_sends_everything_again(world: World) -> None:
    add_ada(world)
    world.company.create_organization(name="Acme")
    fetch_all(world)
    seen = world.hull.received.count

    fetch_all(world)

    assert seen >= 2
    assert world.hull.received.count == 2 * seen


@pytest.mark.guide(
    "I didn't get any updates from recently updated Persons or Organizations into Hull",
    'The buttons "Fetch All Persons" and "Fetch All Organizations" do that; pressed while a fetch is under way, they say'
    " so.",
)
def test_the_buttons_send_everything_again(world: World, door: FlaskClient) -> None:
    add_ada(world)
    world.company.create_organization(name="Acme")
    fetch_all(world)
    seen = world.hull.received.count

    press(door, "/orgFetchAll")
    press(door, "/personFetchAll")
    again = press(door, "/personFetchAll")
    world.work()

    assert "already in flight" in again["message"]
    assert world.hull.received.count == 2 * seen
