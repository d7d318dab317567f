"""Add a new Pipedrive Connector: installing it, and the credentials of both sides."""

from __future__ import annotations

import pytest
from flask.testing import FlaskClient

from db.connector import remove_rows_of
from db.session import transaction
from pipeline.domain.settings import ConnectorSettings
from tests.world import API_TOKEN, CONNECTOR_ID, HULL_SECRET, World

GIVEN = {"hull_organization": "hull.test", "hull_id": CONNECTOR_ID}


def without_connector(world: World) -> None:
    with transaction() as session:
        remove_rows_of(session, world.connector_key)


@pytest.mark.guide("Add a new Pipedrive Connector", "In Hull, install the connector from its manifest.")
def test_the_manifest_offers_every_setting(door: FlaskClient) -> None:
    offered = door.get("/manifest.json").get_json()

    assert offered["readme"] == "readme.md"
    assert {row["name"] for row in offered["private_settings"]} == set(ConnectorSettings.model_fields)


@pytest.mark.guide(
    "Add a new Pipedrive Connector",
    "Whoever runs the connector adds it with its Hull credentials and the API token of a Pipedrive administrator:"
    " pipeline connectors add.",
)
def test_right_credentials_make_a_connector(world: World) -> None:
    without_connector(world)

    made = world.room("setup").add_connector("acme", **GIVEN, hull_secret=HULL_SECRET, pipedrive_token=API_TOKEN)

    assert (made.name, made.id, made.pipedrive_company) == (
        "acme",
        CONNECTOR_ID,
        f"https://{world.company.domain}.pipedrive.com",
    )
    assert [row.state for row in world.rows("SELECT state FROM connectors")] == ["active"]


@pytest.mark.guide(
    "Add a new Pipedrive Connector",
    "Both sides are asked before anything is stored: wrong credentials are refused on the spot.",
)
@pytest.mark.parametrize(("secret", "token"), [("wrong", API_TOKEN), (HULL_SECRET, "wrong")])
def test_wrong_credentials_leave_nothing_behind(world: World, secret: str, token: str) -> None:
    without_connector(world)
    setup = world.room("setup")

    with pytest.raises(setup.SetupRefused, match="Hull" if secret == "wrong" else "Pipedrive"):
        setup.add_connector("acme", **GIVEN, hull_secret=secret, pipedrive_token=token)

    assert world.rows("SELECT 1 FROM connectors") == []
    assert world.rows("SELECT 1 FROM credentials") == []
