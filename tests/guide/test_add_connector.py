"""Add a new Pipedrive Connector: installing it, and the credentials of both sides."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from flask.testing import FlaskClient

from db.connector import get_connector, remove_rows_of
from db.session import transaction
from pipeline.clients.hull_notifications import NotificationVerifier
from pipeline.domain.kinds import Entity
from pipeline.domain.settings import ConnectorSettings
from tests.authorising import PUBLIC_URL, VOUCHED, Person, installed_app
from tests.guide.people import add_ada
from tests.system import API_TOKEN, CONNECTOR_ID, HULL_SECRET, SyncSystem

GIVEN = {"hull_organization": "hull.test", "hull_id": CONNECTOR_ID}


@pytest.fixture
def fresh(system: SyncSystem) -> Iterator[Person]:
    """Somebody in front of a connector that was added and not authorised yet."""
    without_connector(system)
    made = system.module("sync.connectors.setup").add_connector("acme", **GIVEN, hull_secret=HULL_SECRET)
    system.connector_key = made.key
    with installed_app(system):
        yield Person(system)


def states(system: SyncSystem) -> list[tuple[str, str | None]]:
    return [tuple(row) for row in system.rows("SELECT state, pause_reason FROM connectors")]


def without_connector(system: SyncSystem) -> None:
    with transaction() as session:
        remove_rows_of(session, system.connector_key)


@pytest.mark.guide("Add a new Pipedrive Connector", "In Hull, install the connector from its manifest.")
def test_the_manifest_offers_every_setting(client: FlaskClient) -> None:
    offered = client.get("/manifest.json").get_json()

    assert offered["readme"] == "readme.md"
    assert {row["name"] for row in offered["private_settings"]} == {*ConnectorSettings.model_fields, "oauth"}


@pytest.mark.guide(
    "Add a new Pipedrive Connector",
    "Whoever runs the connector adds it with its Hull credentials: pipeline connectors add.",
)
def test_hulls_credentials_make_a_connector(system: SyncSystem) -> None:
    without_connector(system)

    made = system.module("sync.connectors.setup").add_connector("acme", **GIVEN, hull_secret=HULL_SECRET)

    assert (made.name, made.id, made.pipedrive_company) == ("acme", CONNECTOR_ID, None)


@pytest.mark.guide(
    "Add a new Pipedrive Connector",
    "Open Credentials and authorise: the window goes to Pipedrive, asks for your consent and comes back to say which"
    " company is connected.",
)
def test_authorising_joins_the_connector_to_its_company(fresh: Person, client: FlaskClient) -> None:
    (button,) = [row for row in client.get("/manifest.json").json["private_settings"] if row["name"] == "oauth"]

    begun = fresh.client.get(button["url"], query_string=VOUCHED)
    page = fresh.client.get(fresh.decide(begun))

    assert f"connected to {fresh.system.company.domain}.pipedrive.com" in page.text
    assert states(fresh.system) == [("active", None)]


@pytest.mark.guide(
    "Add a new Pipedrive Connector", "Until it is authorised, the status asks for it and the connector's work waits."
)
def test_without_authorisation_nothing_is_done_and_nothing_lost(fresh: Person) -> None:
    add_ada(fresh.system)
    fresh.system.start(Entity.PERSON)
    fresh.system.work()
    before = fresh.system.users()
    status = fresh.client.get("/status", query_string=VOUCHED).json

    fresh.authorise()
    fresh.system.work()

    assert (before, len(fresh.system.users())) == ({}, 1)
    assert status["status"] == "setupRequired"
    assert "Open Credentials" in status["messages"][0]


@pytest.mark.guide(
    "Add a new Pipedrive Connector",
    "A link from pipeline connectors authorize leads through the same steps, for ten minutes and in one browser.",
)
def test_a_link_does_the_same(fresh: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    room = fresh.system.module("sync.connectors.authorisation")
    with transaction() as session:
        link = room.invite(get_connector(session, fresh.system.connector_key)).removeprefix(PUBLIC_URL)

    assert fresh.client.get(fresh.decide(fresh.press(link))).status_code == 200
    assert fresh.web.test_client().get(link).status_code == 400
    assert room.INVITATION_S == 600
    monkeypatch.setattr(room, "INVITATION_S", -1)
    assert fresh.client.get(link).status_code == 401


@pytest.mark.guide(
    "Add a new Pipedrive Connector",
    "The API token of a Pipedrive administrator, given when the connector is added, does instead.",
)
def test_right_credentials_make_a_connector(system: SyncSystem) -> None:
    without_connector(system)

    made = system.module("sync.connectors.setup").add_connector(
        "acme", **GIVEN, hull_secret=HULL_SECRET, pipedrive_token=API_TOKEN
    )

    assert (made.name, made.id, made.pipedrive_company) == (
        "acme",
        CONNECTOR_ID,
        f"https://{system.company.domain}.pipedrive.com",
    )
    assert [row.state for row in system.rows("SELECT state FROM connectors")] == ["active"]


@pytest.mark.guide(
    "Add a new Pipedrive Connector",
    "Both sides are asked before anything is stored: wrong credentials are refused on the spot.",
)
@pytest.mark.parametrize(("secret", "token"), [("wrong", API_TOKEN), (HULL_SECRET, "wrong")])
def test_wrong_credentials_leave_nothing_behind(system: SyncSystem, secret: str, token: str) -> None:
    without_connector(system)
    setup = system.module("sync.connectors.setup")

    with pytest.raises(setup.SetupRefused, match="Hull" if secret == "wrong" else "Pipedrive"):
        setup.add_connector("acme", **GIVEN, hull_secret=secret, pipedrive_token=token)

    assert system.rows("SELECT 1 FROM connectors") == []
    assert system.rows("SELECT 1 FROM credentials") == []


@pytest.mark.guide(
    "Add a new Pipedrive Connector",
    "In an organization that whoever runs the connector has listed, step 2 is not needed: Hull's first notification makes"
    " the connector, once Hull has confirmed it.",
)
def test_hulls_first_notification_makes_the_connector(system: SyncSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    without_connector(system)
    monkeypatch.setattr(NotificationVerifier, "proven_id", lambda *_given: "n1")  # it has tests of its own
    with installed_app(system, hull_organizations=("hull.test",)):
        hull = Person(system)
        first = notify_of_installation(hull)
        system.run_jobs()
        again = notify_of_installation(hull)
        status = hull.client.get("/status", query_string=VOUCHED).json

    assert (first["type"], again["type"]) == ("retry", "next")
    assert states(system) == [("paused", "not_connected")]
    assert status is not None
    assert status["status"] == "setupRequired"


def notify_of_installation(hull: Person) -> Any:
    """What Hull tells after a connector was installed; the pace it is asked for."""
    named = {"id": CONNECTOR_ID, "organization": "hull.test", "secret": HULL_SECRET}
    body = {
        "notification_id": "n1",
        "configuration": named,
        "channel": "ship:update",
        "connector": {},
        "messages": [{}],
    }
    flag = "X-Hull-Smart-Notifier"
    headers = {flag: "true", f"{flag}-Signature-Version": "v1", f"{flag}-Signature": "s"}
    headers[f"{flag}-Signature-Public-Key-Url"] = "https://hull.test/key"
    answer = hull.client.post("/smart-notifier", json=body | {"segments": [], "accounts_segments": []}, headers=headers)
    assert answer.json is not None
    return answer.json["flow_control"]
