"""Configure your Pipedrive Connector: what is joined to what."""

from __future__ import annotations

from typing import Any

import pytest
from flask.testing import FlaskClient

from db.connector import settings_in_force
from db.session import transaction
from pipeline.domain.settings import SettingsRefused, read_settings
from tests.authorising import VOUCHED
from tests.guide.people import add_acme, add_ada, fetch_all, press, save_in_hull
from tests.system import SyncSystem


@pytest.mark.guide(
    "Configure your Pipedrive Connector", "The connector keeps Persons and Users, Organizations and Accounts the same."
)
def test_persons_become_users_and_organizations_accounts(system: SyncSystem) -> None:
    ada, acme = add_ada(system), add_acme(system)

    fetch_all(system)

    assert {key: user["pipedrive/name"] for key, user in system.users().items()} == {ada: "Ada"}
    assert {key: account["pipedrive/name"] for key, account in system.accounts().items()} == {acme: "Acme"}


@pytest.mark.guide(
    "Configure your Pipedrive Connector", "Settings that make no sense are refused whole, with every mistake named."
)
def test_all_mistakes_are_named_at_once() -> None:
    mistaken = {
        "link_users_in_hull": "maybe",
        "account_claims": [{"hull": "colour", "service": "name"}],
        "made_up": True,
    }

    with pytest.raises(SettingsRefused) as refused:
        read_settings(mistaken)

    assert [name for name in mistaken if any(name in mistake for mistake in refused.value.mistakes)] == list(mistaken)


@pytest.mark.guide("Configure your Pipedrive Connector", "Settings that you save in Hull are in force within seconds.")
def test_settings_saved_in_hull_are_in_force(system: SyncSystem) -> None:
    save_in_hull(system, synchronized_user_segments=["vip"])

    assert in_force(system)["synchronized_user_segments"] == ["vip"]


@pytest.mark.guide(
    "Configure your Pipedrive Connector",
    "If they are refused, those of before stay in force, and the connector's status names the mistakes.",
)
def test_refused_settings_change_nothing_and_are_named(system: SyncSystem, client: FlaskClient) -> None:
    before = in_force(system)

    save_in_hull(system, synchronized_user_segments=["vip"], link_users_in_hull="perhaps")

    status = client.get("/status", query_string=VOUCHED).json
    assert status is not None
    assert in_force(system) == before
    assert any("link_users_in_hull" in message for message in status["messages"])


@pytest.mark.guide(
    "Configure your Pipedrive Connector",
    "The lists of fields show what Pipedrive has at that moment; where values are written, only fields that take one.",
)
def test_lists_offer_what_can_be_mapped(system: SyncSystem, client: FlaskClient) -> None:
    readable = [row["value"] for row in press(client, "/fields-pipedrive-org-in")["options"]]
    writable = [row["value"] for row in press(client, "/fields-pipedrive-account-out")["options"]]

    assert {"name", "add_time"} <= set(readable)
    assert "name" in writable
    assert "add_time" not in writable


def in_force(system: SyncSystem) -> dict[str, Any]:
    with transaction() as session:
        return settings_in_force(session, system.connector_key).document
