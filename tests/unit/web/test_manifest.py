"""The manifest describes every setting once, with its name and default."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pipeline.domain.setting_texts import DESCRIPTIONS, TEXTS, TITLES
from pipeline.domain.settings import ConnectorSettings, read_settings
from pipeline.web.manifest import SECTIONS, SETTINGS, manifest


def test_every_setting_is_described_and_none_that_does_not_exist() -> None:
    assert SETTINGS.keys() == ConnectorSettings.model_fields.keys()
    assert all(title and description.endswith(".") for title, description in TEXTS.values())


@pytest.mark.guide("Add a new Pipedrive Connector", "In Hull, install the connector from its manifest.")
def test_every_setting_is_in_one_section() -> None:
    placed = [name for _, names, _ in SECTIONS for name in names]

    assert sorted(placed) == sorted(SETTINGS)


def test_the_defaults_it_names_are_those_in_force_without_settings() -> None:
    defaults = {row["name"]: row["default"] for row in manifest()["private_settings"] if row["name"] != "oauth"}

    assert read_settings(defaults) == ConnectorSettings()


def test_the_connect_button_leads_to_our_oauth_page() -> None:
    offered = manifest()

    assert [row["url"] for row in offered["private_settings"] if row.get("format") == "oauth"] == ["/auth"]
    credentials = offered["settings_sections"][0]
    assert (credentials["title"], credentials["properties"]) == ("Credentials", ["private_settings.oauth"])


def test_every_button_is_in_a_section() -> None:
    offered = manifest()
    buttons = [f"json.{row['name']}" for row in offered["json"] if row.get("format") == "action"]

    assert sorted(buttons) == ["json.fetch_all_orgs", "json.fetch_all_persons"]
    assert set(buttons) <= {name for section in offered["settings_sections"] for name in section["properties"]}


def test_it_requests_the_channels_of_the_connector_it_replaces_and_offers_send_to() -> None:
    offered = manifest()
    (subscription,) = offered["subscriptions"]
    channels = [row["channel"] for row in subscription["channels"]]

    assert {"user:update", "account:update", "ship:update"} < set(channels)
    assert subscription["conditions"]["channels"]["only"] == channels
    assert {"batch", "batch-accounts", "kraken-exports"} <= set(offered["tags"])


def test_its_claims_offer_only_what_the_settings_accept() -> None:
    for row in manifest()["private_settings"]:
        if row.get("format") == "table":
            for claim in row["items"]["properties"]["hull"]["enum"]:
                read_settings({row["name"]: [{"hull": claim, "service": "name"}]})


@pytest.mark.defect(21, "In the settings two switches about deleted Users had one and the same description.")
def test_no_two_settings_have_the_same_description() -> None:
    descriptions = list(DESCRIPTIONS.values())

    assert len(set(descriptions)) == len(descriptions)
    assert "pipedrive/deleted_at" in DESCRIPTIONS["support_user_deletion"]
    assert "not sent again" in DESCRIPTIONS["ignore_deleted_users"]


def test_the_guide_names_settings_by_their_titles() -> None:
    guide = (Path(__file__).parents[3] / "docs" / "guide.md").read_text()

    assert set(re.findall(r"\*\*(.+?)\*\*", guide)) <= set(TITLES.values())
